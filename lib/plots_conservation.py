"""Figures of the notebook `conservation`: figures 3, 4, 5b and 7 of Tanaka et al. 2020 (arXiv 2006.05467)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lib import shares
from lib.findings import conservation as findings
from lib.plots import KEPT, REMOVED, WIDTH, style

COLUMNS = 3  # panels beside one another
LINEAR = 1e-3  # below this share of the largest score an axis with both signs is linear
SEQUENCE = "cividis"  # of epochs and of compressions: ordered also for the colour-blind
# what theory draws: above the grid, below the points
REFERENCE = {"color": "#555555", "lw": 0.9, "ls": "--", "zorder": 0.8}


def look(score: str) -> dict:
    """Colour and marker of a score for a scatter: the pruner's own; SNIP's, hollow, for signed SNIP."""
    signed = score == findings.SALIENCY
    found = style("SNIP" if signed else findings.label(score))
    return {"marker": found["marker"], "edgecolor": found["color"], "facecolor": "none" if signed else found["color"]}


def units(frame: pd.DataFrame) -> Figure:
    """Outgoing against incoming score of every hidden unit, a panel a score; on the dashed line it is conserved.

    `frame` has `score`, `incoming`, `outgoing`. Each panel is in shares of its largest absolute score; axes are
    logarithmic, around zero linear where scores have both signs.
    """
    figure, axes = _panels(findings.scores(frame), height=2.0)
    for ax, score in axes:
        part = frame.loc[frame["score"] == score, ["incoming", "outgoing"]]
        shares = part / (part.abs().to_numpy().max() or 1.0)
        signed = (shares < 0).to_numpy().any()
        scale = {"value": "symlog", "linthresh": LINEAR} if signed else {"value": "log"}
        ax.set_xscale(**scale)
        ax.set_yscale(**scale)
        ax.scatter(shares["incoming"], shares["outgoing"], s=9, lw=0.6, alpha=0.7, **look(score))
        ends = (-1.6, 1.6) if signed else _decades(shares.to_numpy())
        ax.plot(ends, ends, **REFERENCE)
        ax.set(xlim=ends, ylim=ends, title=findings.label(score))
        if signed:
            ticks = [-1, -0.1, -0.01, 0, 0.01, 0.1, 1]
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_ticks(ticks, ["−1", "", "−0.01", "0", "0.01", "", "1"])
        else:
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_formatter(NullFormatter())
    figure.supxlabel("incoming score of a unit (share of the largest)", fontsize=8.5)
    figure.supylabel("outgoing score (share of the largest)", fontsize=8.5)
    return figure


def layers(frame: pd.DataFrame) -> Figure:
    """Mean score of every layer against the inverse of its size, a panel a score; dashed: proportional.

    `frame` has `score`, `size`, `mean`. The dashed line has slope 1 on both logarithmic axes, through the middle.
    """
    figure, axes = _panels(findings.scores(frame), height=1.9)
    for ax, score in axes:
        part = frame[frame["score"] == score]
        ax.scatter(1 / part["size"], part["mean"], s=18, lw=0.8, **look(score))
        _proportional(ax, part["size"], part["mean"])
        ax.set_title(f"{findings.label(score)} ({findings.shown(findings.fit(part['size'], part['mean']))})")
    figure.supxlabel("1 / size of the layer (weights and biases)", fontsize=8.5)
    figure.supylabel("mean score of a weight", fontsize=8.5)
    return figure


def magnitudes(frame: pd.DataFrame) -> Figure:
    """Mean squared weight of every layer against the inverse of its size while training, and how straight that is.

    `frame` has `epoch`, `layer`, `size`, `mean_square`. Left, a colour an epoch, the last one's proportional line
    dashed; right, R² and slope of the line of best fit on logarithmic axes by epoch, 1 where proportional.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.5), layout="constrained", width_ratios=(1.25, 1))
    epochs = sorted(frame["epoch"].unique())
    colours = plt.get_cmap(SEQUENCE)(np.linspace(0, 0.9, len(epochs)))
    for epoch, colour in zip(epochs, colours, strict=True):
        part, ends = frame[frame["epoch"] == epoch], epoch in (epochs[0], epochs[-1])
        name = f"epoch {epoch}" if ends else None
        left.scatter(1 / part["size"], part["mean_square"], s=22 if ends else 8, color=colour, label=name, zorder=2)
    _proportional(left, part["size"], part["mean_square"])
    left.set(xlabel="1 / size of the layer (weights and biases)", ylabel="mean of w²")
    left.legend()
    fits = findings.fits(frame)
    for column, name, marker, colour in (("r2", "R²", "o", KEPT), ("slope", "slope", "s", REMOVED)):
        right.plot(fits["epoch"], fits[column], marker=marker, ms=3, color=colour, label=name)
    right.axhline(1, **REFERENCE)
    right.set(xlabel="epoch", ylabel="fit on logarithmic axes")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    return figure


def cuts(frame: pd.DataFrame) -> Figure:
    """The largest cut of any round against the flow, by number of rounds; a panel a schedule, a line a compression.

    `frame` has `schedule`, `density`, `rounds`, `cut_ratio`, `emptied`. Below the dashed line no layer can be emptied
    by the theory; a cross marks where one was.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained", sharex=True, sharey=True)
    densities = sorted(frame["density"].unique(), reverse=True)
    colours = plt.get_cmap(SEQUENCE)(np.linspace(0, 0.85, len(densities)))
    for ax, schedule in zip(axes, ("linear", "exponential"), strict=True):
        for density, colour in zip(densities, colours, strict=True):
            name = f"{(power := -np.log10(density)):.3g} (ratio {shares.ratio(power)})"
            part = frame[(frame["schedule"] == schedule) & (frame["density"] == density)].sort_values("rounds")
            ax.plot(part["rounds"], part["cut_ratio"], marker="o", ms=3, color=colour, label=name)
            empty = part[part["emptied"] > 0]
            ax.scatter(empty["rounds"], empty["cut_ratio"], marker="x", color="#D55E00", s=26, lw=1.1, zorder=3)
        ax.axhline(1, **REFERENCE)
        ax.set(xscale="log", yscale="log", xlabel="rounds of scoring", title=f"{schedule} schedule")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("largest cut / flow")
    handles, labels = axes[0].get_legend_handles_labels()
    cross = plt.Line2D([], [], marker="x", color="#D55E00", ls="", mew=1.1)
    figure.legend(
        [*handles, cross],
        [*labels, "a layer was emptied"],
        loc="outside upper center",
        ncols=min(6, len(labels) + 1),
        title="compression (−log₁₀ density)",
    )
    return figure


def _panels(scores: list[str], height: float):
    """A figure, and (axes, score) for each; what is left of the last row stays empty."""
    lines = -(-len(scores) // COLUMNS)
    figure, axes = plt.subplots(
        lines, COLUMNS, figsize=(WIDTH, 0.3 + height * lines), layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(scores) :]:
        ax.set_axis_off()
    return figure, list(zip(axes.flat, scores, strict=False))


def _around(values: np.ndarray) -> tuple[float, float]:
    """Limits of a logarithmic axis around the positive ones of `values`."""
    positive = values[values > 0]
    return (positive.min() / 1.5, positive.max() * 1.5) if positive.size else (0.1, 1.0)


def _decades(values: np.ndarray) -> tuple[float, float]:
    """The same over at least a power of ten and a half, so that two ticks have a label."""
    low, high = _around(values)
    return min(low, high / 30), high


def _proportional(ax, sizes: pd.Series, means: pd.Series) -> None:
    """Logarithmic axes, and the line of slope 1 through the geometric mean of the points."""
    positive = means > 0
    if positive.any():
        ax.set(xscale="log", yscale="log")
        x = 1 / sizes[positive]
        height = np.exp(np.mean(np.log(means[positive] / x)))
        ends = np.array(_around(x.to_numpy()))
        ax.plot(ends, height * ends, **REFERENCE)
