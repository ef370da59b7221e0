"""The figure of inference runtimes: how long a pass takes."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lib.catalog import RUNTIMES
from lib.findings.runtimes import batches, short
from lib.plots import KEPT, REMOVED, WIDTH

LOOK = dict(zip(RUNTIMES, (("#555555", "o", -0.22), (KEPT, "s", 0.0), (REMOVED, "D", 0.22)), strict=True))


def latencies(table: pd.DataFrame) -> Figure:
    """Median time of a pass, a line of networks and a panel of batch sizes; the bars go from quartile to quartile.

    `table` is that of `lib.findings.runtimes.quantiles`.
    """
    sizes, names = batches(table), list(dict.fromkeys(table["network"]))
    height = 0.9 + 0.34 * len(names)
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(WIDTH, height), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, size in zip(axes[0], sizes, strict=True):
        for runtime, (colour, marker, shift) in LOOK.items():
            own = table[(table["batch"] == size) & (table["runtime"] == runtime)]
            y = [names.index(name) + shift for name in own["network"]]
            ends = [1000 * (own["median_s"] - own["q1_s"]), 1000 * (own["q3_s"] - own["median_s"])]
            ax.errorbar(1000 * own["median_s"], y, xerr=ends, fmt=marker, color=colour, label=runtime, elinewidth=1.2)
        ax.set(title=f"batch {size}", xlabel="time of a pass (ms)", xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(names)), [short(name) for name in names], fontsize=7)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LOOK))
    return figure
