"""What mixed precision does to time, memory and accuracy."""

import numpy as np
import pandas as pd


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a network (compression, precision): median epoch time and its spread, peak memory, last top-1.

    `rows` is the amp.csv of a run: a row an epoch. The first epoch of each network warms up and is not timed
    when there are others. Nothing gives nothing.
    """
    if rows.empty:
        return rows
    rows = rows.assign(compression=(-np.log10(rows["density"])).round(3) + 0.0)
    timed = rows[rows["epoch"] > 1] if rows["epoch"].max() > 1 else rows
    keys = ["compression", "precision"]
    grouped = timed.groupby(keys)
    table = grouped["train_s"].agg(epoch_s="median", epoch_sd_s="std", epochs_timed="count")
    table["peak_memory_mib"] = rows.groupby(keys)["peak_memory_mib"].first()
    table["added_memory_mib"] = table["peak_memory_mib"] - rows.groupby(keys)["memory_before_mib"].first()
    table["top1_pct"] = rows.sort_values("epoch").groupby(keys)["test_top1_pct"].last()
    return table.fillna({"epoch_sd_s": 0.0}).reset_index()


def sentences(table: pd.DataFrame, memory_of: str) -> list[str]:
    """Ratios of mixed precision to float32 in time and memory, and the difference in accuracy."""
    if table.empty or not {"float32", "amp"} <= set(table["precision"]):
        return []
    by = table.pivot(index="compression", columns="precision")
    time = by["epoch_s"]["float32"] / by["epoch_s"]["amp"]
    memory = by["peak_memory_mib"]["amp"] / by["peak_memory_mib"]["float32"]
    accuracy = by["top1_pct"]["amp"] - by["top1_pct"]["float32"]
    n = int(table["epochs_timed"].min())
    said = [
        _speed(time, _noise(by), n),
        f"Peak memory of the {memory_of} with AMP is {memory.median():.2f} times that of float32 "
        f"(from {memory.min():.2f} to {memory.max():.2f}).",
        f"Top-1 with AMP differs by {accuracy.min():+.2f} to {accuracy.max():+.2f} points (one training each).",
    ]
    if memory_of.startswith("process"):
        said.append(
            "On a CPU the figure is the resident memory of the whole process, interpreter and libraries included, so "
            "the share that activations save is diluted."
        )
    if memory_of == "process since its start":
        said.append("This system cannot reset the peak: a later training shows at least the peak of those before it.")
    return [*said, _by_density(by)]


def _noise(by: pd.DataFrame) -> float:
    """The standard deviation of an epoch's time as a share of it, the largest of all networks."""
    return float((by["epoch_sd_s"] / by["epoch_s"]).max().max())


def _speed(ratio: pd.Series, noise: float, n: int) -> str:
    faster = ratio.median() > 1
    factor = ratio.median() if faster else 1 / ratio.median()
    clear = "more" if factor - 1 > 2 * noise else "not more"
    return (
        f"With AMP a training epoch is {factor:.2f} times {'faster' if faster else 'slower'} (median over {len(ratio)} "
        f"compressions, from {ratio.min():.2f} to {ratio.max():.2f}; {n} timed epoch{'s' if n > 1 else ''} each), "
        f"{clear} than twice the spread of an epoch's time ({noise:.0%})."
    )


def _by_density(by: pd.DataFrame) -> str:
    """Whether the epoch time follows the density."""
    times, noise = by["epoch_s"]["float32"], _noise(by)
    change = times.iloc[-1] / times.iloc[0] - 1
    said = f"From the densest to the sparsest network the float32 epoch time changes by {change:+.1%}"
    if abs(change) <= 2 * noise:
        return f"{said}, within twice the spread: masks change which weights are zero, not how many are multiplied."
    return f"{said}, more than twice the spread of {noise:.0%}."
