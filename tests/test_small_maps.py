import pytest
import torch
import torch.nn.functional as F
from test_train import network, tiny
from torch import nn

from lib import small_maps, train


def both(convolve, x, weight, bias):
    """What comes out, and the gradients of all three by a loss that weighs every number differently."""
    leaves = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    found = convolve(*leaves)
    (found * torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view(found.shape)).sum().backward()
    return [found, *(t.grad for t in leaves if t is not None)]


@pytest.mark.parametrize("shape", [(2, 64, 2, 2), (3, 65, 4, 4), (1, 64, 1, 3), (2, 70, 2, 8)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_is_the_convolution(shape, biased):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.randn(5, shape[1], 3, 3, generator=draw, dtype=torch.float64)
    bias = torch.randn(5, generator=draw, dtype=torch.float64) if biased else None
    expected = both(lambda *given: F.conv2d(*given, padding=1), x, weight, bias)
    for found, right in zip(both(small_maps.product, x, weight, bias), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)


def calls(monkeypatch, convolution, *shape) -> int:
    made = []
    monkeypatch.setattr(small_maps, "product", lambda *given: made.append(given) or F.conv2d(*given, padding=1))
    x = torch.ones(shape)
    with small_maps.Products():
        found = convolution(x)
    torch.testing.assert_close(found, convolution(x))
    return len(made)


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (1, 16)])
def test_small_maps_become_products(monkeypatch, size):
    assert calls(monkeypatch, nn.Conv2d(64, 4, 3, padding=1), 2, 64, *size) == 1


@pytest.mark.parametrize(
    ("given", "channels", "size"),
    [
        ({"padding": 1}, 64, (5, 4)),
        ({"padding": 1}, 63, (2, 2)),
        ({"padding": 0}, 64, (4, 4)),
        ({"padding": "same"}, 64, (4, 4)),
        ({"padding": 1, "stride": 2}, 64, (4, 4)),
        ({"padding": 1, "groups": 2}, 64, (4, 4)),
        ({"padding": 1, "dilation": 2}, 64, (4, 4)),
        ({"padding": 1, "kernel_size": 1}, 64, (4, 4)),
        ({"padding": 1, "padding_mode": "circular"}, 64, (4, 4)),
    ],
)
def test_all_other_convolutions_stay(monkeypatch, given, channels, size):
    layer = nn.Conv2d(channels, 4, **{"kernel_size": 3} | given)
    assert calls(monkeypatch, layer, 2, channels, *size) == 0


@pytest.mark.parametrize(
    ("device", "precision", "units", "expected"),
    [("cpu", "amp", True, True), ("cpu", "amp", False, False), ("cpu", "float32", True, False)]
    + [("cuda", "amp", True, False)],
)
def test_only_where_it_is_faster(monkeypatch, device, precision, units, expected):
    monkeypatch.setattr(small_maps, "has_matrix_units", lambda: units)
    assert isinstance(small_maps.faster(torch.device(device), precision), small_maps.Products) is expected


def test_training_is_the_same_to_the_rounding_of_bfloat16(monkeypatch):
    rows = {}
    for units in (False, True):
        monkeypatch.setattr(small_maps, "has_matrix_units", lambda units=units: units)
        monkeypatch.setattr(small_maps, "CHANNELS", 1)
        rows[units] = train.train(network(), tiny(), epochs=2, batch=16, precision="amp")[-1]
    assert rows[True]["train_loss"] == pytest.approx(rows[False]["train_loss"], rel=2e-2)
    assert rows[True]["train_loss"] != rows[False]["train_loss"]  # or no map of this network is small
