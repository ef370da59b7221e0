import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import masks, models

SHAPE = (3, 32, 32)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))


def magnitudes(model: nn.Module) -> masks.Scores:
    return {name: weight.detach().abs() for name, weight in masks.prunable(model).items()}


def total(kept: masks.Masks) -> int:
    return sum(int(mask.sum()) for mask in kept.values())


def flat(tensors: dict) -> list:
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()]).tolist()


# Ties are frequent on purpose: scores come from a handful of values.
values = st.lists(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0]) | st.floats(-(2.0**99), 2.0**99, width=32), min_size=1)
layers = st.lists(values, min_size=1, max_size=4).map(
    lambda lists: {f"layer{i}.weight": torch.tensor(part) for i, part in enumerate(lists)}
)
densities = st.floats(1e-6, 1)


@given(layers, densities)
def test_the_count_is_exact_whatever_the_ties(scores, density):
    kept = masks.keep_top(scores, density)
    n = len(flat(scores))
    assert total(kept) == n - int((1 - density) * n)
    assert list(kept) == list(scores)
    assert all(kept[name].shape == scores[name].shape and kept[name].dtype == torch.bool for name in scores)


@given(layers, densities)
def test_every_kept_weight_ranks_at_or_above_every_removed_one_and_ties_go_by_position(scores, density):
    kept, ranks = flat(masks.keep_top(scores, density)), flat(scores)
    expected = sorted(range(len(ranks)), key=lambda i: (-ranks[i], i))[: sum(kept)]
    assert [i for i, k in enumerate(kept) if k] == sorted(expected)


@given(layers, densities)
def test_layer_scope_counts_layer_by_layer(scores, density):
    kept = masks.keep_top(scores, density, scope="layer")
    assert all(int(kept[name].sum()) == masks.kept_count(len(score), density) for name, score in scores.items())


@given(layers, st.lists(densities, min_size=2, max_size=4))
def test_masks_are_nested_over_densities(scores, chosen):
    chosen = sorted(chosen)
    found = [flat(masks.keep_top(scores, density)) for density in chosen]
    for smaller, larger in zip(found[:-1], found[1:], strict=True):
        assert all(big or not small for small, big in zip(smaller, larger, strict=True))


@given(layers, st.data())
def test_what_is_outside_within_never_comes_back(scores, data):
    """Also where what is left scores negative, and what is removed scores zero or more."""
    n = len(flat(scores))
    allowed = data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    parts = torch.tensor(allowed).split([len(score) for score in scores.values()])
    within = dict(zip(scores, parts, strict=True))
    keep = data.draw(st.integers(1, sum(allowed)))
    kept = flat(masks.keep_top(scores, keep=keep, within=within))
    assert sum(kept) == keep
    assert all(a or not k for k, a in zip(kept, allowed, strict=True))


def test_negative_scores_are_ranked_among_themselves():
    scores = {"a.weight": torch.tensor([0.0, -3.0, -1.0, 0.0])}
    within = {"a.weight": torch.tensor([False, True, True, False])}
    assert masks.keep_top(scores, keep=1, within=within)["a.weight"].tolist() == [False, False, True, False]


def test_scores_of_float64_are_not_rounded_before_ranking():
    scores = {"a.weight": torch.tensor([1.0, 1.0 + 1e-12, 1e200], dtype=torch.float64)}
    assert masks.keep_top(scores, keep=2)["a.weight"].tolist() == [False, True, True]


@pytest.mark.parametrize(("exponent", "kept"), [(0.2, 170_924), (0.5, 85_665), (1, 27_090)])
def test_counts_of_resnet20(exponent, kept):
    assert total(masks.keep_top(magnitudes(models.build("resnet20")), 10**-exponent)) == kept


def test_count_of_the_fc_net():
    assert total(masks.keep_top(magnitudes(models.build("fc", (1, 28, 28))), 0.1)) == 11_940


@pytest.mark.parametrize("density", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_density_outside_its_range(density):
    with pytest.raises(ValueError, match="density is .*: more than 0 and at most 1 is allowed"):
        masks.keep_top({"a.weight": torch.ones(3)}, density)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_cannot_be_ranked_name_their_layer(bad):
    with pytest.raises(ValueError, match="scores of b.weight are not all finite"):
        masks.keep_top({"a.weight": torch.ones(3), "b.weight": torch.tensor([1.0, bad])}, 0.5)


def test_more_than_is_left_or_nothing_cannot_be_kept():
    scores = {"a.weight": torch.ones(4)}
    within = {"a.weight": torch.tensor([True, True, False, False])}
    for keep in (0, 3):
        with pytest.raises(ValueError, match=rf"{keep} weights are to be kept: 1 to 2"):
            masks.keep_top(scores, keep=keep, within=within)
    with pytest.raises(ValueError, match="3 weights are to be kept: 1 to 2"):
        masks.keep_top(scores, 0.75, within=within)
    with pytest.raises(ValueError, match="1 weights are to be kept: 1 to 0"):
        masks.keep_top(scores, keep=1, within={"a.weight": torch.zeros(4, dtype=torch.bool)})


def test_contradictory_calls():
    scores = {"a.weight": torch.ones(4)}
    with pytest.raises(ValueError, match="exactly one of them"):
        masks.keep_top(scores)
    with pytest.raises(ValueError, match="exactly one of them"):
        masks.keep_top(scores, 0.5, keep=2)
    with pytest.raises(ValueError, match="unknown scope 'local': one of global, layer"):
        masks.keep_top(scores, 0.5, scope="local")
    with pytest.raises(ValueError, match="keep is 2 with scope layer"):
        masks.keep_top(scores, keep=2, scope="layer")


def test_only_convolution_and_linear_weights_are_prunable():
    assert list(masks.prunable(small_net())) == ["0.weight", "4.weight"]


def test_applying_masks_zeroes_exactly_the_removed_weights():
    model = models.build("resnet8")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kept = masks.keep_top(magnitudes(model), 0.3)
    masks.apply_masks_(model, kept)
    after = model.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value * kept[name] if name in kept else value)
    assert masks.density_of(kept) == pytest.approx(0.3, abs=1e-4)
    assert masks.density_of(masks.full(model)) == 1


def test_masks_that_do_not_fit_are_refused():
    model = small_net()
    with pytest.raises(ValueError, match=r"mask 1.running_mean is .* one of 0.weight, 0.bias, 1.weight, 1.bias, 4.wei"):
        masks.apply_masks_(model, {"1.running_mean": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"mask 4.weight is \(4, 4\)"):
        masks.apply_masks_(model, {"4.weight": torch.ones(4, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match="torch.float32"):
        masks.apply_masks_(model, {"4.weight": torch.ones(4, 48)})


def test_masked_forward_equals_permanent_masks_and_leaves_the_weights_dense():
    model = models.build("resnet8").eval()
    kept = masks.keep_top(magnitudes(model), 0.2)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        forward = masks.masked_forward(model, kept)
        masked = forward(x)
        assert not torch.equal(masked, model(x))
        masks.apply_masks_(model, kept)
        assert torch.equal(masked, model(x))


def test_nothing_has_collapsed_in_a_dense_network():
    for name in ("fc", "resnet20"):
        model = models.build(name, SHAPE)
        assert masks.collapsed(model, masks.full(model), SHAPE) == {"layers": [], "connected": True}


def test_an_empty_layer_cuts_a_chain_but_not_a_shortcut():
    chain, residual = models.build("fc", SHAPE), models.build("resnet8")
    cut = masks.full(chain)
    cut["layers.2.weight"][:] = False
    assert masks.collapsed(chain, cut, SHAPE) == {"layers": ["layers.2"], "connected": False}
    bridged = masks.full(residual)
    bridged["blocks.1.conv2.weight"][:] = False
    assert masks.collapsed(residual, bridged, SHAPE) == {"layers": ["blocks.1.conv2"], "connected": True}
    bridged["blocks.1.shortcut.0.weight"][:] = False
    assert masks.collapsed(residual, bridged, SHAPE)["connected"] is False


def test_a_chain_can_be_cut_without_an_empty_layer():
    model = models.build("fc", SHAPE)
    kept = masks.full(model)
    kept["layers.1.weight"][50:] = False  # only units 0 to 49 get input
    kept["layers.2.weight"][:, :50] = False  # and only 50 to 99 are listened to
    assert masks.collapsed(model, kept, SHAPE) == {"layers": [], "connected": False}


def test_one_weight_a_layer_of_the_deepest_network_is_still_a_path():
    model = models.build("resnet110")
    kept = {name: torch.zeros_like(mask) for name, mask in masks.full(model).items()}
    for mask in kept.values():
        mask[0, 0] = True
    assert masks.collapsed(model, kept, SHAPE) == {"layers": [], "connected": True}


def test_looking_for_a_collapse_leaves_the_model_alone():
    model = models.build("resnet8").train()
    model.bn.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    masks.collapsed(model, masks.full(model), SHAPE)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert not model.bn.training


def test_layer_rows_by_hand():
    model = small_net()
    kept = masks.full(model)
    kept["4.weight"][:] = False
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 0, :2] = torch.tensor([1.0, 3.0])
    kept["0.weight"][:] = False
    kept["0.weight"][0, 0, 0, :2] = True
    conv, linear = masks.layer_rows(model, kept, (2, 4, 4))
    assert conv == {
        "layer": "0",
        "kind": "conv",
        "shape": "3x2x3x3",
        "weights": 54,
        "kept": 2,
        "density": 2 / 54,
        "macs_dense": 54 * 16,
        "macs_kept": 2 * 16,
        "mean": 2.0,
        "std": 1.0,
        "min": 1.0,
        "max": 3.0,
    }
    assert (linear["kind"], linear["shape"], linear["kept"], linear["macs_kept"]) == ("linear", "4x48", 0, 0)
    assert all(linear[key] is None for key in ("mean", "std", "min", "max"))


@settings(deadline=None)
@given(st.integers(1, 80), st.floats(0.05, 1))
def test_histograms_count_every_weight_once(bins, density):
    model = small_net()
    kept = masks.keep_top(magnitudes(model), density)
    rows = masks.histogram_rows(model, kept, bins)
    for name, mask in kept.items():
        own = [row for row in rows if f"{row['layer']}.weight" == name]
        assert len(own) == bins
        assert sum(row["kept"] for row in own) == int(mask.sum())
        assert sum(row["removed"] for row in own) == int((~mask).sum())
        assert all(a["right"] == b["left"] for a, b in zip(own[:-1], own[1:], strict=True))


def test_removed_weights_stand_at_their_reference_values():
    model = small_net()
    reference = {name: weight.detach().clone() for name, weight in masks.prunable(model).items()}
    kept = masks.keep_top(magnitudes(model), 0.5)
    dense = masks.histogram_rows(model, kept)
    masks.apply_masks_(model, kept)
    assert masks.histogram_rows(model, kept, reference=reference) == dense
    at_zero = [row["removed"] for row in masks.histogram_rows(model, kept) if row["layer"] == "4" and row["removed"]]
    assert at_zero == [int((~kept["4.weight"]).sum())], "without a reference they are all in the bin of zero"
