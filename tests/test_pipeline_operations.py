"""Operations that are left, counted one by one in Python."""

from itertools import product

import pytest
import torch
from test_pipeline_inputs import CONVOLUTIONAL, cases, images
from torch import nn

from lib import flops, masks, models
from lib.catalog import ACTIVATION_METHODS
from lib.pipeline import activations
from lib.pipeline.inputs import prune_inputs
from lib.pipeline.network import Network
from lib.pipeline.operations import MACS, count


def draw(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept_at_random(model: nn.Module, density: float = 0.4) -> masks.Masks:
    kept = {name: draw(*w.shape, seed=len(name)) for name, w in masks.prunable(model).items()}
    kept = {name: score > score.quantile(1 - density) for name, score in kept.items()}
    masks.apply_masks_(model, kept)
    return kept


def convolution_by_hand(layer: nn.Conv2d, kept: torch.Tensor, x: torch.Tensor, size: tuple[int, int]) -> int:
    """Every weight at every output position of every image: is it kept, and does it meet something?"""
    found, (outputs, inputs, height, width) = 0, kept.shape
    for image, o, i, a, b, row, column in product(x, *map(range, (outputs, inputs, height, width, *size))):
        channel = o // (outputs // layer.groups) * inputs + i
        y = row * layer.stride[0] - layer.padding[0] + a * layer.dilation[0]
        z = column * layer.stride[1] - layer.padding[1] + b * layer.dilation[1]
        inside = 0 <= y < x.shape[2] and 0 <= z < x.shape[3]
        found += bool(kept[o, i, a, b]) and inside and bool(image[channel, y, z] != 0)
    return found


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 2)},
    "dilated": {"kernel_size": 2, "dilation": (2, 1), "padding": 1},
    "groups": {"kernel_size": 3, "groups": 2, "stride": 2, "padding": 1},
    "depthwise": {"kernel_size": (1, 3), "groups": 4, "padding": (0, 1)},
    "1x1": {"kernel_size": 1},
}


@pytest.mark.parametrize("method", ACTIVATION_METHODS)
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_and_a_linear_layer_counted_by_hand(options, method):
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 8, **options)
    x = draw(3, 4, 5, 6).relu()
    out = convolution(x).shape[2:]
    linear = nn.Linear(8 * out.numel(), 3)
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), linear).eval()
    net = Network(model, kept_at_random(model))
    totals, (first, last) = count(prune_inputs(net, method, 0.3), x, batch=2)
    gone = activations.removed(x, method, 0.3)
    pruned = torch.where(gone if gone.ndim == 4 else gone[:, :, None, None], 0, x)
    hidden = model[:3](pruned)
    kept = net.masks
    wanted = [convolution_by_hand(convolution, kept["0.weight"], part, out) for part in (x, pruned)]
    assert [round(3 * first[name]) for name in ("macs_natural", "macs_active")] == wanted
    dense = sum(
        bool(kept["3.weight"][o, i]) for row in hidden for o in range(3) for i in range(len(row)) if row[i] != 0
    )
    assert [round(3 * last[name]) for name in ("macs_natural", "macs_active")] == [dense, dense]
    assert totals["macs_active"] == pytest.approx((wanted[1] + dense) / 3)
    assert (
        totals["zeros_natural_pct"] == first["zeros_natural_pct"] == pytest.approx(100 * float((x == 0).float().mean()))
    )
    assert totals["zeros_pruned_pct"] == pytest.approx(100 * float(((pruned == 0) & (x != 0)).float().mean()))
    assert (first["kind"], last["kind"], last["zeros_pruned_pct"]) == ("convolution", "linear", 0)


def network(name: str, shape) -> Network:
    model = models.build(name, shape, 10, seed=1).eval()
    return Network(model, kept_at_random(model))


@cases
def test_dense_and_kept_are_those_of_flops_and_each_is_at_most_the_one_before(name, shape):
    net, x = network(name, shape), images(shape, 5)
    for share in (0.0, 0.3, 1.0):
        totals, rows = count(prune_inputs(net, "element-l1", share), x)
        assert {key: totals[key] for key in ("macs_dense", "macs_kept")} == flops.macs(net.model, shape, net.masks)
        for found in (totals, *({"macs_dense": row["macs"]} | row for row in rows)):
            numbers = [found[key] for key in MACS]
            assert numbers == sorted(numbers, reverse=True)
            assert (numbers[2] == numbers[3]) or share > 0
        assert [sum(row[key] for row in rows) for key in MACS[1:]] == pytest.approx([totals[key] for key in MACS[1:]])
        kind = "convolution" if name in CONVOLUTIONAL else "linear"
        pruned = [row for row in rows if row["kind"] == kind]
        assert all(row["zeros_pruned_pct"] == 0 for row in rows if row["kind"] != kind or share == 0)
        assert share < 1 or not any(row["macs_active"] for row in pruned)
        assert share < 1 or all(
            row["zeros_natural_pct"] + row["zeros_pruned_pct"] == pytest.approx(100) for row in pruned
        )


@cases
def test_means_do_not_depend_on_the_batches_and_the_model_stays_as_it_was(name, shape):
    net, x = prune_inputs(network(name, shape), "element-l1", 0.3), images(shape, 5)
    net.model.double().train()  # where no sum of another order makes another zero
    x = x.double() if len(shape) == 3 else x
    before = {key: value.clone() for key, value in net.model.state_dict().items()}
    once, again = count(net, x), count(net, x, batch=2)
    alone = [count(net, image[None])[0] for image in x]
    assert once == again
    assert all(once[0][key] == pytest.approx(sum(one[key] for one in alone) / 5, rel=1e-12) for key in once[0])
    assert all(torch.equal(before[key], value) for key, value in net.model.state_dict().items())
    assert all(m.training and not m._forward_pre_hooks and not m._forward_hooks for m in net.model.modules())


def test_an_input_of_zeros_needs_nothing():
    net, shape = network("resnet8", (3, 8, 8)), (3, 8, 8)
    for method in ACTIVATION_METHODS:
        _, rows = count(prune_inputs(net, method, 0.5), torch.zeros(2, *shape))
        assert (rows[0]["macs_natural"], rows[0]["macs_active"]) == (0, 0)
        assert (rows[0]["zeros_natural_pct"], rows[0]["zeros_pruned_pct"]) == (100, 0)


def test_zeros_of_rounding_are_neither_natural_nor_pruned_where_they_are_made():
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    x = torch.tensor([0.0, 0.01, 0.02, 1.0, 2.0]).view(1, 1, 1, 5)
    net = Network(model, masks.full(model), {}, {"round": {"kind": "fixed", "bits": 8, "fraction": 4}})
    totals, _ = count(prune_inputs(net, "element-l1", 0.25), x)
    assert [totals[key] for key in MACS] == [5, 5, 4, 3]
    assert (totals["zeros_natural_pct"], totals["zeros_pruned_pct"]) == (20, 20)


def test_layers_without_a_mask_are_kept_and_those_never_called_have_no_zeros():
    model = nn.Sequential(nn.Conv2d(2, 3, 1))
    model[0].spare = nn.Linear(4, 5)
    totals, rows = count(Network(model, {}), torch.ones(2, 2, 4, 4))
    assert [totals[key] for key in MACS] == [96] * 4
    assert [row["macs"] for row in rows] == [96, 0]
    assert rows[1]["zeros_natural_pct"] != rows[1]["zeros_natural_pct"]  # NaN
    with pytest.raises(ValueError, match="no images to count with"):
        count(Network(model, {}), torch.ones(0, 2, 4, 4))
