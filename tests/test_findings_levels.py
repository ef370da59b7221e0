"""The sentences on levels, with data in both directions: opposite numbers, opposite sentence."""

import pandas as pd
import pytest

from lib.findings import levels


def rows(*top1: float, empty: dict | None = None, connected: bool = True) -> pd.DataFrame:
    """Levels of half the density each, from the dense network on; `empty` names the layers without weights by level."""
    names = empty or {}
    return pd.DataFrame(
        {
            "level": level,
            "density": 0.5**level,
            "weights_kept": 1000 // 2**level,
            "top1_pct": value,
            "train_s": 1.5,
            "collapsed_layers": names.get(level, ""),
            "connected": connected,
        }
        for level, value in enumerate(top1)
    )


def both(said: str | None, *parts: str) -> None:
    for part in parts:
        assert part in said, (part, said)


def test_a_loss_and_a_gain():
    both(
        levels.change(rows(90.0, 88.0, 85.0), 10_000),
        "After 2 pruning steps, at density 25 % (ratio 4, sparsity 75 %), the top-1",
        "is 85.00 %, 5.00 points below that of the dense network after equal training (90.00 %), beyond 2",
    )
    both(
        levels.change(rows(85.0, 90.0), 10_000), "After 1 pruning step, at", "90.00 %, 5.00 points above that", "beyond"
    )
    both(levels.change(rows(85.0, 85.0), 100), "85.00 %, equal to that of the dense", "within 2 standard errors")


def test_a_difference_is_measured_by_the_test_set():
    # sqrt(90 * 10 / N) for each of the two
    both(levels.change(rows(90.0, 90.0), 100), "(4.24 points, of the test set alone)")
    both(levels.change(rows(90.0, 89.0), 100), "within 2")
    both(levels.change(rows(90.0, 89.0), 1_000_000), "beyond 2")


@pytest.mark.parametrize(
    ("top1", "parts"),
    [
        ((90, 89.5, 88.9, 80, 70), ("by 1.10, at level 2, density 25 %", ", and stays below at every later level.")),
        ((90, 89.5, 88.9, 89.5, 70), ("by 1.10, at level 2, ", "; of the 2 later levels 1 is back within it.")),
        ((90, 80, 90, 90), ("by 10.00, at level 1, density 50 %", "; of the 2 later levels 2 are back within it.")),
        ((90, 91, 88), ("by 2.00, at level 2, ", ", the last level.")),
    ],
)
def test_where_it_first_falls(top1, parts):
    both(levels.fall(rows(*top1)), "It first is more than 1 point below the dense network's", *parts)


@pytest.mark.parametrize("top1", [(90, 89, 89.5), (90, 95, 91)])
def test_no_fall(top1):
    said = levels.fall(rows(*top1))
    both(said, "At no level is it more than 1 point below", f"the lowest is {min(top1[1:]):.2f} % at level")
    assert "first" not in said


def test_the_best_is_named_where_it_is_pruned():
    said = levels.peak(rows(90, 92, 91), 100)
    both(said, "most accurate is level 1, density 50 % (", "92.00 %, 2.00 points above the dense network, within 2")
    both(levels.peak(rows(90, 92, 91), 1_000_000), "beyond 2 standard errors")
    assert levels.peak(rows(90, 89, 88), 100) is None
    assert levels.peak(rows(90, 90), 100) is None


def test_layers_without_weights():
    both(
        levels.collapse(rows(90, 80, 10, empty={2: "layers.0 layers.2"}, connected=False)),
        "From level 2, density 25 % (ratio 4, sparsity 75 %), on, ",
        "2 layers have no weight: `layers.0`, `layers.2`; no input reaches the output",
    )
    both(levels.collapse(rows(90, 80, empty={1: "fc"})), "1 layer has no weight: `fc`; a path from input to output")
    assert levels.collapse(rows(90, 80)) is None


def test_read_back_from_csv(tmp_path):
    """An empty text comes back from a CSV file as not-a-number."""
    rows(90, 80).to_csv(tmp_path / "levels.csv", index=False)
    found = pd.read_csv(tmp_path / "levels.csv")
    assert levels.sentences(found, 1000) == levels.sentences(rows(90, 80), 1000)
    assert levels.table(found).equals(levels.table(rows(90, 80)))


def test_sentences_in_order_and_none_without_levels():
    said = levels.sentences(rows(90, 95, 80, empty={2: "fc"}), 1000)
    assert [text.split()[0] for text in said] == ["After", "It", "The", "From"]
    assert levels.sentences(rows(90), 1000) == []
    assert len(levels.sentences(rows(90, 89.9), 1000)) == 2


def test_the_table_shows_every_share_side_by_side():
    found = levels.table(rows(90, 88, 91, empty={2: "a b"}))
    assert found.index.tolist() == [0, 1, 2]
    assert found[["ratio", "density (%)", "sparsity (%)"]].values.tolist() == [
        ["1", "100", "0"],
        ["2", "50", "50"],
        ["4", "25", "75"],
    ]
    assert found["weights kept"].tolist() == [1000, 500, 250]
    assert found["difference to dense (points)"].tolist() == [0, -2, 1]
    assert found["layers without a weight"].tolist() == [0, 0, 2]


def test_the_last_level_beside_one_shot():
    once = pd.DataFrame({"density": [0.25, 0.25, 0.5], "top1_pct": [70.0, 72.0, 1.0]})
    both(levels.one_shot(rows(90.0, 88.0, 85.0), once, 10_000), "14.00 points above", "(71.00 %)", "beyond 2")
    both(levels.one_shot(rows(90.0, 88.0, 70.9), once, 10_000), "0.10 points below", "within 2")
    assert levels.one_shot(rows(90.0, 88.0), once[:2], 10_000) is None
