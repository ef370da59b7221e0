"""What is said of repeated pruning, from made numbers."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib import plots_repeated
from lib.findings import repeated

SPARSITIES = [0.0, 60.0, 90.0]


def rows(*top1: float) -> pd.DataFrame:
    return pd.DataFrame({
        "iteration": range(3), "sparsity_pct": SPARSITIES, "weights_kept": [1000, 400, 100],
        "top1_pct": top1 or (90.0, 91.0, 70.0),
    })  # fmt: skip


def files(loads: bool = True) -> pd.DataFrame:
    sizes = {"dense": (4e6, 4e6, 4e6), "coo": (20e6, 8e6, 2e6), "bitmask": (4.1e6, 1.7e6, 0.5e6)}
    return pd.DataFrame([
        {"iteration": number, "form": form, "compressed": compressed, "bytes": size * (0.9 if compressed else 1),
         "loads": loads}
        for form, three in sizes.items() for number, size in enumerate(three) for compressed in (False, True)
    ])  # fmt: skip


def latencies(*medians: float) -> pd.DataFrame:
    return pd.DataFrame([
        {"network": number, "batch": batch, "repeat": repeat, "seconds": middle * batch + 1e-4 * (repeat - 2)}
        for number, middle in enumerate(medians) for batch in (1, 64) for repeat in (1, 2, 3)
    ])  # fmt: skip


def test_the_table_joins_sizes_and_times():
    table = repeated.iterations(rows(), files(), latencies(0.01, 0.01, 0.01))
    assert table["smallest"].tolist() == ["dense + zstd", "bitmask + zstd", "bitmask + zstd"]
    assert table["times_smaller"].tolist() == pytest.approx([4 / 3.6, 4 / 1.53, 4 / 0.45])
    assert table["latency_64_s"].tolist() == pytest.approx([0.64] * 3)
    assert table["latency_1_q1_s"].iloc[0] == pytest.approx(0.01 - 5e-5)
    assert repeated.batches(table) == [1, 64]
    assert repeated.shown(table).loc[2, "ms a pass of 1"] == "10 (9.95 to 10.1)"
    untimed = repeated.iterations(rows(), files(), pd.DataFrame())
    assert repeated.batches(untimed) == []


def test_positions_pay_from_some_sparsity_on():
    said = " ".join(repeated.what_pays(files(), rows()))
    for words in ("COO is larger than the dense file up to 60.0 % (8.00 against 4.00 MB) and smaller from 90.0 % on",
                  "The form bitmask is larger than the dense file up to 0.0 % (4.10 against 4.00 MB) and smaller",
                  "At 90.0 % the smallest file of all is bitmask with zstd, 0.450 MB", "All 18 files"):  # fmt: skip
        assert words in said
    assert "18 of 18 files did not" in " ".join(repeated.what_pays(files(loads=False), rows()))


def test_times_within_and_beyond_the_spread():
    same = repeated.sentences(repeated.iterations(rows(), files(), latencies(0.01, 0.01, 0.01)))
    assert "from 90.00 to 70.00 %" in same[0]
    assert "the best is iteration 1 (91.00 %)" in same[0]
    assert all("1.00 times as long" in text and "no gain, zeros are multiplied" in text for text in same[1:])
    for last, words in ((0.02, ("2.00 times as long", "slower")), (0.005, ("0.50 times as long", "faster"))):
        said = repeated.sentences(repeated.iterations(rows(), files(), latencies(0.01, 0.01, last)))
        assert all(word in said[1] for word in words), said
        assert "no gain" not in said[1]


def test_times_of_a_busy_machine_say_nothing():
    times = latencies(0.01, 0.01, 0.01)
    times.loc[(times["network"] == 2) & (times["repeat"] == 1), "seconds"] *= 9
    said = repeated.sentences(repeated.iterations(rows(), files(), times))
    assert all("too busy to tell them apart" in text for text in said[1:])


def test_layers_without_a_weight_are_named_from_their_iteration_on():
    table = repeated.iterations(rows(), files(), pd.DataFrame())
    assert repeated.collapse(table.assign(collapsed_layers=float("nan"), connected=True)) is None
    said = repeated.collapse(table.assign(collapsed_layers=["", "a", "a b"], connected=[True, False, False]))
    assert said.startswith("**From iteration 1 (60.00 %) on 1 layer has no weight left** (`a`): no input reaches")
    said = repeated.collapse(table.assign(collapsed_layers=["", "", "a b"], connected=[True, True, True]))
    assert said.startswith("**From iteration 2 (90.00 %) on 2 layers have no weight left** (`a`, `b`): a path is left")


def test_two_ways_are_compared_where_they_differ_most():
    tables = {name: repeated.iterations(rows(*top1), files(), pd.DataFrame())
              for name, top1 in {"without retraining": (90, 80, 20), "rewound": (90, 89, 85)}.items()}  # fmt: skip
    (said,) = repeated.beside(tables)
    assert "Rewound, the accuracy is +65.00 points from that without retraining at 90.00 % sparsity" in said
    assert "+9.00 after the first" in said
    assert repeated.beside({"one": tables["rewound"]}) == []


@pytest.mark.parametrize("timed", [True, False])
def test_the_figure_has_a_line_for_each_way(timed):
    times = latencies(0.01, 0.01, 0.01) if timed else pd.DataFrame()
    tables = {name: repeated.iterations(rows(), files(), times) for name in ("a", "b")}
    figure = plots_repeated.accuracy_against(tables)
    assert len(figure.axes) == 2 + timed
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "state dict"]
    plt.close(figure)


def test_different_masks_are_said():
    assert "the same weights at 33%" in repeated.same_masks(0, 0.33)
    assert "differ** in 5,000 weights" in repeated.same_masks(5000, 0.33) == repeated.same_masks(5000.0, 0.33)


def test_one_way_may_be_timed_and_another_not():
    tables = {
        "a": repeated.iterations(rows(), files(), latencies(0.01, 0.01, 0.01)),
        "b": repeated.iterations(rows(), files(), pd.DataFrame()),
    }
    for given in (tables, dict(reversed(tables.items()))):
        figure = plots_repeated.accuracy_against(given)
        labels = [[line.get_label() for line in ax.lines if line.get_label() in tables] for ax in figure.axes]
        assert labels == [list(given), list(given), ["a"]]
        plt.close(figure)


def test_methods_have_a_line_each_over_their_own_iterations():
    short, whole = rows(90, 80, 70).iloc[:2], rows(91, 81, 71)
    figure = plots_repeated.methods({"Mag": whole, "OBD": short})
    (ax,) = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {
        "Mag": [[0, 91], [60, 81], [90, 71]],
        "OBD": [[0, 90], [60, 80]],
    }
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Mag", "OBD"]
    plt.close(figure)


def test_forms_are_compared_with_the_dense_file():
    found = repeated.forms(files(), 1)
    assert found.index.tolist() == ["dense", "coo", "bitmask"]
    assert found.loc["bitmask"].tolist() == ["1.700", "2.35", "1.530", "2.61"]
    assert found.loc["coo", "times smaller"] == "0.50"
