"""The four ways to say how much is kept agree with one another."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import shares


@pytest.mark.parametrize("ratio", [1, 2, 3, 5, 10, 15, 20, 50, 100, 1024, 12345])
def test_a_ratio_survives_being_kept_as_a_compression(ratio):
    assert shares.ratio(round(math.log10(ratio), 9)) == f"{ratio:,}"


def test_what_is_no_whole_number_has_three_digits():
    assert [shares.ratio(c) for c in (0.5, 1.25, 4.5)] == ["3.16", "17.8", "31,600"]
    assert [shares.exponent(c) for c in (0.5, math.log10(15), 3.0)] == ["0.5", "1.176", "3"]


@given(st.floats(0, 6))
def test_the_words_say_the_same(compression):
    kept = shares.TO_DENSITY["compression"](compression)
    assert float(shares.ratio(compression).replace(",", "")) == pytest.approx(1 / kept, rel=0.006)
    assert float(shares.density(compression)) == pytest.approx(100 * kept, rel=0.006)
    assert float(shares.sparsity(compression)) == pytest.approx(100 - 100 * kept, abs=0.06 * max(1, 1000 * kept))
    assert compression == 0 or float(shares.sparsity(compression)) < 100


def test_a_compression_is_shown_only_to_those_who_speak_of_it():
    assert shares.columns(1, "compression") == {
        "compression": "1", "ratio": "10", "density (%)": "10", "sparsity (%)": "90",
    }  # fmt: skip
    assert list(shares.columns(1, "ratio")) == ["ratio", "density (%)", "sparsity (%)"]


def test_sentences_use_the_study_s_word():
    assert shares.say(0.5, "compression") == "compression 0.5"
    assert shares.explain(1, "compression") == "compression 1 (ratio 10, density 10 %, sparsity 90 %)"
    assert shares.explain(math.log10(15), "ratio") == "ratio 15 (density 6.67 %, sparsity 93.3 %)"
    assert shares.explain(4, "sparsity") == "sparsity 99.99 % (ratio 10,000, density 0.01 %)"
