"""What structured pruning costs in accuracy and saves on the clock and on disk.

`rows` is the structured.csv of a run, a row a network, the unpruned one first; `latencies` its latencies.csv, a row a
network and batch size.
"""

import numpy as np
import pandas as pd

from lib.catalog import UNPRUNED
from lib.findings.accuracy import CLEAR, standard_error

EXACT = 1e-4  # of the largest logit: what float32 sums in another order may differ by


def quartiles(timed: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a network and batch size: `latency_s` (the median), `latency_q1_s`, `latency_q3_s`, `repeats`.

    `timed` has a row a pass: `network`, `batch`, `seconds`. `structure` and `rate` are those of `rows`.
    """
    grouped = timed.groupby(["network", "batch"])["seconds"]
    found = grouped.quantile([0.25, 0.5, 0.75]).unstack()
    found.columns = ["latency_q1_s", "latency_s", "latency_q3_s"]
    found = found.assign(repeats=grouped.count()).reset_index()
    return rows[["network", "structure", "rate"]].merge(found, on="network")


def batches(latencies: pd.DataFrame) -> list[int]:
    """The batch sizes that were timed, ascending."""
    return sorted(latencies["batch"].unique().tolist())


def table(rows: pd.DataFrame, latencies: pd.DataFrame) -> pd.DataFrame:
    """A line a network: what is gone, size, work, accuracy, and the time of a pass with its quartiles."""
    lines = pd.DataFrame({
        "units removed": [_gone(row) for _, row in rows.iterrows()],
        "parameters": rows["parameters"].map("{:,.0f}".format),
        "MACs": rows["macs"].map("{:,.0f}".format),
    })  # fmt: skip
    if _trained_on(rows):
        lines["top-1 at once (%)"] = rows["top1_before_pct"].map("{:.2f}".format)
    lines["top-1 (%)"] = rows["top1_pct"].map("{:.2f}".format)
    lines["disk (MB)"] = rows["disk_mb"].map("{:.3f}".format)
    for batch in batches(latencies):
        own = latencies[latencies["batch"] == batch].set_index("network")
        lines[f"ms a pass of {batch}"] = [_clock(own.loc[name]) for name in rows["network"]]
    names = [rows["structure"], (100 * rows["rate"]).map("{:g}".format)]
    return lines.set_index(pd.MultiIndex.from_arrays(names, names=["structure", "rate (%)"]))


def sentences(rows: pd.DataFrame, latencies: pd.DataFrame, images: int) -> list[str]:
    """What the networks of one run show; `images` is the size of its test set."""
    pruned = rows[rows["structure"] != UNPRUNED]
    said = [same_function(rows)]
    said += [cost(rows, name, images) for name in pruned["structure"].unique()]
    said += [tuning(rows)]
    said += [speed(rows, latencies, batch, images) for batch in batches(latencies)]
    return [sentence for sentence in said if sentence]


def same_function(rows: pd.DataFrame) -> str:
    """How far the smaller networks' logits are from those of the masked ones."""
    pruned = rows[rows["structure"] != UNPRUNED]
    shares = pruned["max_abs_logit_difference"] / pruned["max_abs_logit"]
    if shares.max() > EXACT:
        worst = pruned.loc[shares.idxmax(), "network"]
        return f"**Removal changed what {worst} computes**: its logits differ by {shares.max():.2g} of the largest."
    return (
        f"The smaller networks compute what the masked ones do: their logits differ by at most {shares.max():.1g} of "
        "the largest."
    )


def cost(rows: pd.DataFrame, structure: str, images: int) -> str:
    """How much of one structure can go before the accuracy has clearly fallen."""
    own = rows[(rows["structure"] == structure) & (rows["units_removed"] > 0)].sort_values("rate")
    if own.empty:
        units = rows.loc[rows["structure"] == structure, "units"].iloc[0]
        return f"No rate is high enough to remove any of the {structure} ({units})."
    whole, first, worst = _unpruned(rows), own.iloc[0], own.iloc[-1]
    fine = own[~_worse(own, whole, images)]
    if fine.empty:
        return (
            f"Of the {structure} no rate is free: {_share(first)} cost {whole['top1_pct'] - first['top1_pct']:.2f} "
            f"points ({first['top1_pct']:.2f} % against {whole['top1_pct']:.2f} %), beyond {_errors()}."
        )
    last = fine.iloc[-1]
    left = f"{last['parameters'] / whole['parameters']:.0%} of the parameters and {last['macs'] / whole['macs']:.0%}"
    text = (
        f"Of the {structure} {_share(last)} can go: {last['top1_pct']:.2f} % against {whole['top1_pct']:.2f} % of the "
        f"unpruned network, within {_errors()}, with {left} of the MACs"
    )
    more = "" if worst["rate"] == last["rate"] else f"; without {_share(worst)} it is {worst['top1_pct']:.2f} %"
    return f"{text}{more}."


def tuning(rows: pd.DataFrame) -> str | None:
    """What training on brings back of what the removal cost, on average; None without any."""
    pruned = _smaller(rows)
    if pruned.empty or not _trained_on(rows):
        return None
    whole = _unpruned(rows)
    at_once = (pruned["top1_before_pct"] - whole["top1_before_pct"]).mean()
    after = (pruned["top1_pct"] - whole["top1_pct"]).mean()
    return (
        f"Right after the removal the networks are {_points(at_once)} the unpruned one on average; when all of them "
        f"have been trained on equally, {_points(after)} it."
    )


def speed(rows: pd.DataFrame, latencies: pd.DataFrame, batch: int, images: int) -> str:
    """The fastest network that is not clearly less accurate, beside its MACs."""
    apart = pd.concat([rows[rows["structure"] == UNPRUNED], _smaller(rows)])
    timed = apart.merge(latencies[latencies["batch"] == batch].drop(columns=["structure", "rate"]), on="network")
    whole = _unpruned(timed)
    fine = timed[~_worse(timed, whole, images)]
    best = fine.loc[fine["latency_s"].idxmin()]
    where = f"With {batch} input{'s' if batch > 1 else ''} a pass"
    if best["structure"] == UNPRUNED:
        return f"{where}, nothing within {_errors()} is faster than the unpruned network ({_ms(whole)})."
    faster, fewer = whole["latency_s"] / best["latency_s"], whole["macs"] / best["macs"]
    apart = "" if best["latency_q3_s"] < whole["latency_q1_s"] else ", though their quartiles overlap"
    promised = "less than" if faster < 0.9 * fewer else "more than" if faster > 1.1 * fewer else "as much as"
    return (
        f"{where}, the fastest within {_errors()} is the network without {_share(best)} of the {best['structure']}: "
        f"{_ms(best)} against {_ms(whole)}, {faster:.2f} times faster{apart}, {promised} its {fewer:.2f} times fewer "
        "MACs promise."
    )


def _smaller(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks that have lost a unit: of few units a low rate removes none."""
    return rows[(rows["structure"] != UNPRUNED) & (rows["units_removed"] > 0)]


def _unpruned(rows: pd.DataFrame) -> pd.Series:
    return rows[rows["structure"] == UNPRUNED].iloc[0]


def _worse(rows: pd.DataFrame, whole: pd.Series, images: int) -> pd.Series:
    """Which networks are less accurate than the unpruned one by more than the size of the test set leaves open."""
    errors = rows["top1_pct"].map(lambda top1: standard_error(pd.Series([top1]), images))
    bound = CLEAR * np.hypot(errors, standard_error(pd.Series([whole["top1_pct"]]), images))
    return whole["top1_pct"] - rows["top1_pct"] > bound


def _errors() -> str:
    return f"{CLEAR:g} standard errors of the test set"


def _trained_on(rows: pd.DataFrame) -> bool:
    return bool((rows["top1_before_pct"] != rows["top1_pct"]).any())


def _share(row: pd.Series) -> str:
    return f"{100 * row['rate']:g} % ({_gone(row)})"


def _gone(row: pd.Series) -> str:
    return f"{row['units_removed']:,.0f} of {row['units']:,.0f}" if row["units"] else "none"


def _points(difference: float) -> str:
    return f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'}"


def _ms(row: pd.Series) -> str:
    return f"{1e3 * row['latency_s']:.3g} ms"


def _clock(row: pd.Series) -> str:
    low, high = (f"{1e3 * row[name]:.3g}" for name in ("latency_q1_s", "latency_q3_s"))
    return f"{1e3 * row['latency_s']:.3g} ({low} to {high})"
