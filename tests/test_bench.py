"""The benchmark: the baseline computes what ours computes, and the table says what was measured."""

import ast
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lib import masks, models, parameters, paths, pruners
from lib import train as training_engine
from lib.bench import __main__ as command
from lib.bench import baseline, fixed, ours, passes, plans, scoring, table, training, turns
from lib.data import load, normalise
from lib.study import state

# The ratios of different days can be compared only while the baseline stays: a new digest is a new baseline, and
# a reason to measure everything again.
FROZEN = "2ca96c2e713c82c9"


def test_the_baseline_is_frozen():
    assert hashlib.sha256(Path(baseline.__file__).read_bytes()).hexdigest()[:16] == FROZEN


# The baseline computes what ours computes


def pruned(name, shape=(3, 32, 32)):
    """A network of ours whose batch norms are not neutral, and masks of it."""
    model = models.build(name, shape, 10, seed=1)
    kept = pruners.prune(model, "rand", 0.3, [])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(-0.5, 0.5)
    return model, kept


@pytest.mark.parametrize("name", ["resnet20", "resnet8", "fc", "vgg16-bn"])
def test_same_weights_and_masks_give_the_same_logits(name):
    model, kept = pruned(name)
    other = baseline.build(training.NAMES.get(name, name), (3, 32, 32), 10)
    other.load_state_dict(ours.for_baseline(model, kept))  # the weights are dense: the masks do the pruning
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    masks.apply_masks_(model, kept)
    with torch.no_grad():
        assert torch.allclose(model.eval()(x), other.eval()(x), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in other.parameters()) == sum(p.numel() for p in model.parameters())


def test_the_baseline_is_the_resnet_of_the_papers():
    found = baseline.build("resnet20", (3, 32, 32), 10)
    assert sum(p.numel() for p in found.parameters()) == 272_474
    masked = [m for m in found.modules() if isinstance(m, baseline.MaskedConv2d | baseline.MaskedLinear)]
    assert sum(m.weight_mask.numel() for m in masked) == 270_896
    assert all(p.is_contiguous() for p in found.parameters())


@pytest.fixture
def digits():
    """256 real digits: one batch, in whatever order."""
    found = load("digits", train_images=256)
    assert len(found.train_x) == 256
    return found


def test_training_steps_equal_ours(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "WORKERS", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = models.build("fc", digits.shape, 10, seed=1)
    kept = pruners.prune(model, "rand", 0.3, [])
    names = ("train_x", "train_y", "test_x", "test_y")
    save_file({name: getattr(digits, name) for name in names}, tmp_path / "images.safetensors")
    save_file(ours.for_baseline(model, kept), tmp_path / "start.safetensors")
    theirs = baseline.Baseline()
    theirs.hello()
    said = theirs.prepare(str(tmp_path), "fc", False, list(digits.mean), list(digits.std), 10)
    assert said["epoch_steps"] == 1
    steps = [theirs.train(1) for _ in range(3)]
    rows = training_engine.train(model, digits, epochs=3, masks=kept, batch=256)
    assert [step["loss"] for step in steps] == pytest.approx([row["train_loss"] for row in rows], rel=1e-4)
    assert steps[2]["loss"] < steps[0]["loss"]
    assert steps[0]["images"] == 256
    assert len(steps[0]["step_s"]) == 1
    for layer, (name, weight) in zip(theirs.model.layers, masks.prunable(model).items(), strict=True):
        assert torch.allclose(layer.weight * layer.weight_mask, weight, atol=1e-4), name


def test_images_of_the_baseline_are_normalised_like_ours(digits):
    transform = baseline.transforms.Compose(
        [baseline.transforms.ToTensor(), baseline.transforms.Normalize(digits.mean, digits.std)]
    )
    found = baseline.Images(digits.test_x[:5], digits.test_y[:5], transform)
    for number, x in enumerate(normalise(digits, digits.test_x[:5])):
        image, label = found[number]
        assert torch.allclose(image, x, atol=1e-6)
        assert label == int(digits.test_y[number])


def test_the_file_needs_nothing_of_lib():
    tree = ast.parse(Path(baseline.__file__).read_text())
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    found += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {"torch", "torchvision"} < {name.split(".")[0] for name in found}
    assert "lib" not in {name.split(".")[0] for name in found}


def test_synthetic_images_can_be_learned(monkeypatch):
    monkeypatch.setitem(ours.SIZES, "cifar10", (2_000, 500))
    found = ours.synthetic("cifar10")
    assert found.train_x.shape == (2_000, 3, 32, 32)
    assert found.train_x.dtype == torch.uint8
    assert "random" in found.info["source"]
    assert torch.equal(found.train_x, ours.synthetic("cifar10").train_x)
    model = models.build("fc", found.shape, 10)
    assert training_engine.train(model, found, epochs=3, batch=50)[-1]["test_top1_pct"] > 50


def test_nothing_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setattr(ours.datasets, "DOWNLOADS", tmp_path)
    monkeypatch.setattr("lib.data.places.download", lambda title: pytest.fail("a benchmark downloads nothing"))
    monkeypatch.setattr(ours, "synthetic", lambda name: f"random {name}")
    assert [ours.read(name) for name in ("cifar10", "mnist")] == ["random cifar10", "random mnist"]
    assert list(tmp_path.iterdir()) == []


# Arithmetic


FACTS = {"macs": 1_000_000, "train_images": 2_560, "mixed": "bfloat16", "source": "here"}
TAKEN = {
    "baseline": [
        {"startup_s": 1.0, "step_s": [9.0, 2.0, 2.0], "images": 768},
        {"startup_s": 1.0, "step_s": [9.0, 4.0, 4.0], "images": 768},
        {"startup_s": 1.0, "step_s": [9.0, 2.0, 4.0], "images": 768},
    ],
    "float32": [{"seconds": s, "images": 512, "step": "eager"} for s in (3.0, 2.0, 10.0)],
    "mixed": [{"seconds": 1.0, "images": 512, "step": "compiled"}] * 3,
    "product float32": [{"rate": 4e9}, {"rate": 1e10}, {"rate": 8e9}],
    "product mixed": [{"rate": 2e10}] * 3,
    "transforms": [{"seconds": 0.1}] * 3,
}


def test_training_rows():
    made = {row["form"]: row for row in training.rows(("cifar10", "resnet20"), FACTS, TAKEN, skip=1)}
    base, single = made["baseline, float32"], made["ours, float32, eager"]
    assert (base["seconds"], base["low_s"], base["high_s"], base["n"]) == (3.0, 2.0, 4.0, 3)
    assert base["epoch_s"] == 1 + 10 * 3.0  # an epoch is ten steps, and the wait for its first batch
    assert (single["seconds"], single["low_s"], single["high_s"]) == (1.5, 1.0, 5.0)
    assert single["epoch_s"] == 15.0
    assert single["ratio"] == pytest.approx(31 / 15)
    assert single["images_per_s"] == pytest.approx(2_560 / 15)
    assert single["flops_per_s"] == pytest.approx(6 * 1e6 * 2_560 / 15)
    assert single["share_pct"] == pytest.approx(100 * 6 * 1e6 * 2_560 / 15 / 1e10)
    mixed = made["ours, mixed (bfloat16), compiled"]
    assert mixed["share_pct"] == pytest.approx(100 * 6 * 1e6 * 2_560 / 5 / 2e10)
    assert (mixed["target_ratio"], mixed["target_share_pct"]) == (2.8, 60.0)
    assert base["share_pct"] == pytest.approx(100 * base["flops_per_s"] / 1e10)
    assert made["matrix product, bfloat16"]["flops_per_s"] == 2e10


def test_a_whole_epoch_is_its_wall_time():
    """Its last batch is smaller, and nothing is scaled."""
    taken = TAKEN | {"baseline": [{"startup_s": 1.0, "step_s": [2.0, 2.0, 0.5], "images": 600}]}
    facts = FACTS | {"train_images": 600}
    assert training.rows(("mnist", "fc"), facts, taken, skip=0)[0]["epoch_s"] == pytest.approx(5.5)


@pytest.mark.parametrize(
    ("seconds", "step_s", "steps"), [(2.0, 0.65, 4), (2.0, 5.0, 3), (2.0, 1e-4, 195), (None, 5.0, 195)]
)
def test_length_of_a_segment(seconds, step_s, steps):
    assert training.segment_steps(seconds, step_s, 195) == steps


MADE = {
    "permanent": {},
    "compact": {"channels": 10, "channels_removed": 4, "macs_dense": 100, "macs_compact": 50},
    "fast float32": {"compiled": True, "precision": "float32", "why": None, "compile_s": 3.0},
    "fast bfloat16": {"compiled": False, "precision": "bfloat16", "why": "no compiler", "compile_s": 0.0},
    "compact float32": {"compiled": True, "precision": "float32", "why": None, "compile_s": 3.0},
    "compact bfloat16": {"compiled": False, "precision": "bfloat16", "why": "no compiler", "compile_s": 0.0},
}


def test_inference_rows_say_whether_predictions_are_the_same():
    taken = {"baseline": [{"seconds": 2.0}, {"seconds": 4.0}, {"seconds": 3.0}], "fresh": [{"seconds": 6.0}] * 3}
    swapped = taken | {"baseline": taken["fresh"], "fresh": taken["baseline"]}
    taken |= {form: [{"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 1.5}] for form in MADE}
    close = {"max_abs_logit": 10.0, "equal_predictions": 0.99}
    differences = dict(zip(MADE, (1e-4, 2e-3, 1e-4, 0.4, 1e-4, 0.4), strict=True))
    agreements = {form: close | {"max_abs_logit_difference": d} for form, d in differences.items()}
    rows = passes.rows(("cifar10", "resnet20"), 512, taken, MADE, agreements)
    assert rows[0]["images_per_s"] == 512 / 3
    assert all("same" not in row and "ratio" not in row for row in rows[:2])
    assert [row["ratio"] for row in rows[2:]] == [2.0] * 6, "against the faster process of the baseline"
    assert [row["same"] for row in rows[2:]] == [True, False, True, True, True, True]
    assert [row["difference_pct"] for row in rows[2:]] == pytest.approx([1e-3, 2e-2, 1e-3, 4.0, 1e-3, 4.0])
    assert [table.checks(row) for row in rows[6:]] == [[("1.5 x", True)], [("2.4 x", False)]]
    swapped |= {form: taken[form] for form in MADE}
    turned = passes.rows(("cifar10", "resnet20"), 512, swapped, MADE, agreements)
    assert [row["ratio"] for row in turned[2:]] == [2.0] * 6
    assert "compiled, float32" in rows[4]["form"]
    assert "eager, bfloat16" in rows[5]["form"]
    assert "dead channels removed, channels-last, compiled, float32" in rows[6]["form"]
    said = passes.notes(("cifar10", "resnet20"), {"source": "here"}, 512, MADE, 15)
    assert any("no compiler" in note for note in said)
    assert any("50 %" in note for note in said)


def test_epochs_by_walking_through_the_study_file():
    """Shared: what the runs of the file train. Alone: and for each run with a source that of its source again."""
    blocks = yaml.safe_load((paths.STUDIES / "cos568-small.yaml").read_text())["blocks"]
    shared, again, dense = {}, {}, {}
    for block in (b for b in blocks if b["notebook"] == "accuracy"):
        given = block["fixed"]
        count = math.prod(len(values) for values in block.get("grid", {}).values())
        model = given["model"]
        shared[model] = shared.get(model, 0) + count * given["epochs"]
        if given.get("pruner") == "dense":
            dense[model] = given["epochs"]
        if "source" in given:
            again[model] = again.get(model, 0) + count
    rows = {row["task"]: row for row in plans.rows(["cos568-small"])}
    for model, task in (("resnet20", "CIFAR-10 / ResNet-20"), ("fc", "MNIST / FC")):
        alone = shared[model] + again[model] * dense[model]
        assert (rows[task]["epochs"], rows[task]["epochs_alone"]) == (shared[model], alone)
        assert rows[task]["ratio"] == alone / shared[model] > 1


# Fixed cost


def test_fixed_cost_leaves_out_training_and_evaluation(tmp_path):
    pd.DataFrame({"epoch": [1, 2], "train_s": [1.0, 2.0], "test_s": [0.5, 0.25]}).to_csv(tmp_path / "history.csv")
    (tmp_path / "metrics.json").write_text("{}")
    os.utime(tmp_path / "metrics.json", (1_000_010.0, 1_000_010.0))
    assert fixed.fixed_s(tmp_path, 1_000_000.0) == 10.0 - 3.75


def test_the_tiny_run_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STUDIES", tmp_path)
    (tmp_path / "fixed.yaml").write_text(fixed.STUDY.format(fixed=json.dumps(fixed.TINY), seeds="[1, 2]"))
    found = state.plan("fixed")["runs"]
    assert [run["notebook"] for run in found] == ["accuracy"] * 2
    assert all(run["parameters"].items() >= fixed.TINY.items() for run in found)
    assert parameters.resolve("accuracy", fixed.TINY)


def test_starts_of_the_runs_of_a_study(bench):
    bench.write("s", {"notebook": "stub", "grid": {"name": ["a", "b"]}})
    before = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "lib.bench.starts", "s"],
        capture_output=True,
        text=True,
        cwd=paths.ROOT,
        env=bench.environment,
    )
    found = json.loads(done.stdout)
    assert list(found) == ["stub-namea-seed1", "stub-nameb-seed1"]
    ends = {run: (bench.runs / "s" / run / "metrics.json").stat().st_mtime for run in found}
    assert before < found["stub-namea-seed1"] < ends["stub-namea-seed1"] <= found["stub-nameb-seed1"]


def test_a_command_that_fails_is_one_line():
    code = "import sys; print('first', file=sys.stderr); sys.exit('the reason')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process, pytest.raises(RuntimeError, match=r"failed: the reason$"):
        fixed._finish(process)


# Turns


def test_turns_shift_from_round_to_round():
    calls = []
    taken = turns.take_turns({name: lambda name=name: calls.append(name) or {"of": name} for name in "abc"}, 4)
    assert "".join(calls) == "abcbcacababc"
    assert taken == {name: [{"of": name}] * 4 for name in "abc"}


PROGRAM = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "end":
        sys.exit("the last word")
    print(json.dumps({"error": "ValueError: no"} if asked["do"] == "fail" else asked), flush=True)
"""


def test_programs_answer_fail_and_end(tmp_path):
    program = turns.Program([sys.executable, "-c", PROGRAM], tmp_path / "log")
    try:
        assert program.ask("add", a=1) == {"do": "add", "a": 1}
        with pytest.raises(RuntimeError, match="ValueError: no"):
            program.ask("fail")
        for _ in range(2):
            with pytest.raises(RuntimeError, match="ended: the last word"):
                program.ask("end")
    finally:
        program.close()
    assert program.process.poll() is not None


# The table


ROWS = [
    {"section": "training", "task": "T", "form": "ours", "of": "step", "n": 3}
    | {"seconds": 0.65, "low_s": 0.6, "high_s": 0.7}
    | {"epoch_s": 130.0, "images_per_s": 1234.5, "flops_per_s": 1.6e11, "share_pct": 71.25, "ratio": 1.5}
    | {"target_ratio": 1.6, "target_share_pct": 70.0},
    {"section": "fixed", "task": "R", "form": "plain", "of": "run", "n": 1, "seconds": 4.0, "low_s": 4.0, "high_s": 4.0}
    | {"target_s": 5.0},
    {"section": "fixed", "task": "study quick", "form": "skipped", "of": "study", "n": 0, "target_s": 120.0},
]  # fmt: skip
WHERE = {"cpu": "a processor", "memory_gib": 8}


def test_markdown():
    text = table.markdown(ROWS, WHERE, ["A note."])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert ["cpu", "a processor"] in lines
    assert ["memory gib", "8"] in lines
    assert ["T", "ours", "3", "650 (600 to 700)", "130", "1,234", "160", "71.2 %", "1.50 x", "1.6 x: missed, 70 %: hit"] in lines  # fmt: skip  # noqa: E501
    assert ["R", "plain", "1", "4.00", "5 s: hit"] in lines
    assert ["study quick", "skipped", "0", "", ""] in lines
    assert "- A note." in text
    assert "## Epochs" not in text, "a section without rows is left out"
    blocks = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert all(len({len(line) for line in block}) == 1 for block in blocks), "aligned for a terminal"


def test_csv_holds_everything(tmp_path):
    text = table.write(tmp_path, ROWS, WHERE, [])
    assert (tmp_path / "bench.md").read_text() == text
    found = pd.read_csv(tmp_path / "bench.csv")
    assert list(found) == [*table.COLUMNS, *WHERE]
    assert found["seconds"].tolist()[:2] == [0.65, 4.0]
    assert found["hit"].tolist() == [False, True, False]
    assert set(found["cpu"]) == {"a processor"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0"),
        (1.2e-4, "1.2e-04"),
        (0.0123, "0.0123"),
        (1.5, "1.50"),
        (650.4, "650"),
        (123456.7, "123,457"),
    ],
)
def test_numbers(value, text):
    assert table.number(value) == text


def test_other_predictions_reach_no_target():
    row = {"ratio": 3.0, "target_ratio": 1.5}
    assert table.checks(row) == [("1.5 x", True)]
    assert table.checks(row | {"same": False}) == [("1.5 x", False)]
    assert table.checks({"ratio": 3.0}) == []


# The command


def test_help_names_everything(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("--short", "--only", "--out", *command.SECTIONS, "130 interrupted"))


@pytest.mark.parametrize("words", [["--fast"], ["--only", "nothing"], ["--only"], ["more"]])
def test_bad_options_are_one_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_part_that_fails_leaves_the_others(here, tmp_path, monkeypatch, capsys):
    def fails(folder, size):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(fixed, "measure", fails)
    monkeypatch.setattr(command, "STUDIES", [])
    monkeypatch.setattr(plans, "rows", lambda names: [ROWS[0] | {"section": "epochs", "epochs": 3, "epochs_alone": 4}])
    assert command.main(["--short", "--only", "fixed", "epochs", "--out", str(tmp_path / "new")]) == 1
    said = capsys.readouterr()
    assert "error: fixed cost of a run failed: no kernel" in said.err
    text = (tmp_path / "new" / "bench.md").read_text()
    assert text in said.out
    assert "failed: no kernel" in text
    assert "## Epochs trained" in text
    assert "skipped in the short mode" in text


def test_other_logits_than_the_baselines_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(plans, "rows", lambda names: [{"task": "T", "form": "fast", "same": False}])
    assert command.run(("epochs",), tmp_path, command.SHORT).errors == ["T, fast: other logits than the baseline"]


def test_small_networks_through_both_programs(tmp_path, monkeypatch):
    """Training and inference of FC on real digits, by the same way as the benchmark's own."""
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling takes longer than all the rest
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(training, "MATRICES", [64])
    size = command.SHORT | {"training": [("digits", "fc")], "inference": [("digits", "fc")], "rounds": 2}
    size |= {"segment_s": 0.01, "repeats": 2, "test_images": 300, "train_steps": 10, "transforms": 10, "fresh": True}
    found = command.run(("training", "inference"), tmp_path, size)
    assert found.errors == []
    made = {(row["section"], row["form"]): row for row in found.rows}
    assert set(dict.fromkeys(section for section, _ in made)) == {"training", "inference"}
    for row in found.rows:
        if row["n"]:
            assert row["task"] == "Digits / FC"
            assert row["n"] == 2
            assert row.get("flops_per_s", 1) > 0
            assert row.get("seconds", 1) > 0
            assert row.get("same", True)
    mixed = "float16" if torch.cuda.is_available() else "bfloat16"
    assert ("training", "baseline, float32") in made
    assert ("training", f"matrix product, {mixed}") in made
    assert ("inference", "ours, folded, dead channels removed") in made
    assert any("3 (the baseline)" in note for note in found.notes)
    assert list(load_file(tmp_path / "task" / "logits.safetensors")["logits"].shape) == [300, 10]
    assert table.markdown(found.rows, WHERE, found.notes).count("Digits / FC") >= len(made)


def test_pruning_rows_have_their_targets(monkeypatch, tmp_path):
    """The rows of what the programs say; their own measurements are of a small network here."""
    monkeypatch.setattr(scoring, "MODEL", "resnet8")
    monkeypatch.setattr(scoring, "CODED", {"encode": "resnet8", "decode": "resnet8"})
    monkeypatch.setattr(scoring, "FIVE", ["mag"])
    asked = []

    def program(folder, which, what, last):
        asked.append((which, what, last))
        return scoring.seconds(what, last) if which == "seconds" else {"peak_memory_mib": 1024.0}

    monkeypatch.setattr(scoring, "_program", program)
    rows, notes = scoring.measure(tmp_path, command.SHORT)
    timed = ["snip", "synflow", "grasp", "ranking", "histograms", "encode", "decode"]
    of_memory = [("memory", what, model) for what in ("grasp", "training") for model in ("vgg16", "resnet50")]
    assert asked == [("seconds", what, 1) for what in timed] + of_memory
    assert [row.get("target_s") for row in rows] == [3.0, 3.0, 15.0, 0.5, 10.0, 5.0, 5.0, *[None] * 4]
    assert [row["task"] for row in rows] == ["ResNet-8"] * 7 + ["VGG-16", "ResNet-50"] * 2
    assert all(row["seconds"] > 0 for row in rows[:7])
    assert "77,360 weights" in notes[0]
    assert table.checks(rows[3] | {"seconds": 0.4}) == [("0.5 s", True)]
    assert table.checks(rows[3] | {"seconds": 0.6}) == [("0.5 s", False)]
    assert table.checks(rows[-1]) == [("7.45 GiB", True)]
    assert table.checks(rows[-1] | {"peak_gib": 7.5}) == [("7.45 GiB", False)]
    text = table.markdown(rows, WHERE, notes)
    assert "## Pruning" in text
    assert "7.45 GiB: hit" in text


def test_the_hundred_rounds_of_synflow_are_timed_in_the_full_mode(monkeypatch):
    monkeypatch.setattr(scoring, "MODEL", "fc")
    monkeypatch.setattr(scoring, "ROUNDS", 2)
    assert command.FULL["rounds_repeats"]
    assert len(scoring.seconds("rounds", 2)["seconds"]) == 2


def test_memory_is_read_at_the_batch_of_the_study():
    fixed_there = yaml.safe_load((paths.STUDIES / "cos598d.yaml").read_text())["fixed"]
    assert (fixed_there["batch"], fixed_there["data"]) == (scoring.BATCH, "cifar10")


def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    taken = np.ones(2**27)  # a gigabyte of this one
    peak = scoring._program(tmp_path, "memory", "grasp", "fc")["peak_memory_mib"]
    assert 100 < peak < taken.nbytes / 2**20
    with pytest.raises(RuntimeError, match=r"lib.bench.scoring memory grasp nothing failed: .*unknown model 'nothing'"):
        scoring._program(tmp_path, "memory", "grasp", "nothing")


def test_training_whose_memory_is_read_is_two_steps_in_mixed_precision(monkeypatch):
    seen, train = [], training_engine.train

    def watched(network, made, **options):
        seen.append((len(made.train_x), options))
        return train(network, made, **options)

    monkeypatch.setattr(training_engine, "train", watched)
    assert scoring.memory("training", "fc")["peak_memory_mib"] > 100
    assert seen == [(2 * scoring.BATCH, {"epochs": 1, "batch": scoring.BATCH, "precision": "amp"})]
