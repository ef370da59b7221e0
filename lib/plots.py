"""The figures of the report: each function takes frames and returns a matplotlib figure, at print size.

A method has one colour and one marker everywhere, whatever else is in the picture. Colours are those of Okabe
and Ito (https://jfly.uni-koeln.de/color/), which the common kinds of colour blindness tell apart.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import catalog, shares, tables

WIDTH = 16.2 / 2.54  # inches between the margins of the report: drawn at this size, never rescaled

STYLE = {  # method -> colour, marker
    "Dense": ("#555555", "."),
    "Rand": ("#999999", "v"),
    "Mag": ("#E69F00", "s"),
    "SNIP": ("#0072B2", "o"),
    "GraSP": ("#CC79A7", "D"),
    "SynFlow": ("#56B4E9", "^"),
    "SynFlow (100 rounds)": ("#009E73", "P"),
    "LAMP": ("#D55E00", "X"),
    "ERK": ("#000000", "*"),
    "Uniform": ("#882255", "<"),  # from here on colours of Paul Tol's muted scheme, made to the same end
    "Mag-init": ("#999933", "p"),
    "OBD": ("#44AA99", ">"),
    "WoodFisher": ("#332288", "d"),
    "Wanda": ("#CC6677", "h"),
    "Movement": ("#AA4499", (4, 1, 0)),  # a star of four points
}
SPARE = ("#117733", "#661100", "#6699CC")  # for methods that a user adds, by name
# A variant of a method, such as `SNIP (scope layer)`, is darker or brighter than it, with a marker of its own.
SHADES, VARIANTS = (0.55, 1.45), ("8", "H", (3, 1, 0), (6, 1, 0), (8, 1, 0))
KEPT, REMOVED = "#0072B2", "#E69F00"


def style(method: str) -> dict:
    """Colour and marker of a method, the same in every figure; a variant has a shade of its method's colour."""
    if method in STYLE:
        colour, marker = STYLE[method]
        return {"color": colour, "marker": marker}
    base = method.split(" (")[0]
    if base in STYLE:
        number = sum(method.encode())
        shade = SHADES[number % len(SHADES)]
        return {"color": _shaded(STYLE[base][0], shade), "marker": VARIANTS[number % len(VARIANTS)]}
    return {"color": SPARE[sum(method.encode()) % len(SPARE)], "marker": "X"}


def _shaded(colour: str, factor: float) -> str:
    """Darker for a factor below 1, else towards white."""
    channels = np.array(to_rgb(colour))
    return to_hex(channels * factor if factor < 1 else 1 - (1 - channels) * (2 - factor))


def history(rows: list[dict] | pd.DataFrame) -> Figure:
    """Loss and top-1 accuracy against epochs of one run, training and test."""
    frame = pd.DataFrame(rows)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.1), layout="constrained")
    for ax, quantity, unit in zip(axes, ("loss", "top1_pct"), ("loss", "top-1 accuracy (%)"), strict=True):
        for part, dash in (("train", "--"), ("test", "-")):
            ax.plot(frame["epoch"], frame[f"{part}_{quantity}"], dash, color=KEPT, label=part, marker=".")
        ax.set(xlabel="epoch", ylabel=unit)
        _whole_epochs(ax, frame["epoch"])
    axes[0].legend()
    return figure


def curves(histories: pd.DataFrame, plan: pd.DataFrame) -> Figure:
    """Loss and top-1 accuracy against epochs after pruning, training (left) and test (right), a line a method.

    `histories` are the history.csv of the planned runs with their `run`; several seeds give the mean and a band
    of one standard deviation.
    """
    import seaborn as sns  # 1.7 s, for its scipy: only where it draws

    frame = histories.merge(plan[["run", "method", "pruner", "rounds"]], on="run")
    methods = tables.methods(frame)
    look = {method: style(method) for method in methods}
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 4.3), sharex=True, layout="constrained")
    for row, (quantity, unit) in enumerate((("loss", "loss"), ("top1_pct", "top-1 accuracy (%)"))):
        for ax, part, name in zip(axes[row], ("train", "test"), ("training", "test"), strict=True):
            sns.lineplot(
                frame,
                x="epoch",
                y=f"{part}_{quantity}",
                hue="method",
                hue_order=methods,
                palette={method: look[method]["color"] for method in methods},
                style="method",
                style_order=methods,
                markers={method: look[method]["marker"] for method in methods} if frame["epoch"].max() <= 20 else False,
                dashes=False,
                markeredgewidth=0,  # a white edge leaves nothing of a point
                errorbar="sd",
                legend=row == 0 and part == "train",
                ax=ax,
            )
            _whole_epochs(ax, frame["epoch"])
            ax.set(xlabel="", ylabel=f"{name} {unit}")
            _clip_losses(ax, quantity)
    for ax in axes[1]:
        ax.set_xlabel("epoch after pruning (dense: epoch)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].get_legend().remove()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(7, len(labels)), fontsize=8)
    return figure


def _whole_epochs(ax, epochs: pd.Series) -> None:
    """Ticks at whole epochs; room around a single one."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if epochs.min() == epochs.max():
        ax.set_xlim(epochs.min() - 1, epochs.max() + 1)


def _clip_losses(ax, quantity: str) -> None:
    # one diverged test loss would flatten all others; four times chance (ln 10) is as bad as a reader needs
    if quantity == "loss" and ax.get_ylim()[1] > 9.2:
        ax.set_ylim(0, 9.2)  # the margin below was that of the diverged one
        ax.set_title("losses above 9.2 are cut off", fontsize=7, loc="right", pad=2)


def against_compression(panels: list[tuple[pd.DataFrame, str, str, float | None]]) -> Figure:
    """A panel for each (frame, column, axis label, dense value): the column against compression, a line a method.

    A frame holds `compression`, `method`, `pruner`, `rounds` and the column, a row a run; bars show one standard
    deviation over seeds. The dense value is a dashed line.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.6), layout="constrained", squeeze=False)
    seen = {}
    for ax, (frame, column, unit, dense) in zip(axes[0], panels, strict=True):
        for method in [m for m in tables.methods(frame) if m != tables.DENSE]:
            grouped = frame[frame["method"] == method].groupby("compression")[column]
            mean, sd = grouped.mean(), grouped.std().fillna(0)
            seen[method] = ax.errorbar(mean.index, mean, sd, ms=4, lw=1.2, capsize=2, **style(method))
        if dense is not None and not np.isnan(dense):
            seen[tables.DENSE] = ax.axhline(dense, ls="--", lw=1, color=STYLE["Dense"][0])
        ax.set(ylabel=unit)
        share_axis(ax, frame)
        if not frame[column].dropna().empty and frame[column].min() >= 0 and "%" not in unit:
            ax.set_ylim(bottom=0)
    figure.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=min(7, len(seen) or 1), fontsize=8)
    return figure


def share_axis(ax, frame: pd.DataFrame) -> None:
    """Name the horizontal axis, on which compressions are drawn, in the study's word, with a tick for each of `frame`.

    Ticks that would stand on one another are left out.
    """
    ratios = len(frame) > 0 and frame["word"].iloc[0] == "ratio"
    ax.set_xlabel("ratio (1 / density, log scale)" if ratios else "compression (−log₁₀ density)")
    ticks: list[float] = []
    values = sorted(frame["compression"].unique())
    for value in values:
        if not ticks or value - ticks[-1] >= 0.07 * (values[-1] - values[0]):
            ticks.append(value)
    ax.set_xticks(ticks, [shares.ratio(tick) if ratios else shares.exponent(tick) for tick in ticks])


def densities(layers: pd.DataFrame, plan: pd.DataFrame) -> Figure:
    """Kept share of every layer (log scale), a line a method; an emptied layer is a mark on the bottom edge."""
    table = tables.layer_densities(layers, plan)
    chosen = [m for m in tables.methods(plan) if m in table and m != tables.DENSE]
    figure, ax = plt.subplots(figsize=(WIDTH, 3.1), layout="constrained")
    positive = table[chosen].to_numpy(dtype=float)
    floor = 10 ** np.floor(np.log10(positive[positive > 0].min())) if (positive > 0).any() else 0.1
    for method in chosen:
        values, look = table[method].to_numpy(dtype=float), style(method)
        ax.plot(np.where(values > 0, values, np.nan), ms=3.5, lw=1.1, label=method, **look)
        empty = np.flatnonzero(values == 0)
        ax.plot(empty, np.full(len(empty), floor), "x", color=look["color"], ms=7, mew=2, clip_on=False, zorder=5)
    ax.set_yscale("log")
    ax.set_ylim(floor, 130)
    ax.set_xticks(range(len(table)), list(table.index), rotation=60, ha="right", fontsize=7)
    ax.set_ylabel("kept weights (%)")
    figure.legend(loc="outside upper center", ncols=min(7, len(chosen) or 1), fontsize=8)
    return figure


def histograms(rows: pd.DataFrame, columns: int = 4) -> Figure:
    """Weights of every layer when it was pruned: kept ones stacked on removed ones, a panel a layer.

    `rows` hold `layer`, `left`, `right` (edges of a bin), `kept`, `removed` (counts).
    """
    layers = dict(tuple(rows.groupby("layer", sort=False)))
    lines = -(-len(layers) // columns)
    # at print size 20 characters and the share fit above a panel of a quarter of the width
    gap = "\n" if max(len(name.removesuffix(".weight")) for name in layers) > 20 else " "
    height = 0.35 + (1.15 if gap == " " else 1.25) * lines
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, height), layout="constrained", squeeze=False)
    for ax, (layer, bars) in zip(axes.flat, layers.items(), strict=False):
        draw_histogram(ax, bars)
        share = bars["kept"].sum() / bars[["kept", "removed"]].sum().sum()
        ax.set_title(f"{layer.removesuffix('.weight')}{gap}({share:.1%} kept)", fontsize=7, pad=2)
        ax.tick_params(labelsize=6, pad=1)
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_locator(MaxNLocator(3))
    for ax in axes.flat[len(layers) :]:
        ax.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    figure.supxlabel("value of the weight when pruned", fontsize=8)
    figure.supylabel("number of weights", fontsize=8)
    return figure


def pages(rows: pd.DataFrame, most: int = 28) -> list[pd.DataFrame]:
    """The histogram rows of a network in parts that fit a page, of at most `most` layers and about equally many."""
    names = list(dict.fromkeys(rows["layer"]))
    count = -(-len(names) // most)
    size = -(-len(names) // count)
    return [rows[rows["layer"].isin(names[i : i + size])] for i in range(0, len(names), size)]


def draw_histogram(ax, rows: pd.DataFrame) -> None:
    """One layer: removed weights above the kept ones, so that the outline is the unpruned layer.

    `stairs` is one shape for all bins: a network is drawn in a third of the time that bars take.
    """
    edges = [*rows["left"], rows["right"].iloc[-1]]
    kept, all_of_them = rows["kept"].to_numpy(), (rows["kept"] + rows["removed"]).to_numpy()
    ax.stairs(kept, edges, fill=True, color=KEPT, label="kept", linewidth=0)
    ax.stairs(all_of_them, edges, baseline=kept, fill=True, color=REMOVED, label="removed", linewidth=0)
    ax.set_ylim(bottom=0)
    ax.grid(False)


def layer_view(layers: pd.DataFrame, bars: pd.DataFrame, pruner: str) -> Figure:
    """Density of every layer (left), weights of one layer (right); `layers` are layer rows, `bars` histogram rows."""
    # fixed margins: the constrained layout would take longer than the drawing, while a slider moves
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    figure.subplots_adjust(left=0.14, right=0.99, bottom=0.16, top=0.92, wspace=0.25)
    left.barh(range(len(layers)), 100 * layers["density"], color=style(catalog.label(pruner))["color"])
    left.set_yticks(range(len(layers)), layers["layer"], fontsize=6)
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    kept, total = layers["kept"].sum(), layers["weights"].sum()
    left.set(xlabel=f"kept weights (%), {kept:,} of {total:,} in all", xlim=(0, 100))
    draw_histogram(right, bars)
    right.set(xlabel="value of the weight when pruned", ylabel="number of weights")
    right.set_title(bars["layer"].iloc[0], fontsize=8)
    right.legend()
    return figure


def timing_bars(table: pd.DataFrame) -> Figure:
    """Median time of a pass over the test set, a bar a network and form, the interquartile range as a line.

    `table` has `network`, `form`, `median_s`, `spread_s`.
    """
    names = list(dict.fromkeys(table["network"]))
    figure, ax = plt.subplots(figsize=(WIDTH, 0.6 + 0.26 * len(names)), layout="constrained")
    for form, colour, shift in (("permanent", KEPT, -0.2), ("masked forward", REMOVED, 0.2)):
        part = table[table["form"] == form]
        y = [names.index(n) + shift for n in part["network"]]
        ax.barh(y, part["median_s"], 0.38, xerr=part["spread_s"] / 2, color=colour, label=form, error_kw={"lw": 0.8})
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("time of a pass over the test images (s), median and interquartile range")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure


def precision_bars(table: pd.DataFrame) -> Figure:
    """Training time of an epoch and peak memory with and without mixed precision, by compression.

    `table` has a row a network: `compression`, `precision`, `epoch_s`, `epoch_sd_s`, `peak_memory_mib`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.3), layout="constrained")
    looks = {"float32": ("#555555", -0.2), "amp": ("#009E73", 0.2)}
    positions = {c: i for i, c in enumerate(sorted(table["compression"].unique()))}
    for precision, (colour, shift) in looks.items():
        part = table[table["precision"] == precision]
        x = part["compression"].map(positions) + shift
        axes[0].bar(x, part["epoch_s"], 0.38, yerr=part["epoch_sd_s"], color=colour, capsize=2)
        axes[1].bar(x, part["peak_memory_mib"], 0.38, color=colour, label=precision)
    for ax, unit in zip(axes, ("training time of an epoch (s)", "peak memory (MiB)"), strict=True):
        ax.set(xlabel="compression (−log₁₀ density)", ylabel=unit)
        ax.set_xticks(range(len(positions)), [f"{c:g}" for c in positions])
        ax.grid(axis="x", visible=False)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure
