"""Figures of the notebook conservation: every point there, the line of the theory, one look for a score."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lib import plots
from lib import plots_conservation as figures
from lib.findings import conservation as findings

SCORES = ["rand", "mag", "snip", "grasp", "synflow", findings.SALIENCY]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def title(ax) -> str:
    return ax.get_title() or ax.get_title(loc="left")


def units(scores=SCORES, count: int = 7) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    signed = {"rand", "grasp", findings.SALIENCY}
    rows = []
    for score in scores:
        values = generator.normal(size=(count, 2)) if score in signed else generator.uniform(0.1, 5, (count, 2))
        rows.append(pd.DataFrame(values, columns=["incoming", "outgoing"]).assign(score=score, layer="a"))
    return pd.concat(rows, ignore_index=True)


def layers() -> pd.DataFrame:
    sizes = pd.DataFrame({"layer": list("abc"), "size": [1000, 200, 10]})
    return pd.concat([sizes.assign(score=s, total=5.0, mean=5.0 / sizes["size"]) for s in SCORES], ignore_index=True)


def magnitudes() -> pd.DataFrame:
    sizes = pd.DataFrame({"layer": list("abc"), "size": [1000, 200, 10]})
    return pd.concat([sizes.assign(epoch=e, mean_square=[1.0, 2.0, 3.0 + e]) for e in range(3)], ignore_index=True)


def cuts() -> pd.DataFrame:
    rows = [
        {"schedule": s, "density": d, "rounds": n, "cut_ratio": 4 / n, "emptied": int(n == 1), "kept": 9}
        for s in ("exponential", "linear")
        for d in (0.1, 0.01)
        for n in (1, 10, 100)
    ]
    return pd.DataFrame(rows)


ALL = [(figures.units, units), (figures.layers, layers), (figures.magnitudes, magnitudes), (figures.cuts, cuts)]


@pytest.mark.parametrize(("draw", "frame"), ALL)
def test_figures_have_the_width_of_the_page_and_leave_frames_alone(draw, frame):
    rows = frame()
    before = rows.copy(deep=True)
    figure = draw(rows)
    assert figure.get_figwidth() == pytest.approx(16.2 / 2.54)
    assert 0.5 < figure.get_figheight() < 25 / 2.54
    figure.canvas.draw()  # no warning about a layout
    pd.testing.assert_frame_equal(rows, before)


def test_every_unit_is_a_point_of_its_score_and_the_diagonal_is_there():
    rows = units()
    figure = figures.units(rows)
    for ax, score in zip(figure.axes, SCORES, strict=True):
        part = rows[rows["score"] == score][["incoming", "outgoing"]].to_numpy()
        points = ax.collections[0].get_offsets()
        np.testing.assert_allclose(points, part / np.abs(part).max())
        (diagonal,) = ax.get_lines()
        assert tuple(diagonal.get_xdata()) == tuple(diagonal.get_ydata()) == ax.get_xlim() == ax.get_ylim()
        low, high = ax.get_xlim()
        assert (points > low).all()
        assert (points < high).all()
        assert ax.get_xscale() == ax.get_yscale() == ("symlog" if (part < 0).any() else "log")


def test_scores_look_as_their_pruners_do_elsewhere():
    for draw, frame in ALL[:2]:
        for ax, score in zip(draw(frame()).axes, SCORES, strict=True):
            wanted = plots.style("SNIP" if score == findings.SALIENCY else title(ax).split(" (")[0])
            assert to_hex(ax.collections[0].get_edgecolor()[0]) == wanted["color"].lower()
            assert (len(ax.collections[0].get_facecolor()) == 0) == (score == findings.SALIENCY)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_scores(count):
    figure = figures.units(units(SCORES[:count]))
    assert [title(ax) for ax in figure.axes if ax.axison] == ["Rand", "Mag", "SNIP", "GraSP"][:count]


def test_dead_units_are_drawn_at_nothing():
    figures.units(units(["mag"]).assign(incoming=0.0, outgoing=0.0)).canvas.draw()
    figures.layers(layers().assign(mean=0.0)).canvas.draw()


def test_proportional_means_lie_on_the_dashed_line():
    ax = figures.layers(layers()).axes[0]
    (line,) = ax.get_lines()
    x, y = line.get_data()
    np.testing.assert_allclose(y / x, 5.0)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[1 / n, 5 / n] for n in (1000, 200, 10)])
    assert title(ax) == "Rand (slope 1.00, R² 1.000)"


def test_magnitudes_show_every_epoch_and_its_fit():
    left, right = figures.magnitudes(magnitudes()).axes
    assert len(left.collections) == 3
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["epoch 0", "epoch 2"]
    fits = findings.fits(magnitudes())
    for line, column in zip(right.get_lines(), ("r2", "slope"), strict=False):
        np.testing.assert_allclose(line.get_ydata(), fits[column])


def test_cuts_are_marked_where_a_layer_was_emptied():
    figure = figures.cuts(cuts())
    linear, exponential = figure.axes
    assert [title(ax) for ax in figure.axes] == ["linear schedule", "exponential schedule"]
    for ax in (linear, exponential):
        *lines, dashed = ax.get_lines()
        assert [line.get_label() for line in lines] == ["1 (ratio 10)", "2 (ratio 100)"]
        np.testing.assert_allclose(lines[0].get_xydata(), [[1, 4], [10, 0.4], [100, 0.04]])
        assert set(dashed.get_ydata()) == {1}
        np.testing.assert_allclose(np.concatenate([c.get_offsets() for c in ax.collections]), [[1, 4], [1, 4]])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["1 (ratio 10)", "2 (ratio 100)", "a layer was emptied"]
