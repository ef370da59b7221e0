"""The sentences and the table of structured pruning, with data in both directions: opposite numbers, opposite words."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import plots_structures
from lib.findings import structures
from lib.plots import WIDTH


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def rows(whole: float = 90.0, **top1: tuple) -> pd.DataFrame:
    """Networks without a quarter, a half, ... of each structure: (top-1 at once, top-1) of each."""
    found = [("unpruned", 0.0, 0, 0, (whole, whole), 1.0)]
    for structure, pairs in top1.items():
        found += [
            (structure, n / 4, 8, 2 * n, pair if isinstance(pair, tuple) else (pair, pair), 1 - n / 4)
            for n, pair in enumerate(pairs, 1)
        ]
    return pd.DataFrame(
        {
            "network": structure if structure == "unpruned" else f"{structure} {rate:g}",
            "structure": structure, "rate": rate, "units": units, "units_removed": gone,
            "parameters": int(1000 * left), "macs": int(20_000 * left**2), "disk_mb": 0.5 * left,
            "top1_before_pct": pair[0], "top1_pct": pair[1],
            "max_abs_logit_difference": 1e-6 if units else None, "max_abs_logit": 10.0 if units else None,
        }
        for structure, rate, units, gone, pair, left in found
    )  # fmt: skip


def latencies(of: pd.DataFrame, *medians: float, spread: float = 0.1, batch: int = 64) -> pd.DataFrame:
    """Medians in ms with quartiles `spread` beside them."""
    seconds = np.array(medians) / 1e3
    return of[["network", "structure", "rate"]].assign(
        batch=batch, latency_s=seconds, latency_q1_s=seconds - spread / 1e3, latency_q3_s=seconds + spread / 1e3,
        repeats=9,
    )  # fmt: skip


def test_quartiles_of_the_passes():
    seconds = {("unpruned", 1): [3, 1, 2, 4, 5], ("unpruned", 8): [9, 9, 9], ("channels 0.25", 1): [1, 2]}
    timed = pd.DataFrame(
        {"network": n, "batch": b, "repeat": i, "seconds": s}
        for (n, b), values in seconds.items()
        for i, s in enumerate(values, 1)
    )
    found = structures.quartiles(timed, rows(channels=(80,)))
    columns = ["structure", "rate", "batch", "latency_q1_s", "latency_s", "latency_q3_s", "repeats"]
    assert found[columns].values.tolist() == [
        ["unpruned", 0.0, 1, 2, 3, 4, 5], ["unpruned", 0.0, 8, 9, 9, 9, 3], ["channels", 0.25, 1, 1.25, 1.5, 1.75, 2],
    ]  # fmt: skip
    assert structures.batches(found) == [1, 8]


def test_same_function():
    of = rows(channels=(80, 70))
    assert "differ by at most 1e-07 of the largest." in structures.same_function(of)
    of.loc[2, "max_abs_logit_difference"] = 0.5
    assert structures.same_function(of).startswith("**Removal changed what channels 0.5 computes**: its logits")


@pytest.mark.parametrize(
    ("top1", "parts"),
    [
        (
            (89.9, 89.8),
            ["Of the channels 50 % (4 of 8) can go: 89.80 % against 90.00 %", "50% of the parameters and 25"],
        ),
        ((89.9, 70.0), ["25 % (2 of 8) can go: 89.90 %", "75% of the", "; without 50 % (4 of 8) it is 70.00 %."]),
        (
            (80.0, 70.0),
            ["no rate is free: 25 % (2 of 8) cost 10.00 points (80.00 % against 90.00 %), beyond 2"],
        ),
        ((95.0, 96.0), ["50 % (4 of 8) can go: 96.00 %"]),
    ],
)
def test_how_much_can_go(top1, parts):
    said = structures.cost(rows(channels=top1), "channels", 10_000)
    assert all(part in said for part in parts), said


def test_how_much_can_go_is_a_matter_of_the_test_set():
    assert "can go" in structures.cost(rows(blocks=(89,)), "blocks", 100)
    assert "no rate is free" in structures.cost(rows(blocks=(89,)), "blocks", 100_000)


def test_nothing_was_removed():
    of = rows(blocks=(90,))
    of.loc[1, "units_removed"] = 0
    assert structures.cost(of, "blocks", 100) == "No rate is high enough to remove any of the blocks (8)."


def test_training_on():
    said = structures.tuning(rows(channels=((50, 88), (40, 86))))
    assert "are 45.00 points below the unpruned one on average" in said
    assert said.endswith("trained on equally, 3.00 points below it.")
    assert "1.00 points above it" in structures.tuning(rows(channels=((95, 91),)))
    assert structures.tuning(rows(channels=(50, 40))) is None


@pytest.mark.parametrize(
    ("top1", "medians", "parts"),
    [
        (
            (90, 90),
            (4, 3, 2),
            ["50 % (4 of 8) of the channels: 2 ms against 4 ms, 2.00 times faster, less than its 4"],
        ),
        ((90, 90), (9, 4, 2), ["4.50 times faster, more than its 4.00 times fewer MACs promise."]),
        ((90, 90), (4, 3, 1), ["4.00 times faster, as much as its 4.00"]),
        ((90, 10), (4, 3, 1), ["25 % (2 of 8) of the channels: 3 ms", "1.33 times faster, less than its 1.78"]),
        ((90, 90), (4, 3.9, 5), ["1.03 times faster, though their quartiles overlap, less"]),
        (
            (90, 90),
            (4, 5, 6),
            ["nothing within 2 standard errors of the test set is faster than the unpruned"],
        ),
        ((10, 10), (4, 3, 2), ["With 64 inputs a pass, nothing within"]),
    ],
)
def test_the_fastest_that_is_as_accurate(top1, medians, parts):
    of = rows(channels=top1)
    said = structures.speed(of, latencies(of, *medians), 64, 1000)
    assert all(part in said for part in parts), said


def test_sentences_and_table_of_files(tmp_path):
    of = rows(channels=((50, 80), (40, 70)), blocks=((89, 90),))
    timed = pd.concat([latencies(of, 4, 3, 2, 3.5), latencies(of, 1, 1, 1, 1, batch=1)])
    of.to_csv(tmp_path / "structured.csv", index=False)
    timed.to_csv(tmp_path / "latencies.csv", index=False)
    read = [pd.read_csv(tmp_path / f"{name}.csv") for name in ("structured", "latencies")]
    said = structures.sentences(*read, 1000)
    assert said == structures.sentences(of, timed, 1000)
    assert [text.split(",")[0][:20] for text in said] == [
        "The smaller networks", "Of the channels no r", "Of the blocks 25 % (", "Right after the remo",
        "With 1 input a pass", "With 64 inputs a pas",
    ]  # fmt: skip
    table = structures.table(*read)
    assert table.equals(structures.table(of, timed))
    assert table.loc[("channels", "50")].to_dict() == {
        "units removed": "4 of 8", "parameters": "500", "MACs": "5,000", "top-1 at once (%)": "40.00",
        "top-1 (%)": "70.00", "disk (MB)": "0.250", "ms a pass of 1": "1 (0.9 to 1.1)",
        "ms a pass of 64": "2 (1.9 to 2.1)",
    }  # fmt: skip
    assert table.loc[("unpruned", "0"), "units removed"] == "none"
    assert "top-1 at once (%)" not in structures.table(rows(channels=(50,)), timed)


def test_the_figure_has_every_network_at_its_place():
    of = rows(channels=(88, 86), heads=(89,))
    timed = pd.concat([latencies(of, 4, 3, 2, 3.5), latencies(of, 1, 0.5, 0.6, 0.7, batch=1, spread=0.01)])
    figure = plots_structures.tradeoff(of, timed)
    one, many = figure.axes
    assert (one.get_xlabel(), many.get_xlabel()) == ("ms a pass of 1", "ms a pass of 64")
    drawn = {c.get_label(): c for c in many.containers}
    assert list(drawn) == ["unpruned", "channels", "heads"]
    assert np.allclose(drawn["channels"].lines[0].get_xydata(), [[3, 88], [2, 86]])
    bars = drawn["channels"].lines[2][0].get_segments()
    assert np.allclose(bars, [[[2.9, 88], [3.1, 88]], [[1.9, 86], [2.1, 86]]])
    assert [text.get_text() for text in many.texts] == ["25", "50", "25"]
    assert figure.get_figwidth() == pytest.approx(WIDTH)
    few = plots_structures.tradeoff(of[of["structure"] == "heads"], timed)  # as a reader chooses
    assert [c.get_label() for c in few.axes[0].containers] == ["heads"]
