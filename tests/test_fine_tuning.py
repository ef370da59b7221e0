"""Training on a grid and under a mask: what is removed stays removed, what is rounded stays rounded."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_checkpoint import Killed, kill_after, untimed
from test_checkpoint import often as often
from test_grids import GRIDS, SHAPE, kinds, one_layer, pruned
from test_train import same, tiny
from torch import nn

from lib import models, quantise, train
from lib.data import normalise
from lib.masks import apply_masks_
from lib.pipeline import grids, training
from lib.pipeline.inputs import evaluated, prune_inputs
from lib.pipeline.network import Network
from lib.pipeline.training import fine_tune, settled, trainable

ALL = {"none": lambda net: net} | GRIDS
all_kinds = pytest.mark.parametrize("kind", ALL)
RECIPE = {"epochs": 2, "batch": 16, "lr": 0.01, "seed": 3}


def batch(data):
    return normalise(data, data.train_x[:16]), data.train_y[:16]


def again(net: Network) -> Network:
    """`net` quantised once more as its grid says, which changes nothing where it is on that grid."""
    if not net.grid:
        return net
    if net.grid["kind"] == "fixed":
        return grids.quantise_fixed(net, net.grid["bits"], net.grid["fraction"])
    return grids.quantise_int8(net) if net.grid["kind"] == "int8" else grids.share(net, net.grid["bits"])


def on_its_grid(net: Network) -> bool:
    return same(again(net).model, net.model)


@all_kinds
@pytest.mark.parametrize("name", ["resnet8", "conv", "mlp-2x16"])
def test_without_training_nothing_changes_bit_for_bit(kind, name):
    net = ALL[kind](pruned(name))
    before, x = copy.deepcopy(net.model), batch(tiny())[0]
    made = trainable(net)
    with torch.no_grad():
        assert torch.equal(made(x), net.model(x))
    back = settled(made, net)
    assert same(back.model, before)
    assert same(net.model, before)
    assert [type(module) for module in back.model.modules()] == [type(module) for module in before.modules()]
    assert [*back.model.state_dict()] == [*before.state_dict()]
    assert all(parameter.requires_grad for parameter in back.model.parameters())
    assert back.grid == net.grid


@all_kinds
@pytest.mark.parametrize("precision", train.PRECISIONS)
def test_training_learns_on_the_grid_and_under_the_mask(kind, precision):
    data, net = tiny(augmented=False), ALL[kind](pruned())
    before = copy.deepcopy(net.model)
    tuned, rows = fine_tune(net, data, **RECIPE | {"epochs": 4, "precision": precision})
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert same(net.model, before)
    assert not tuned.model.training
    assert (tuned.grid, tuned.inputs) == (net.grid, net.inputs)
    for name, mask in net.masks.items():
        weight = tuned.model.get_parameter(name)
        assert not weight[~mask].any()
        assert not torch.equal(weight, before.get_parameter(name))
    assert on_its_grid(tuned)
    assert train.evaluate(tuned.model, data, precision=precision)["loss"] == rows[-1]["test_loss"]


@pytest.mark.parametrize("kind", ["fixed", "int8"])
def test_gradients_are_those_at_the_rounded_weights(kind):
    net = GRIDS[kind](pruned("conv"))
    made, (x, labels) = trainable(net), batch(tiny())
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.01)  # off the grid
    at = settled(made, net._replace(masks={}))  # removed ones too
    for network in (made, at.model):
        F.cross_entropy(network(x), labels).backward()
    for ours, theirs in zip(made.parameters(), at.model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_centroid_gets_the_sum_of_the_gradients_of_its_weights():
    net = GRIDS["shared"](pruned("conv"))
    made, plain, (x, labels) = trainable(net), copy.deepcopy(net.model), batch(tiny())
    for network in (made, plain):
        F.cross_entropy(network(x), labels).backward()
    for name, mask in net.masks.items():
        weight, layer = plain.get_parameter(name), made.get_submodule(name.removesuffix(".weight"))
        values = weight[mask].unique()
        assert torch.equal(layer.codebook, values)
        for value, found in zip(values, layer.codebook.grad, strict=True):
            wanted = weight.grad[mask & (weight == value)].double().sum().item()
            assert found.item() == pytest.approx(wanted, rel=1e-4, abs=1e-7)
        assert layer.weight.grad is None


def test_weights_of_a_code_stay_together_and_one_step_is_that_of_their_centroid():
    net, data = GRIDS["shared"](pruned("mlp-2x16")), tiny(augmented=False, images=20)
    tuned, _ = fine_tune(net, data, epochs=1, batch=20, optimizer="sgd", lr=0.1, lr_schedule="constant")
    plain = copy.deepcopy(net.model)
    x, labels = normalise(data, data.train_x), data.train_y
    F.cross_entropy(plain(x), labels).backward()
    for name, mask in net.masks.items():
        before, after = plain.get_parameter(name), tuned.model.get_parameter(name)
        for value in before[mask].unique():
            mine = mask & (before == value)
            step = 0.1 * before.grad[mine].sum()
            assert len(after[mine].unique()) == 1
            assert torch.allclose(after[mine], value - step, rtol=1e-4, atol=1e-6)


def test_a_kept_weight_of_a_zero_centroid_learns_and_a_removed_one_does_not():
    net = grids.share(one_layer([-1.0, 1.0, 10.0, 12.0, 5.0], [True] * 4 + [False]), 1)
    made = trainable(net)
    made(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])).sum().backward()
    assert made.codebook.grad.tolist() == [3, 7]
    with torch.no_grad():
        made.codebook.add_(1)
    assert settled(made, net).model.weight[0].tolist() == [1, 1, 12, 12, 0]


@kinds
def test_a_layer_without_a_weight_is_trained_with_the_others(kind):
    net = pruned("mlp-2x16")
    net.masks["layers.1.weight"].zero_()
    apply_masks_(net.model, net.masks)
    tuned, rows = fine_tune(GRIDS[kind](net), tiny(augmented=False), **RECIPE)
    assert not tuned.model.get_parameter("layers.1.weight").any()
    assert len(rows) == 2
    assert on_its_grid(tuned)


@kinds
def test_training_from_scratch_begins_with_other_weights_and_keeps_the_masks(kind):
    data, net = tiny(augmented=False), GRIDS[kind](pruned())
    fresh = models.build("resnet8", SHAPE, 10, seed=7)
    before = copy.deepcopy(fresh)
    none, rows = fine_tune(net, data, initial=fresh, epochs=0)
    assert rows == []
    assert on_its_grid(none)
    masked = copy.deepcopy(fresh).eval()
    apply_masks_(masked, net.masks)
    assert same(none.model, again(Network(masked, net.masks, net.grid)).model)
    tuned, rows = fine_tune(net, data, initial=fresh, **RECIPE | {"epochs": 8})
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert same(fresh, before)
    assert on_its_grid(tuned)
    assert not any(tuned.model.get_parameter(name)[~mask].any() for name, mask in net.masks.items())


def test_steps_smaller_than_the_grid_add_up():
    """The float32 weights behind the rounded ones move although a step alone would be rounded away."""
    net = grids.quantise_fixed(pruned("mlp-2x16"), 8, 4)
    data = tiny(augmented=False)
    settings = {"batch": 40, "optimizer": "adam", "lr": 0.004, "lr_schedule": "constant"}
    once, _ = fine_tune(net, data, epochs=1, **settings)
    often, _ = fine_tune(net, data, epochs=12, **settings)
    assert all(torch.equal(once.model.get_parameter(name), net.model.get_parameter(name)) for name in net.masks)
    assert not any(torch.equal(often.model.get_parameter(name), net.model.get_parameter(name)) for name in net.masks)


@all_kinds
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, often, kind):
    data, net, file = tiny(), ALL[kind](pruned()), tmp_path / "state.pt"
    whole, expected = fine_tune(net, data, **RECIPE)
    for steps in (1, 3):  # of six; in the first epoch, in the next
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                fine_tune(net, data, checkpoint=file, **RECIPE)
    tuned, rows = fine_tune(net, data, checkpoint=file, **RECIPE)
    assert same(tuned.model, whole.model)
    assert untimed(rows) == untimed(expected)
    once_more, rows = fine_tune(net, data, checkpoint=file, **RECIPE)
    assert same(once_more.model, whole.model)
    assert untimed(rows) == untimed(expected)


@pytest.mark.parametrize("rounding", ["fixed", "int8"])
@pytest.mark.parametrize("kind", ["none", "fixed", "shared"])
def test_inputs_are_pruned_and_rounded_while_training(kind, rounding):
    data = tiny(augmented=False)
    net = ALL[kind](pruned())._replace(inputs={"prune": {"method": "element-l1", "share": 0.2, "fixed": False}})
    net = grids.round_inputs_fixed(net, 8, 4) if rounding == "fixed" else grids.round_inputs_int8(net, [batch(data)])
    tuned, rows = fine_tune(net, data, **RECIPE | {"epochs": 4})
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert tuned.inputs == net.inputs
    assert not any(module._forward_pre_hooks for module in tuned.model.modules())
    assert evaluated(tuned, data)["loss"] == rows[-1]["test_loss"] != train.evaluate(tuned.model, data)["loss"]
    without, _ = fine_tune(net._replace(inputs={}), data, **RECIPE | {"epochs": 4})
    assert not same(tuned.model, without.model)


def test_a_calibrated_set_of_pruned_inputs_holds_while_training_and_in_a_checkpoint(tmp_path):
    data, file = tiny(augmented=False), tmp_path / "state.pt"
    net = prune_inputs(GRIDS["fixed"](pruned()), "element-l1", 0.3, batches=[batch(data)])
    whole, expected = fine_tune(net, data, checkpoint=file, **RECIPE)
    found, rows = fine_tune(net, data, checkpoint=file, **RECIPE)
    assert same(found.model, whole.model)
    assert rows == expected, "from the checkpoint, times too"
    other = prune_inputs(net, "element-l1", 0.3, batches=[(-batch(data)[0], batch(data)[1])])
    with pytest.warns(RuntimeWarning, match="is of a training with inputs"):
        fine_tune(other, data, checkpoint=file, **RECIPE)


def test_a_checkpoint_of_another_grid_is_not_used(tmp_path):
    data, file = tiny(), tmp_path / "state.pt"
    net = grids.quantise_fixed(pruned("mlp-2x16"), 8, 4)
    fine_tune(net, data, checkpoint=file, **RECIPE)
    finer = net._replace(grid=net.grid | {"bits": 9})  # the same weights
    with pytest.warns(RuntimeWarning, match="is of a training with grid .*'bits': 8.*, not .*'bits': 9"):
        fine_tune(finer, data, checkpoint=file, **RECIPE)


def test_what_cannot_be_trained_is_named():
    net = pruned("mlp-2x16")
    wrong = net._replace(grid={"kind": "shared", "bits": 2})
    with pytest.raises(ValueError, match=r"layer layers\.0 has \d+ values on a shared grid: 4 or fewer are allowed"):
        trainable(wrong)

    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Flatten(), Own(192, 10))
    strange = Network(model, {"1.weight": torch.ones(10, 192, dtype=torch.bool)}, {"kind": "int8"})
    with pytest.raises(ValueError, match="layer 1 is a Own: Conv2d and Linear are allowed with a grid"):
        trainable(strange)
    with pytest.raises(ValueError, match="unknown optimizer 'adagrad'"):
        fine_tune(net, tiny(), optimizer="adagrad")
    assert set(training.KINDS) == set(GRIDS)
    assert quantise.QuantisedLinear in training.KINDS["int8"].values()
