"""Figures: one look for a method everywhere, print width, true counts, frames left alone."""

import matplotlib

matplotlib.use("agg")
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from frames import bars, histories, layers, run, study, timings
from matplotlib.colors import to_hex

from lib import catalog, plots, tables

ALL = [run(p) for p in ("rand", "mag", "snip", "grasp", "synflow")] + [
    run("synflow", rounds=100),
    run("dense", compression=0),
]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def colours(figure) -> dict[str, str]:
    """Method -> colour, as the legend of the figure says."""
    legend = figure.legends[0]
    found = {}
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        colour = handle.get_color() if hasattr(handle, "get_color") else handle.get_colors()[0]
        found[text.get_text()] = to_hex(colour).lower()
    return found


def drawn(rows: list[dict]) -> list:
    """Every figure that has a line a method, for these runs."""
    done, plan = study(*rows)
    kept = pd.concat([layers(name, {"a": 50, "b": 0, "c": 20}) for name in done["run"]])
    runs = histories({name: [10.0, 20.0, 30.0] for name in done["run"]})
    clock = timings(*((r["pruner"], 1, 1.0, 1.2, 0.1, 200) for r in rows if r["pruner"] != "dense"))
    return [
        plots.curves(runs, plan),
        plots.densities(kept, plan),
        plots.against_compression(tables.panels(done, clock, "MNIST / FC")),
    ]


def test_a_method_has_one_colour_whatever_else_is_there():
    wanted = {}
    for rows in (ALL, ALL[::-1], ALL[1:4], [ALL[2], ALL[5]], [ALL[4]]):
        for figure in drawn(rows):
            for method, colour in colours(figure).items():
                assert wanted.setdefault(method, colour) == colour == plots.style(method)["color"].lower()
    assert len(wanted) == 7


def test_colours_and_markers_tell_methods_apart():
    looks = [plots.style(method) for method in plots.STYLE]
    for one, other in itertools.combinations(looks, 2):
        assert one["color"] != other["color"]
        assert one["marker"] != other["marker"]
    assert {catalog.label(pruner) for pruner in catalog.PRUNERS} <= set(plots.STYLE)
    assert plots.style("Mine") == plots.style("Mine")


def test_figures_have_the_width_of_the_page():
    table = pd.DataFrame({
        "compression": [1.0, 1.0], "precision": ["float32", "amp"], "epoch_s": [1.0, 2.0], "epoch_sd_s": [0.1, 0.0],
        "peak_memory_mib": [10.0, 9.0],
    })  # fmt: skip
    figures = [
        *drawn(ALL),
        plots.history(histories({"x": [1.0, 2.0]})),
        plots.histograms(bars("a", [1, 2], [3, 4])),
        plots.layer_view(layers("x", {"a": 5}), bars("a", [1, 2], [3, 4]), "snip"),
        plots.timing_bars(timings(("snip", 1, 1.0, 1.2, 0.1, 200))),
        plots.precision_bars(table),
    ]
    for figure in figures:
        assert figure.get_figwidth() == pytest.approx(16.2 / 2.54)
        assert 0.5 < figure.get_figheight() < 25 / 2.54  # fits the page
        figure.canvas.draw()  # no warning about a layout


def test_histograms_add_up():
    rows = pd.concat([bars("a.weight", [1, 0, 7], [5, 9, 0]), bars("b.weight", [0, 0, 0], [3, 3, 3])])
    figure = plots.histograms(rows, columns=2)
    for ax, layer in zip(figure.axes, ("a.weight", "b.weight"), strict=False):
        part = rows[rows["layer"] == layer]
        kept, removed = ([bar.get_height() for bar in container] for container in ax.containers)
        assert (kept, removed) == (part["kept"].tolist(), part["removed"].tolist())
        tops = [bar.get_y() + bar.get_height() for bar in ax.containers[1]]
        assert tops == (part["kept"] + part["removed"]).tolist()  # the outline is the unpruned layer
        share = part["kept"].sum() / (part["kept"] + part["removed"]).sum()
        assert f"{share:.1%} kept" in ax.get_title(loc="left") + ax.get_title()


def test_an_emptied_layer_is_a_cross_on_the_edge():
    _, plan = study(run("snip"))
    figure = plots.densities(layers(plan["run"][0], {"a": 50, "b": 0, "c": 20}), plan)
    line, crosses = figure.axes[0].get_lines()
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), [50, np.nan, 20])
    assert crosses.get_marker() == "x"
    assert list(crosses.get_xdata()) == [1]
    assert crosses.get_ydata()[0] == figure.axes[0].get_ylim()[0]


def test_lines_show_means_and_seeds():
    done, plan = study(
        *(run("snip", v, seed=s) for s, v in enumerate((40.0, 50.0))), run("snip", 80.0, compression=0.5)
    )
    figure = plots.against_compression(tables.panels(done, pd.DataFrame(), "MNIST / FC"))
    bar = figure.axes[0].containers[0]
    np.testing.assert_allclose(bar.lines[0].get_xydata(), [[0.5, 80], [1, 45]])
    (segments,) = (lines.get_segments() for lines in bar.lines[2])
    np.testing.assert_allclose(segments[1][:, 1], 45 + np.std([40, 50], ddof=1) * np.array([-1, 1]))


def test_frames_are_left_alone():
    done, plan = study(*ALL)
    kept = pd.concat([layers(name, {"a": 50, "b": 0}) for name in done["run"]])
    runs, clock = histories({name: [1.0, 20.0] for name in done["run"]}), timings(("snip", 1, 1.0, 1.2, 0.1, 200))
    hist = bars("a", [1, 2], [3, 4])
    frames = [done, plan, kept, runs, clock, hist]
    before = [frame.copy(deep=True) for frame in frames]
    plots.curves(runs, plan)
    plots.densities(kept, plan)
    plots.against_compression(tables.panels(done, clock, "MNIST / FC"))
    plots.timing_bars(clock)
    plots.histograms(hist)
    plots.layer_view(kept[:2], hist, "snip")
    for frame, copy in zip(frames, before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


def test_one_diverged_loss_is_cut_off_and_said():
    done, plan = study(run("snip"), run("rand"))
    runs = histories({name: [10.0, 20.0] for name in done["run"]})
    runs.loc[0, "test_loss"] = 1e6
    figure = plots.curves(runs, plan)
    assert figure.axes[1].get_ylim()[1] < 10
    assert "cut off" in figure.axes[1].get_title(loc="right")
    assert "cut off" not in figure.axes[0].get_title(loc="right")
