"""The figure of pruning and quantisation together: accuracy against the file on disk."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.catalog import UNPRUNED
from lib.findings.quantisation import BOTH, NONE, PRUNED_FIRST, QUANTISED_FIRST, WEIGHTS
from lib.plots import WIDTH

COLOURS = {UNPRUNED: "#555555", PRUNED_FIRST: "#0072B2", QUANTISED_FIRST: "#D55E00"}
MARKERS = {NONE: "o", WEIGHTS: "^", BOTH: "s"}


def accuracy_against_size(rows: pd.DataFrame) -> Figure:
    """Top-1 against the compressed file, a point a row of quantized.csv; hollow after further epochs."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    for row in rows.to_dict("records"):
        colour, further = COLOURS[row["order"]], row["fine_tuning_epochs"] > 0
        look = {"color": colour, "marker": MARKERS[row["quantisation"]], "ms": 6, "ls": ""}
        ax.plot(row["compressed_mb"], row["top1_pct"], mfc="none" if further else colour, **look)
    orders = [order for order in COLOURS if (rows["order"] == order).any()]
    for order in orders:
        ax.plot([], [], ls="", marker="o", color=COLOURS[order], label=order)
    for name, marker in MARKERS.items():
        ax.plot([], [], ls="", marker=marker, color="#999999", label=f"8 bits: {name}")
    if (rows["fine_tuning_epochs"] > 0).any():
        ax.plot([], [], ls="", marker="o", mfc="none", color="#999999", label="further epochs")
    ax.set_xscale("log")
    ax.set(xlabel="file, compressed (MB)", ylabel="test top-1 accuracy (%)")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
