"""SynFlow beyond the range of float64: what is kept apart is one power of two, and nothing else changes."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import masks, models, pruners
from lib.pruners import exponents, sensitivity


def image(shape):
    return [(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64))]


def apart(model, shape, **options) -> dict:
    """Scores with the powers of two kept apart, whether that is needed or not."""
    with mock.patch.object(sensitivity, "finite", return_value=False):
        return pruners.synflow(model, image(shape), **options)


def with_biases(model: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=draw)
    return model


class InPlace(nn.Module):
    """Sums and activations in place, with and without a new name, as networks of other people have them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.first(x)
        out = self.second(F.relu(x, inplace=True))
        out += x
        out.add_(x)
        return self.last(F.adaptive_avg_pool2d(F.relu_(out), 1).view(len(x), -1) + 1)


class Pooled(nn.Sequential):
    """What VGGs are made of, dropout too."""

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2, padding=1)),
            *(nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Dropout()),
            *(nn.Linear(32, 9), nn.ReLU(), nn.Linear(9, 3)),
        )


OWN = {"in place": InPlace, "pooled": Pooled}
CASES = [("fc", (1, 8, 8)), ("conv", (3, 16, 16)), ("resnet8", (2, 8, 8)), *((name, (2, 8, 8)) for name in OWN)]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_where_float64_suffices_scores_differ_by_one_power_of_two(name, shape):
    """Biases, shifts and statistics as after a training; half of the weights removed, and one layer of the FC net."""
    model = with_biases(OWN[name]() if name in OWN else models.build(name, shape))
    kept = pruners.prune(model, "rand", 0.5, [], also=masks.ALSO)
    if name == "fc":
        kept["layers.2.weight"][:] = False
    expected, found = pruners.synflow(model, image(shape), masks=kept), apart(model, shape, masks=kept)
    largest = max(score.max().item() for score in found.values())
    factor = max(score.max().item() for score in expected.values()) / largest
    assert np.log2(factor) == pytest.approx(round(np.log2(factor)), abs=1e-12)
    for key, score in expected.items():
        assert torch.allclose(found[key] * factor, score, rtol=1e-12, atol=0)
    assert 0 < largest < 100


@pytest.mark.parametrize("name", ["fc", "resnet8"])
def test_nothing_is_kept_apart_where_float64_suffices(name):
    with mock.patch.object(sensitivity, "scaled", side_effect=AssertionError):
        pruners.synflow(models.build(name, (2, 8, 8)), image((2, 8, 8)))


def test_a_network_that_is_cut_scores_zero():
    model = models.build("fc", (1, 8, 8))
    for name, parameter in model.named_parameters():
        parameter.data *= name.endswith("weight")
    kept = masks.full(model)
    kept["layers.2.weight"][:] = False
    assert not any(score.any() for score in apart(model, (1, 8, 8), masks=kept).values())


def test_a_resnet_just_too_deep_ranks_as_one_with_smaller_weights_at_both_ends():
    """They multiply every score by the same factor, and float64 suffices there, going forward and back."""
    model, shape = models.build("resnet302", (3, 8, 8)).double(), (3, 8, 8)
    found = pruners.synflow(model, image(shape))
    with torch.no_grad():
        model.conv.weight *= 2.0**-350
        model.fc.weight *= 2.0**-350
    with mock.patch.object(sensitivity, "scaled", side_effect=AssertionError):
        smaller = pruners.synflow(model, image(shape))
    factor = found["fc.weight"].sum() / smaller["fc.weight"].sum()
    for name, score in found.items():
        assert torch.allclose(score, smaller[name] * factor, rtol=1e-12, atol=0)
    kept, expected = masks.keep_top(found, 0.1), masks.keep_top(smaller, 0.1)
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


def test_the_deepest_resnet_scores_and_keeps_its_flow():
    """All flow enters by the first layer and leaves by the last: their sums are equal, and no factor could fit both."""
    model, shape = models.build("resnet1202-w2", (3, 8, 8)), (3, 8, 8)
    tops = []
    with mock.patch.object(sensitivity, "plain", lambda total: tops.append(total) or exponents.plain(total)):
        scores = pruners.synflow(model, image(shape))
    assert not tops[0].isfinite()
    assert tops[1].exponent > 2100, "float64 has exponents from -1074 to 1023"
    assert scores["conv.weight"].sum().item() == pytest.approx(scores["fc.weight"].sum().item(), rel=1e-9)
    kept = masks.keep_top(scores, 0.1)
    assert masks.collapsed(model, kept, shape)["connected"]


class Chain(nn.Module):
    """x + W x + b, again and again, and a last layer without a shortcut."""

    def __init__(self, depth: int, width: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 2)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return self.last(x)


@pytest.mark.skipif(np.finfo(np.longdouble).maxexp < 10_000, reason="numpy has no numbers of a larger range here")
@pytest.mark.parametrize(("large", "small"), [(1e3, 1.0), (1e-3, 1e3), (1e3, 1e-300)])
def test_against_numbers_of_a_larger_range(large, small):
    """Forward and backward by hand in numbers of 15 bits of exponent; biases from decisive to negligible."""
    depth, width = 400, 5
    draw = torch.Generator().manual_seed(1)
    model = Chain(depth, width).double()
    with torch.no_grad():
        for layer in (*model.layers, model.last):
            layer.weight.copy_(large * torch.randn(layer.weight.shape, generator=draw))
            layer.bias.copy_(small * torch.randn(layer.bias.shape, generator=draw))
        model.layers[200].weight.mul_(1e300 / large)  # what came before is small beside this one, or its bias
        model.layers[300].weight.mul_(1e300 / large)
    numbers = {name: np.abs(p.detach().numpy().astype(np.longdouble)) for name, p in model.named_parameters()}
    states = [np.ones(width, dtype=np.longdouble)]
    for i in range(depth):
        states.append(numbers[f"layers.{i}.weight"] @ states[-1] + numbers[f"layers.{i}.bias"] + states[-1])
    slope = numbers["last.weight"].sum(0)
    expected = {"last.weight": numbers["last.weight"] * states[-1], "last.bias": numbers["last.bias"]}
    for i in reversed(range(depth)):
        weight = numbers[f"layers.{i}.weight"]
        expected[f"layers.{i}.weight"] = weight * np.outer(slope, states[i])
        expected[f"layers.{i}.bias"] = numbers[f"layers.{i}.bias"] * slope
        slope = slope + weight.T @ slope
    top = (expected["last.weight"].sum() + expected["last.bias"].sum()).item()
    assert np.log10(np.longdouble(top)) > 308

    kept = masks.full(model, ["biases"])
    scores = pruners.synflow(model, image((1, 1, width)), masks=kept)
    factor = expected["last.weight"].max() / np.longdouble(scores["last.weight"].max().item())
    for name, score in scores.items():
        wanted = (expected[name] / factor).astype(np.float64)
        assert np.allclose(score.numpy(), wanted, rtol=1e-9, atol=1e-300), name


# What cannot be done is said


class Soft(nn.Module):
    def __init__(self, activation: nn.Module, weight: float):
        super().__init__()
        self.first, self.activation, self.last = nn.Linear(4, 4).double(), activation, nn.Linear(4, 2).double()
        nn.init.constant_(self.first.weight, weight)
        nn.init.constant_(self.last.weight, 1e200)

    def forward(self, x):
        return self.last(self.activation(self.first(x.flatten(1))))


def test_a_function_that_is_not_homogeneous_is_named():
    draw = image((1, 2, 2))
    assert pruners.synflow(Soft(nn.Softplus(), 1.0), draw)
    with pytest.raises(ValueError, match=r"^softplus of numbers beyond the range of float64: one of relu, .*, linear,"):
        pruners.synflow(Soft(nn.Softplus(), 1e200), draw)


def test_batch_norm_in_training_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)).double()
    with torch.no_grad():
        model[0].weight.fill_(1e308)
        model[1].weight.fill_(1e200)
        model[1].bias.fill_(1e308)
    with pytest.raises(ValueError, match=r"^batch norm in training mode of numbers beyond the range of float64: False"):
        pruners.synflow(model, image((1, 2, 2)), training=True)


def test_numbers_added_in_place_to_others_are_refused():
    large = exponents.scaled(torch.ones(3), 5000)
    with pytest.raises(ValueError, match=r"added in place to others: the other way is allowed"):
        torch.ones(3).add_(large)


def test_weights_that_are_no_numbers_are_named_by_the_ranking():
    model = models.build("fc", (1, 8, 8))
    with torch.no_grad():
        model.layers[2].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"scores of layers.0.weight are not all finite"):
        pruners.prune(model, "synflow", 0.5, image((1, 8, 8)))
