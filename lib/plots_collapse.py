"""Figures of what happens when ever more weights are removed, and of what a mask's details are worth."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib import tables
from lib.plots import WIDTH, share_axis, style


def grid(done: pd.DataFrame, limits: dict[str, float], columns: int = 2) -> Figure:
    """Top-1 against compression down to the collapse, a panel a task, a line a method.

    A line is the mean over seeds, its band reaches from the lowest to the highest of them. `limits` has the
    theoretical maximum compression of each task (see `lib.findings.collapse`), a dotted vertical line; the dense
    network is a dashed horizontal one.
    """
    names = list(limits)
    columns = min(columns, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, 0.5 + 2.3 * lines), layout="constrained", squeeze=False)
    seen: dict = {}
    for ax, task in zip(axes.flat, names, strict=False):
        runs = done[done["task"] == task]
        pruned, dense = runs[runs["pruner"] != "dense"], runs[runs["pruner"] == "dense"]
        for method in tables.methods(pruned):
            values = pruned[pruned["method"] == method].groupby("compression")["top1_pct"].agg(["mean", "min", "max"])
            look = style(method)
            seen[method] = ax.plot(values.index, values["mean"], ms=4, lw=1.2, **look)[0]
            ax.fill_between(values.index, values["min"], values["max"], color=look["color"], alpha=0.2, lw=0)
        if len(dense):
            seen[tables.DENSE] = ax.axhline(dense["top1_pct"].mean(), ls="--", lw=1, color=style(tables.DENSE)["color"])
        seen["theoretical maximum"] = ax.axvline(limits[task], ls=":", lw=1.2, color="black")
        ax.set_title(task)
        ax.set_ylabel("top-1 accuracy (%)")
        share_axis(ax, pruned)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    figure.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=min(6, len(seen)), fontsize=8)
    return figure


def kept_shares(layers: pd.DataFrame, plan: pd.DataFrame, columns: int = 3) -> Figure:
    """Kept weights (%, log) of every layer against compression for one task, a panel a method.

    The first layer is dark and the last bright; the line of a layer that was emptied ends at a cross on the edge.
    `layers` are the layers.csv of the planned runs with their `run`; several seeds give the mean.
    """
    frame = layers.merge(plan[["run", "method", "pruner", "rounds", "compression", "word"]], on="run")
    frame = frame[frame["pruner"] != "dense"]
    methods, names = tables.methods(frame), list(dict.fromkeys(frame["layer"]))
    columns = min(columns, len(methods))
    lines = -(-len(methods) // columns)
    size = {"figsize": (WIDTH, 0.5 + 2.0 * lines), "layout": "constrained"}
    figure, axes = plt.subplots(lines, columns, squeeze=False, sharex=True, sharey=True, **size)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(names)))
    positive = frame.loc[frame["density"] > 0, "density"]
    floor = 100 * positive.min() / 2 if len(positive) else 0.01
    for ax, method in zip(axes.flat, methods, strict=False):
        part = frame[frame["method"] == method].pivot_table(index="compression", columns="layer", values="density")
        for name, colour in zip(names, colours, strict=True):
            values = 100 * part[name]
            ax.plot(values.index, values.where(values > 0), color=colour, lw=1, marker=".", ms=2.5)
            # a line without a point would upset the layout
            for first in values.index[values == 0][:1]:
                ax.plot([first], [floor], "x", color=colour, ms=5, mew=1.5, clip_on=False, zorder=5)
        ax.set_yscale("log")
        ax.set_ylim(floor, 130)
        ax.set_title(method)
    for ax in axes[:, 0]:
        ax.set_ylabel("kept weights (%)")
    for column in range(columns):
        used = [ax for ax in axes[:, column][: len(methods)] if ax.lines]
        if used:
            share_axis(used[-1], frame)
            used[-1].tick_params(labelbottom=True)
    for ax in axes.flat[len(methods) :]:
        ax.set_axis_off()
    ends = [Line2D([], [], color=colours[i], label=f"{names[i]} ({word})") for i, word in ((0, "first"), (-1, "last"))]
    cross = Line2D([], [], color="#555555", marker="x", mew=1.5, ls="", label="emptied")
    figure.legend(handles=[*ends, cross], loc="outside upper center", ncols=3, fontsize=8)
    return figure


def ablations(groups: list[pd.DataFrame], kinds: list[str]) -> Figure:
    """Top-1 of every method as it is and under each ablation, a panel a group, a cluster of bars an ablation.

    A group are accuracy runs of one task and compression with their `ablation`; a bar is the mean over seeds, its line
    reaches from the lowest to the highest.
    """
    height = 0.5 + 2.1 * len(groups)
    figure, axes = plt.subplots(len(groups), 1, figsize=(WIDTH, height), layout="constrained", squeeze=False)
    methods = tables.methods(pd.concat(groups))
    width, seen = 0.8 / max(1, len(methods)), {}
    for ax, rows in zip(axes[:, 0], groups, strict=True):
        for position, method in enumerate(methods):
            part = rows[rows["method"] == method]
            values = part.groupby("ablation")["top1_pct"].agg(["mean", "min", "max"]).reindex(kinds)
            x = np.arange(len(kinds)) + (position - (len(methods) - 1) / 2) * width
            reach = [values["mean"] - values["min"], values["max"] - values["mean"]]
            colour = style(method)["color"]
            seen[method] = ax.bar(x, values["mean"], width * 0.92, yerr=reach, color=colour, error_kw={"lw": 0.8})
        ax.set_xticks(range(len(kinds)), kinds)
        ax.set(ylabel="top-1 accuracy (%)", title=f"{rows['task'].iloc[0]}, {rows['at'].iloc[0]}")
        ax.grid(axis="x", visible=False)
    figure.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=min(7, len(seen) or 1), fontsize=8)
    return figure
