"""Positions of kept weights come back exactly, in as many bits as the layout says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lib.pipeline import positions

WIDE = st.lists(st.integers(0, 700), max_size=20).map(
    lambda gaps: np.array(([*gaps, 5]), int).cumsum() + np.arange(len(gaps) + 1)
)
KEPT = arrays.arrays(bool, st.integers(0, 300)) | WIDE.map(lambda at: np.isin(np.arange(at[-1]), at))


def said(kept, bits) -> list[int]:
    """The numbers of `relative`, weight by weight."""
    numbers, gap = [], 0
    for is_kept in kept.tolist():
        if is_kept:
            numbers, gap = [*numbers, gap], 0
        elif gap + 1 == 2**bits - 1:
            numbers, gap = [*numbers, gap + 1], 0
        else:
            gap += 1
    while numbers and numbers[-1] == 2**bits - 1:  # behind the last kept one nothing is said
        numbers.pop()
    return numbers


@settings(deadline=None)
@given(KEPT, st.integers(1, 8))
def test_gaps_give_the_positions_back(kept, bits):
    gaps = positions.relative(kept, bits)
    assert gaps.tolist() == said(kept, bits)
    assert np.array_equal(positions.from_relative(gaps, len(kept), bits), kept)


@settings(deadline=None)
@given(KEPT)
def test_bits_give_the_positions_back(kept):
    data = positions.bitmask(kept)
    assert len(data) == -(-len(kept) // 8)
    assert np.array_equal(positions.from_bitmask(data, len(kept)), kept)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_nothing_and_everything_kept(count):
    assert positions.relative(np.zeros(count, bool)).tolist() == []
    assert positions.relative(np.ones(count, bool)).tolist() == [0] * count


def test_what_does_not_fit_is_refused():
    gaps = positions.relative(np.array([False, True, False, True]))
    for refused, said in [
        (lambda: positions.from_relative(gaps, 3), "reach to weight 4"),
        (lambda: positions.from_relative(gaps + 31, 100), "up to 31 is allowed"),
        (lambda: positions.relative(np.ones(3, bool), 9), "1 to 8 are allowed"),
        (lambda: positions.from_bitmask(np.zeros(2, np.uint8), 17), "3 are needed"),
    ]:
        with pytest.raises(ValueError, match=said):
            refused()
