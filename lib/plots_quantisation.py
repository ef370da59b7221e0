"""The figure of pruning and quantisation together: accuracy against the file on disk."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lib.catalog import PRUNED_FIRST, QUANTISED_FIRST, UNPRUNED
from lib.findings.quantisation import BOTH, NONE, WEIGHTS
from lib.plots import WIDTH

COLOURS = {UNPRUNED: "#555555", PRUNED_FIRST: "#0072B2", QUANTISED_FIRST: "#D55E00"}
MARKERS = {  # the smaller within the larger where they meet, as rounding of activations costs nothing on disk
    NONE: {"marker": "o", "ms": 6, "zorder": 3, "label": "float32"},
    BOTH: {"marker": "s", "ms": 8, "zorder": 3, "label": "8-bit weights and activations"},
    WEIGHTS: {"marker": "^", "ms": 5.5, "zorder": 4, "label": "8-bit weights"},
}
FULL, HOLLOW = {"mec": "white", "mew": 0.6}, {"mfc": "none", "mew": 1.0}


def accuracy_against_size(rows: pd.DataFrame) -> Figure:
    """Top-1 against the compressed file, a point a row of quantized.csv; hollow after further epochs."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    for row in rows.to_dict("records"):
        colour, further = COLOURS[row["order"]], row["fine_tuning_epochs"] > 0
        look = MARKERS[row["quantisation"]] | (HOLLOW if further else FULL) | {"label": None}
        ax.plot(row["compressed_mb"], row["top1_pct"], ls="", color=colour, **look)
    for order in [order for order in COLOURS if (rows["order"] == order).any()]:
        ax.plot([], [], ls="", marker="o", ms=6, color=COLOURS[order], label=order)
    for look in MARKERS.values():
        ax.plot([], [], ls="", color="#999999", **look)
    if (rows["fine_tuning_epochs"] > 0).any():
        ax.plot([], [], ls="", marker="o", ms=6, color="#999999", label="after further epochs", **HOLLOW)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="file, compressed (MB)", ylabel="test top-1 accuracy (%)")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
