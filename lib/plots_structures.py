"""The figure of structured pruning: accuracy against the time of a pass."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.catalog import UNPRUNED
from lib.findings.structures import batches
from lib.plots import WIDTH

STYLE = {
    "channels": ("#0072B2", "o"),
    "neurons": ("#D55E00", "s"),
    "blocks": ("#009E73", "^"),
    "heads": ("#CC79A7", "D"),
}
GREY = "#555555"


def tradeoff(rows: pd.DataFrame, latencies: pd.DataFrame) -> Figure:
    """Top-1 against the median time of a pass, its quartiles as a bar; a panel a batch size, a line a structure.

    Numbers at the points are the rates in %; each line starts at the unpruned network. Frames as in
    `lib.findings.structures`.
    """
    latencies = latencies[latencies["network"].isin(rows["network"])]
    sizes = batches(latencies)
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(WIDTH, 2.8), sharey=True, layout="constrained", squeeze=False
    )  # fmt: skip
    accuracy = rows.set_index("network")["top1_pct"]
    for ax, batch in zip(axes[0], sizes, strict=True):
        timed = latencies[latencies["batch"] == batch]
        _panel(ax, timed.assign(top1_pct=timed["network"].map(accuracy)))
        ax.set_xlabel(f"ms a pass of {batch}")
        ax.set_xlim(left=0)
    axes[0][0].set_ylabel("test top-1 accuracy (%)")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _panel(ax, timed: pd.DataFrame) -> None:
    whole = timed[timed["structure"] == UNPRUNED]
    for structure in timed["structure"].unique():
        own = timed[timed["structure"] == structure].sort_values("rate")
        colour, marker = STYLE.get(structure, (GREY, "*"))
        line = own if structure == UNPRUNED else pd.concat([whole, own])
        ax.plot(1e3 * line["latency_s"], line["top1_pct"], color=colour, lw=0.8, alpha=0.6)
        spread = 1e3 * own[["latency_q1_s", "latency_q3_s"]].sub(own["latency_s"], axis=0).abs().to_numpy().T
        where = (1e3 * own["latency_s"], own["top1_pct"])
        ax.errorbar(*where, xerr=spread, color=colour, marker=marker, ls="none", lw=0.8, label=structure)
        for x, y, rate in zip(*where, own["rate"], strict=True):
            if structure != UNPRUNED:
                text = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": 7}
                ax.annotate(f"{100 * rate:g}", (x, y), color=colour, **text)
