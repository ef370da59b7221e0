"""Pruning methods beside each other: runs that prune one trained network and belong to no chain."""

from types import SimpleNamespace

import pandas as pd

from lib import tables
from lib.findings.accuracy import difference
from lib.findings.pipeline import entered, sure

# Parameters that are a place in the table, or say which network it is.
PLACED = {"data", "model", "seed", "source", "run_dir"}
WEIGHTS = SimpleNamespace(notebook="prune_weights", method="method", share="share_kept", more="pruning_scope")
INPUTS = SimpleNamespace(
    notebook="prune_activations", method="activation_method", share="activation_share", more="calibrated"
)
ELEMENT_L1, ELEMENT_L2 = "element-l1", "element-l2"


def branches(book: SimpleNamespace, of: SimpleNamespace) -> dict[str, pd.DataFrame]:
    """task -> finished runs of WEIGHTS or INPUTS that belong to no chain, with `name` (the method), `share`, `variant`.

    `variant` says in words what runs of one method, share and seed differ in besides, so that no mean is taken over it;
    `original_bytes` and `original_top1_pct` are those of the run that they start from, NaN where it is not finished.
    """
    planned = book.staged[(book.staged["notebook"] == of.notebook) & (book.staged["chain"] == "")]
    runs = book.everything[book.everything["run"].isin(planned["run"])].reset_index(drop=True)
    if runs.empty:
        return {}
    known = planned.set_index("run")
    source = runs["run"].map(known["source"])
    whole = book.everything.set_index("run")
    runs = runs.assign(
        task=runs["run"].map(known["task"]),
        seed=runs["run"].map(known["seed"]),
        name=runs[of.method],
        share=runs[of.share].astype(float),
        group=_worded(runs[of.more], of),
        original_bytes=source.map(whole["file_bytes"]),
        original_top1_pct=source.map(whole["top1_pct"]),
    )
    runs = runs.assign(variant=_variants(book, runs, of))
    return {task: runs[runs["task"] == task] for task in tables.tasks(runs)}


def _worded(column: pd.Series, of: SimpleNamespace) -> pd.Series:
    return column.astype(str) if of is WEIGHTS else column.map({True: "calibrated", False: "batch by batch"})


def _variants(book: SimpleNamespace, runs: pd.DataFrame, of: SimpleNamespace) -> list[str]:
    free = [
        {k: v for k, v in book.facts[run]["parameters"].items() if k not in PLACED | {of.method, of.share, of.more}}
        for run in runs["run"]
    ]
    texts = pd.DataFrame(free, index=runs.index).map(str)
    cell = [runs[name] for name in ("task", "name", "group", "share", "seed")]
    named = [name for name in texts if (texts[name].groupby(cell).nunique() > 1).any()]
    return [", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in named) for _, row in texts.iterrows()]


def same(runs: pd.DataFrame) -> dict[str, str]:
    """Method -> the earlier one that keeps the very same weights, wherever weights were removed, in all common cells.

    A cell is a scope, a share below 1, a variant and a seed; masks are the same where `masks_digest` is.
    """
    masks = runs[runs["share"] < 1].set_index(["group", "share", "variant", "seed"])
    names = list(dict.fromkeys(runs["name"]))
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        for earlier in names[:number]:
            equal = _equal(masks, earlier, name)
            if earlier not in found and len(equal) and equal.all():
                found.setdefault(name, earlier)
    return found


def _equal(masks: pd.DataFrame, a: str, b: str) -> pd.Series:
    digests = [masks.loc[masks["name"] == name, "masks_digest"] for name in (a, b)]
    both = digests[0].to_frame("a").join(digests[1].rename("b"), how="inner")
    return both["a"] == both["b"]


def same_sentence(runs: pd.DataFrame) -> str | None:
    """Which methods are one and the same; where L1 and L2 of elements are not, that they should be."""
    masks = runs[runs["share"] < 1].set_index(["group", "share", "variant", "seed"])
    said = [
        f"{name} keeps the very same weights as {of} in all {len(_equal(masks, of, name))} cases that both were run "
        "in: they are one method, and share a line."
        for name, of in same(runs).items()
    ]
    if not said and len(equal := _equal(masks, ELEMENT_L1, ELEMENT_L2)):
        said = [
            f"{ELEMENT_L2} and {ELEMENT_L1} keep different weights in {(~equal).sum()} of {len(equal)} cases, though "
            "both rank by magnitude."
        ]
    return " ".join(said) or None


def merged(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` in which a method that is the same as an earlier one has gone, and the earlier bears both names."""
    twins = same(runs)
    names = {
        name: " = ".join([name, *(twin for twin, of in twins.items() if of == name)]) for name in set(runs["name"])
    }
    left = runs[~runs["name"].isin(twins)]
    return left.assign(name=left["name"].map(names))


def weight_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A line a method and scope: top-1 at each share kept, and weights kept and file at the smallest share."""
    return _table(merged(runs), "scope", False, {
        "weights kept (%)": lambda own: tables.spread(100 * own["weights_kept"] / own["prunable"]),
        "file (bytes)": lambda own: tables.spread(own["file_bytes"], 0),
        "of the original (%)": lambda own: tables.spread(100 * own["file_bytes"] / own["original_bytes"]),
    })  # fmt: skip


def input_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A line a method of pruning activations: top-1 at each share, zeros (%) and MACs (million) at the largest."""
    return _table(runs, "chosen", True, {
        "natural zeros (%)": lambda own: tables.spread(own["zeros_natural_pct"]),
        "pruned zeros (%)": lambda own: tables.spread(own["zeros_pruned_pct"]),
        "MACs left (million)": lambda own: tables.spread(own["macs_active"] / 1e6, 3),
    })  # fmt: skip


def _table(runs: pd.DataFrame, group: str, rising: bool, more: dict) -> pd.DataFrame:
    shares = sorted(runs["share"].unique(), reverse=not rising)
    lines = {}
    for key, own in runs.groupby(["name", "group", "variant"], sort=False):
        at = {share: own[own["share"] == share] for share in shares}
        tops = {f"top-1 at {100 * share:g} % (%)": tables.spread(at[share]["top1_pct"]) for share in shares}
        last = {words: of(at[shares[-1]]) for words, of in more.items()}
        lines[key] = {words: "" if text == tables.MISSING else text for words, text in (tops | last).items()}
    index = pd.MultiIndex.from_tuples(list(lines), names=["method", group, "variant"])
    table = pd.DataFrame(list(lines.values()), index=index)
    return table.droplevel("variant") if not any(index.get_level_values("variant")) else table


def best(runs: pd.DataFrame, images: int | None, rising: bool = False) -> str | None:
    """The most accurate method at the hardest share that several were run at, against the second and the original."""
    counts = runs.groupby("share").apply(lambda own: len(_named(own)), include_groups=False)
    tried = counts[counts > 1]
    if tried.empty:
        return None
    share = tried.index.max() if rising else tried.index.min()
    named = _named(runs[runs["share"] == share])
    order = sorted(named, key=lambda name: -named[name]["top1_pct"].mean())
    first, second, last = (named[order[at]] for at in (0, 1, -1))
    lead, error = difference(first["top1_pct"], second["top1_pct"], images)
    done = "removed" if rising else "kept"
    said = (
        f"With {100 * share:g} % {done} {order[0]} is the most accurate of {len(named)}, "
        f"{first['top1_pct'].mean():.2f} %, {lead:.2f} points ahead of {order[1]}, {sure(lead, error)}; "
        f"the last is {order[-1]} with {last['top1_pct'].mean():.2f} %."
    )
    original = first["original_top1_pct"].dropna()
    if original.empty:
        return said
    change, error = difference(first["top1_pct"], original, images)
    side = "above" if change > 0 else "below"
    return f"{said} The best is {abs(change):.2f} points {side} the network that was pruned, {sure(change, error)}."


def _named(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What a sentence calls the runs of each line of the table."""
    several = runs["group"].nunique() > 1
    found = {}
    for (name, group, variant), own in runs.groupby(["name", "group", "variant"], sort=False):
        note = ", ".join(text for text in (group if several else "", variant) if text)
        found[f"{name} ({note})" if note else name] = own
    return found


def zeros(runs: pd.DataFrame) -> str:
    """How much of what enters layers is zero anyway, and what pruning adds at the largest share."""
    at = runs[runs["share"] == runs["share"].max()]
    natural, pruned = at["zeros_natural_pct"].mean(), at["zeros_pruned_pct"].mean()
    said = f"Of what enters {entered(runs)} {natural:.2f} % is zero by itself (natural sparsity)"
    if pruned <= 0:
        return f"{said}; pruning removed nothing beyond that."
    share = 100 * runs["share"].max()
    return (
        f"{said}; the {share:g} % that pruning removes of the rest are {pruned:.2f} % of all, "
        f"{'more' if pruned > natural else 'less'} than was zero anyway."
    )
