"""The figures of compression pipelines show what their data says."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import stub_pipeline

from lib import plots_pipeline


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def chain(*stages: tuple | None, name: str = "c", seeds: int = 1) -> SimpleNamespace:
    """A chain of (bytes, top-1) of each stage, None for a missing one; further seeds have a point more each."""
    made = []
    for number, stage in enumerate(stages, 1):
        of = [] if stage is None else [{"file_bytes": stage[0], "top1_pct": stage[1] + n} for n in range(seeds)]
        notebook = "pretrained" if number == 1 else "quantise"
        made.append(SimpleNamespace(
            number=number, notebook=notebook, short="short", what="short: the longer text", rows=pd.DataFrame(of)
        ))  # fmt: skip
    return SimpleNamespace(name=name, stages=made)


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_the_picture_has_a_box_a_stage_and_the_sizes_between():
    (ax,) = plots_pipeline.picture(chain((2_000_000, 90), (50_000, 80.5), None)).axes
    assert len(ax.patches) - sum("Arrow" in type(patch).__name__ for patch in ax.patches) == 3
    found = texts(ax)
    assert {"2 MB\n100 %", "50 kB\n2.5 %", "?", "90.00 % top-1", "80.50 % top-1", "missing"} <= set(found)
    assert [text for text in found if text.startswith("3. ")] == ["3. short"]
    assert found.count("the longer text") == 3


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_a_long_pipeline_goes_on_in_further_rows(count):
    figure = plots_pipeline.picture(chain(*[(1000, 50)] * count))
    boxes = [patch.get_bbox() for patch in figure.axes[0].patches if hasattr(patch, "get_boxstyle")]
    rows = {round(box.y0, 3) for box in boxes}
    assert len(boxes) == count
    assert len(rows) == -(-count // plots_pipeline.ROW)
    assert all(box.x0 < plots_pipeline.ROW for box in boxes)


def test_no_share_without_the_original():
    (ax,) = plots_pipeline.picture(chain(None, (812, 50))).axes
    assert "812 B" in texts(ax)


@pytest.mark.parametrize(
    ("size", "words"), [(812, "812 B"), (27_300, "27.3 kB"), (56_117_800, "56.1 MB"), (2.5e9, "2,500 MB"), (0, "0 B")]
)
def test_bytes_are_readable(size, words):
    assert plots_pipeline.readable(size) == words


def test_layers_have_their_shares_and_their_parts():
    rows, parts = stub_pipeline.layer_rows({"kept": 0.25}), stub_pipeline.parts({"kept": 0.25, "bits": 4})
    left, right = plots_pipeline.layers(rows, parts).axes
    assert [bar.get_width() for bar in left.patches] == [25, 25]
    total = np.zeros(2)
    for bars in right.containers:
        total += [bar.get_width() for bar in bars]
    own = parts[parts["tensor"].str.startswith("fc.")]["bytes"].sum()
    assert total[1] == pytest.approx(own / 1000), "weight, positions, tables and bias"
    named = plots_pipeline.layers(rows.assign(layer=rows["layer"] + ".weight"), parts).axes[1]
    assert [bar.get_width() for bar in named.patches] == [bar.get_width() for bar in right.patches]


def test_every_finished_stage_is_a_point():
    one, two = chain((4000, 90), None, (1000, 80)), chain((4000, 90), (500, 70), name="d", seeds=3)
    (ax,) = plots_pipeline.tradeoff([one, two]).axes
    points = [(*container.lines[0].get_data(),) for container in ax.containers]
    assert [x.tolist() for x, _ in points] == [[4000, 1000], [4000, 500]]
    assert points[1][1].tolist() == [91, 71]
    assert ax.get_xscale() == "log"
    assert texts(ax) == ["1", "3", "1", "2"]
    (same,) = plots_pipeline.tradeoff([one, chain((4000, 90), (100, 70))]).axes
    assert texts(same) == ["1", "3", "2"], "points on one another share a number"


def test_codes_stand_over_their_values():
    left, right, *rest = plots_pipeline.codes(stub_pipeline.codes()).axes
    assert [bar.get_height() for bar in left.patches] == [300, 150, 40, 10]
    assert left.get_yscale() == "log"
    lengths, ideal = right.lines
    assert lengths.get_ydata().tolist() == [1, 2, 3, 3]
    assert ideal.get_ydata() == pytest.approx(-np.log2([0.6, 0.3, 0.08, 0.02]))
    assert len(rest) == 2
    assert "fc.weight (500 values, 4 different)" in [
        axes.get_title(loc) for axes in (left,) for loc in ("left", "center")
    ]
    assert len(plots_pipeline.codes(stub_pipeline.codes(), most=1).axes) == 2


def test_a_layer_of_one_value_is_drawn():
    one = pd.DataFrame([{"tensor": "a", "symbol": 0, "value": 0.5, "count": 7, "length": 1}])
    (left, _) = plots_pipeline.codes(one).axes
    assert [bar.get_height() for bar in left.patches] == [7]


def test_the_line_of_the_entropy_is_broken_where_values_are_missing():
    values = [-0.5, -0.375, -0.25, 0.25, 0.375, 0.5]  # steps of an eighth, but nothing around zero
    one = pd.DataFrame({"tensor": "a", "symbol": range(6), "value": values, "count": [1, 2, 8, 8, 2, 1], "length": 2})
    line = plots_pipeline.codes(one).axes[1].lines[1]
    assert np.isnan(line.get_xdata()).tolist() == [False, False, False, True, False, False, False]
    whole = one.assign(value=np.arange(6) / 8)
    assert not np.isnan(plots_pipeline.codes(whole).axes[1].lines[1].get_xdata()).any()
