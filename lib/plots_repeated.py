"""Figures of repeated pruning: accuracy, size on disk and time against sparsity."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.findings.repeated import batches
from lib.plots import WIDTH

LOOKS = (("#0072B2", "o", "-"), ("#D55E00", "s", "-"), ("#009E73", "^", "-"), ("#CC79A7", "D", "-"))


def against_sparsity(tables: dict[str, pd.DataFrame]) -> Figure:
    """Three panels, a line for each of `tables` (name -> `lib.findings.repeated.iterations`): top-1, MB, time.

    Sizes are those of the smallest file, the state dict's dashed beside it; times the median of a pass of the largest
    batch, with quartiles.
    """
    timed = [n for table in tables.values() for n in batches(table)]
    panels = ["top-1 accuracy (%)", "size on disk (MB)"] + ([f"time of a pass of {max(timed)} (ms)"] if timed else [])
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.6), layout="constrained", squeeze=False)
    for (name, table), (colour, marker, dash) in zip(tables.items(), LOOKS, strict=False):
        look = {"color": colour, "marker": marker, "ls": dash, "ms": 4, "lw": 1.2, "label": name}
        axes[0, 0].plot(table["sparsity_pct"], table["top1_pct"], **look)
        axes[0, 1].plot(table["sparsity_pct"], table["smallest_mb"], **look)
        if timed and max(timed) in batches(table):
            column = f"latency_{max(timed)}"
            middle = 1e3 * table[f"{column}_s"]
            reach = [middle - 1e3 * table[f"{column}_q1_s"], 1e3 * table[f"{column}_q3_s"] - middle]
            axes[0, 2].errorbar(table["sparsity_pct"], middle, reach, capsize=2, **look)
    first = next(iter(tables.values()))
    axes[0, 1].plot(first["sparsity_pct"], first["disk_mb"], ls="--", lw=1, color="#555555", label="state dict")
    for ax, unit in zip(axes[0], panels, strict=True):
        ax.set(xlabel="sparsity (%)", ylabel=unit)
        if "accuracy" not in unit:
            ax.set_ylim(bottom=0)
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
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
