"""What mixed precision does to time, memory and accuracy."""

import numpy as np
import pandas as pd

from lib import shares


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a network (compression, precision): median epoch time and its spread, peak memory, last top-1.

    `rows` is the amp.csv of a run: a row an epoch. The first epoch of each training warms up and is not timed
    when there are others. `top1_pct` and `top1_sd` are over the seeds, `n` of them, `difference_pct` and
    `difference_sd` those of AMP less float32 with the same seed. Nothing gives nothing.
    """
    if rows.empty:
        return rows
    rows = rows.assign(compression=(-np.log10(rows["density"])).round(3) + 0.0)
    if "seed" not in rows:  # runs of the time when there was only one
        rows = rows.assign(seed=0)
    timed = rows[rows["epoch"] > 1] if rows["epoch"].max() > 1 else rows
    keys = ["compression", "precision"]
    grouped = timed.groupby(keys)
    table = grouped["train_s"].agg(epoch_s="median", epoch_sd_s="std", epochs_timed="count")
    table["peak_memory_mib"] = rows.groupby(keys)["peak_memory_mib"].median()
    table["added_memory_mib"] = table["peak_memory_mib"] - rows.groupby(keys)["memory_before_mib"].median()
    last = rows[rows["epoch"] == rows["epoch"].max()].set_index([*keys, "seed"])["test_top1_pct"]
    table = table.join(last.groupby(keys).agg(top1_pct="mean", top1_sd="std", n="count"))
    difference = last.sub(last.xs("float32", level="precision"))
    table = table.join(difference.groupby(keys).agg(difference_pct="mean", difference_sd="std"))
    return table.fillna({"epoch_sd_s": 0.0}).dropna(axis=1, how="all").reset_index()


def shown(summed: pd.DataFrame, word: str) -> pd.DataFrame:
    """`summary` in print: a row a network, with ratio, density and sparsity side by side (see `lib.shares`).

    `word` is how the study says how much is kept. Times and accuracies stand with their standard deviations where
    these were measured.
    """
    left = pd.DataFrame([shares.columns(compression, word) for compression in summed["compression"]])
    table = pd.DataFrame({
        "epoch (s)": _with_spread(summed, "epoch_s", "epoch_sd_s", f".{2 if summed['epoch_s'].max() >= 1 else 3}f"),
        "epochs timed": summed["epochs_timed"],
        "peak memory (MiB)": summed["peak_memory_mib"],
        "of it added (MiB)": summed["added_memory_mib"],
        "top-1 (%)": _with_spread(summed, "top1_pct", "top1_sd", ".2f"),
        "to float32 (points)": _with_spread(summed, "difference_pct", "difference_sd", "+.2f"),
    })  # fmt: skip
    if (summed["n"] > 1).any():
        table.insert(4, "seeds", summed["n"])
    table.loc[summed["precision"] == "float32", "to float32 (points)"] = ""
    return table.set_index(pd.MultiIndex.from_arrays([*(left[name] for name in left), summed["precision"]]))


def _with_spread(summed: pd.DataFrame, name: str, deviation: str, spec: str) -> pd.Series:
    """`12.34 ± 0.56`, or `12.34` where no `deviation` is known."""
    spread = summed[deviation] if deviation in summed else pd.Series(np.nan, index=summed.index)
    values = summed[name].map(lambda value: format(value, spec).replace("-", "−"))
    return values + spread.map(lambda sd: f" ± {format(sd, spec.removeprefix('+'))}" if sd > 0 else "")


def sentences(table: pd.DataFrame, memory_of: str) -> list[str]:
    """Ratios of mixed precision to float32 in time and memory, and the difference in accuracy."""
    if table.empty or not {"float32", "amp"} <= set(table["precision"]):
        return []
    by = table.pivot(index="compression", columns="precision")
    time = by["epoch_s"]["float32"] / by["epoch_s"]["amp"]
    memory = by["peak_memory_mib"]["amp"] / by["peak_memory_mib"]["float32"]
    n = int(table["epochs_timed"].min())
    said = [
        _speed(time, _noise(by), n),
        f"Peak memory of the {memory_of} with AMP is {memory.median():.2f} times that of float32 "
        f"(from {memory.min():.2f} to {memory.max():.2f}).",
        _accuracy(table),
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


def _accuracy(table: pd.DataFrame) -> str:
    """AMP's top-1 less float32's, beside what another seed alone changes."""
    amp = table[table["precision"] == "amp"]
    low, high, n = amp["difference_pct"].min(), amp["difference_pct"].max(), int(amp["n"].min())
    if n < 2:
        return f"Top-1 with AMP differs by {low:+.2f} to {high:+.2f} points (one training each)."
    # pooled over the compressions: of two or three seeds alone a standard deviation says little
    seeds = float(np.sqrt((table.loc[table["precision"] == "float32", "top1_sd"] ** 2).mean()))
    mean, error = amp["difference_pct"].mean(), float(np.sqrt((amp["difference_sd"] ** 2).mean() / (n * len(amp))))
    verdict = (
        "within twice its standard error of zero" if abs(mean) <= 2 * error else "more than twice its standard error"
    )
    return (
        f"Top-1 with AMP differs from that in float32 by {mean:+.2f} points on average ({low:+.2f} to {high:+.2f} by "
        f"compression, {n} seeds each; standard error {error:.2f}), {verdict}; another seed alone changes it by "
        f"{seeds:.2f} (standard deviation in float32)."
    )


def _by_density(by: pd.DataFrame) -> str:
    """Whether the epoch time follows the density."""
    times, noise = by["epoch_s"]["float32"], _noise(by)
    change = times.iloc[-1] / times.iloc[0] - 1
    said = f"From the densest to the sparsest network the float32 epoch time changes by {change:+.1%}"
    if abs(change) <= 2 * noise:
        return f"{said}, within twice the spread: masks change which weights are zero, not how many are multiplied."
    return f"{said}, more than twice the spread of {noise:.0%}."
