"""Which layer a network can spare, and which not."""

import math

import pandas as pd

from lib.findings.accuracy import CLEAR, standard_error
from lib.markup import code


def allowed(rows: pd.DataFrame, images: int) -> float:
    """How many points below the whole network may be chance: CLEAR standard errors of the difference."""
    error = standard_error(pd.Series([_whole(rows)]), images)
    return CLEAR * math.sqrt(2) * error


def _whole(rows: pd.DataFrame) -> float:
    return rows.loc[rows["layer"].fillna("") == "", "top1_pct"].iloc[0]


def tolerated(rows: pd.DataFrame, images: int) -> pd.DataFrame:
    """One row a layer and kind: `tolerated_pct`, the highest sparsity up to which none tried was clearly worse.

    0 where the first was. Also `cost_points` at the highest sparsity tried, `highest_pct`. `rows` are those of
    sensitivity.csv, `images` the size of the test set.
    """
    whole, bound = _whole(rows), allowed(rows, images)
    found = []
    for (kind, layer), part in rows[rows["layer"].fillna("") != ""].groupby(["kind", "layer"], sort=False):
        part = part.sort_values("sparsity_pct")
        fine = (whole - part["top1_pct"] <= bound).cumprod().astype(bool)
        held = part.loc[fine, "sparsity_pct"]
        found.append({
            "kind": kind, "layer": layer, "tolerated_pct": held.max() if len(held) else 0.0,
            "highest_pct": part["sparsity_pct"].iloc[-1], "cost_points": whole - part["top1_pct"].iloc[-1],
        })  # fmt: skip
    return pd.DataFrame(found, columns=["kind", "layer", "tolerated_pct", "highest_pct", "cost_points"])


def table(rows: pd.DataFrame, images: int) -> pd.DataFrame:
    """`tolerated` in print: a row a layer, for each kind what it tolerates and the change at the highest sparsity."""
    found = tolerated(rows, images)
    parts = []
    for kind, part in found.groupby("kind", sort=False):
        part = part.set_index("layer")
        change = (-part["cost_points"]).map("{:+.2f}".format)
        parts.append(pd.DataFrame({
            f"{kind}: no clear loss up to (%)": part["tolerated_pct"],
            f"{kind}: points at {part['highest_pct'].max():g} %": change.str.replace("-", "−"),
        }))  # fmt: skip
    return pd.concat(parts, axis=1).reindex(list(dict.fromkeys(found["layer"])))


def sentences(rows: pd.DataFrame, images: int) -> list[str]:
    """For each kind the layers that suffer most and least, the first and the last; nothing with fewer than two."""
    said = []
    for kind, part in tolerated(rows, images).groupby("kind", sort=False):
        if len(part) < 2:
            continue
        worst, best = part.loc[part["cost_points"].idxmax()], part.loc[part["cost_points"].idxmin()]
        said.append(
            f"Without {worst['highest_pct']:g} % of its {kind} alone, {code(worst['layer'])} leaves the lowest "
            f"accuracy ({_change(worst)}; no clear loss up to {worst['tolerated_pct']:g} %) and "
            f"{code(best['layer'])} the highest ({_change(best)}; up to {best['tolerated_pct']:g} %)."
        )
        first, last = part.iloc[0], part.iloc[-1]
        ends = [f"the first of these layers, {code(first['layer'])}, it is {_change(first)}"]
        ends.append(f"without that of the last, {code(last['layer'])}, {_change(last)}")
        said.append(f"Without that share of {' and '.join(ends)}.")
    if said:
        said.append(
            f"A loss is clear above {allowed(rows, images):.2f} points, {CLEAR:g} standard errors of the difference."
        )
    return said


def _change(row: pd.Series) -> str:
    return f"{abs(row['cost_points']):.2f} points {'less' if row['cost_points'] > 0 else 'more'}"
