"""The figures of compression pipelines: the pipeline itself, its layers, accuracy against bytes, codes.

Chains are those of `lib.findings.pipeline.chains`.
"""

import textwrap
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullFormatter

from lib.findings.pipeline import finished, mean
from lib.plots import KEPT, REMOVED, WIDTH

ROW = 4  # boxes beside each other that can be read at print width
GREY, PALE = "#555555", "#eef2f7"
# kind of stage -> edge of its box
EDGES = {
    "pretrained": GREY, "prune_weights": "#0072B2", "prune_activations": "#56B4E9", "quantise": "#D55E00",
    "fine_tune": "#009E73", "coded": "#CC79A7",
}  # fmt: skip
CHAINS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
PARTS = {"values": KEPT, "indices": REMOVED, "table": "#009E73", "header": "#CC79A7"}


def picture(chain: SimpleNamespace) -> Figure:
    """A box a stage with what it did and its top-1, an arrow to the next with the bytes that go along it.

    After ROW boxes the picture goes on in a second row. A stage that is not finished is dashed and says `missing`.
    """
    lines = -(-len(chain.stages) // ROW)
    columns = min(ROW, len(chain.stages))
    figure, ax = plt.subplots(figsize=(WIDTH, 1.15 * lines + 0.1), layout="constrained")
    ax.set(xlim=(-0.02, columns + 0.35), ylim=(-lines, 0.02))
    ax.set_axis_off()
    for place, stage in enumerate(chain.stages):
        x, y = place % ROW, -(place // ROW)
        _box(ax, stage, x, y)
        _arrow(ax, chain, stage, x, y)
    return figure


BOX, HEIGHT = 0.7, 0.84  # of a box, where one column and one row are 1


def _box(ax, stage: SimpleNamespace, x: float, y: float) -> None:
    done = len(stage.rows) > 0
    look = {"ec": EDGES[stage.notebook], "fc": PALE if done else "white", "ls": "-" if done else "--", "lw": 1.3}
    ax.add_patch(FancyBboxPatch((x, y - HEIGHT), BOX, HEIGHT, boxstyle="round,pad=0,rounding_size=0.04", **look))
    middle, top = x + BOX / 2, y - 0.08
    ax.text(middle, top, f"{stage.number}. {stage.short}", ha="center", va="top", weight="bold", fontsize=7)
    detail = stage.what.partition(": ")[2]
    text = textwrap.shorten(detail, 72, placeholder=" …")
    ax.text(middle, top - 0.2, textwrap.fill(text, 22), ha="center", va="top", fontsize=6.5, linespacing=1.15)
    told = f"{mean(stage, 'top1_pct'):.2f} % top-1" if done else "missing"
    ax.text(middle, y - HEIGHT + 0.05, told, ha="center", va="bottom", fontsize=7, color=GREY)


def _arrow(ax, chain: SimpleNamespace, stage: SimpleNamespace, x: float, y: float) -> None:
    """The file of a stage: an arrow to the next box, round the corner at the end of a row, or out of the picture."""
    last, turns = stage is chain.stages[-1], (stage.number % ROW) == 0
    look = {"arrowprops": {"arrowstyle": "-|>", "color": GREY, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}}
    level = y - HEIGHT / 2
    if turns and not last:
        down = y - (1 + HEIGHT) / 2
        ax.plot([x + BOX, x + BOX + 0.26, x + BOX + 0.26, BOX / 2], [level, level, down, down],
                color=GREY, lw=1.2)  # fmt: skip
        ax.annotate("", (BOX / 2, y - 1), (BOX / 2, down), **look)
    else:
        ax.annotate("", (x + 1 - 0.01, level), (x + BOX, level), **look)
    ax.text(
        x + (BOX + 1) / 2, level + 0.05, _size(stage, chain), ha="center", va="bottom", fontsize=6.5, linespacing=1.1
    )


def _size(stage: SimpleNamespace, chain: SimpleNamespace) -> str:
    """`1.23 MB`, and below it the share of the original's file."""
    if not len(stage.rows):
        return "?"
    size, whole = mean(stage, "file_bytes"), mean(chain.stages[0], "file_bytes")
    share = "" if np.isnan(whole) else f"\n{100 * size / whole:.3g} %"
    return f"{readable(size)}{share}"


def readable(size: float) -> str:
    """Bytes in the largest unit that they fill: `56.1 MB`, `27.3 kB`, `812 B`; powers of 1,000."""
    for factor, unit in ((1e6, "MB"), (1e3, "kB")):
        if size >= 0.9995 * factor:
            return f"{size / factor:.3g} {unit}" if size < 999.5 * factor else f"{size / factor:,.0f} {unit}"
    return f"{size:.0f} B"


def layers(rows: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """Kept share of each layer (left), and the bytes of its parts on disk (right).

    `rows` is layers.csv and `parts` parts.csv of one run; the parts of a layer are those of its tensors.
    """
    names = list(rows["layer"])
    sizes = _by_layer(names, parts)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 0.75 + 0.19 * len(names)), sharey=True, layout="constrained"
    )  # fmt: skip
    y = np.arange(len(names))
    left.barh(y, 100 * rows["kept"] / rows["weights"], color=KEPT)
    left.set(xlabel="weights kept (%)", xlim=(0, 100))
    left.set_yticks(y, [name.removesuffix(".weight") for name in names], fontsize=7)
    left.invert_yaxis()
    start = np.zeros(len(names))
    for part in [part for part in PARTS if part in sizes]:
        right.barh(y, sizes[part] / 1000, left=start / 1000, color=PARTS[part], label=part)
        start += sizes[part].to_numpy()
    right.set(xlabel="bytes in the file (kB)")
    right.tick_params(left=False)
    for ax in (left, right):
        ax.grid(axis="y", visible=False)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _by_layer(names: list[str], parts: pd.DataFrame) -> pd.DataFrame:
    """Bytes by layer and part: `conv.weight` and `conv.bias` are tensors of the layer `conv` or `conv.weight`."""
    known = {name.removesuffix(".weight"): name for name in names}
    layer = parts["tensor"].fillna("").map(lambda tensor: known.get(tensor.rpartition(".")[0]))
    table = parts.assign(layer=layer).pivot_table(index="layer", columns="part", values="bytes", aggfunc="sum")
    return table.reindex(names).fillna(0)


def tradeoff(chains: list[SimpleNamespace]) -> Figure:
    """Top-1 against bytes of the file (log scale) of chains of one task, a line a chain, its stages as numbered points.

    Bars are standard deviations over seeds. Points that lie on one another share a number where theirs is the same.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    placed: list[tuple[float, float, str]] = []
    apart = _apart(chains)
    for number, chain in enumerate(chains):
        colour, marker = CHAINS[number % len(CHAINS)]
        done = finished(chain)
        size = [mean(stage, "file_bytes") for stage in done]
        top1 = [mean(stage, "top1_pct") for stage in done]
        spread = [stage.rows["top1_pct"].std() if len(stage.rows) > 1 else 0 for stage in done]
        dash = "-" if number < len(CHAINS) else "--"
        ax.errorbar(size, top1, spread, color=colour, marker=marker, ls=dash, ms=5, lw=1, label=chain.name, capsize=2)
        for stage, x, y in zip(done, size, top1, strict=True):
            near = [text for u, v, text in placed if abs(np.log10(x / u)) < apart[0] and abs(y - v) < apart[1]]
            if str(stage.number) not in near:
                look = {"xytext": (4 + 7 * len(near), 4), "textcoords": "offset points", "fontsize": 7, "color": colour}
                ax.annotate(str(stage.number), (x, y), **look)
                placed.append((x, y, str(stage.number)))
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda size, _: readable(size))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.invert_xaxis()
    ax.set(xlabel="file on disk (log scale, smaller to the right)", ylabel="test top-1 accuracy (%)")
    figure.legend(loc="outside upper center", ncols=min(4, max(1, len(chains))), fontsize=8)
    return figure


def _apart(chains: list[SimpleNamespace]) -> tuple[float, float]:
    """How far points must be from each other for their numbers to stand beside them: powers of ten, points of top-1."""
    done = [stage for chain in chains for stage in finished(chain)]
    spans = [np.ptp([of(stage) for stage in done] or [0]) for of in (_power, lambda stage: mean(stage, "top1_pct"))]
    return 0.03 * max(spans[0], 0.1), 0.05 * max(spans[1], 0.1)


def _power(stage: SimpleNamespace) -> float:
    return np.log10(mean(stage, "file_bytes"))


def codes(rows: pd.DataFrame, most: int = 3) -> Figure:
    """Counts of the values of the largest tensors (left, log scale) and the length of their codes (right), in bits.

    `rows` is codes.csv. The line is the length that the entropy asks for, -log2 of a value's share; it is broken where
    values are missing, as around zero when small weights were pruned. At most `most` tensors are drawn.
    """
    rows = rows[(rows["count"] > 0) & rows["value"].notna()]
    largest = rows.groupby("tensor")["count"].sum().sort_values(ascending=False).index[:most]
    figure, axes = plt.subplots(
        len(largest), 2, figsize=(WIDTH, 0.6 + 1.25 * len(largest)), sharex="row", layout="constrained", squeeze=False
    )  # fmt: skip
    for (left, right), tensor in zip(axes, largest, strict=True):
        own = rows[rows["tensor"] == tensor].sort_values("value")
        width = 0.8 * np.diff(own["value"]).min() if len(own) > 1 else 0.1
        left.bar(own["value"], own["count"], width, color=KEPT)
        left.set_yscale("log")
        left.set_ylim(bottom=0.5)
        left.yaxis.set_major_locator(LogLocator(numticks=5))
        left.yaxis.set_minor_formatter(NullFormatter())
        left.set_title(f"{tensor} ({own['count'].sum():,} values, {len(own)} different)", fontsize=8)
        right.plot(own["value"], own["length"], "o", ms=3, color=REMOVED, label="length of the code")
        ideal = -np.log2(own["count"] / own["count"].sum())
        right.plot(*_broken(own["value"], ideal), color=KEPT, lw=1, label="−log₂ of the share (entropy)")
        right.set_ylim(bottom=0)
        for ax in (left, right):
            ax.tick_params(labelsize=7)
    for left, right in axes:
        left.set_ylabel("weights")
        right.set_ylabel("bits")
    for ax in axes[-1]:
        ax.set_xlabel("value")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure


STEPS, NEAR = 1.9, 7  # a gap is this many usual steps wide; usual is the median of so many steps around


def _broken(x: pd.Series, y: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Points of a line in rising order of `x`, with NaN wherever neighbours are further apart than is usual there."""
    steps = pd.Series(np.diff(x))
    gaps = np.flatnonzero(steps > STEPS * steps.rolling(NEAR, center=True, min_periods=1).median()) + 1
    return np.insert(x.to_numpy(float), gaps, np.nan), np.insert(y.to_numpy(float), gaps, np.nan)
