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
    speed = "faster" if time.median() > 1 else "slower"
    factor = time.median() if time.median() > 1 else 1 / time.median()
    said = [
        f"Mixed precision makes a training epoch {factor:.2f} times {speed} (median over {len(time)} compressions, "
        f"from {time.min():.2f} to {time.max():.2f}; {n} timed epoch{'s' if n > 1 else ''} each).",
        f"Peak memory of the {memory_of} is {memory.median():.2f} times that of float32 "
        f"(from {memory.min():.2f} to {memory.max():.2f}).",
        f"Top-1 accuracy differs by {accuracy.min():+.2f} to {accuracy.max():+.2f} points.",
    ]
    if memory_of == "process":
        said.append(
            "On a CPU the figure is the resident memory of the whole process, interpreter and libraries included, so "
            "the share that activations save is diluted."
        )
    times = by["epoch_s"]["float32"]
    said.append(
        f"Between the densest and the sparsest network the float32 epoch time changes by "
        f"{times.iloc[-1] / times.iloc[0] - 1:+.1%}: masks change which weights are zero, not how many are multiplied."
    )
    return said
