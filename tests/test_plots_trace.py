"""The picture of a trace: what is in it, and that it fits the page."""

import io
import time

import pytest
from chrome import GPU_HEADER, arrow, cpu_step, gpu_step, launched, op, save
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from lib.plots_trace import COLOURS, WIDTH, step_range, timeline, zoom_range
from lib.traces import analyse
from lib.traces.attribute import ALL_KINDS
from lib.traces.bars import bars


@pytest.fixture
def gpu(tmp_path):
    side = [op("aten::relu", 400, 20), launched("side", 405, 500, 30, 40, stream=20), arrow(41, 405, 500, stream=20)]
    return analyse(save(tmp_path / "g.json", gpu_step(), side, **GPU_HEADER))


def colours(figure):
    faces = [c for ax in figure.axes for part in ax.collections if isinstance(part, PolyCollection)
             for c in part.get_facecolors()]  # fmt: skip
    return {to_hex(c).upper() for c in faces}


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_every_kind_has_a_colour_of_its_own():
    assert set(ALL_KINDS) <= set(COLOURS)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_width_is_the_pages_and_rows_are_named(gpu):
    figure = timeline(gpu)
    assert figure.get_figwidth() == pytest.approx(WIDTH)
    assert {"host", "stream 7", "stream 20"} <= {text.replace("\n", " ") for text in texts(figure)}
    assert "conv2d" in texts(figure)
    assert figure.axes[-1].get_xlabel() == "time from the start of the step (ms)"


def test_convolution_is_marked_and_the_legend_names_what_is_shown(gpu):
    figure = timeline(gpu)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert COLOURS["convolution"] in colours(figure)
    assert "convolution" in legend
    assert "pooling" not in legend


def test_a_chosen_kind_alone_keeps_its_colour(gpu):
    shown = colours(timeline(gpu, (0, 1), {"normalisation"}))
    assert COLOURS["normalisation"] in shown
    assert COLOURS["convolution"] not in shown


def test_zoom_shows_only_its_range(gpu):
    figure = timeline(gpu, (0.2, 0.3))
    assert figure.axes[0].get_xlim() == (0.2, 0.3)
    xs = [x for part in figure.axes[0].collections if isinstance(part, PolyCollection)
          for path in part.get_paths() for x in path.vertices[:, 0]]  # fmt: skip
    assert min(xs) >= 0.2
    assert max(xs) <= 0.3 + 0.01
    assert timeline(gpu, (5, 6)).axes  # nothing happens there


def test_a_long_wait_for_data_gives_a_strip_and_an_enlargement(tmp_path):
    events = gpu_step()
    events[0] = events[0] | {"dur": 10_000}
    events[1] = events[1] | {"ts": -8000, "dur": 8100}
    events[0]["ts"] = -9000
    analysis = analyse(save(tmp_path / "t.json", events))
    strip, detail = timeline(analysis).axes
    assert strip.get_xlim() == step_range(analysis)
    assert detail.get_xlim() == zoom_range(analysis)


def test_a_cpu_trace_has_no_gpu_row(tmp_path):
    figure = timeline(analyse(save(tmp_path / "c.json", cpu_step())))
    assert "host" in texts(figure)
    assert not any("stream" in text for text in texts(figure))


@pytest.mark.parametrize(("span", "kinds", "message"), [((2, 1), None, "span_ms"), (None, {"blue"}, "unknown kind")])
def test_wrong_arguments_are_named(gpu, span, kinds, message):
    with pytest.raises(ValueError, match=message):
        timeline(gpu, span, kinds)


def test_a_full_step_draws_fast(tmp_path):
    """A thousand bars within the 0.3 s of the panel; three times that here, of the processor's own time."""
    events = [gpu_step(1000 * i, i, 100 * i + 1)[2:] for i in range(90)]
    analysis = analyse(save(tmp_path / "t.json", events))
    table = bars(analysis)
    timeline(analysis, table=table)  # fonts are found and measured once
    begin = time.process_time()
    timeline(analysis, (0, 90), None, table).savefig(io.BytesIO(), dpi=72)
    assert time.process_time() - begin < 0.9
