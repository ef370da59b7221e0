"""The stages of a pipeline executed by a study as it is shipped, at tiny size, and its report."""

import json

import pandas as pd
import pytest
import torch
import yaml
from stub_study import PATIENCE_S, Bench

from lib import data, models, paths, runs, stages
from lib.data.validation import hold_out
from lib.pipeline import inputs, stored
from lib.study import state

TINY = {"train_images": 300, "validation_images": 60, "counted_images": 40}
PARTS = ["convolution", "linear", "bias", "norm", "other", "index", "table", "header"]


def shrunk(block: dict) -> dict:
    """The block with one epoch of everything, few images, and of each list the ends."""
    text = json.dumps(block)
    for number in (2, 3, 4):
        text = text.replace(f'"epochs": {number}', '"epochs": 1')
    block = json.loads(text)
    block["fixed"] = {name: value for name, value in block["fixed"].items() if name != "train_images"}
    block["grid"] = {name: values[1:3] + values[-1:] for name, values in block.get("grid", {}).items()}
    return {name: value for name, value in block.items() if value or name == "fixed"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bench in which `pipeline-small`, made smaller still, was executed and reported by the command."""
    bench = Bench(tmp_path_factory.mktemp("pipeline"), paths.NOTEBOOKS)
    study = yaml.safe_load(paths.study("pipeline-small").read_text(encoding="utf-8"))
    blocks = [shrunk(block) for block in study["blocks"]]
    fixed = study["fixed"] | TINY | {"calibration_images": 20, "scoring_images": 2}
    bench.write("small", *blocks, summary=study["summary"], fixed=fixed)
    bench.ended = bench.run("run", "small", "--report", patience_s=3 * PATIENCE_S)
    yield bench
    bench.close()


@pytest.fixture
def own(made, monkeypatch):
    for name in ("RUNS", "STUDIES", "FIGURES"):
        monkeypatch.setattr(paths, name, getattr(made, name.lower()))
    return state.load_plan("small")


def metrics(made, run: str) -> dict:
    return json.loads((made.runs / "small" / run / runs.METRICS).read_text())


def test_every_stage_and_the_report_are_made_without_a_word_on_the_side(made, own):
    assert (made.ended.returncode, made.ended.stderr) == (0, ""), made.ended.stdout + made.ended.stderr
    assert len(made.done("small")) == len(own["runs"])
    assert {run["notebook"] for run in own["runs"]} >= {"pretrained", "prune_weights", "prune_activations", "coded"}
    for run in own["runs"]:
        folder = made.runs / "small" / run["id"]
        cells = json.loads((folder / runs.NOTEBOOK).read_text())["cells"]
        assert not [o for c in cells for o in c.get("outputs", []) if o["output_type"] in ("error", "stream")], run
    assert (made.figures / "small" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_sizes_are_those_of_the_files(made, own):
    for run in own["runs"]:
        found = metrics(made, run["id"])
        assert found["file_bytes"] == (made.runs / "small" / run["id"] / stages.MODEL).stat().st_size
        assert found["file_bytes"] == sum(found[f"{part}_bytes"] for part in PARTS)
        assert found["weights_kept"] <= found["prunable"] <= found["parameters"]
        assert found["macs_dense"] >= found["macs_kept"] >= found["macs_natural"] >= found["macs_active"] > 0


def test_no_stage_brings_a_weight_back_and_quantised_ones_stay_on_their_grid(made, own):
    for chain in ("lenet", "fixed-first", "resnet"):
        before = None
        for run in (r for r in own["runs"] if r.get("chain") == chain):
            values = run["parameters"]
            digits = data.load("digits")
            model = models.build(values["model"], digits.shape, 10)
            net = stored.load(made.runs / "small" / run["id"] / stages.MODEL, model)
            for name, mask in net.masks.items():
                assert not net.model.get_parameter(name)[~mask].any()
                assert before is None or not (mask & ~before.masks[name]).any()
            if before is not None and before.grid:
                assert net.grid == before.grid
            before = net


def test_the_file_tells_the_accuracy(made, own):
    """Every stored network, loaded and evaluated here, has the accuracy that its run says, on either set of images."""
    run = "resnet-6-coded-digits-resnet8-seed1"
    values = next(r["parameters"] for r in own["runs"] if r["id"] == run)
    digits, validation = stages.data(
        "digits", train_images=values["train_images"], validation_images=values["validation_images"], seed=1
    )
    net = stored.load(made.runs / "small" / run / stages.MODEL, models.build("resnet8", digits.shape, 10))
    for part, name in ((digits, "top1_pct"), (validation, "validation_top1_pct")):
        assert inputs.evaluated(net, part)["top1_pct"] == pytest.approx(metrics(made, run)[name], abs=0.11)


def test_coding_changes_the_size_alone(made, own):
    for chain, last in (("lenet", 6), ("fixed-first", 4), ("resnet", 6)):
        names = {run["stage"]: run["id"] for run in own["runs"] if run.get("chain") == chain}
        before, after = metrics(made, names[last - 1]), metrics(made, names[last])
        assert after["top1_pct"] == before["top1_pct"]
        assert after["file_bytes"] < before["file_bytes"]
        coders = pd.read_csv(made.runs / "small" / names[last] / "coders.csv").groupby("coder")["bytes"].sum()
        assert coders["entropy"] <= min(coders["huffman"], coders["ans"])


def test_validation_images_are_in_no_training(made):
    digits = data.load("digits", train_images=300, seed=1)
    kept, validation = hold_out(digits, 60, 1)
    seen = {image.numpy().tobytes() for image in kept.train_x}
    assert len(kept.train_x) == 240
    assert not [image for image in validation.test_x if image.numpy().tobytes() in seen]


def test_a_source_that_is_no_stage_is_refused(made, own, monkeypatch):
    run = runs.Run("coded", made.root, {"model": "fc", "seed": 1, "source": "small/other"}, 0.0)
    (made.runs / "small" / "other").mkdir()
    (made.runs / "small" / "other" / runs.METRICS).write_text("{}")
    with pytest.raises(ValueError, match="source 'small/other' has no model.safetensors"):
        stages.opened(run, data.load("digits"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"grid": "fixed", "weight_bits": 8, "fraction_bits": 3}, "quantised: fixed point, 8 bits, 3 of them fraction"),
        ({"grid": "shared", "weight_bits": 3}, "quantised: shared, 8 values a layer"),
        ({"grid": "int8", "weight_bits": 8, "round_activations": True}, "quantised: int8 by channel, activations too"),
    ],
)
def test_rounding_as_the_parameters_say(tmp_path, values, said):
    digits, validation = stages.data("digits", train_images=200, validation_images=50, seed=1)
    given = {"fraction_bits": -1, "round_activations": False} | values
    run = runs.Run("quantise", tmp_path, {"model": "fc", "seed": 1, "pre_epochs": 1, "source": ""} | given, 0.0)
    before = stages.opened(run, digits)
    after, fraction = stages.quantised(before, run, validation, stages.calibration(validation, 20))
    assert stages.rounding(run, fraction) == said
    assert after.grid["kind"] == given["grid"]
    assert ("round" in after.inputs) == given["round_activations"]


def test_fraction_bits_are_chosen_by_the_validation_part(tmp_path):
    digits, validation = stages.data("digits", train_images=200, validation_images=50, seed=1)
    values = {"grid": "fixed", "weight_bits": 4, "fraction_bits": -1, "round_activations": True}
    run = runs.Run("quantise", tmp_path, {"model": "fc", "seed": 1, "pre_epochs": 2, "source": ""} | values, 0.0)
    before = stages.opened(run, digits)
    after, (weights, activations) = stages.quantised(before, run, validation, [])
    losses = []
    for fraction in range(4):
        other = run.parameters | {"fraction_bits": fraction, "round_activations": False}
        made, _ = stages.quantised(before, runs.Run("quantise", tmp_path, other, 0.0), validation, [])
        losses.append(inputs.evaluated(made, validation)["loss"])
    assert losses[weights] == min(losses)
    assert after.grid == {"kind": "fixed", "bits": 4, "fraction": weights}
    assert after.inputs["round"] == {"kind": "fixed", "bits": 4, "fraction": activations}


def test_dropping_zeros_changes_no_output(tmp_path):
    digits, _ = stages.data("digits", train_images=200, validation_images=50, seed=1)
    values = {"model": "fc", "seed": 1, "pre_epochs": 1, "source": ""}
    before = stages.opened(runs.Run("coded", tmp_path, values, 0.0), digits, rounded=True)
    after = stages.without_zeros(before)
    zeros = sum(int((before.model.get_parameter(name)[mask] == 0).sum()) for name, mask in before.masks.items())
    kept = sum(int(mask.sum()) for mask in after.masks.values())
    assert zeros > 0
    assert kept == sum(int(mask.sum()) for mask in before.masks.values()) - zeros
    x = data.normalise(digits, digits.test_x[:50])
    with torch.no_grad():
        assert torch.equal(after.model(x), before.model(x))
