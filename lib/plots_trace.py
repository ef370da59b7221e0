"""A profiler trace as a picture: the host's nested operators above, one row for each GPU stream below.

Drawing only; what is drawn is computed by lib.traces.bars. Colours are those of Okabe and Ito
(https://jfly.uni-koeln.de/color/), which the common kinds of colour blindness tell apart; convolution alone
is orange-red.
"""

from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath

from lib.traces.bars import bars

WIDTH = 16.2 / 2.54  # inches between the margins of the report: drawn at this size, never rescaled

COLOURS = {
    "convolution": "#D55E00",
    "mask multiply": "#000000",
    "normalisation": "#0072B2",
    "activation": "#56B4E9",
    "elementwise": "#009E73",
    "matrix product": "#CC79A7",
    "pooling": "#F0E442",
    "copy": "#E69F00",
    "memset": "#B8860B",
    "other": "#BBBBBB",
    "unattributed": "#888888",
    "data loading": "#E8DCC4",
    "waiting": "#DDDDDD",
    "scope": "#F2F2F2",
}
BACKGROUND = {"scope", "data loading", "waiting"}  # frames, not work: no choice of kind hides them
FADED = "#EBEBEB"  # kinds that were not chosen
LANES = 6  # deeper host lanes add nothing that is readable in print
STRIP_LANES = 3  # of the host in the strip that shows the whole step
HEIGHT = {"Host": 1.0, "GPU": 1.8}  # of a bar, in lanes: the GPU is what the picture is about
LANE_IN, ROW_GAP = 0.15, 0.45  # height of a lane in inches, and the gap between rows in lanes
LEFT, RIGHT = 0.085, 0.98  # of the axes, as a share of the width
NAME_PT = 5.5  # size of the names in bars


def zoom_range(analysis: dict) -> tuple[float, float]:
    """The part of the step worth a closer look, in ms from its start: after data loading to the last activity, with a
    margin of 2 %; the whole step where it has no loading scope."""
    table = analysis["windows"]
    after = table[table.window.str.startswith("after data loading")]
    low, high = (after if len(after) else table)[["start_ms", "end_ms"]].iloc[0]
    margin = 0.02 * (high - low)
    return max(0.0, float(low - margin)), float(high + margin)


def step_range(analysis: dict) -> tuple[float, float]:
    """From the step's start to its end on the host or that of its last GPU work, whichever is later, in ms."""
    step, work = analysis["step"], analysis["work"]
    last = max([step["end_us"], *([work.end_us.max()] if len(work) else [])])
    return 0.0, float(last - step["start_us"]) / 1e3


def timeline(analysis: dict, span_ms=None, kinds=None, table: pd.DataFrame | None = None) -> Figure:
    """The step's timeline at print width.

    analysis: what `lib.traces.analyse` returned. span_ms: (from, to) in ms from the step's start; None: the whole step
    as a strip, and below it, enlarged, the part after data loading. kinds: only bars of these kinds keep their colour
    (None: all). table: the bars, where they are at hand already. ValueError for an empty range or an unknown kind.
    """
    table = bars(analysis) if table is None else table
    unknown = sorted(set(kinds or ()) - set(COLOURS))
    if unknown:
        raise ValueError(f"unknown kind {unknown[0]!r}: one of {', '.join(COLOURS)}")
    if span_ms is not None and not span_ms[0] < span_ms[1]:
        raise ValueError(f"span_ms is {tuple(span_ms)}: the first number must be smaller than the second")
    whole, zoom = step_range(analysis), span_ms or zoom_range(analysis)
    if span_ms is not None:
        parts = [(table[table.lane < LANES], zoom)]
    elif zoom[1] - zoom[0] > 0.6 * (whole[1] - whole[0]):  # nothing to enlarge
        parts = [(table[table.lane < LANES], whole)]
    else:
        parts = [(table[table.lane < STRIP_LANES], whole), (table[table.lane < LANES], zoom)]
    return _figure(parts, kinds)


def _figure(parts: list, kinds) -> Figure:
    """parts: (bars, (from, to)) of each axes, from the top."""
    layouts = [_layout(frame) for frame, _ in parts]
    present = {kind for frame, span in parts for kind in _visible(frame, *span).kind}
    handles = [_handle(kind, kinds) for kind in COLOURS if kind in present and kind != "scope"]
    legend_in, axis_in = 0.06 + 0.15 * -(-len(handles) // 6), 0.38
    heights = [max(-low, 2) * LANE_IN for _, low in layouts]
    total = sum(heights) + axis_in * len(parts) + legend_in
    figure, axes, top = Figure(figsize=(WIDTH, total), layout="none"), [], total - legend_in
    for (frame, span), (rows, low), height in zip(parts, layouts, heights, strict=True):
        ax = figure.add_axes((LEFT, (top - height) / total, RIGHT - LEFT, height / total))
        top -= height + axis_in
        _draw(ax, _visible(frame, *span), rows, span, kinds)
        ax.set(xlim=span, ylim=(low, 0))
        axes.append(ax)
    if len(axes) == 2:
        _mark_zoom(*axes, parts[1][1])
    axes[-1].set_xlabel("time from the start of the step (ms)", labelpad=2, fontsize=8)
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=((LEFT + RIGHT) / 2, 1.0), ncols=6, fontsize=7,
        frameon=False, handlelength=1.1, handleheight=0.8, columnspacing=1.2, borderaxespad=0.1, labelspacing=0.25,
    )  # fmt: skip
    return figure


def _visible(table: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    return table[(table.start_ms < high) & (table.start_ms + table.dur_ms > low)]


def _layout(table: pd.DataFrame) -> tuple[dict, float]:
    """The top and height of each (side, row), counted downwards in lanes, and the bottom of all; the host first."""
    rows, y = {}, 0.0
    for (side, row), lane in table.groupby(["side", "row"], sort=False).lane.max().items():
        height = (lane + 1) * HEIGHT[side]
        rows[side, row] = (y, height)
        y -= height + ROW_GAP
    return rows, y + ROW_GAP


def _draw(ax, table, rows, span, kinds) -> None:
    points_per_ms = (RIGHT - LEFT) * WIDTH * 72 / (span[1] - span[0])
    high = table.side.map(HEIGHT).to_numpy(float)
    top = np.array([rows[key][0] for key in zip(table.side, table.row, strict=True)]) - table.lane.to_numpy() * high
    left = table.start_ms.clip(lower=span[0]).to_numpy(float)
    right = (table.start_ms + table.dur_ms).clip(upper=span[1]).to_numpy(float)
    right = np.maximum(right, left + 0.35 / points_per_ms)  # a kernel of 2 us stays a hairline, not nothing
    upper, lower = top - 0.06, top - high + 0.06
    boxes = np.stack(
        [np.stack(corner, -1) for corner in ((left, upper), (right, upper), (right, lower), (left, lower))], axis=1
    )
    faces = [_colour(kind, kinds) for kind in table.kind]
    edges = np.where((right - left) * points_per_ms > 3, "white", "none")
    ax.add_collection(PolyCollection(boxes, facecolors=faces, edgecolors=edges.tolist(), linewidths=0.3))
    width = (right - left) * points_per_ms
    for at in np.flatnonzero(width > 10):
        text = _fit(table.label.iat[at], width[at] - 3, tuple(rcParams["font.family"]))
        middle, dark = (left[at] + right[at]) / 2, np.dot(to_rgb(faces[at]), (0.299, 0.587, 0.114)) < 0.5
        ax.text(middle, (upper[at] + lower[at]) / 2 - 0.03, text, ha="center", va="center", size=NAME_PT,
                color="white" if dark else "black", parse_math=False)  # fmt: skip
    _rows(ax, rows)


def _handle(kind: str, kinds) -> Patch:
    return Patch(facecolor=_colour(kind, kinds), edgecolor="#999999", lw=0.3, label=kind)


def _colour(kind: str, kinds) -> str:
    return COLOURS[kind] if kinds is None or kind in kinds or kind in BACKGROUND else FADED


@lru_cache(maxsize=4096)
def _fit(label: str, points: float, family: tuple) -> str:
    """The label, or a beginning of at least four letters with an ellipsis, or nothing: what fits into that width."""
    width = _letters(label, family)
    if width <= points:
        return label
    letters = int(points / width * len(label)) - 2
    return label[:letters] + "…" if letters >= 4 else ""


@lru_cache(maxsize=4096)
def _letters(label: str, family: tuple) -> float:
    """Width in points of the text in the figure's own font; `family` is part of the key."""
    literal = label.replace("$", r"\$")  # in names of C++ lambdas, and no maths
    return TextPath((0, 0), literal, size=NAME_PT, usetex=False).get_extents().width


def _rows(ax, rows) -> None:
    for (_, row), (top, height) in rows.items():
        ax.text(-0.008, top - height / 2, row.replace(" stream", "\nstream"), ha="right", va="center", size=7,
                transform=ax.get_yaxis_transform(), linespacing=0.9)  # fmt: skip
        ax.axhspan(top - height, top, color="#FAFAFA", zorder=0, lw=0)
    ax.set_yticks([])
    ax.tick_params(axis="x", labelsize=7, length=2.5, width=0.6, pad=2)
    ax.grid(False)
    ax.set_facecolor("white")
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.spines["bottom"].set_linewidth(0.6)


def _mark_zoom(strip, detail, zoom) -> None:
    """Frame the enlarged part in the strip and lead the eye from it to the picture below."""
    strip.axvspan(*zoom, facecolor="none", edgecolor="black", lw=0.8, zorder=3, clip_on=False)
    line = {"arrowstyle": "-", "lw": 0.5, "color": "#777777", "shrinkA": 0, "shrinkB": 0}
    for x, corner in zip(zoom, (0, 1), strict=True):
        strip.annotate("", xy=(x, 0), xycoords=strip.get_xaxis_transform(), xytext=(corner, 1),
                       textcoords=detail.transAxes, arrowprops=line)  # fmt: skip
