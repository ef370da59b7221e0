"""Fixed point, 8 bits and shared weights of a network, beside torch's rounding and the best clustering there is."""

import copy
import json

import pytest
import torch
from test_train import same
from torch import nn

from lib import masks, models, pruners, quantise, widths
from lib.pipeline import grids
from lib.pipeline.inputs import attach
from lib.pipeline.network import Network

SHAPE = (3, 8, 8)
GRIDS = {
    "fixed": lambda net: grids.quantise_fixed(net, 8, 4),
    "int8": grids.quantise_int8,
    "shared": lambda net: grids.share(net, 3),
}
kinds = pytest.mark.parametrize("kind", GRIDS)


def pruned(name: str = "resnet8", density: float = 0.4) -> Network:
    """A pruned network whose biases are not zero, and whose weights are large enough for multiples of 1/16."""
    model = models.build(name, SHAPE, 10, seed=1).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.3)
    kept = pruners.prune(model, "mag", density, [], seed=1)
    masks.apply_masks_(model, kept)
    return Network(model, kept)


def one_layer(weights: list[float], kept: list[bool] | None = None, bias: float = 0.0) -> Network:
    """A linear layer with one output."""
    layer = nn.Linear(len(weights), 1)
    mask = torch.tensor([kept or [True] * len(weights)])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]) * mask)
        layer.bias.fill_(bias)
    return Network(layer.eval(), {"weight": mask})


def weights_of(net: Network) -> list[float]:
    return net.model.weight[0].tolist()


# All of them


@kinds
@pytest.mark.parametrize("name", ["resnet8", "conv", "mlp-2x16"])
def test_nothing_removed_comes_back_and_what_is_on_the_grid_stays(kind, name):
    net = pruned(name)
    before = copy.deepcopy(net.model)
    made = GRIDS[kind](net)
    assert same(net.model, before)
    assert made.grid["kind"] == kind
    assert made.masks is net.masks
    for parameter, mask in net.masks.items():
        weight = made.model.get_parameter(parameter)
        assert not weight[~mask].any()
        assert not torch.equal(weight, net.model.get_parameter(parameter))
        assert not torch.signbit(weight[weight == 0]).any()
    others = set(dict(before.named_parameters())) - set(net.masks)
    changed = {key for key in others if not torch.equal(made.model.get_parameter(key), before.get_parameter(key))}
    biases = {key for key in masks.prunable(net.model, ["biases"]) if key.endswith(".bias")}
    assert changed == (biases if kind == "fixed" else set())
    assert same(GRIDS[kind](made).model, made.model)


@kinds
def test_layers_of_zeros_and_of_one_value(kind):
    for net in (one_layer([0, 0, 0], [False] * 3), one_layer([0, 0, 0]), one_layer([0.5, 0.5, 0], [True, True, False])):
        made = GRIDS[kind](net)
        assert weights_of(made) == pytest.approx(weights_of(net), abs=1e-4)
        (row,) = grids.effects(net, made)
        assert (row["kept"], row["zeroed"], row["clipped"]) == (int(net.masks["weight"].sum()), 0, 0)
        assert row["values"] == min(row["kept"], 1)


# Fixed point


@pytest.mark.parametrize(("bits", "fraction"), [(8, 4), (2, 0), (2, 1), (4, 3), (16, 8)])
def test_fixed_point_is_that_of_torch(bits, fraction):
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 8
    wanted = torch.fake_quantize_per_tensor_affine(values, 2.0**-fraction, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert torch.equal(grids.fixed(values, bits, fraction), wanted)
    assert len(wanted.unique()) <= 2**bits


def test_eight_bits_of_which_four_lie_behind_the_point():
    net = one_layer([100.0, -100.0, 7.97, -8.03, 0.03, 0.04, -0.03, 1.0], bias=-8.2)
    made = grids.quantise_fixed(net, 8, 4)
    assert weights_of(made) == [7.9375, -8.0, 7.9375, -8.0, 0.0, 0.0625, 0.0, 1.0]
    assert made.model.bias.item() == -8
    (row,) = grids.effects(net, made)
    error = (torch.tensor(weights_of(made)) - torch.tensor(weights_of(net))).square().mean().sqrt().item()
    # 7.97 and -8.03: the nearest multiple of the one is 8, of the other -8
    assert row == {"layer": "", "kept": 8, "values": 5, "zeroed": 2, "clipped": 4, "rms_error": pytest.approx(error)}


def test_gradients_pass_the_rounding():
    values = torch.tensor([0.03, 100.0, -3.2], requires_grad=True)
    (grids.fixed(values, 8, 4) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert values.grad.tolist() == [1, 2, 3]


def test_the_best_fraction_is_that_of_the_least_error_or_of_the_highest_score():
    net = pruned("conv")
    with torch.no_grad():
        for weight in net.model.parameters():
            weight.mul_(4)

    def error(candidate: Network) -> float:
        pairs = zip(net.model.parameters(), candidate.model.parameters(), strict=True)
        return sum((a - b).double().square().sum().item() for a, b in pairs)

    tried = [error(grids.quantise_fixed(net, 6, fraction)) for fraction in range(6)]
    assert grids.best_fraction(net, 6) == tried.index(min(tried))
    assert 0 < grids.best_fraction(net, 6) < 5, "neither end is best"
    assert grids.best_fraction(net, 6, lambda candidate: -abs(candidate.grid["fraction"] - 2)) == 2
    assert grids.best_fraction(net, 6, lambda candidate: 1.0) == 0, "of equal ones the widest range"


def test_int8_is_the_product_of_its_integers_and_scales():
    net = pruned()
    made = grids.quantise_int8(net)
    for name in net.masks:
        integers, scales = quantise.integers(net.model.get_parameter(name))
        product = integers * scales.view(-1, *[1] * (integers.ndim - 1))
        assert torch.equal(made.model.get_parameter(name), product)


# Shared weights


def least_cost(values: list[float], count: int) -> float:
    """The least sum of squared distances of any partition, by dynamic programming over the sorted values."""
    points = sorted(values)

    def cost(part: list[float]) -> float:
        mean = sum(part) / len(part)
        return sum((value - mean) ** 2 for value in part)

    best = [0.0] + [float("inf")] * len(points)
    for _ in range(count):
        best = [0.0] + [
            min(best[start] + cost(points[start:end]) for start in range(end)) for end in range(1, len(points) + 1)
        ]
    return best[-1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 4, 8])
def test_centroids_are_means_each_value_has_the_nearest_and_no_partition_is_better_than_the_best(seed, count):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(40, generator=draw) ** 3
    values[::5] = values[0]  # some are equal
    found = grids.k_means(values, count)
    assert found.settled
    assert 1 <= len(found.values) <= count
    assert found.codes.unique().tolist() == list(range(len(found.values)))
    for code, centroid in enumerate(found.values):
        assert centroid.item() == pytest.approx(values[found.codes == code].mean().item(), rel=1e-5, abs=1e-6)
    distances = (values[:, None] - found.values).abs()
    own = distances.gather(1, found.codes[:, None])[:, 0]
    assert (own <= distances.amin(1) + 1e-6).all()
    reached = own.double().square().sum().item()
    best = least_cost(values.tolist(), count)
    start = torch.linspace(values.min(), values.max(), count)
    begun = (values[:, None] - start).square().amin(1).sum().item()
    assert best * (1 - 1e-5) <= reached <= begun * (1 + 1e-5)


def test_clear_groups_are_found_exactly():
    values = torch.tensor([-1.0, 1.0, 10.0, 12.0, 11.0, 0.0])
    found = grids.k_means(values, 2)
    assert found.values.tolist() == [0, 11]
    assert found.codes.tolist() == [0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0], [1.0, -3.0, 1.0, 0.0]])
def test_no_more_values_than_centroids_stay_as_they_are(values):
    values = torch.tensor(values)
    found = grids.k_means(values, 4)
    assert torch.equal(found.values[found.codes], values)
    assert found.settled


def test_an_end_before_nothing_changes_is_told(monkeypatch):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert grids.k_means(values, 16).iterations > 3
    monkeypatch.setattr(grids, "ITERATIONS", 2)
    cut = grids.k_means(values, 16)
    assert (cut.settled, cut.iterations) == (False, 2)
    for code, centroid in enumerate(cut.values):
        assert centroid.item() == pytest.approx(values[cut.codes == code].mean().item(), abs=1e-6)


def test_only_kept_weights_are_shared_and_a_centroid_may_be_zero():
    net = one_layer([-1.0, 1.0, 10.0, 12.0, 5.0, 5.0], [True, True, True, True, False, False], bias=0.3)
    made = grids.share(net, 1)
    assert weights_of(made) == [0, 0, 11, 11, 0, 0]
    assert made.masks["weight"][0].tolist() == [True] * 4 + [False] * 2, "the mask alone says what is kept"
    assert made.model.bias.item() == pytest.approx(0.3)
    (row,) = grids.effects(net, made)
    assert (row["kept"], row["values"], row["zeroed"], row["rms_error"]) == (4, 2, 2, 1)


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_each_layer_has_its_own_codebook(bits):
    net = pruned("conv")
    for row in grids.effects(net, grids.share(net, bits)):
        assert 2 ** (bits - 1) < row["values"] <= 2**bits


# What enters layers


def test_rounding_of_inputs_takes_the_place_of_an_earlier_one_and_keeps_their_pruning():
    prune = {"method": "element-l1", "share": 0.5, "fixed": False}
    net = pruned("conv")._replace(inputs={"prune": prune})
    made = grids.round_inputs_fixed(net, 6, 3)
    assert made.inputs == {"prune": prune, "round": {"kind": "fixed", "bits": 6, "fraction": 3}}
    assert list(made.inputs) == ["prune", "round"]
    assert net.inputs == {"prune": prune}
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, *SHAPE, generator=draw) + 2, torch.zeros(6)) for _ in range(2)]
    again = grids.round_inputs_int8(made, batches)
    found = again.inputs["round"]["ranges"]
    assert again.inputs["prune"] == prune
    assert json.loads(json.dumps(found)) == found
    assert found == grids.round_inputs_int8(net, batches).inputs["round"]["ranges"], "seen without other rounding"
    assert not any(layer._forward_pre_hooks for layer in net.model.modules())
    with attach(net.model, net.inputs):
        wanted = quantise.ranges_of(net.model, batches)
    assert found == {name: list(ends) for name, ends in wanted.items()}
    unpruned = grids.round_inputs_int8(pruned("conv"), batches).inputs["round"]["ranges"]
    assert found != unpruned, "what is pruned before is no longer seen in later layers"


def entering(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What each convolution and linear layer gets after the hooks that it has."""
    seen = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


def test_values_that_enter_layers_are_on_their_grid():
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, *SHAPE, generator=draw), torch.zeros(6))]
    net = pruned("conv")
    for made, step in ((grids.round_inputs_fixed(net, 8, 4), 1 / 16), (grids.round_inputs_int8(net, batches), None)):
        with attach(made.model, made.inputs) as model:
            seen = entering(model, batches[0][0])
        assert len(seen) == len(net.masks)
        for x in seen:
            assert len(x.unique()) <= 256
            assert step is None or torch.equal((x / step).round() * step, x)


# What cannot be


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: grids.quantise_fixed(net, 1, 0), "weight_bits is 1 with grid fixed: 2 to 16 is allowed"),
        (lambda net: grids.quantise_fixed(net, 8, 8), "fraction_bits is 8 with weight_bits 8: 0 to 7 is allowed"),
        (lambda net: grids.quantise_fixed(net, 8, -1), "fraction_bits is -1, still to be chosen: 0 to 7 is allowed"),
        (lambda net: grids.best_fraction(net, 17), "weight_bits is 17 with grid fixed: 2 to 16 is allowed"),
        (lambda net: grids.share(net, 9), "weight_bits is 9 with grid shared: 1 to 8 is allowed"),
        (lambda net: grids.round_inputs_fixed(net, 40, 4), "weight_bits is 40 with grid fixed: 2 to 16 is allowed"),
    ],
)
def test_impossible_widths_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        call(one_layer([1.0]))
    assert "\n" not in str(caught.value)


def test_widths_that_can_be_are_not_refused():
    for bits, fraction in ((2, 1), (16, 15), (8, widths.CHOSEN)):
        widths.check("fixed", bits, fraction)
    for bits in (1, 8):
        widths.check("shared", bits)
    widths.check("int8", 8)
    for grid, bits, fraction in (("int4", 4, -1), ("int8", 7, -1), ("int8", 8, 4), ("shared", 6, 0)):
        with pytest.raises(ValueError, match="allowed|one of"):
            widths.check(grid, bits, fraction)
