"""How accuracy changes over the levels of iterative pruning."""

import math

import numpy as np
import pandas as pd

from lib import shares
from lib.findings.accuracy import CLEAR, difference, standard_error
from lib.markup import code

FALL = 1.0  # points below the dense network that count as a fall


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a level: what it keeps, as ratio, density and sparsity, and its top-1 beside that of the dense network.

    `rows` is levels.csv of a run: `level`, `density`, `weights_kept`, `top1_pct`, `train_s`, `collapsed_layers`.
    """
    beside = pd.DataFrame([shares.columns(compression, "density") for compression in _compressions(rows)])
    measured = {
        "weights kept": rows["weights_kept"].to_numpy(),
        "top-1 (%)": rows["top1_pct"].to_numpy(),
        "difference to dense (points)": (rows["top1_pct"] - rows["top1_pct"].iloc[0]).to_numpy(),
        "training (s)": rows["train_s"].to_numpy(),
        "layers without a weight": _empty(rows).str.len().to_numpy(),
    }
    return beside.assign(**measured).set_index(pd.Index(rows["level"], name="level"))


def sentences(rows: pd.DataFrame, images: int) -> list[str]:
    """What the levels of one run show; `images` is the size of its test set. Nothing with fewer than two levels."""
    if len(rows) < 2:
        return []
    found = [change(rows, images), fall(rows), peak(rows, images), collapse(rows)]
    return [sentence for sentence in found if sentence]


def one_shot(rows: pd.DataFrame, runs: pd.DataFrame, images: int) -> str | None:
    """The last level beside runs that were pruned as far in one shot; None where there are none.

    `runs` are accuracy runs of the same task and pruner, with their `density`.
    """
    last = rows.iloc[-1]
    same = runs[np.isclose(runs["density"], last["density"], rtol=1e-3)]
    if same.empty:
        return None
    once = same["top1_pct"]
    gain, error = difference(rows["top1_pct"].iloc[[-1]], once, images)
    word = "above" if gain > 0 else "below"
    clear = "beyond" if abs(gain) > CLEAR * error else "within"
    return (
        f"That is {abs(gain):.2f} points {word} what one shot reaches with as many weights ({once.mean():.2f} %), "
        f"{clear} {CLEAR:g} standard errors of the difference ({error:.2f} points)."
    )


def change(rows: pd.DataFrame, images: int) -> str:
    """The last level against the dense network, beside what the size of the test set leaves open."""
    dense, last = rows.iloc[0], rows.iloc[-1]
    difference, verdict = last["top1_pct"] - dense["top1_pct"], _verdict(dense, last, images)
    said = f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'}" if difference else "equal to"
    steps = len(rows) - 1
    return (
        f"After {steps} pruning step{'s' if steps > 1 else ''}, at {_share(last)}, the top-1 accuracy is "
        f"{last['top1_pct']:.2f} %, {said} that of the dense network after equal training ({dense['top1_pct']:.2f} %), "
        f"{verdict}."
    )


def fall(rows: pd.DataFrame) -> str:
    """The first level that lies more than FALL points below the dense network, and whether later ones do."""
    dense = rows["top1_pct"].iloc[0]
    low = rows[rows["top1_pct"] < dense - FALL]
    if low.empty:
        worst = rows.iloc[1:].loc[rows["top1_pct"].iloc[1:].idxmin()]
        return (
            f"At no level is it more than {FALL:g} point below the dense network's: the lowest is "
            f"{worst['top1_pct']:.2f} % at {_level(worst)}."
        )
    first = low.iloc[0]
    later = rows[rows["level"] > first["level"]]
    back = later[later["top1_pct"] >= dense - FALL]
    said = (
        f"It first is more than {FALL:g} point below the dense network's, by {dense - first['top1_pct']:.2f}, at "
        f"{_level(first)}"
    )
    if later.empty:
        return f"{said}, the last level."
    if back.empty:
        return f"{said}, and stays below at every later level."
    return f"{said}; of the {len(later)} later levels {len(back)} {'are' if len(back) > 1 else 'is'} back within it."


def peak(rows: pd.DataFrame, images: int) -> str | None:
    """The most accurate level, where it is a pruned one."""
    dense, best = rows.iloc[0], rows.loc[rows["top1_pct"].idxmax()]
    if best["level"] == dense["level"]:
        return None
    return (
        f"The most accurate is {_level(best)}, with {best['top1_pct']:.2f} %, "
        f"{best['top1_pct'] - dense['top1_pct']:.2f} points above the dense network, {_verdict(dense, best, images)}."
    )


def collapse(rows: pd.DataFrame) -> str | None:
    """The first level with a layer that has no weight left."""
    empty = _empty(rows)
    if not empty.str.len().any():
        return None
    first = rows[empty.str.len() > 0].iloc[0]
    names = empty[first.name]
    rest = "a path from input to output remains" if first["connected"] else "no input reaches the output any more"
    many = f"{len(names)} layers have" if len(names) > 1 else "1 layer has"
    return f"From {_level(first)}, on, {many} no weight: {', '.join(code(name) for name in names)}; {rest}."


def _verdict(a: pd.Series, b: pd.Series, images: int) -> str:
    """Whether two levels differ by more than the test set, one sample of `images`, leaves open."""
    error = math.hypot(*(standard_error(pd.Series([row["top1_pct"]]), images) for row in (a, b)))
    side = "beyond" if abs(a["top1_pct"] - b["top1_pct"]) > CLEAR * error else "within"
    return f"{side} {CLEAR:g} standard errors of the difference ({error:.2f} points, of the test set alone)"


def _empty(rows: pd.DataFrame) -> pd.Series:
    """The names of each level's layers without a weight; where there are none, a CSV file gives not-a-number."""
    return rows["collapsed_layers"].map(lambda names: names.split() if isinstance(names, str) else [])


def _compressions(rows: pd.DataFrame) -> np.ndarray:
    return -np.log10(rows["density"].to_numpy()) + 0.0


def _share(row: pd.Series) -> str:
    return shares.explain(float(-np.log10(row["density"]) + 0.0), "density")


def _level(row: pd.Series) -> str:
    return f"level {row['level']:.0f}, {_share(row)}"
