"""The figures of iterative pruning: accuracy over the levels, and the training at each."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from lib.findings.levels import FALL
from lib.plots import KEPT, STYLE, WIDTH


def levels(rows: pd.DataFrame, history: pd.DataFrame) -> Figure:
    """Top-1 against the kept share, a point a level (left), and while each level trains (right).

    `rows` are those of levels.csv (`level`, `density`, `top1_pct`), `history` those of history.csv (`level`, `epoch`,
    `test_top1_pct`).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharey=True, layout="constrained")
    _shares(left, rows)
    _curves(right, history)
    left.set_ylabel("test top-1 accuracy (%)")
    return figure


def curves(history: pd.DataFrame) -> Figure:
    """Test top-1 accuracy against epochs, a line a level: light at first, dark at last."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    _curves(ax, history)
    ax.set_ylabel("test top-1 accuracy (%)")
    return figure


def _shares(ax, rows: pd.DataFrame) -> None:
    dense = rows["top1_pct"].iloc[0]
    for height, dash, name in ((dense, "--", "dense"), (dense - FALL, ":", f"{FALL:g} point below")):
        ax.axhline(height, ls=dash, lw=1, color=STYLE["Dense"][0], label=name)
    ax.plot(100 * rows["density"], rows["top1_pct"], color=KEPT, marker="o", label="level")
    for _, row in rows.iterrows():
        where = (100 * row["density"], row["top1_pct"])
        ax.annotate(f"{row['level']:.0f}", where, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=7)
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_xticks(_ticks(100 * rows["density"]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("kept weights (%)")
    ax.legend(loc="lower left")


def _ticks(shares: pd.Series) -> list[float]:
    """1, 2 and 5 times powers of ten within the range."""
    powers = 10.0 ** np.arange(np.floor(np.log10(shares.min())), 3)
    low, high = shares.min() / 1.3, shares.max() * 1.3
    return [tick for power in powers for tick in (power, 2 * power, 5 * power) if low <= tick <= high]


def _curves(ax, history: pd.DataFrame) -> None:
    found = sorted(history["level"].unique())
    shades = plt.get_cmap("viridis_r")(np.linspace(0.1, 1, len(found)))
    for level, shade in zip(found, shades, strict=True):
        own = history[history["level"] == level]
        ax.plot(own["epoch"], own["test_top1_pct"], color=shade, marker=".", label=f"{level}")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # also of a single epoch
    columns = -(-len(found) // 9)
    ax.legend(title="level", ncols=columns, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the curves
