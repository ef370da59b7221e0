"""The sentences on pruning and quantisation follow the numbers, and the other way round where these do."""

import pandas as pd
import pytest

from lib import plots_quantisation
from lib.findings import quantisation as findings

ORDERS = ["unpruned", findings.PRUNED_FIRST, findings.QUANTISED_FIRST]
QUANTISED = [findings.NONE, findings.WEIGHTS, findings.BOTH]
IMAGES = 10_000


def rows(**changes) -> pd.DataFrame:
    """All techniques; top-1 of (order, quantisation, further epochs) may be given as `pb0=97.0`, by their initials."""
    found = []
    for further in (0, 1):
        for order in ORDERS[further:]:
            for name in QUANTISED[(order == ORDERS[2]) or further :]:
                eight, plain = name == findings.BOTH, name == findings.NONE
                short = order[0] + ("b" if eight else name[0]) + str(further)
                found.append({
                    "order": order, "fine_tuning_epochs": further, "quantisation": name,
                    "sparsity_pct": 0.0 if order == "unpruned" else 90.0, "zeros_pct": 1.0,
                    "top1_pct": changes.get(short, 98.0), "test_loss": 0.1,
                    "disk_mb": 6.0 if plain else 1.5, "bitmask_mb": 0.8 if plain else 0.3,
                    "compressed_mb": 0.5 if plain else 0.2,
                    "int8_top1_pct": 97.9 if eight else None, "int8_disk_mb": 1.6 if eight else None,
                    "int8_note": "" if eight else None,
                    "int8_latency_1_s": 0.001 if eight else None, "int8_latency_64_s": 0.004 if eight else None,
                })  # fmt: skip
    return pd.DataFrame(found)


def step(order: str, **changes) -> dict:
    usual = {"level": 0, "left": 1000, "kept": 100, "zeros": 0, "magnitudes": 1000, "threshold": 0.1}
    return usual | {"order": order, "tied": 1, "tied_kept": 1} | changes


def rounding(first: int, second: int) -> pd.DataFrame:
    zeroed = dict(zip(ORDERS, (5, first, second), strict=True))
    return pd.DataFrame(
        {
            "order": order,
            "fine_tuning_epochs": 0,
            "layer": layer,
            "kept": 100,
            "zeroed": zeroed[order],
            "half_step": 0.01,
        }
        for order in ORDERS
        for layer in ("a", "b")
    )


def test_the_table_has_a_line_a_technique():
    table = findings.table(rows())
    assert len(table) == 12
    assert table["8 bits for"].isna().sum() == 2
    integers = findings.integers(rows())
    assert len(integers) == 5
    assert integers["ms a pass of 64"].tolist() == pytest.approx([4] * 5)


def test_orders_are_compared_in_both_directions():
    better, worse, equal = (findings.orders(rows(pb0=98.0, qb0=value), IMAGES, 0) for value in (99.0, 97.9, 98.0))
    assert "1.00 points more, beyond 2 standard errors" in better
    assert "0.10 points less, within 2 standard errors" in worse
    assert "no change, within" in equal
    assert better.startswith("At 90 % sparsity and with 8-bit weights and activations, pruning before quantising gives")
    assert findings.orders(rows(pb1=97.0), IMAGES, 1).startswith("After 1 further epoch of training with the rounding")
    further = findings.orders(rows(pb0=98.0, pb1=97.0, qb0=96.0, qb1=97.5), IMAGES, 1)
    assert "gives 97.00 % (1.00 points less by it), and" in further
    assert "97.50 % (1.50 points more by it): 0.50 points more, " in further
    assert findings.orders(rows()[lambda f: f["order"] == "unpruned"], IMAGES, 0) is None


def test_quantisation_alone_and_after_pruning():
    said = findings.alone(rows(un0=98.5, uw0=98.4, ub0=97.5), IMAGES)
    assert "98.50 % in float32, 98.40 % with 8-bit weights and 97.50 %" in said
    assert "1.00 points less by quantisation, beyond" in said
    assert "Pruned by 90 %, it has" in findings.after_pruning(rows(), IMAGES)


def test_lost_weights_are_named_in_each_order():
    said = findings.zeroed(rounding(8, 3))
    assert "8 % (16 of 200) where it comes after pruning and 3 % (6 of 200) where training has seen it" in said
    assert "unpruned network 5 %" in said
    assert findings.zeroed(rounding(8, 3)[lambda f: f["order"] == "unpruned"]) is None


def test_emptied_layers_are_named():
    assert findings.emptied(rounding(8, 3)) is None
    some = rounding(8, 3).assign(kept=[100, 100, 0, 0, 100, 0])
    assert f"in a, b ({findings.PRUNED_FIRST}) and b ({findings.QUANTISED_FIRST}): " in findings.emptied(some)


def test_the_reach_of_pruning_is_told_in_both_directions():
    ties = pd.DataFrame([step(findings.PRUNED_FIRST), step(findings.PRUNED_FIRST, level=1, threshold=0.25)])
    assert "pruning reaches 25 times as far" in findings.reach(rounding(1, 1), ties)
    assert "1,234 times as far" in findings.reach(rounding(1, 1), ties.assign(threshold=12.34))
    assert "rounding alone would remove more" in findings.reach(rounding(1, 1).assign(half_step=0.5), ties)


def test_ties_are_told_where_there_are_some():
    plain = step(findings.PRUNED_FIRST)
    few = pd.DataFrame([plain, step(findings.QUANTISED_FIRST, zeros=90, magnitudes=127, tied=40, tied_kept=30)])
    said = findings.chosen(few)
    assert "127 different magnitudes where they are rounded, and 1,000 in float32" in said
    assert "90 of them zero, 10 % of the 900 that were to go" in said
    assert "In this step 40 weights had just the magnitude of the threshold, and position alone decided that 10" in said
    more = pd.concat([few, pd.DataFrame([step(findings.QUANTISED_FIRST, level=1, tied=4, tied_kept=3)])])
    assert (
        "In all 2 steps together 44 weights had just the magnitude of the threshold, and position"
        in findings.chosen(more)
    )
    none = pd.DataFrame([plain, step(findings.QUANTISED_FIRST, tied=40, tied_kept=40)])
    assert "No choice was left to position" in findings.chosen(none)
    many = pd.DataFrame([plain, step(findings.QUANTISED_FIRST, zeros=950, tied=950, tied_kept=50)])
    assert "950 of them zero, more than the 900 that were to go" in findings.chosen(many)
    assert len(findings.steps(few)) == 2


def test_the_runtime_and_its_failures_are_told():
    assert "5 of 5 networks" in findings.executed(rows())
    assert "0.10 points at most" in findings.executed(rows())
    assert "A pass of 64 takes 4 ms unpruned and 4 ms pruned" in findings.executed(rows())
    none = rows().assign(int8_top1_pct=None, int8_note="onnxruntime is not installed")
    assert findings.executed(none) == "ONNX Runtime ran none of them in integers: onnxruntime is not installed."
    assert findings.integers(none)["top-1, int8 (%)"].isna().all()
    one = rows()
    one.loc[one["order"] == "unpruned", ["int8_top1_pct", "int8_note"]] = [None, "op not supported: X"]
    assert "4 of 5 networks" in findings.executed(one)
    assert "Its notes: op not supported: X." in findings.executed(one)
    read = rows().assign(int8_note=float("nan"))  # as from a CSV file in which all are empty
    assert findings.executed(read) == findings.executed(rows())


def test_sizes_and_metrics():
    assert "6.000 MB 1.500, pruning alone, stored as a bit mask and values, 0.800, and both 0.300" in findings.size(
        rows()
    )
    assert "30.0 times less" in findings.size(rows())
    found = findings.metrics(rows(un0=98.5, pb0=97.0, qb0=96.0))
    wanted = {"dense_top1_pct": 98.5, "prune_then_quantise_top1_pct": 97.0, "quantise_then_prune_top1_pct": 96.0}
    assert {name: found[name] for name in wanted} == wanted


def test_the_figure_has_a_point_a_technique():
    figure = plots_quantisation.accuracy_against_size(rows())
    (axes,) = figure.axes
    assert sum(len(line.get_xdata()) for line in axes.lines) == 12
    assert [text.get_text() for text in axes.get_legend().get_texts()][:3] == ORDERS
