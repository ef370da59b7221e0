"""The figure of a network's sensitivity: accuracy against the sparsity of one layer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.plots import WIDTH

MOST = 12  # layers that are named; of more only the first and the last


def layers(rows: pd.DataFrame, whole: float | None = None) -> Figure:
    """A panel a kind (`weights`, `channels`, `neurons`), a line a layer, from dark (first) to bright (last).

    `rows` is sensitivity.csv of one run; the whole network, of which `whole` is the accuracy where `rows` leave it out,
    is a dashed line. Up to MOST layers are named, below the panel.
    """
    whole = rows.loc[rows["layer"].fillna("") == "", "top1_pct"].iloc[0] if whole is None else whole
    rows = rows[rows["layer"].fillna("") != ""]
    kinds = list(dict.fromkeys(rows["kind"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(WIDTH, 3.4), sharey=True, squeeze=False, layout="constrained")
    for ax, kind in zip(axes[0], kinds, strict=True):
        part = rows[rows["kind"] == kind]
        names = list(dict.fromkeys(part["layer"]))
        colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names)))
        for name, colour in zip(names, colours, strict=True):
            line = part[part["layer"] == name].sort_values("sparsity_pct")
            ax.plot(line["sparsity_pct"], line["top1_pct"], color=colour, marker=".", ms=4, lw=1.1)
        ax.axhline(whole, ls="--", lw=1, color="#555555")
        ax.set(title=kind, xlabel="sparsity of that layer (%)")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.24), "ncols": 2, "fontsize": 7}
        ax.legend(handles=_handles(names, colours), **below)
    axes[0, 0].set_ylabel("top-1 accuracy (%)")
    return figure


def _handles(names: list[str], colours) -> list[Line2D]:
    """All layers, or of many the first and the last."""
    shown = range(len(names)) if len(names) <= MOST else (0, len(names) - 1)
    return [Line2D([], [], color=colours[i], marker=".", label=names[i]) for i in shown]
