import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib import masks, models, pruners


def brute_force(weights: np.ndarray) -> np.ndarray:
    """w^2 over the sum of all squares that are not smaller, one weight after the other."""
    squares = weights.astype(np.float64) ** 2
    sums = np.array([squares[squares >= square].sum() for square in squares])
    return np.divide(squares, sums, out=np.zeros_like(squares), where=squares > 0)


def layer(weights: list) -> nn.Module:
    model = nn.Sequential(nn.Linear(len(weights), 1, bias=False))
    model[0].weight.data = torch.tensor([weights])
    return model


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 0.5]) | st.floats(-9, 9, width=32), min_size=1, max_size=40))
def test_lamp_is_the_square_over_the_sum_of_those_not_smaller(weights):
    found = pruners.lamp(layer(weights), [])["0.weight"]
    assert found.dtype == torch.float64
    assert found[0].numpy() == pytest.approx(brute_force(np.array(weights, dtype=np.float32)), rel=1e-12, abs=0)


def test_lamp_of_weights_of_any_shape_and_size():
    model = models.build("resnet8", (1, 8, 8))
    with torch.no_grad():
        model.blocks[0].conv1.weight.mul_(1e-30)  # whose squares are 0 in float32
        model.fc.weight.zero_()
    found = pruners.lamp(model, [])
    for name in ("conv.weight", "blocks.0.conv1.weight", "fc.weight"):
        weight = model.get_parameter(name).detach()
        expected = brute_force(weight.flatten().numpy())
        assert found[name].shape == weight.shape
        assert found[name].flatten().numpy() == pytest.approx(expected, rel=1e-9, abs=0)
    assert found["blocks.0.conv1.weight"].max() == 1


def test_lamp_never_empties_a_layer_and_within_one_it_is_magnitude():
    model = models.build("resnet20")
    with torch.no_grad():
        model.fc.weight.mul_(1e-6)
    n = sum(weight.numel() for weight in masks.prunable(model).values())
    kept = pruners.prune(model, "lamp", 40 / n, [])
    assert all(mask.any() for mask in kept.values())
    assert not pruners.prune(model, "mag", 40 / n, [])["fc.weight"].any()
    for name, mask in pruners.prune(model, "lamp", 0.1, []).items():
        size = model.get_parameter(name).detach().abs()
        assert size[mask].min() >= size[~mask].max()


def test_several_rounds_of_lamp_give_the_masks_of_one():
    model = models.build("resnet20")
    once, often = (pruners.prune(model, "lamp", 0.1, [], rounds=rounds) for rounds in (1, 7))
    assert all(torch.equal(once[name], often[name]) for name in once)


def test_magnitude_at_initialisation_is_magnitude():
    model = models.build("resnet8", (1, 8, 8))
    mag, init = (pruners.prune(model, pruner, 0.2, [], also=("norms",)) for pruner in ("mag", "mag-init"))
    assert all(torch.equal(mag[name], init[name]) for name in mag)
