"""The panel of the trace notebook: step, zoom and kind of kernel."""

import ipywidgets as widgets
from matplotlib.figure import Figure

from lib.panels import panel
from lib.plots_trace import step_range, timeline, zoom_range
from lib.traces import analyse, prepare
from lib.traces.attribute import ALL_KINDS
from lib.traces.bars import bars

EVERY = "all kinds"


def trace(source, step: int | None = None) -> widgets.Widget:
    """Controls for a trace (a path, or what `lib.traces.prepare` returned) above its timeline.

    `step` is chosen first (None: the last complete one). Each step is analysed when it is first chosen; moving the zoom
    or the kind draws again from the bars at hand.
    """
    prepared = prepare(source)
    seen: dict = {}

    def view(index: int | None) -> tuple:
        if index not in seen:
            analysis = analyse(prepared, index)
            seen[index] = seen[analysis["step"]["step"]] = analysis, bars(analysis)
        return seen[index]

    def draw(step, zoom, kind) -> Figure:
        analysis, table = view(step)
        return timeline(analysis, zoom, None if kind == EVERY else {kind}, table)

    analysis = view(step)[0]
    steps = widgets.Dropdown(options=_steps(prepared), value=int(analysis["step"]["step"]), description="step")
    zoom = widgets.FloatRangeSlider(
        description="zoom (ms)", readout_format=".2f", continuous_update=False, layout=widgets.Layout(width="45%")
    )
    kinds = widgets.Dropdown(options=_kinds(view(step)[1]), description="kind")

    def follow(_=None) -> None:
        """Fit the zoom and the kinds to the chosen step."""
        analysis, table = view(steps.value)
        low, high = step_range(analysis)
        first, last = zoom_range(analysis)
        zoom.step = (high - low) / 1000
        with zoom.hold_trait_notifications():
            zoom.min, zoom.max, zoom.value = low, high, (max(first, low), min(last, high))
        kinds.options = _kinds(table)

    follow()
    steps.observe(follow, "value")
    return panel(draw, step=steps, zoom=zoom, kind=kinds)


def _steps(prepared: dict) -> list[tuple[str, int]]:
    return [
        (f"{s.step}: {s.name}" + ("" if s.complete else " (incomplete)"), int(s.step))
        for s in prepared["steps"].itertuples()
    ]


def _kinds(table) -> list[str]:
    return [EVERY, *[kind for kind in ALL_KINDS if kind in set(table.kind)]]
