"""What rounding did to the weights of a compression pipeline: how many it made zero, which stages drop these.

Chains are those of `lib.findings.pipeline.chains`.
"""

from types import SimpleNamespace

import pandas as pd

from lib import frames
from lib.findings.pipeline import finished, mean, steps


def effects(book: SimpleNamespace, chain: SimpleNamespace) -> list[dict]:
    """A row a finished stage that rounded: `number`, `short`, and sums over layers of `kept`, `zeroed` and `clipped`.

    `least` and `most` are the numbers of distinct values that the kept weights of a layer have. Several seeds give
    means, but the extremes of all.
    """
    rows = []
    for stage in finished(chain):
        found = frames.table(book.study, stage.rows["run"], "effects") if stage.notebook == "quantise" else []
        if len(found):
            sums = found.groupby("run")[["kept", "zeroed", "clipped"]].sum().mean()
            ends = {"least": int(found["values"].min()), "most": int(found["values"].max())}
            rows.append({"number": stage.number, "short": stage.short} | sums.to_dict() | ends)
    return rows


def table(rows: list[dict]) -> pd.DataFrame:
    """A line a stage that rounded."""
    lines = [
        {
            "kept weights": f"{row['kept']:,.0f}",
            "became zero": f"{row['zeroed']:,.0f}",
            "became zero (%)": f"{_share(row, 'zeroed'):.2f}",
            "clipped (with biases)": f"{row['clipped']:,.0f}",
            "values a layer": _values(row),
        }
        for row in rows
    ]
    names = [[row["number"] for row in rows], [row["short"] for row in rows]]
    return pd.DataFrame(lines, index=pd.MultiIndex.from_arrays(names, names=["no.", "stage"]))


def sentences(rows: list[dict], chain: SimpleNamespace) -> list[str]:
    """What each rounding did, and what a stage that drops zeros took from it."""
    return [*map(_said, rows), *_dropped(chain)]


def _said(row: dict) -> str:
    zeroed = f"{_share(row, 'zeroed'):.2f} % of the kept weights zero" if row["zeroed"] else "no kept weight zero"
    clipped = f"clipped {row['clipped']:,.0f} weights and biases" if row["clipped"] else "clipped none"
    return (
        f"Rounding (stage {row['number']}) made {zeroed} and {clipped}; the kept weights of a layer have "
        f"{_values(row)} distinct values."
    )


def _dropped(chain: SimpleNamespace) -> list[str]:
    said = []
    for before, after in steps(chain):
        if after.notebook == "coded" and "zeros dropped" in after.what:
            fewer, macs = (mean(before, name) - mean(after, name) for name in ("weights_kept", "macs_kept"))
            said.append(
                f"Stage {after.number} ({after.short}) drops {fewer:,.0f} kept weights that are zero, "
                f"{100 * fewer / mean(before, 'weights_kept'):.2f} % of those kept: that they and "
                f"{100 * macs / mean(before, 'macs_kept'):.2f} % of the MACs of kept weights fall there is rounding's "
                "doing, not that of pruning or coding."
                if fewer > 0
                else f"Stage {after.number} ({after.short}) found no kept weight that is zero, and so dropped none."
            )
    return said


def _share(row: dict, of: str) -> float:
    return 100 * row[of] / row["kept"] if row["kept"] else 0.0


def _values(row: dict) -> str:
    return f"{row['least']:,}" if row["least"] == row["most"] else f"{row['least']:,} to {row['most']:,}"
