import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import plots_levels
from lib.plots import WIDTH


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def frames(top1: list[float], epochs: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = pd.DataFrame([{"level": n, "density": 0.1 ** (n / 4), "top1_pct": value} for n, value in enumerate(top1)])
    history = [
        {"level": n, "epoch": e, "test_top1_pct": value - epochs + e}
        for n, value in enumerate(top1)
        for e in range(1, epochs + 1)
    ]
    return rows, pd.DataFrame(history)


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.get_lines()}


def test_points_are_the_levels_and_the_dense_one_a_line():
    rows, history = frames([90.0, 91.0, 89.5, 80.0, 60.0])
    left, right = plots_levels.levels(rows, history).axes
    drawn = lines(left)
    assert np.allclose(drawn["level"].get_xydata(), np.c_[100 * rows["density"], rows["top1_pct"]])
    assert set(drawn["dense"].get_ydata()) == {90.0}
    assert set(drawn["1 point below"].get_ydata()) == {89.0}
    assert [text.get_text() for text in left.texts] == ["0", "1", "2", "3", "4"]
    assert left.get_xscale() == "log"
    assert left.get_xlim()[0] > left.get_xlim()[1]  # the dense network stands left
    assert set(left.get_xticks()) == {10, 20, 50, 100}
    for level, line in lines(right).items():
        assert line.get_ydata().tolist() == history.loc[history["level"] == int(level), "test_top1_pct"].tolist()
    assert len(lines(right)) == 5


def test_print_width_and_frames_left_alone():
    rows, history = frames([90.0, 80.0])
    before = rows.copy(), history.copy()
    for figure in (plots_levels.levels(rows, history), plots_levels.curves(history)):
        assert figure.get_figwidth() == pytest.approx(WIDTH)
    assert rows.equals(before[0])
    assert history.equals(before[1])


def test_levels_have_colours_of_their_own():
    _, history = frames([90.0] * 12)
    found = lines(plots_levels.curves(history).axes[0])
    assert len({tuple(line.get_color()) for line in found.values()}) == 12
