"""Every stored notebook, executed by a study at tiny size, its files checked against one another; and a true resume.

One study is executed once for all tests of this module, whichever process of pytest-xdist they are in.
"""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from stub_study import PATIENCE_S, Bench, until

from lib import masks, models, paths, pruners, runs, storage

ACCURACY = "accuracy-fc-{pruner}-c{compression}-seed1"
SIZE = {"model": "fc", "epochs": 2, "train_images": 100}
COMPARED = [
    {"notebook": "accuracy", "fixed": SIZE | {"pruner": "dense", "compression": 0}},
    {"notebook": "accuracy", "fixed": SIZE, "grid": {"pruner": ["snip"], "compression": [0.5, 1]}},
    {
        "notebook": "accuracy",
        "fixed": SIZE | {"pruner": "mag", "compression": 1, "source": "accuracy-fc-dense-c0-seed{seed}"},
    },
]
TIMED = [f"accuracy-fc-{name}-seed{{seed}}" for name in ("dense-c0", "snip-c0.5", "snip-c1", "mag-c1")]
CLOSER = [
    {"notebook": "accuracy", "fixed": SIZE | {"pruner": "snip", "compression": 3}},
    {
        "notebook": "accuracy",
        "fixed": SIZE | {"pruner": "snip", "compression": 1},
        "grid": {"ablation": ["shuffle", "reinitialise", "invert"]},
    },
    {"notebook": "layers", "fixed": {"source": "accuracy-fc-snip-c1-seed{seed}"}},
    {"notebook": "timing", "fixed": {"sources": TIMED, "test_images": 20, "batch": 10, "repeats": 2}},
    {"notebook": "amp", "fixed": {"model": "fc", "train_images": 100, "epochs": 2, "compressions": [0, 1]}},
    {
        "notebook": "multishot",
        "fixed": {"model": "fc", "pruner": "snip", "train_images": 100, "epochs": 2, "levels": 2},
    },
    {"notebook": "checkpoint", "fixed": {"model": "fc", "checkpoint": "CHECKPOINT", "density": 0.2}},
    {"notebook": "layers", "fixed": {"model": "fc", "source": "checkpoint-fc-d0.2-seed{seed}"}},
    {"notebook": "trace", "fixed": {"source": "accuracy-fc-snip-c1-seed{seed}", "batch": 16}},
    {"notebook": "trace", "fixed": {"model": "fc", "pruner": "rand", "trace_file": "README.md"}},  # fails
]
FAILS = "trace-fc-rand-seed1"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A bench in which the study `whole` was executed and reported."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-notebooks"
    with FileLock(f"{root}.lock"):
        if (root / "ended").exists():
            return Bench(root, paths.NOTEBOOKS)
        made = Bench(root, paths.NOTEBOOKS)
        original = write_original(root / "model.pt")
        blocks = json.loads(json.dumps([*COMPARED, *CLOSER]).replace("CHECKPOINT", str(original)))
        made.write("whole", *blocks)
        ended = made.run("run", "whole", "--report", "--jobs", "2")
        (root / "ended").write_text(json.dumps([ended.returncode, ended.stdout, ended.stderr]))
        return made


def write_original(path):
    """A network as the original program saves one: fc is a sequence there, and every weight has its mask beside it."""
    network = models.build("fc", (1, 28, 28), 10)
    kept = pruners.prune(network, "rand", 0.2, [])
    state = {}
    for position in range(6):
        weight, bias = (network.get_parameter(f"layers.{position}.{part}").detach() for part in ("weight", "bias"))
        theirs = 1 + 2 * position  # between them lie functions, and a flattening before
        state |= {f"{theirs}.weight": weight, f"{theirs}.weight_mask": kept[f"layers.{position}.weight"].float()}
        state |= {f"{theirs}.bias": bias, f"{theirs}.bias_mask": torch.ones_like(bias)}
    torch.save(state, path)
    return path


def test_a_checkpoint_of_the_original_program_becomes_a_run(tiny):
    run = "checkpoint-fc-d0.2-seed1"
    kept = storage.load_masks(folder(tiny, run) / "masks.safetensors")
    wanted = pruners.prune(models.build("fc", (1, 28, 28), 10), "rand", 0.2, [])
    assert all(torch.equal(kept[name], mask) for name, mask in wanted.items())
    assert metrics(tiny, run)["weights_kept"] == sum(int(mask.sum()) for mask in wanted.values())
    layers = pd.read_csv(folder(tiny, "layers-fc-seed1") / "layers.csv")
    assert layers["kept"].tolist() == [int(mask.sum()) for mask in wanted.values()]


def folder(tiny, run: str):
    return tiny.runs / "whole" / run


def metrics(tiny, run: str) -> dict:
    return json.loads((folder(tiny, run) / runs.METRICS).read_text())


def executed(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_failing_run_leaves_the_others_and_the_report_marks_the_gap(tiny):
    code, out, err = json.loads((tiny.root / "ended").read_text())
    assert (code, err) == (1, ""), out + err
    assert f"1 of {len(list((tiny.runs / 'whole').glob('[!.]*/run.json')))} runs failed" in out
    assert f"gap: {FAILS}: " in out
    assert (tiny.figures / "whole" / "report.pdf").read_bytes().startswith(b"%PDF")
    gaps = pd.read_csv(tiny.figures / "whole" / "tbl-gaps.csv")
    assert gaps.iloc[:, 0].tolist() == [FAILS]
    failed = executed(folder(tiny, FAILS) / runs.NOTEBOOK)
    assert any(o["output_type"] == "error" for c in failed["cells"] for o in c.get("outputs", []))
    assert "README.md" in json.loads((folder(tiny, FAILS) / runs.ERROR).read_text())["error"]


FILES = {
    ACCURACY.format(pruner="snip", compression="1"): "history before layers pruned histograms",
    "layers-seed1": "layers histograms parts",
    "timing": "timings",
    "amp-fc-seed1": "amp",
    "multishot-fc-snip-seed1": "levels history rewind layers",
    "trace-seed1": "windows by_operator by_kind savings convolutions",
}


@pytest.mark.parametrize("run", FILES)
def test_run_leaves_its_files_and_its_panel(tiny, run):
    made = next(path for path in folder(tiny, "x").parent.glob(f"{run}*") if path.name != FAILS)
    facts = json.loads((made / runs.RUN).read_text())
    assert facts["notebook"] == run.split("-")[0]
    assert facts["data"]["name"] == "digits"
    assert "run_dir" not in facts["parameters"]
    assert metrics(tiny, made.name)["wall_s"] > 0
    assert all((made / f"{name}.csv").is_file() for name in FILES[run].split())
    book = executed(made / runs.NOTEBOOK)
    kinds = [o["output_type"] for c in book["cells"] for o in c.get("outputs", [])]
    assert "error" not in kinds
    assert "stream" not in kinds  # no chatter, no warnings
    panel = book["cells"][-1]["outputs"]
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in panel)
    assert (made / "kernel.log").read_text() == ""


def test_summary_shows_every_part(tiny):
    book = executed(tiny.figures / "whole" / "summary.ipynb")
    outputs = [o for c in book["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] in ("error", "stream")]
    labels = {o.get("metadata", {}).get("report", {}).get("label") for o in outputs}
    wanted = {"tbl-settings", "tbl-gaps", "tbl-accuracy", "fig-curves-1", "tbl-top1-1", "tbl-time-permanent-1"}
    wanted |= {"tbl-macs-1", "tbl-time-masked-forward-1", "fig-compression-1", "fig-densities-1", "tbl-layer-macs-1"}
    wanted |= {"tbl-critical", "fig-collapse", "fig-kept-1", "tbl-ablations-1", "fig-ablations", "tbl-levels-1"}
    assert wanted | {"fig-levels-1", "fig-histograms-1-1", "tbl-statistics", "tbl-amp", "fig-amp"} <= labels
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in book["cells"][-1]["outputs"])


@pytest.mark.parametrize(("pruner", "compression"), [("dense", 0), ("snip", 0.5), ("snip", 1), ("mag", 1)])
def test_kept_counts_are_exact_in_every_file(tiny, pruner, compression):
    run = ACCURACY.format(pruner=pruner, compression=compression)
    network = models.build("fc", (1, 28, 28), 10)
    total = sum(weight.numel() for weight in masks.prunable(network).values())
    wanted = total - int((1 - 10.0**-compression) * total)
    kept = storage.load_masks(folder(tiny, run) / "masks.safetensors")
    assert sum(int(mask.sum()) for mask in kept.values()) == wanted
    assert metrics(tiny, run)["weights_kept"] == wanted
    assert metrics(tiny, run)["weights"] == total
    layers = pd.read_csv(folder(tiny, run) / "layers.csv").set_index("layer")
    assert layers["kept"].to_dict() == {name.removesuffix(".weight"): int(m.sum()) for name, m in kept.items()}
    bars = pd.read_csv(folder(tiny, run) / "histograms.csv").groupby("layer")[["kept", "removed"]].sum()
    assert bars["kept"].to_dict() == layers["kept"].to_dict()
    assert (bars["kept"] + bars["removed"]).to_dict() == layers["weights"].to_dict()
    weights = load_file(folder(tiny, run) / "weights.safetensors")
    assert all(torch.count_nonzero(weights[name][~mask]) == 0 for name, mask in kept.items())


@pytest.mark.parametrize(
    "run", [ACCURACY.format(pruner="snip", compression="1"), ACCURACY.format(pruner="mag", compression="1")]
)
def test_metrics_are_those_of_the_last_epoch(tiny, run):
    found, history = metrics(tiny, run), pd.read_csv(folder(tiny, run) / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    last = history.iloc[-1]
    assert (found["top1_pct"], found["top5_pct"]) == (last["test_top1_pct"], last["test_top5_pct"])
    assert 0 <= found["top1_pct"] <= found["top5_pct"] <= 100
    assert found["test_loss"] > 0
    assert found["macs_kept"] <= found["macs_dense"]


def test_the_weights_tell_the_accuracy(tiny):
    """The stored network, evaluated here by hand, has the accuracy that the run says."""
    from lib import data

    run = ACCURACY.format(pruner="mag", compression="1")
    digits = data.load("digits")
    network = models.build("fc", digits.shape, 10).eval()
    storage.load_weights(folder(tiny, run) / "weights.safetensors", network)
    with torch.no_grad():
        right = network(data.normalise(digits, digits.test_x)).argmax(1) == digits.test_y
    assert metrics(tiny, run)["top1_pct"] == pytest.approx(100 * right.double().mean().item(), abs=0.11)


def test_magnitude_keeps_the_largest_weights_of_its_source(tiny):
    dense = load_file(folder(tiny, ACCURACY.format(pruner="dense", compression="0")) / "weights.safetensors")
    kept = storage.load_masks(folder(tiny, ACCURACY.format(pruner="mag", compression="1")) / "masks.safetensors")
    inside = torch.cat([dense[name][mask].abs() for name, mask in kept.items()])
    outside = torch.cat([dense[name][~mask].abs() for name, mask in kept.items()])
    assert inside.min() >= outside.max()


def test_looking_closer_sees_the_same_network(tiny):
    source = folder(tiny, ACCURACY.format(pruner="snip", compression="1"))
    for name in ("layers", "histograms"):
        columns = {"layers": ["layer", "weights", "kept"], "histograms": ["layer", "left", "right", "kept", "removed"]}
        ours, theirs = (
            pd.read_csv(place / f"{name}.csv")[columns[name]] for place in (folder(tiny, "layers-seed1"), source)
        )
        pd.testing.assert_frame_equal(ours, theirs)


def test_timing_takes_every_network_in_turn(tiny):
    made = next((tiny.runs / "whole").glob("timing*"))
    rows = pd.read_csv(made / "timings.csv")
    assert rows.groupby(["network", "form"]).size().eq(2).all()
    sources = json.loads((made / runs.RUN).read_text())["parameters"]["sources"]
    assert set(rows["network"]) == set(sources)
    assert len(sources) == 4
    assert (rows["seconds"] > 0).all()


def test_amp_trains_each_density_twice(tiny):
    rows = pd.read_csv(folder(tiny, "amp-fc-seed1") / "amp.csv")
    assert rows.groupby(["density", "precision"])["epoch"].apply(list).tolist() == [[1, 2]] * 4
    assert np.allclose(sorted(set(rows["density"])), [0.1, 1])


def test_levels_tell_one_story_in_every_file(tiny):
    made = folder(tiny, "multishot-fc-snip-seed1")
    rows, history, found = pd.read_csv(made / "levels.csv"), pd.read_csv(made / "history.csv"), metrics(tiny, made.name)
    assert rows["level"].tolist() == [0, 1, 2]
    assert history.groupby("level")["epoch"].apply(list).tolist() == [[2, 3]] * 3  # after one to the rewind point
    assert pd.read_csv(made / "rewind.csv")["epoch"].tolist() == [1]
    last, kept = history.groupby("level")["test_top1_pct"].last(), storage.load_masks(made / "masks.safetensors")
    assert rows["top1_pct"].tolist() == last.tolist()
    assert (found["dense_top1_pct"], found["top1_pct"]) == (last[0], last[2])
    assert found["weights_kept"] == rows["weights_kept"].iloc[-1] == sum(int(mask.sum()) for mask in kept.values())
    assert found["weights_kept"] == masks.kept_count(found["weights"], found["density"])
    assert pd.read_csv(made / "layers.csv")["kept"].tolist() == [int(mask.sum()) for mask in kept.values()]
    weights = load_file(made / "weights.safetensors")
    assert all(torch.count_nonzero(weights[name][~mask]) == 0 for name, mask in kept.items())
    labels = {
        o.get("metadata", {}).get("report", {}).get("label")
        for c in executed(made / runs.NOTEBOOK)["cells"]
        for o in c.get("outputs", [])
    }
    assert {"fig-levels", "tbl-levels"} <= labels


def test_killed_study_ends_with_the_same_results(tiny, request):
    """Kill -9 of the driver in the middle, then another start: all results equal those of the undisturbed study."""
    root = tiny.root.with_name(f"{tiny.root.name}-killed")
    bench = Bench(root, paths.NOTEBOOKS)
    request.addfinalizer(bench.close)
    bench.write("whole", *COMPARED)
    driver = bench.start("run", "whole", "--jobs", "2")  # as many threads a run as undisturbed
    until(lambda: bench.done("whole"))
    driver.kill()
    driver.communicate(timeout=PATIENCE_S)
    before = bench.done("whole")
    assert 0 < len(before) < 4
    ended = bench.run("run", "whole", "--jobs", "2")
    assert (ended.returncode, ended.stderr) == (0, "")
    after = bench.done("whole")
    assert len(after) == 4
    assert {run: after[run] for run in before} == before
    assert not (bench.runs / "whole" / ".attempts").exists()
    for run in after:
        assert bench.values("whole")[run] == tiny.values("whole")[run]
        ours, theirs = bench.runs / "whole" / run, folder(tiny, run)
        for file in ("weights.safetensors", "masks.safetensors"):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes()
        for file in ("history", "layers", "histograms"):
            frames = [pd.read_csv(place / f"{file}.csv").filter(regex="^(?!.*_s$)") for place in (ours, theirs)]
            pd.testing.assert_frame_equal(*frames, check_exact=True)
