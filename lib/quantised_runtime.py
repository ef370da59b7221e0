"""Quantised networks computed in integers: exported, quantised and run by ONNX Runtime on the CPU."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lib import runtimes
from lib.data import Dataset
from lib.pruners import Batches
from lib.quantise import plain
from lib.runtimes.int8 import narrow

BOTH = "weights and activations"
INT8 = "int8"


def executed(
    found: list[dict], data: Dataset, calibration: Batches, *, batches: list[int], repeats: int = 50
) -> tuple[list[dict], list[dict]]:
    """Those of `lib.quantised_pruning.techniques` that round activations too, in integers: a row each, and times.

    Weights are those of the network on their grid; the runtime takes its own scales from them and its own ranges of
    activations from `calibration`. Rows: `order`, `fine_tuning_epochs`, `quantisation`, `int8_top1_pct` over the test
    set, `int8_disk_mb` of the ONNX file (10^6 bytes), `int8_latency_<batch>_s` (median of `repeats` passes, on the CPU,
    all networks taking turns) and `int8_note`. Where the runtime cannot have the network, the note says why and the
    rest is None. Times: `order`, `fine_tuning_epochs`, `batch`, `repeat`, `seconds`.
    """
    data = replace(data, **{name: getattr(data, name).cpu() for name in ("train_x", "train_y", "test_x", "test_y")})
    calibration = [(x.cpu(), y.cpu()) for x, y in calibration]
    rows, functions = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(one for one in found if one["quantisation"] == BOTH):
            row, function = _executed(one, data, Path(folder) / f"{number}.onnx", calibration)
            rows.append(row)
            if function:
                functions[str(number), INT8] = function
        timed = runtimes.latencies(functions, data, batches, repeats=repeats) if functions else []
    for row in timed:
        of = rows[int(row.pop("network"))]
        del row["runtime"]  # int8 everywhere
        row |= {"order": of["order"], "fine_tuning_epochs": of["fine_tuning_epochs"]}
    medians = _medians(timed)
    for row in rows:
        key = row["order"], row["fine_tuning_epochs"]
        row |= {f"int8_latency_{batch}_s": medians.get((*key, batch)) for batch in batches}
    return rows, timed


def _executed(one: dict, data: Dataset, path: Path, calibration: Batches) -> tuple[dict, object]:
    row = {name: one[name] for name in ("order", "fine_tuning_epochs", "quantisation")}
    int8 = path.with_name(f"int8-{path.name}")
    try:
        runtimes.export(plain(one["network"]).cpu().eval(), data.shape, path)
        runtimes.quantise(path, int8, calibration)
        function = runtimes.session(int8)
        right = runtimes.logits(function, data).argmax(1) == data.test_y
    except ValueError as error:  # the other rows are made nonetheless
        return row | {"int8_top1_pct": None, "int8_disk_mb": None, "int8_note": str(error)}, None
    top1 = 100 * right.double().mean().item()
    note = "7-bit weights, since the processor lacks VNNI" if narrow() else ""
    return row | {"int8_top1_pct": top1, "int8_disk_mb": int8.stat().st_size / 1e6, "int8_note": note}, function


def _medians(timed: list[dict]) -> dict:
    keys = ["order", "fine_tuning_epochs", "batch"]
    return pd.DataFrame(timed).groupby(keys)["seconds"].median().to_dict() if timed else {}
