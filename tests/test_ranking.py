import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import masks, models, ranking
from lib.ranking import keep_top


def magnitudes(model) -> masks.Scores:
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
    kept = keep_top(scores, density)
    n = len(flat(scores))
    assert total(kept) == n - int((1 - density) * n)
    assert list(kept) == list(scores)
    assert all(kept[name].shape == scores[name].shape and kept[name].dtype == torch.bool for name in scores)


@given(layers, densities)
def test_every_kept_weight_ranks_at_or_above_every_removed_one_and_ties_go_by_position(scores, density):
    kept, ranks = flat(keep_top(scores, density)), flat(scores)
    expected = sorted(range(len(ranks)), key=lambda i: (-ranks[i], i))[: sum(kept)]
    assert [i for i, k in enumerate(kept) if k] == sorted(expected)


@given(layers, densities)
def test_layer_scope_counts_layer_by_layer(scores, density):
    kept = keep_top(scores, density, scope="layer")
    assert all(int(kept[name].sum()) == ranking.kept_count(len(score), density) for name, score in scores.items())


@given(layers, st.lists(densities, min_size=2, max_size=4))
def test_masks_are_nested_over_densities(scores, chosen):
    chosen = sorted(chosen)
    found = [flat(keep_top(scores, density)) for density in chosen]
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
    kept = flat(keep_top(scores, keep=keep, within=within))
    assert sum(kept) == keep
    assert all(a or not k for k, a in zip(kept, allowed, strict=True))


def test_negative_scores_are_ranked_among_themselves():
    scores = {"a.weight": torch.tensor([0.0, -3.0, -1.0, 0.0])}
    within = {"a.weight": torch.tensor([False, True, True, False])}
    assert keep_top(scores, keep=1, within=within)["a.weight"].tolist() == [False, False, True, False]


def test_scores_of_float64_are_not_rounded_before_ranking():
    scores = {"a.weight": torch.tensor([1.0, 1.0 + 1e-12, 1e200], dtype=torch.float64)}
    assert keep_top(scores, keep=2)["a.weight"].tolist() == [False, True, True]


@pytest.mark.parametrize(("exponent", "kept"), [(0.2, 170_924), (0.5, 85_665), (1, 27_090)])
def test_counts_of_resnet20(exponent, kept):
    assert total(keep_top(magnitudes(models.build("resnet20")), 10**-exponent)) == kept


def test_count_of_the_fc_net():
    assert total(keep_top(magnitudes(models.build("fc", (1, 28, 28))), 0.1)) == 11_940


@pytest.mark.parametrize("density", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_density_outside_its_range(density):
    with pytest.raises(ValueError, match="density is .*: more than 0 and at most 1 is allowed"):
        keep_top({"a.weight": torch.ones(3)}, density)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_cannot_be_ranked_name_their_layer(bad):
    with pytest.raises(ValueError, match="scores of b.weight are not all finite"):
        keep_top({"a.weight": torch.ones(3), "b.weight": torch.tensor([1.0, bad])}, 0.5)


def test_more_than_is_left_or_nothing_cannot_be_kept():
    scores = {"a.weight": torch.ones(4)}
    within = {"a.weight": torch.tensor([True, True, False, False])}
    for keep in (0, 3):
        with pytest.raises(ValueError, match=rf"{keep} weights are to be kept: 1 to 2"):
            keep_top(scores, keep=keep, within=within)
    with pytest.raises(ValueError, match="3 weights are to be kept: 1 to 2"):
        keep_top(scores, 0.75, within=within)
    with pytest.raises(ValueError, match="1 weights are to be kept: 1 to 0"):
        keep_top(scores, keep=1, within={"a.weight": torch.zeros(4, dtype=torch.bool)})


def test_contradictory_calls():
    scores = {"a.weight": torch.ones(4)}
    with pytest.raises(ValueError, match="exactly one of them"):
        keep_top(scores)
    with pytest.raises(ValueError, match="exactly one of them"):
        keep_top(scores, 0.5, keep=2)
    with pytest.raises(ValueError, match="unknown scope 'local': one of global, layer"):
        keep_top(scores, 0.5, scope="local")
    with pytest.raises(ValueError, match="keep is 2 with scope layer"):
        keep_top(scores, keep=2, scope="layer")


# Selection between brackets, as it happens with many scores


def by_stable_sort(scores: masks.Scores, count: int, within: masks.Masks | None = None) -> list[bool]:
    values = np.array(flat(scores), dtype=np.float64)
    allowed = np.ones(len(values), dtype=bool) if within is None else np.array(flat(within))
    order = np.argsort(-values, kind="stable")
    kept = np.zeros(len(values), dtype=bool)
    kept[order[allowed[order]][:count]] = True
    return kept.tolist()


@given(layers, st.integers(1, 3), st.data())
def test_brackets_change_nothing(scores, stride, data):
    n = len(flat(scores))
    allowed = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any)))
    within = dict(zip(scores, allowed.split([len(score) for score in scores.values()]), strict=True))
    keep = data.draw(st.integers(1, int(allowed.sum())))
    with mock.patch.multiple(ranking, SMALL=0, STRIDE=stride):
        assert flat(keep_top(scores, keep=keep, within=within)) == by_stable_sort(scores, keep, within)
        assert flat(keep_top(scores, keep=keep)) == by_stable_sort(scores, keep)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decimals", [1, 9])  # with one decimal nearly all scores are tied
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_many_scores_of_any_layout_in_memory(dtype, decimals, layout):
    draw = torch.Generator().manual_seed(decimals)
    scores = {f"{width}": torch.randn(width, 64, 3, 3, generator=draw) * width**-0.5 for width in (64, 256, 128)}
    scores = {name: score.round(decimals=decimals).to(dtype).to(memory_format=layout) for name, score in scores.items()}
    n = len(flat(scores))
    assert n > ranking.SMALL
    half = keep_top(scores, 0.55)
    assert flat(half) == by_stable_sort(scores, ranking.kept_count(n, 0.55))
    assert all(half[name].stride() == score.stride() for name, score in scores.items())
    for density in (0.5, 0.01):
        count = ranking.kept_count(n, density)
        assert flat(keep_top(scores, density, within=half)) == by_stable_sort(scores, count, half)


def test_a_sample_that_misleads_costs_time_but_no_exactness():
    scores = {"a": torch.randn(2 * ranking.SMALL, generator=torch.Generator().manual_seed(0))}
    scores["a"][:: ranking.STRIDE] += 1000
    with mock.patch.object(ranking, "_select", wraps=ranking._select) as select:
        assert flat(keep_top(scores, 0.3)) == by_stable_sort(scores, ranking.kept_count(2 * ranking.SMALL, 0.3))
    assert select.call_count == 2, "the first attempt must have missed"


def test_layers_of_two_precisions_are_ranked_in_the_finer_one():
    near = 1 + 2.0**-30  # is 1 in float32
    scores = {"a": torch.tensor([1.0, 1 + 2.0**-20]), "b": torch.tensor([near, 1.0], dtype=torch.float64)}
    assert flat(keep_top(scores, keep=2)) == [False, True, True, False]
    assert flat(keep_top(scores, keep=3)) == [True, True, True, False]


def test_scores_whose_sum_is_too_large_are_still_finite():
    scores = {"a": torch.tensor([3e38, 3e38, 2e38, 3e38])}
    assert flat(keep_top(scores, keep=2)) == [True, True, False, False]


def test_scores_that_share_memory_are_ranked_and_left_alone():
    scores = {"a": torch.tensor(2.0, requires_grad=True).expand(3, 2), "b": torch.tensor(3.0)}
    assert flat(keep_top(scores, keep=3)) == [True, True, False, False, False, False, True]
    assert flat(scores) == [2.0] * 6 + [3.0]


@pytest.mark.parametrize("strides", [(3, 1, 1, 1), (3, 1, 3, 3), (1, 4, 1, 1), (1, 4, 7, 9)])
def test_ties_of_1x1_kernels_lie_in_memory_in_any_way(strides):
    """The stride of a dimension of size one means nothing, and derivatives have any."""
    score = torch.tensor([0.0, 1, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0]).as_strided((4, 3, 1, 1), strides)
    kept = keep_top({"a": score}, keep=6)["a"]
    expected = sorted(range(12), key=lambda i: (-score.flatten()[i].item(), i))[:6]
    assert kept.flatten().nonzero().flatten().tolist() == sorted(expected)
