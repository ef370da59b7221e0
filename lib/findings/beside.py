"""A user's accuracies beside those of the reference: cell by cell, and what the differences say."""

import math
from string import ascii_lowercase
from types import SimpleNamespace

import pandas as pd

from lib import shares, tables
from lib.findings import settings
from lib.findings.accuracy import CLEAR, standard_error
from lib.markup import code

CELL = ["task", "compression", "method"]
# Parameters that say which cell a run belongs to or which run of it, not how it was trained.
IDENTITY = {"data", "model", "pruner", "density", "rounds", "seed", "source"}
DIFFERENCE, OTHER = "difference (points)", "other settings"
NAMED = 5  # cells in a sentence; a longer list is cut


def compare(own: SimpleNamespace) -> pd.DataFrame:
    """One row a cell that is finished on a side: CELL, `yours`, `reference` (lists of top-1, by seed), `images`
    (of the test set, None if unknown), `other` (the settings that differ, empty if none or a side is missing).
    """
    ours, theirs = _cells(own), _cells(own.beside)
    known = pd.concat([book.done for book in (own, own.beside) if len(book.done)] or [own.done])
    order = tables.tasks(known), tables.methods(known)
    keys = sorted({**ours, **theirs}, key=lambda k: (order[0].index(k[0]), k[1], order[1].index(k[2])))
    rows = []
    for key in keys:
        mine, other = ours.get(key), theirs.get(key)
        rows.append({
            **dict(zip(CELL, key, strict=True)), "images": (mine or other).images,
            "yours": mine.top1 if mine else [], "reference": other.top1 if other else [],
            "other": _differing(mine.settings, other.settings) if mine and other else "",
        })  # fmt: skip
    return pd.DataFrame(rows, columns=[*CELL, "images", "yours", "reference", "other"])


def _cells(book) -> dict[tuple, SimpleNamespace]:
    if book.done.empty:
        return {}
    found = {}
    for key, runs in book.done.sort_values("seed").groupby(CELL):
        data = book.facts[runs["run"].iloc[0]].get("data") or {}
        found[key] = SimpleNamespace(
            top1=runs["top1_pct"].tolist(), settings=_settings(book, runs), images=data.get("test_images")
        )
    return found


def _settings(book, runs: pd.DataFrame) -> dict[str, list[str]]:
    """Name -> the values that the runs of a cell have, in words."""
    found: dict[str, list[str]] = {}
    for _, run in runs.iterrows():
        facts = book.facts[run["run"]]
        values = {k: v for k, v in facts["parameters"].items() if k not in IDENTITY | {"epochs", "pre_epochs"}}
        values |= {"epochs": tables.epochs(book.planned, run)}
        values |= {"images": (facts.get("data") or {}).get("fingerprint")}
        if values.get("train_images") == 0:
            values["train_images"] = "all"
        for name, value in values.items():
            found.setdefault(name, []).append(str(value))
    return {name: sorted(set(values)) for name, values in found.items()}


def _differing(mine: dict, other: dict) -> str:
    """`epochs 0 + 2 against 0 + 10`, for each setting that both sides recorded."""
    names = [n for n in ("epochs", *sorted(mine)) if n in other and mine[n] != other[n]]
    said = [f"{n.replace('_', ' ')} {' or '.join(mine[n])} against {' or '.join(other[n])}" for n in names]
    return "; ".join(dict.fromkeys(said))


def table(cells: pd.DataFrame, word: str) -> pd.DataFrame:
    """The cells as the report shows them: both accuracies (%), the difference, and where needed a mark of `notes`.

    `word` is how the study says how much is kept; ratio, density and sparsity stand side by side (see `lib.shares`).
    """
    found = pd.DataFrame({
        "yours": cells["yours"].map(tables.spread),
        "reference": cells["reference"].map(tables.spread),
        DIFFERENCE: [_mean(y) - _mean(r) for y, r in zip(cells["yours"], cells["reference"], strict=True)],
    })  # fmt: skip
    if (cells["other"] != "").any():
        found[OTHER] = cells["other"].map(notes(cells)).fillna("")
    left = pd.DataFrame([shares.columns(compression, word) for compression in cells["compression"]])
    named = [cells["task"], *(left[name] for name in left), cells["method"]]
    return found.set_index(pd.MultiIndex.from_arrays(named))


def notes(cells: pd.DataFrame) -> dict[str, str]:
    """Settings that differ -> a letter for them, in the order of the cells: spelled out they would fill the table."""
    found = [text for text in dict.fromkeys(cells["other"]) if text]
    return {text: ascii_lowercase[n % 26] * (n // 26 + 1) for n, text in enumerate(found)}


def signed(value: float) -> str:
    """A difference in print."""
    return "–" if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−").replace("+0.00", "0.00")


def caption(own: SimpleNamespace, cells: pd.DataFrame) -> str:
    """What the table shows, the hardware of both sides, and what the marks of other settings stand for."""
    mine, other = (" and ".join(settings.machines(book)) for book in (own, own.beside))
    where = f"Hardware of both: {mine}" if mine == other else f"Your hardware: {mine}. The reference's: {other}"
    said = f"Top-1 test accuracy (%) after the last epoch, yours beside the reference's. {where}."
    if not (marks := notes(cells)):
        return said
    return f"{said} Other settings, yours against the reference's: {'. '.join(f'{m}: {t}' for t, m in marks.items())}."


def sentences(own: SimpleNamespace, cells: pd.DataFrame) -> list[str]:
    """What the table says: cells with the same settings, with others, missing ones, and what agrees exactly."""
    both = cells[(cells["yours"].str.len() > 0) & (cells["reference"].str.len() > 0)]
    same, other = both[both["other"] == ""], both[both["other"] != ""]
    word = own.word
    said = [*_same(same, word), _others(other), *_missing(cells, word), kept(own), _unrecorded(own), _versions(own)]
    return [sentence for sentence in said if sentence]


def _same(cells: pd.DataFrame, word: str) -> list[str]:
    """How many cells agree, within what, and the largest difference."""
    if cells.empty:
        return []
    count = _count(len(cells), "cell")
    equal = sum(y == r for y, r in zip(cells["yours"], cells["reference"], strict=True))
    if equal == len(cells):
        return [f"{count} computed on both sides with the same settings: all equal to the last digit."]
    rows = [(_mean(y) - _mean(r), _error(y, r, n)) for y, r, n in _pairs(cells)]
    within = sum(abs(difference) <= CLEAR * error for difference, error in rows)
    unknown = sum(math.isnan(error) for _, error in rows)
    said = f"{count} computed on both sides with the same settings: {equal or 'none'} equal to the last digit"
    if unknown < len(rows):
        said += f", {within} within {CLEAR:g} standard errors of the difference ({_basis(cells)})"
    largest = cells.iloc[max(range(len(rows)), key=lambda i: abs(rows[i][0]))]
    return [
        f"{said}.",
        f"The largest difference is **{signed(_mean(largest['yours']) - _mean(largest['reference']))} points**: "
        f"{_name(largest, word)}, yours {_mean(largest['yours']):.2f} %, "
        f"the reference {_mean(largest['reference']):.2f} %.",
    ]


def _pairs(cells: pd.DataFrame):
    return zip(cells["yours"], cells["reference"], cells["images"], strict=True)


def _error(yours: list[float], reference: list[float], images: float | None) -> float:
    """Standard error (points) of the difference of two means: over seeds where a side has several, their spread
    pooled and taken for both sides, else of the test set alone (binomial); NaN where its size is unknown.
    """
    several = [pd.Series(values) for values in (yours, reference) if len(values) > 1]
    if not several:
        known = None if images is None or math.isnan(images) else images
        return math.hypot(*(standard_error(pd.Series(values), known) for values in (yours, reference)))
    freedom = sum(len(values) - 1 for values in several)
    variance = sum(values.var(ddof=1) * (len(values) - 1) for values in several) / freedom
    return math.sqrt(variance * (1 / len(yours) + 1 / len(reference)))


def _basis(cells: pd.DataFrame) -> str:
    several = (cells["yours"].str.len() > 1) | (cells["reference"].str.len() > 1)
    if several.all():
        return "over seeds"
    if several.any():
        return "over seeds where a side has several, else of the test set alone"
    return "of the test set alone: with one seed on each side, how far seeds differ is not known from this"


def _others(cells: pd.DataFrame) -> str | None:
    """Cells that were trained differently: another experiment, whatever the difference."""
    if cells.empty:
        return None
    differences = [_mean(y) - _mean(r) for y, r, _ in _pairs(cells)]
    low, high = signed(min(differences)), signed(max(differences))
    size = f"differ by {low} points" if low == high else f"differ by {low} to {high} points"
    how = _listed(list(dict.fromkeys(cells["other"])), "; or ")
    one = len(cells) == 1
    return (
        f"{_count(len(cells), 'cell')} {'was' if one else 'were'} made with other settings than the reference's "
        f"({how}) and {size.replace('differ', 'differs') if one else size}: two experiments, not one repeated."
    )


def _missing(cells: pd.DataFrame, word: str) -> list[str]:
    said = []
    for side, words in (("yours", "Only the reference has"), ("reference", "Only you have")):
        alone = cells[cells[side].str.len() == 0]
        if len(alone):
            names = _listed([_name(row, word) for _, row in alone.iterrows()])
            said.append(f"{words} {_count(len(alone), 'cell')}: {names}.")
    return said


def kept(own: SimpleNamespace) -> str | None:
    """Whether runs of the same seed kept exactly as many weights and MACs: no rounding excuses a difference there."""
    keys, values = [*CELL, "seed"], ["weights_kept", "macs_kept"]
    sides = [book.done for book in (own, own.beside)]
    if any(side.empty for side in sides):
        return None
    ours, theirs = (side.drop_duplicates(keys)[[*keys, *values]] for side in sides)
    pairs = ours.merge(theirs, on=keys, suffixes=("", "_reference"))
    if pairs.empty:
        return "No run has its seed on the other side too, so kept weights are not compared."
    weights, macs = (pairs[name] == pairs[f"{name}_reference"] for name in values)
    total = _count(len(pairs), "run")
    same = f"{weights.sum() if not weights.all() else 'all'} keep exactly as many weights"
    said = f"Of {total} with the same seed on both sides, {same}, and {macs.sum()} exactly as many MACs."
    if weights.all():
        return said
    names = _listed([f"{_name(row, own.word)}, seed {row['seed']}" for _, row in pairs[~weights].iterrows()])
    return f"{said} **Equal densities must keep equally many weights:** not so for {names}."


def _unrecorded(own: SimpleNamespace) -> str | None:
    """Parameters that only one side knows: the workbench has changed in between."""
    mine, other = (
        {name for run in book.done["run"] for name in book.facts[run]["parameters"]} for book in (own, own.beside)
    )
    names = sorted(mine ^ other)
    return f"Recorded on one side only, so not compared: {', '.join(code(n) for n in names)}." if names else None


def _versions(own: SimpleNamespace) -> str | None:
    """Packages in other versions."""
    mine, other = (_versions_of(book) for book in (own, own.beside))
    names = [n for n in mine if n in other and mine[n] != other[n]]
    said = ", ".join(f"{n} {' or '.join(mine[n])} against {' or '.join(other[n])}" for n in names)
    return f"Versions that differ: {said}." if said else None


def _versions_of(book) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for facts in book.facts.values():
        for name, version in facts["versions"].items():
            found.setdefault(name, set()).add(str(version))
    return {name: sorted(versions) for name, versions in found.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _name(row, word: str) -> str:
    where = row["method"] + (f" at {shares.say(row['compression'], word)}" if row["compression"] else "")
    return f"{where} on {row['task']}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _listed(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return between.join(names[:NAMED]) + more
