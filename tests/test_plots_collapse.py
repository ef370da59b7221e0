"""Figures of the collapse and of ablations: true means, bands from lowest to highest, the page's width."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from frames import layers, run, study

from lib import plots_collapse

TASK = "MNIST / FC"


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_bands_reach_from_the_lowest_to_the_highest_seed():
    done, _ = study(
        *(run("snip", v, seed=s) for s, v in enumerate((40.0, 50.0, 90.0))), run("snip", 20.0, compression=2),
        run("dense", 95.0, compression=0),
    )  # fmt: skip
    figure = plots_collapse.grid(done, {TASK: 3.0})
    ax = figure.axes[0]
    line = ax.get_lines()[0]
    np.testing.assert_allclose(line.get_xydata(), [[1, 60], [2, 20]])
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (20, 90)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SNIP", "Dense", "theoretical maximum"]
    assert ax.get_lines()[-1].get_xdata()[0] == 3.0
    figure.canvas.draw()


def test_a_panel_for_every_task_and_the_rest_of_the_grid_is_blank():
    done, _ = study(run("snip"), run("snip", model="resnet20"), run("snip", data="digits"))
    figure = plots_collapse.grid(done, dict.fromkeys(sorted(done["task"]), 2.0))
    assert [ax.get_title(loc="left") + ax.get_title() for ax in figure.axes if ax.axison] == sorted(done["task"])
    assert figure.get_figwidth() == pytest.approx(16.2 / 2.54)


def test_the_line_of_an_emptied_layer_ends_at_a_cross():
    _, plan = study(run("snip"), run("snip", compression=2), run("rand"), run("rand", compression=2))
    kept = pd.concat([
        layers(plan["run"][0], {"a": 10, "b": 20}), layers(plan["run"][1], {"a": 1, "b": 0}),
        layers(plan["run"][2], {"a": 10, "b": 10}), layers(plan["run"][3], {"a": 1, "b": 1}),
    ])  # fmt: skip
    figure = plots_collapse.kept_shares(kept, plan)
    rand, snip = figure.axes[:2]
    crosses = [line for line in snip.get_lines() if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [[2.0]]
    assert not [line for line in rand.get_lines() if line.get_marker() == "x" and len(line.get_xdata())]
    np.testing.assert_allclose(np.asarray(snip.get_lines()[0].get_ydata(), dtype=float), [10, 1])
    figure.canvas.draw()


def test_ablation_bars_are_means_in_the_order_of_the_ablations():
    rows, _ = study(
        run("snip", 40.0), run("snip", 60.0, seed=2), run("snip", 30.0, ablation="shuffle", run="x"), run("rand", 20.0)
    )
    figure = plots_collapse.ablations([rows], ["none", "shuffle"])
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["none", "shuffle"]
    found = {bars.patches[0].get_facecolor(): [b.get_height() for b in bars.patches] for bars in ax.containers[1::2]}
    assert [50.0, 30.0] in found.values()
    assert len(found) == 2
    figure.canvas.draw()


def test_panels_are_wide_where_no_layer_was_emptied():
    _, plan = study(run("snip"), run("snip", compression=2), run("rand"), run("rand", compression=2))
    kept = pd.concat([layers(name, {"a": 10, "b": 20}) for name in plan["run"]])
    figure = plots_collapse.kept_shares(kept, plan)
    figure.draw_without_rendering()  # a warning about the layout would be an error
    assert all(ax.get_position().width > 0.35 for ax in figure.axes)
