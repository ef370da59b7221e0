"""Pruning methods beside each other: runs that prune one trained network and belong to no chain."""

from types import SimpleNamespace

import pandas as pd

from lib import tables
from lib.findings.accuracy import difference
from lib.findings.pipeline import entered, in_unit, sure

# Parameters that are a place in the table, or say which network it is.
PLACED = {"data", "model", "seed", "source", "run_dir"}
# `equal` are the metrics in which runs of equal methods agree, `nothing` is the share that removes nothing.
WEIGHTS = SimpleNamespace(
    notebook="prune_weights", method="method", share="share_kept", more="pruning_scope", nothing=1.0,
    equal=["masks_digest"], agree="keeps the very same weights as", differ="keep different weights",
    done="kept", keep="keep", amount="of the weights",
)  # fmt: skip
INPUTS = SimpleNamespace(
    notebook="prune_activations", method="activation_method", share="activation_share", more="calibrated", nothing=0.0,
    equal=["top1_pct", "test_loss", "macs_active"], agree="has the very same accuracy, test loss and MACs as",
    differ="differ in accuracy, test loss or MACs", done="removed", keep="remove", amount="of what enters layers",
)  # fmt: skip
ELEMENT_L1, ELEMENT_L2 = "element-l1", "element-l2"
ZEROS = ("zeros_natural_pct", "zeros_pruned_pct")
ALIKE = 1.02  # methods are compared that keep, or remove, amounts of at most this ratio


def branches(book: SimpleNamespace, of: SimpleNamespace) -> dict[str, pd.DataFrame]:
    """task -> finished runs of WEIGHTS or INPUTS that belong to no chain, with `name` (the method), `share`, `variant`.

    `variant` says in words what runs of one method, share and seed differ in besides, so that no mean is taken over it;
    `removed` says whether anything is, and `amount` how much: the share kept of the weights, or of what enters layers
    the share that pruning made zero, in %. `original_bytes`, `original_top1_pct` and `original_zeros_pct` (natural
    ones) are those of the run that they start from, NaN where it is not finished.
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
        original_zeros_pct=source.map(whole["zeros_natural_pct"]),
        removed=runs[of.share] != of.nothing,
        amount=100 * runs["weights_kept"] / runs["prunable"] if of is WEIGHTS else runs["zeros_pruned_pct"],
    )
    runs = runs.assign(variant=_variants(book, runs, of))
    return {task: runs[runs["task"] == task] for task in tables.tasks(runs)}


def _worded(column: pd.Series, of: SimpleNamespace) -> pd.Series:
    return column.astype(str) if of is WEIGHTS else column.map({True: "a fixed set", False: "each image"})


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
    """Method -> the earlier one that does the very same, wherever anything was removed, in all common cells.

    A cell is a scope (or a choice of activations), a share, a variant and a seed. Methods of weights do the same where
    `masks_digest` is, those of activations where accuracy, test loss and remaining MACs are.
    """
    names = list(dict.fromkeys(runs["name"]))
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        for earlier in names[:number]:
            equal = _equal(runs, earlier, name)
            if earlier not in found and len(equal) and equal.all():
                found.setdefault(name, earlier)
    return found


def _equal(runs: pd.DataFrame, a: str, b: str) -> pd.Series:
    cells = runs[runs["removed"]].set_index(["group", "share", "variant", "seed"])
    metrics = _of(runs).equal
    both = cells.loc[cells["name"] == a, metrics].join(
        cells.loc[cells["name"] == b, metrics].add_suffix(" too"), how="inner"
    )
    return pd.concat([both[name] == both[f"{name} too"] for name in metrics], axis=1).all(axis=1)


def same_sentence(runs: pd.DataFrame) -> str | None:
    """Which methods are one and the same; where L1 and L2 of elements are not, that they should be."""
    of, said = _of(runs), []
    for name, earlier in same(runs).items():
        cases = len(_equal(runs, earlier, name))
        where = f"in all {cases} cases that both were run in" if cases > 1 else "in the one case that both were run in"
        said.append(f"{name} {of.agree} {earlier} {where}: they are one method, and share a line.")
    if not said and len(equal := _equal(runs, ELEMENT_L1, ELEMENT_L2)):
        where = f"{(~equal).sum()} of {len(equal)} cases" if len(equal) > 1 else "the one case that both were run in"
        said = [f"{ELEMENT_L2} and {ELEMENT_L1} {of.differ} in {where}, though both rank by magnitude."]
    return " ".join(said) or None


def _of(runs: pd.DataFrame) -> SimpleNamespace:
    """WEIGHTS or INPUTS, whose runs these are."""
    return WEIGHTS if runs["notebook"].iloc[0] == WEIGHTS.notebook else INPUTS


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
    return _table(merged(runs), "scope", {
        "weights kept (%)": lambda own: tables.spread(100 * own["weights_kept"] / own["prunable"]),
        "file (bytes)": lambda own: tables.spread(own["file_bytes"], 0),
        "of the original (%)": lambda own: tables.spread(100 * own["file_bytes"] / own["original_bytes"]),
    })  # fmt: skip


def input_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A line a method of pruning activations: top-1 at each share, zeros (%) and MACs at the largest.

    What is chosen of `each image` depends on no other; `a fixed set` was calibrated and is that of all images.
    """
    factor, unit, digits = in_unit(runs["macs_dense"].max())
    return _table(merged(runs), "chosen", {
        "natural zeros (%)": lambda own: tables.spread(own["zeros_natural_pct"]),
        "pruned zeros (%)": lambda own: tables.spread(own["zeros_pruned_pct"]),
        f"MACs left ({unit})": lambda own: tables.spread(own["macs_active"] / factor, digits),
    })  # fmt: skip


def _table(runs: pd.DataFrame, group: str, more: dict) -> pd.DataFrame:
    shares = sorted(runs["share"].unique(), reverse=_of(runs) is WEIGHTS)
    lines = {}
    for key, own in runs.groupby(["name", "group", "variant"], sort=False):
        at = {share: own[own["share"] == share] for share in shares}
        tops = {f"top-1 at {100 * share:g} % (%)": tables.spread(at[share]["top1_pct"]) for share in shares}
        last = {words: of(at[shares[-1]]) for words, of in more.items()}
        lines[key] = {words: "" if text == tables.MISSING else text for words, text in (tops | last).items()}
    index = pd.MultiIndex.from_tuples(list(lines), names=["method", group, "variant"])
    table = pd.DataFrame(list(lines.values()), index=index)
    return table.droplevel("variant") if not any(index.get_level_values("variant")) else table


def best(runs: pd.DataFrame, images: int | None) -> str | None:
    """The most accurate method at the hardest share where methods can be compared, beside the second and the original.

    Compared are those that keep (or remove) the same amount, see ALIKE, the largest such group first; of the others
    it is said how much they keep.
    """
    found = {share: _alike(own) for share, own in runs.groupby("share") if len(_alike(own)[0]) > 1}
    if not found:
        return None
    of = _of(runs)
    share = min(found) if of is WEIGHTS else max(found)
    first, *others = found[share]
    said = [_first(first, f"With {100 * share:g} % {of.done}", images, several=bool(others))]
    if others:
        listed = "; ".join(f"{_listed(group)} ({_keep(group)})" for group in others)
        said.append(f"Not compared with these, as another share is {of.done}: {listed}.")
    return " ".join(said)


def _alike(runs: pd.DataFrame) -> list[dict[str, pd.DataFrame]]:
    """What a sentence calls them -> runs, of the methods of one share, in groups that keep the same.

    The largest group is first, of equally large ones that of the larger amount.
    """
    named = _named(runs)
    groups: list[dict] = []
    least = 0.0
    for name in sorted(named, key=lambda name: named[name]["amount"].mean()):
        amount = named[name]["amount"].mean()
        if not groups or amount > ALIKE * least:
            groups.append({})
            least = amount
        groups[-1][name] = named[name]
    return sorted(groups, key=lambda group: (len(group), _amount(group)), reverse=True)


def _first(named: dict[str, pd.DataFrame], where: str, images: int | None, several: bool) -> str:
    order = _by_accuracy(named)
    first, second, last = (named[order[at]] for at in (0, 1, -1))
    end = f"; the last is {order[-1]} with {_top1(last)}" if len(order) > 2 else ""
    lead, error = difference(first["top1_pct"], second["top1_pct"], images)
    among = f"{len(named)} that {_keep(named)}" if several else f"{len(named)}"
    said = (
        f"{where} {order[0]} is the most accurate of {among}, {_top1(first)}, {lead:.2f} points ahead of {order[1]}, "
        f"{sure(lead, error)}{end}."
    )
    original = first["original_top1_pct"].dropna()
    if original.empty:
        return said
    change, error = difference(first["top1_pct"], original, images)
    side = "above" if change > 0 else "below"
    return f"{said} The best is {abs(change):.2f} points {side} the network that was pruned, {sure(change, error)}."


def _listed(named: dict[str, pd.DataFrame]) -> str:
    return ", ".join(f"{name} {_top1(named[name])}" for name in _by_accuracy(named))


def _by_accuracy(named: dict[str, pd.DataFrame]) -> list[str]:
    return sorted(named, key=lambda name: -named[name]["top1_pct"].mean())


def _keep(named: dict[str, pd.DataFrame]) -> str:
    of = _of(next(iter(named.values())))
    return f"{of.keep}{'s' if len(named) == 1 else ''} {_amount(named):.3g} % {of.amount}"


def _amount(named: dict[str, pd.DataFrame]) -> float:
    """What a group of methods keeps or removes, in %."""
    return pd.concat(named.values())["amount"].mean()


def _top1(runs: pd.DataFrame) -> str:
    return f"{runs['top1_pct'].mean():.2f} %"


def _named(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What a sentence calls the runs of each line of the table."""
    several = runs["group"].nunique() > 1
    found = {}
    for (name, group, variant), own in runs.groupby(["name", "group", "variant"], sort=False):
        note = ", ".join(text for text in (group if several else "", variant) if text)
        found[f"{name} ({note})" if note else name] = own
    return found


def zeros(runs: pd.DataFrame) -> str:
    """How much of what enters layers is zero anyway, and what pruning adds at the largest share.

    Zeros that are there anyway depend on the method, whose pruning in one layer changes what enters the next.
    """
    at = merged(runs)
    at = at[at["share"] == at["share"].max()]
    of_each = pd.DataFrame({name: own[list(ZEROS)].mean() for name, own in _named(at).items()}).T
    natural, pruned = (of_each[name] for name in ZEROS)
    before = at["original_zeros_pct"].mean()
    in_whole = "" if pd.isna(before) else f" in the network that was pruned {before:.2f} % is zero anyway,"
    said = f"Of what enters {entered(at)}{in_whole} with pruning {_range(natural)} without being pruned"
    if pruned.max() <= 0:
        return f"{said}; pruning removed nothing beyond that."
    more = [name for name in of_each.index if pruned[name] > natural[name]]
    beside = (
        "less than"
        if not more
        else "more than"
        if len(more) == len(of_each)
        else f"only by {' and '.join(more)} more than"
    )
    share = 100 * at["share"].max()
    return (
        f"{said}; the {share:g} % that pruning removes of the rest are {_range(pruned)} of all, {beside} was zero "
        "anyway."
    )


def _range(of_each: pd.Series) -> str:
    """`40.00 %`, or where methods differ `38.00 % (map-l1) to 40.00 % (element-l1)`."""
    low, high = of_each.idxmin(), of_each.idxmax()
    if f"{of_each[low]:.2f}" == f"{of_each[high]:.2f}":
        return f"{of_each[low]:.2f} %"
    return f"{of_each[low]:.2f} % ({low}) to {of_each[high]:.2f} % ({high})"
