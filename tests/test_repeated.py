"""Repeated pruning: published counts, torch's own masks, files of every iteration."""

import copy

import pytest
import torch
from test_train import tiny
from torch.nn.utils import prune

from lib import formats, models, repeated, timing


def test_counts_are_those_of_the_mnist_network():
    """1,468,416 prunable weights of 400-1024-1024-10, a third less each time."""
    assert repeated.counts(1_468_416, 0.33, 5) == [983_839, 659_172, 441_645, 295_902, 198_254]


@pytest.mark.parametrize(("step", "iterations"), [(0, 1), (1, 1), (-0.1, 1), (float("nan"), 1), (0.9, 40)])
def test_counts_that_cannot_be(step, iterations):
    with pytest.raises(ValueError, match="step is"):
        repeated.counts(1000, step, iterations)


@pytest.fixture
def dense():
    data = tiny()
    return models.build("mlp-2x16", data.shape, data.classes, seed=1), data


def test_without_retraining_equals_torch_pruning_again_and_again(dense):
    model, data = dense
    before = copy.deepcopy(model.state_dict())
    weights = sum(layer.weight.numel() for layer in model.layers)
    found = repeated.without_retraining(model, "mag", [], repeated.counts(weights, 0.33, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    theirs = copy.deepcopy(model)
    places = [(layer, "weight") for layer in theirs.layers]
    for state, kept in found[1:]:
        prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=0.33)
        for number, layer in enumerate(theirs.layers):
            assert torch.equal(layer.weight_mask.bool(), kept[f"layers.{number}.weight"])
            assert torch.equal(state[f"layers.{number}.weight"], layer.weight_orig)


def test_rows_are_those_of_the_networks(dense, tmp_path):
    model, data = dense
    found = repeated.without_retraining(model, "mag", [], [300, 100])
    masks = [kept for _, kept in found]
    built = repeated.built(model, found)
    rows = repeated.iterations(built, masks, data, batch=16)
    assert [row["weights_kept"] for row in rows][1:] == [300, 100]
    assert rows[0]["sparsity_pct"] == 0
    for row, one in zip(rows, built, strict=True):
        zeros = sum(int((p == 0).sum()) for p in one.parameters())
        assert row["model_sparsity_pct"] == pytest.approx(100 * zeros / row["parameters"])
    files = repeated.files(built, masks, tmp_path)
    assert len(files) == 3 * len(formats.FORMS) * 2
    assert all(row["loads"] for row in files)
    assert not list(tmp_path.iterdir())
    sizes = {(row["iteration"], row["form"], row["compressed"]): row["bytes"] for row in files}
    assert sizes[0, "dense", False] == sizes[2, "dense", False], "zeros weigh as much as other numbers"
    assert sizes[0, "masked", False] > 1.8 * sizes[0, "dense", False]
    assert sizes[2, "bitmask", False] < sizes[1, "bitmask", False] < sizes[0, "bitmask", False]


def test_networks_take_turns(dense):
    model, data = dense
    built = repeated.built(model, repeated.without_retraining(model, "mag", [], [100]))
    rows = repeated.times(built, timing.first_inputs(data, [1, 4]), repeats=3, warmup=0)
    assert {(row["network"], row["batch"]) for row in rows} == {(n, b) for n in (0, 1) for b in (1, 4)}
    assert len(rows) == 12
