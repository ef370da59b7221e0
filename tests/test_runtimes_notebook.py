"""The notebook `runtime`, executed with its own examples and with finished runs."""

import json

import pandas as pd
import pytest
from notebook_cells import execute

from lib import data as datasets
from lib import models, paths, pruners, runs, storage, structured
from lib.catalog import RUNTIMES
from lib.masks import apply_masks_, full
from lib.runtimes import sources

SMALL = {"model": "mlp-1x16", "latency_batches": [1, 8], "repeats": 3, "warmup": 1, "calibration_images": 20}


def finished(folder, values: dict) -> None:
    folder.mkdir(parents=True)
    (folder / runs.RUN).write_text(json.dumps({"notebook": "accuracy", "parameters": values}))
    (folder / runs.METRICS).write_text("{}")


@pytest.fixture
def three(tmp_path, monkeypatch):
    """A study with an unpruned, a sparse and a structured run of one network."""
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    data, values = datasets.load("digits"), {"data": "digits", "model": "mlp-1x16"}
    for name in ("dense", "sparse", "small"):
        finished(folder := tmp_path / "s" / name, values)
        network = models.build("mlp-1x16", data.shape, data.classes)
        kept = full(network) if name == "dense" else pruners.prune(network, "mag", 0.1, [])
        if name == "small":
            sources.save(folder, {"neurons 0.5": structured.remove(network, data.shape, "neurons", 0.5)[1]})
            continue
        apply_masks_(network, kept)
        storage.save_weights(folder / "weights.safetensors", network)
        storage.save_masks(folder / "masks.safetensors", kept)
    return ["s/dense", "s/sparse", "s/small"]


def labels(book) -> set:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return {output.get("metadata", {}).get("report", {}).get("label") for output in outputs}


def test_networks_of_finished_runs(three, tmp_path):
    book = execute("runtime", SMALL | {"sources": three, "run_dir": str(tmp_path / "s" / "runtime")})
    assert {"fig-runtimes", "tbl-runtimes"} <= labels(book)
    rows = pd.read_csv(tmp_path / "s" / "runtime" / "runtimes.csv")
    timed = pd.read_csv(tmp_path / "s" / "runtime" / "latencies.csv")
    assert rows["runtime"].tolist() == [*RUNTIMES] * 3
    assert rows.drop_duplicates("network")[["network", "pruning"]].to_numpy().tolist() == [
        ["s/dense", "unpruned"], ["s/sparse", "unstructured"], ["s/small neurons-0.5", "structured"],
    ]  # fmt: skip
    assert rows["top1_pct"].between(0, 100).all()
    assert timed.groupby(["network", "runtime", "batch"]).size().eq(3).all()
    assert len(timed) == 3 * 3 * 2 * 3
    metrics = json.loads((tmp_path / "s" / "runtime" / runs.METRICS).read_text())
    assert (metrics["networks"], metrics["missing_rows"]) == (3, 0)
    files = {path.name for path in (tmp_path / "s" / "runtime" / "files").iterdir()}
    assert files == {f"{n}{end}" for n in ("dense", "sparse", "small-neurons-0.5") for end in
                     (".safetensors", "-bitmask.safetensors", ".onnx", "-int8.onnx")}  # fmt: skip
