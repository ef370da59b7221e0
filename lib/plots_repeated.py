"""Figures of repeated pruning: accuracy against sparsity, size on disk and time; methods; forms on disk."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.findings.repeated import batches
from lib.plots import WIDTH, style

LOOKS = (("#0072B2", "o", "-"), ("#D55E00", "s", "-"), ("#009E73", "^", "-"), ("#CC79A7", "D", "-"))


def accuracy_against(tables: dict[str, pd.DataFrame]) -> Figure:
    """Top-1 against sparsity, size on disk, and time: a panel each, a line for each of `tables`, by their names.

    `tables` are those of `lib.findings.repeated.iterations`. Sizes are those of the smallest file of an iteration, the
    state dict's is the dashed line; times are medians of a pass of the largest batch, with quartiles. The hollow
    point is the dense network, iteration 0.
    """
    timed = [n for table in tables.values() for n in batches(table)]
    panels = ["sparsity (%)", "smallest file (MB)"] + ([f"time of a pass of {max(timed)} (ms)"] if timed else [])
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.6), sharey=True, layout="constrained", squeeze=False)
    for (name, table), (colour, marker, dash) in zip(tables.items(), LOOKS, strict=False):
        look = {"color": colour, "marker": marker, "ls": dash, "ms": 4, "lw": 1.2}
        for ax, panel in zip(axes[0], panels, strict=True):
            x, reach = _along(panel, table)
            if x is not None:
                ax.plot(x, table["top1_pct"], label=name, **look)
                ax.errorbar(x, table["top1_pct"], xerr=reach, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2)
                ax.plot(
                    x.iloc[0],
                    table["top1_pct"].iloc[0],
                    marker=marker,
                    ms=5,
                    color=colour,
                    mfc="white",
                    mew=1.2,
                    mec=colour,
                )
    first = next(iter(tables.values()))
    axes[0, 1].axvline(first["disk_mb"].iloc[0], ls="--", lw=1, color="#555555", label="state dict")
    for ax, panel in zip(axes[0], panels, strict=True):
        ax.set(xlabel=panel)
        if panel != panels[0]:
            ax.set_xlim(left=0)
    axes[0, 0].set_ylabel("test top-1 accuracy (%)")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _along(panel: str, table: pd.DataFrame) -> tuple[pd.Series | None, list | None]:
    """What a table has for the axis of a panel, and how far its quartiles reach to both sides."""
    if not panel.startswith("time"):
        return table["sparsity_pct" if panel.startswith("sparsity") else "smallest_mb"], None
    sizes = batches(table)
    if not sizes:
        return None, None
    column = f"latency_{max(sizes)}"
    middle, low, high = (1e3 * table[f"{column}{part}_s"] for part in ("", "_q1", "_q3"))
    return middle, [middle - low, high - middle]


def methods(tables: dict[str, pd.DataFrame]) -> Figure:
    """Top-1 against sparsity, a line a method, in the colours that methods have everywhere."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    for name, table in tables.items():
        ax.plot(table["sparsity_pct"], table["top1_pct"], label=name, ms=5, **style(name))
    ax.set(xlabel="sparsity (%)", ylabel="test top-1 accuracy (%)")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def forms(files: pd.DataFrame) -> Figure:
    """Bars of the bytes on disk (MB) of every form, plain and compressed, a group an iteration, from files.csv."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    names = list(dict.fromkeys(files["form"]))
    numbers = sorted(files["iteration"].unique())
    width = 0.8 / len(names)
    for position, (name, (colour, *_)) in enumerate(zip(names, (*LOOKS, ("#E69F00",)), strict=False)):
        for compressed, alpha in ((False, 0.45), (True, 1.0)):
            part = files[(files["form"] == name) & (files["compressed"] == compressed)].set_index("iteration")["bytes"]
            x = [place + (position - (len(names) - 1) / 2) * width for place in range(len(numbers))]
            label = f"{name} with zstd" if compressed else name
            ax.bar(x, part.reindex(numbers) / 1e6, width * 0.9, color=colour, alpha=alpha, label=label)
    ax.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    ax.set(xlabel="iteration", ylabel="size on disk (MB)")
    ax.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=5, fontsize=7)
    return figure
