"""Figures: one look for a method everywhere, print width, true counts, frames left alone."""

import matplotlib

matplotlib.use("agg")
import colorsys
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from frames import bars, histories, layers, run, study, timings
from matplotlib.colors import to_hex, to_rgb

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
    swept = pd.concat([done, done.assign(compression=2.0)])
    return [
        plots.curves(runs, plan),
        plots.densities(kept, plan),
        plots.against_compression(tables.panels(swept, clock, "MNIST / FC")),
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


def test_a_variant_looks_like_its_method_and_yet_not_the_same():
    base, variant = plots.style("SNIP"), plots.style("SNIP (scope layer)")
    hues = [colorsys.rgb_to_hls(*to_rgb(look["color"]))[0] for look in (base, variant)]
    assert hues[0] == pytest.approx(hues[1], abs=0.05)
    assert base["color"] != variant["color"]
    assert base["marker"] != variant["marker"]
    assert plots.style("SynFlow (100 rounds)") == dict(
        zip(("color", "marker"), plots.STYLE["SynFlow (100 rounds)"], strict=True)
    )


def test_variants_are_drawn():
    rows = [run("snip", 50.0), run("snip", 55.0, scope="layer") | {"run": "other"}]
    for figure in drawn([run("dense", 90.0, 0), *rows]):
        assert "SNIP (scope layer)" in colours(figure)


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
        kept, outline = (patch.get_data() for patch in ax.patches)
        assert kept.values.tolist() == part["kept"].tolist()
        assert outline.values.tolist() == (part["kept"] + part["removed"]).tolist()  # the unpruned layer
        assert outline.baseline.tolist() == part["kept"].tolist()
        share = part["kept"].sum() / (part["kept"] + part["removed"]).sum()
        assert f"{share:.1%} kept" in ax.get_title(loc="left") + ax.get_title()


def test_pages_hold_all_layers_in_order_and_few_enough():
    rows = pd.concat([bars(f"layer{i}", [1, 2], [3, 4]) for i in range(57)])
    pages = plots.pages(rows, most=28)
    assert [page["layer"].nunique() for page in pages] == [19, 19, 19]
    pd.testing.assert_frame_equal(pd.concat(pages), rows)
    assert len(plots.pages(rows[rows["layer"] < "layer2"])) == 1


@pytest.mark.parametrize(
    ("word", "label", "ticks"),
    [("ratio", "ratio (1 / density, log scale)", ["10", "100"]), ("compression", "compression (−log₁₀ density)", ["1", "2"])],  # noqa: E501
)  # fmt: skip
def test_the_axis_speaks_as_the_study_does_and_ticks_do_not_overlap(word, label, ticks):
    rows = pd.DataFrame([run("snip", 1.0), run("snip", 2.0, compression=1.02), run("snip", 3.0, compression=2)])
    figure = plots.against_compression(tables.panels(tables.described(rows, word), pd.DataFrame(), "MNIST / FC"))
    assert figure.axes[0].get_xlabel() == label
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ticks


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
    done, plan = study(*ALL, run("snip", compression=2.0))
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
