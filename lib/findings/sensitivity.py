"""Which layer a network can spare, and which not."""

import pandas as pd

FALL = 1.0  # points below the whole network that a layer may cost


def tolerated(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a layer and kind: `tolerated_pct`, the highest sparsity up to which no tried one cost more than FALL.

    0 where the first failed. Also `cost_points` at the highest sparsity tried, `highest_pct`. `rows` are those of
    sensitivity.csv.
    """
    whole = rows.loc[rows["layer"].fillna("") == "", "top1_pct"].iloc[0]
    found = []
    for (kind, layer), part in rows[rows["layer"].fillna("") != ""].groupby(["kind", "layer"], sort=False):
        part = part.sort_values("sparsity_pct")
        fine = (whole - part["top1_pct"] <= FALL).cumprod().astype(bool)
        held = part.loc[fine, "sparsity_pct"]
        found.append({
            "kind": kind, "layer": layer, "tolerated_pct": held.max() if len(held) else 0.0,
            "highest_pct": part["sparsity_pct"].iloc[-1], "cost_points": whole - part["top1_pct"].iloc[-1],
        })  # fmt: skip
    return pd.DataFrame(found, columns=["kind", "layer", "tolerated_pct", "highest_pct", "cost_points"])


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """`tolerated` in print: a row a layer, for each kind what it tolerates and what the highest sparsity costs."""
    found = tolerated(rows)
    parts = []
    for kind, part in found.groupby("kind", sort=False):
        part = part.set_index("layer")
        parts.append(pd.DataFrame({
            f"{kind}: sparsity within {FALL:g} point (%)": part["tolerated_pct"],
            f"{kind}: points lost at {part['highest_pct'].max():g} %": part["cost_points"].round(2),
        }))  # fmt: skip
    return pd.concat(parts, axis=1).reindex(list(dict.fromkeys(found["layer"])))


def sentences(rows: pd.DataFrame) -> list[str]:
    """For each kind the layer that suffers most and the one that suffers least; nothing with fewer than two layers."""
    said = []
    for kind, part in tolerated(rows).groupby("kind", sort=False):
        if len(part) < 2:
            continue
        worst, best = part.loc[part["cost_points"].idxmax()], part.loc[part["cost_points"].idxmin()]
        said.append(
            f"Of its {kind}, the network can least spare those of `{worst['layer']}`: {worst['highest_pct']:g} % less "
            f"there cost {worst['cost_points']:.2f} points, and {worst['tolerated_pct']:g} % may go for {FALL:g}. "
            f"Those of `{best['layer']}` matter least: {best['cost_points']:.2f} points, {best['tolerated_pct']:g} %."
        )
    return said
