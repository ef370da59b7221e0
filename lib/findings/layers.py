"""Where a method keeps its weights, and which weights those are."""

import re
from collections.abc import Iterable

import pandas as pd

from lib.markup import code


def parts(layers: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Weights, kept and density of each named layer, and of all of them together in a last row."""
    chosen = layers[layers["layer"].isin(names)][["layer", "weights", "kept"]]
    total = pd.DataFrame([{"layer": "together", "weights": chosen["weights"].sum(), "kept": chosen["kept"].sum()}])
    table = pd.concat([chosen, total], ignore_index=True)
    return table.assign(density_pct=100 * table["kept"] / table["weights"])


def first_block(names: Iterable[str]) -> list[str]:
    """The layers of the first numbered part that holds several, such as `blocks.0`; the first layer where none does."""
    groups: dict[str, list[str]] = {}
    for name in names:
        numbered = re.match(r".*?\.\d+(?=\.|$)", name)
        groups.setdefault(numbered.group() if numbered else name, []).append(name)
    return next((group for group in groups.values() if len(group) > 1), next(iter(groups.values())))


def statistics(layers: pd.DataFrame) -> pd.DataFrame:
    """Size and density of every layer, and mean, standard deviation and range of its kept weights."""
    return layers[["layer", "shape", "weights", "kept", "density", "mean", "std", "min", "max"]]


def block(layers: pd.DataFrame, names: list[str]) -> str | None:
    """The density of some layers against that of the whole network."""
    table = parts(layers, names).set_index("layer")
    if len(table) < 2:
        return None
    overall = 100 * layers["kept"].sum() / layers["weights"].sum()
    each = ", ".join(
        f"{row['density_pct']:.1f} % of {code(n.removesuffix('.weight'))}" for n, row in table[:-1].iterrows()
    )
    together = table.loc["together", "density_pct"]
    if abs(together - overall) < 0.05:
        side = f"as much as of the whole network ({overall:.1f} %)"
    else:
        side = f"{'more' if together > overall else 'less'} than the {overall:.1f} % of the whole network"
    return f"The method keeps {each}, and {together:.1f} % of them together: {side}."


def extremes(layers: pd.DataFrame) -> str | None:
    """The fullest and the emptiest layer."""
    if len(layers) < 2:
        return None
    most, least = layers.loc[layers["density"].idxmax()], layers.loc[layers["density"].idxmin()]
    full, empty = (code(row["layer"].removesuffix(".weight")) for row in (most, least))
    return (
        f"The fullest layer is {full} ({most['density']:.1%} of {most['weights']:,} "
        f"weights kept), the emptiest {empty} ({least['density']:.1%} of "
        f"{least['weights']:,})."
    )


def kept_are_large(histograms: pd.DataFrame) -> str | None:
    """Whether kept weights are larger in magnitude than removed ones, layer by layer, from the bin centres.

    None where all removed ones are in the bin of zero: in a network from a file they have no other value.
    """
    zero = (histograms["left"] <= 0) & (histograms["right"] > 0)
    if not histograms.loc[~zero, "removed"].any():
        return None
    rows = histograms.assign(size=(histograms["left"] + histograms["right"]).abs() / 2)
    means = {}
    for part in ("kept", "removed"):
        total = rows.groupby("layer")[part].sum()
        means[part] = rows[part].mul(rows["size"]).groupby(rows["layer"]).sum() / total.where(total > 0)
    ratio = (means["kept"] / means["removed"]).dropna()
    if ratio.empty:
        return None
    larger = int((ratio > 1).sum())
    return (
        f"In {larger} of {len(ratio)} layers the kept weights are larger in magnitude than the removed ones, on "
        f"average {ratio.mean():.2f} times."
    )
