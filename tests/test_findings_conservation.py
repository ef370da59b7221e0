"""Each rule with numbers in both directions, and its arithmetic against numpy."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.findings import conservation as findings


def units(**sums: list[tuple[float, float]]) -> pd.DataFrame:
    """Units by score: (incoming, outgoing)."""
    rows = [{"score": s, "layer": "a", "incoming": i, "outgoing": o} for s, pairs in sums.items() for i, o in pairs]
    return pd.DataFrame(rows)


def layers(**means: list[float]) -> pd.DataFrame:
    """Layers of 1,000, 100 and 10 weights by score, from their mean scores."""
    sizes = (1000, 100, 10)
    return pd.DataFrame([
        {"score": s, "layer": name, "size": n, "mean": mean, "total": mean * n}
        for s, values in means.items() for name, n, mean in zip("abc", sizes, values, strict=True)
    ])  # fmt: skip


def cuts(**ratios: dict[int, float]) -> pd.DataFrame:
    """Settings of density 0.1 by schedule: rounds -> cut over flow; a cut over 2 empties a layer."""
    return pd.DataFrame([
        {"schedule": s, "density": 0.1, "rounds": n, "cut_ratio": ratio, "emptied": int(ratio > 2)}
        for s, values in ratios.items() for n, ratio in values.items()
    ])  # fmt: skip


def magnitudes(first: list[float], last: list[float]) -> pd.DataFrame:
    sizes = (1000, 100, 10)
    return pd.DataFrame([
        {"epoch": epoch, "layer": name, "size": n, "mean_square": value}
        for epoch, values in ((0, first), (4, last)) for name, n, value in zip("abc", sizes, values, strict=True)
    ])  # fmt: skip


CONSTANT, INVERSE, BENT = [1.0, 1.0, 1.0], [0.001, 0.01, 0.1], [0.1, 0.01, 0.2]


def test_relative_differences():
    frame = units(mag=[(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, 0.0), (0.0, -3.0)])
    assert findings.differences(frame).tolist() == [0, 0.5, 2, 0, 1]


def test_conserved_units_and_others():
    frame = units(snip=[(2.0, 1.0), (4.0, 3.0)], saliency=[(1.0, 1.0), (-5.0, -5.0 - 1e-12)])
    table = findings.unit_table(frame)
    assert table["conserved"].to_dict() == {"SNIP": False, "signed SNIP": True}
    assert table.loc["SNIP", ["units", "median_difference", "largest_difference"]].tolist() == [2, 0.375, 0.5]
    kept, lost = findings.units(frame)
    assert kept.startswith("signed SNIP is conserved: incoming and outgoing score of all 2 hidden units")
    assert "2e-13" in kept
    assert lost == "SNIP is not: the two differ by a median of 38% for SNIP."
    (only,) = findings.units(units(snip=[(2.0, 2.0)], mag=[(1.0, 1.0)]))
    assert only.startswith("SNIP and Mag are conserved")
    (none,) = findings.units(units(snip=[(2.0, 1.0)], mag=[(1.0, 3.0)]))
    assert none.startswith("SNIP and Mag are not: the two differ by a median of 50% for SNIP, 67% for Mag")
    assert findings.units(frame[:0]) == []


def test_fit_equals_numpy():
    generator = np.random.default_rng(0)
    sizes, means = pd.Series(generator.integers(5, 10_000, 12)), pd.Series(generator.uniform(0.1, 9, 12))
    found = findings.fit(sizes, means)
    x, y = np.log(1 / sizes), np.log(means)
    assert found["slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
    assert found["r2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    with_empty = findings.fit(pd.concat([sizes, pd.Series([7])]), pd.concat([means, pd.Series([0.0])]))
    assert with_empty == pytest.approx(found)  # a layer without any score has no logarithm
    assert all(math.isnan(v) for v in findings.fit(pd.Series([5, 5]), pd.Series([1.0, 2.0])).values())
    assert math.isnan(findings.fit(pd.Series([5, 6]), pd.Series([1.0, 1.0]))["r2"])


def test_layers_in_proportion_and_not():
    same, different = units(mag=[(1.0, 1.0)]), units(mag=[(1.0, 2.0)])
    (said,) = findings.layers(layers(mag=INVERSE), same)
    assert said.startswith("With Mag the mean score of a layer is proportional")
    (said,) = findings.layers(layers(mag=BENT), different)
    assert said.startswith("The mean score of a layer is not proportional to the inverse of its size with Mag (slope ")
    straight, bent = findings.layers(layers(synflow=INVERSE, mag=BENT), different)
    assert (straight.startswith("With SynFlow the"), bent.startswith("It is not proportional with Mag")) == (True, True)
    assert findings.layers(layers(mag=INVERSE)[:0], same) == []


def test_units_that_conserve_what_layers_do_not_point_to_shortcuts():
    *_, said = findings.layers(layers(mag=BENT), units(mag=[(1.0, 1.0)]))
    assert said.startswith("Mag is conserved in every unit between two layers all the same")
    assert "100 times the smallest with Mag" in said
    assert "share the flow" in said
    assert not any("share" in said for said in findings.layers(layers(mag=BENT), units(snip=[(1.0, 1.0)])))
    assert not any("share" in said for said in findings.layers(layers(mag=BENT), pd.DataFrame()))


def test_layer_table_and_totals():
    frame = layers(mag=BENT, synflow=INVERSE)
    table = findings.layer_table(frame)
    assert table.loc["Mag", "largest_over_smallest_total"] == pytest.approx(100)
    assert table.loc["SynFlow", "slope"] == pytest.approx(1)
    totals = findings.totals(frame)
    assert totals["size"].tolist() == [1000, 100, 10]
    np.testing.assert_allclose(totals["Mag"], [50, 0.5, 1])
    np.testing.assert_allclose(totals["SynFlow"], 1)
    assert totals.index.tolist() == list("abc")


@pytest.mark.parametrize(
    ("first", "last", "word"),
    [(BENT, INVERSE, "closer to"), (INVERSE, BENT, "further from"), (INVERSE, INVERSE, "as it was")],
)
def test_what_training_did_to_magnitudes(first, last, word):
    (said,) = findings.magnitudes(magnitudes(first, last))
    assert word in said
    assert "after 4 epochs" in said


def test_no_sentence_without_a_fit():
    assert findings.magnitudes(pd.DataFrame()) == []
    assert findings.magnitudes(magnitudes(INVERSE, INVERSE)[:3]) == []  # nothing after training
    assert findings.magnitudes(magnitudes(CONSTANT, INVERSE)) == []  # without variation there is no R²


def test_rounds_that_suffice():
    linear, exponential, outcome = findings.cuts(
        cuts(exponential={1: 3.0, 10: 0.5, 100: 0.1}, linear={1: 3.0, 10: 2.5, 100: 1.0})
    )
    assert exponential == (
        "In the exponential schedule every round removes less than the flow from 10 rounds on at compression 1."
    )
    assert linear == (
        "In the linear schedule with up to 100 rounds some round removes as much or more at compression 1."
    )
    assert outcome == (
        "Of the 2 settings whose cuts all stayed below the flow 0 emptied a layer; "
        "of the 4 settings with a cut as large as the flow or larger 3 did."
    )
    assert findings.cuts(cuts()) == []


def test_more_rounds_that_fail_again_do_not_suffice():
    said, outcome = findings.cuts(cuts(linear={1: 0.5, 10: 1.5, 100: 0.5}), "ratio")
    assert "from 100 rounds on at ratio 10." in said
    said, outcome = findings.cuts(cuts(linear={1: 0.5}))
    assert "from 1 round on at compression 1." in said
    assert outcome == "Of the 1 setting whose cuts all stayed below the flow 0 emptied a layer."
    said, _ = findings.cuts(cuts(linear={1: 1 - 1e-12}))  # all of the flow, up to rounding
    assert "with up to 1 round some round removes as much or more" in said


def test_cut_table_has_a_row_a_schedule_and_density():
    frame = cuts(exponential={1: 3.0, 10: 0.5}, linear={1: 3.0, 10: 2.5})
    table = findings.cut_table(pd.concat([frame, frame.assign(density=0.01)]))
    assert table.columns.tolist() == ["1 round", "10 rounds"]
    assert table.index.names == ["schedule", "compression", "ratio", "density (%)", "sparsity (%)"]
    assert [(row[0], row[2]) for row in table.index] == [
        ("linear", "10"), ("linear", "100"), ("exponential", "10"), ("exponential", "100"),
    ]  # fmt: skip
    assert table["10 rounds"].tolist() == [2.5, 2.5, 0.5, 0.5]
    assert findings.cut_table(frame, "ratio").index.names[:2] == ["schedule", "ratio"]


def look(model: str, seed: int = 1) -> SimpleNamespace:
    return SimpleNamespace(row=pd.Series({"data": "digits", "model": model, "seed": seed}))


def test_networks_are_named_by_their_seed_where_there_are_several():
    assert list(findings.networks([look("fc"), look("resnet8")])) == ["Digits / FC", "Digits / ResNet-8"]
    assert list(findings.networks([look("fc"), look("fc", 2)])) == ["Digits / FC, seed 1", "Digits / FC, seed 2"]
    assert findings.networks([]) == {}


def test_what_is_said_of_one_network_names_it():
    assert findings.about("A", "fig-x-1", ["One."]) == ["**A** ([Figure](#fig-x-1)).", "One."]
    assert findings.about("A", "fig-x-1", []) == []


def concluded(**more) -> list[str]:
    """Conclusions on networks A, which behaves as theory says, and B, which `more` may change."""
    frames = {
        "units": units(synflow=[(1.0, 1.0)], mag=[(1.0, 3.0)]),
        "layers": layers(synflow=INVERSE, mag=BENT),
        "cuts": cuts(exponential={1: 3.0, 10: 0.5}, linear={1: 3.0, 10: 1.5}),
        "magnitudes": magnitudes(BENT, INVERSE),
    }
    return findings.conclusions(*({"A": frame, "B": more.get(name, frame)} for name, frame in frames.items()))


def test_conclusions_of_networks_that_agree():
    assert concluded() == [
        "In every one of the 2 hidden units looked at incoming and outgoing score are equal for SynFlow; in no network "
        "for Mag.",
        "The mean score of a layer is proportional to the inverse of its size for SynFlow in A and B.",
        "At compression 1 some cut of the linear schedule is as large as the flow with any tried number of rounds in "
        "A (up to 10 rounds) and B (up to 10 rounds).",
        "At compression 1 every cut of the exponential schedule is below the flow from 10 rounds on in A and from 10 "
        "rounds on in B.",
        "Of the 2 settings whose cuts all stayed below the flow 0 emptied a layer; of the 6 settings with a cut as "
        "large as the flow or larger 4 did.",
        "Training took R² of squared magnitude and inverse layer size from 0.05 to 1.00 in A and from 0.05 to 1.00 in "
        "B.",
    ]


def test_conclusions_of_networks_that_differ():
    said = concluded(
        units=units(synflow=[(1.0, 2.0)], mag=[(1.0, 3.0)]),
        layers=layers(synflow=BENT, mag=BENT),
        cuts=cuts(exponential={1: 3.0, 10: 1.5}, linear={1: 0.5}),
        magnitudes=magnitudes(CONSTANT, CONSTANT),
    )
    assert said[0] == "In no network for Mag; for SynFlow only in A."
    assert said[1].endswith("for SynFlow in A, for no score in B.")
    assert "below the flow from 1 round on in B; some cut is not with any tried number of rounds in A" in said[2]
    assert "below the flow from 10 rounds on in A; some cut is not with any tried number of rounds in B" in said[3]
    assert said[5].endswith("from 0.05 to 1.00 in A.")
    assert findings.conclusions({}, {}, {}, {}) == []
