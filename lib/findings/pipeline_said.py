"""What the stages of a compression pipeline did, in sentences; chains are those of `lib.findings.pipeline.chains`."""

import math
from types import SimpleNamespace

import pandas as pd

from lib.findings.accuracy import CLEAR
from lib.findings.pipeline import PARTS, anyway, change, entered, finished, mean, steps, sure
from lib.markup import code

BACK = "brought_back"  # metric of a stage with a source: weights kept that the source had removed
LOSSLESS = 1e-6  # relative difference of a test loss: the same numbers, summed in another order


def sentences(chain: SimpleNamespace) -> list[str]:
    """What a chain shows: file, accuracy, fine-tuning, activations, coding."""
    said = [sums(chain), gained(chain), overhead(chain), overall(chain), cost(chain), *tuned(chain)]
    return [sentence for sentence in [*said, activations(chain), masks(chain), decoded(chain)] if sentence]


def listed(chain: SimpleNamespace, more: list[str]) -> str:
    """The sentences and `more` as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in [*sentences(chain), *more])


def abstract(chains: dict[str, SimpleNamespace]) -> list[str]:
    """Of each chain its smallest file, and the stage that gained most."""
    return [text for name, chain in chains.items() for text in _of_chain(name, smallest(chain))]


def conclusions(chains: dict[str, SimpleNamespace]) -> list[str]:
    """Of each chain what the abstract leaves out: what cost accuracy, what brought it back, and what went wrong."""
    said = [
        (name, text)
        for name, chain in chains.items()
        for text in (cost(chain), *tuned(chain), *filter(_bold, (masks(chain), decoded(chain))))
    ]
    return [text for name, found in said for text in _of_chain(name, found)]


def _bold(text: str | None) -> bool:
    """Whether a sentence is a warning."""
    return bool(text) and text.startswith("**")


def smallest(chain: SimpleNamespace) -> str | None:
    """The smallest file beside the original's and its accuracy, and the stage that gained most, in one sentence."""
    first, done = chain.stages[0], finished(chain)
    others = [stage for stage in done if set(stage.rows["seed"]) & set(first.rows["seed"])] if len(first.rows) else []
    if len(others) < 2:
        return None
    least = min(others, key=lambda stage: mean(stage, "file_bytes"))
    if least is first:
        return "No file is smaller than the original's."
    points, error = change(first, least, chain.images)
    factor, _, most = max(_factors(chain), key=lambda found: found[0], default=(0, None, None))
    by = f"; {_named(most)} gained most, {factor:.2f} times" if factor > 1 else ""
    return (
        f"The smallest file, that of {_named(least)}, is {mean(first, 'file_bytes') / mean(least, 'file_bytes'):.2f} "
        f"times smaller than the original's at {_of_accuracy(points)}, {sure(points, error)}{by}."
    )


def _of_accuracy(points: float) -> str:
    said = points_of(points)
    return "the same accuracy" if said == "no difference" else said.replace("points", "points of accuracy")


def _factors(chain: SimpleNamespace) -> list[tuple[float, SimpleNamespace, SimpleNamespace]]:
    """Of each step how many times it made the file smaller, and its two stages."""
    return [(mean(a, "file_bytes") / mean(b, "file_bytes"), a, b) for a, b in steps(chain)]


def _of_chain(name: str, text: str | None) -> list[str]:
    if not text:
        return []
    return [f"Chain {name}: {text if _bold(text) else text[0].lower() + text[1:]}"]


def sums(chain: SimpleNamespace) -> str | None:
    """That the parts of a file do not add up to it, where they do not."""
    wrong = []
    for stage in finished(chain):
        parts = stage.rows[list(PARTS)].sum(axis=1)
        if (parts != stage.rows["file_bytes"]).any():
            wrong.append(
                f"stage {stage.number} ({parts.iloc[0]:,.0f} of {stage.rows['file_bytes'].iloc[0]:,.0f} bytes)"
            )
    return f"**The parts of a file do not add up to it:** {', '.join(wrong)}." if wrong else None


def gained(chain: SimpleNamespace) -> str | None:
    """The stage by which the file became smallest in proportion, and those at which it grew, and what of it."""
    factors = _factors(chain)
    if not factors:
        return None
    factor, before, after = max(factors, key=lambda found: found[0])
    if factor <= 1:
        return "No stage made the file smaller."
    of = f"Of its {len(factors)} steps {_named(after)}" if len(factors) > 1 else f"{_named(after).capitalize()}"
    most = " smallest in proportion" if len(factors) > 1 else " smaller"
    said = (
        f"{of} made the file{most}: from {mean(before, 'file_bytes'):,.0f} to {mean(after, 'file_bytes'):,.0f} bytes, "
        f"{factor:.2f} times smaller."
    )
    grown = [f"{_named(b)} ({_growth(a, b)})" for less, a, b in factors if less < 1]
    return f"{said} The file grew at {' and '.join(grown)}." if grown else said


def _growth(before: SimpleNamespace, after: SimpleNamespace) -> str:
    """`72 bytes, its header`: by how much a file grew, and the part of it that grew most."""
    whole = mean(after, "file_bytes") - mean(before, "file_bytes")
    more = {words: mean(after, name) - mean(before, name) for name, words in PARTS.items()}
    most = max(more, key=more.get)
    count = f"{whole:,.0f} byte{'' if round(whole) == 1 else 's'}"
    return f"{count}, {'its' if more[most] == whole else 'most of it its'} {most}"


def overhead(chain: SimpleNamespace) -> str | None:
    """What the last file spends on all but numbers: positions, tables, header."""
    last = finished(chain)[-1:]
    if not last:
        return None
    whole = mean(last[0], "file_bytes")
    other = {PARTS[name]: mean(last[0], name) for name in ("index_bytes", "table_bytes", "header_bytes")}
    share = 100 * sum(other.values()) / whole
    listed = ", ".join(f"{words} {100 * size / whole:.3g} %" for words, size in other.items() if size)
    said = f"Of the {whole:,.0f} bytes after {_named(last[0])} {share:.1f} % are no values"
    return f"{said}: {listed}." if listed else f"{said}."


def overall(chain: SimpleNamespace) -> str | None:
    """The last stage beside the original: file and accuracy."""
    done = finished(chain)
    if len(done) < 2 or done[0] is not chain.stages[0]:
        return None
    first, last = done[0], done[-1]
    if not set(first.rows["seed"]) & set(last.rows["seed"]):
        return None
    points, error = change(first, last, chain.images)
    share = mean(last, "file_bytes") / mean(first, "file_bytes")
    rest = "" if last is chain.stages[-1] else f", {len(chain.stages) - last.number} before the end of the chain"
    return (
        f"After stage {last.number} ({last.short}{rest}) the file has {100 * share:.2f} % of the original's bytes, "
        f"{1 / share:.2f} times smaller, and the top-1 accuracy is {mean(last, 'top1_pct'):.2f} % where the original "
        f"has {mean(first, 'top1_pct'):.2f} %: {points_of(points)}, {sure(points, error)}."
    )


def cost(chain: SimpleNamespace) -> str | None:
    """The stages that cost accuracy by more than chance, the dearest first."""
    found = sorted(((*change(a, b, chain.images), b) for a, b in steps(chain)), key=lambda one: one[0])
    if not found:
        return None
    dear = [one for one in found if one[0] < -CLEAR * one[1]]
    if dear:
        listed = ", ".join(f"{_named(stage)} {-points:.2f} ({error:.2f})" for points, error, stage in dear)
        return f"Points of accuracy lost beyond {CLEAR:g} standard errors (one of these in brackets): {listed}."
    points, error, stage = found[0]
    if points >= 0:
        return "No stage lowered the accuracy."
    return f"No stage clearly cost accuracy; {_named(stage)} cost most, {-points:.2f} points, {sure(points, error)}."


def tuned(chain: SimpleNamespace) -> list[str]:
    """For each fine-tuning, whether it brought back what the stages before it had cost since the original."""
    said = []
    for before, after in steps(chain):
        if after.notebook == "fine_tune":
            said.append(_tuned(chain, before, after))
    return said


def _tuned(chain: SimpleNamespace, before: SimpleNamespace, after: SimpleNamespace) -> str:
    points, error = change(before, after, chain.images)
    amount = f"{points:+.2f}".replace("-", "−")
    said = f"Fine-tuning (stage {after.number}) changed the accuracy by {amount} points, {sure(points, error)}"
    first = chain.stages[0]
    if not len(first.rows) or before is first:
        return f"{said}."
    lost = mean(first, "top1_pct") - mean(before, "top1_pct")
    if lost <= 0:
        return f"{said}; the stages before it had cost none."
    if abs(points) <= CLEAR * error:
        return (
            f"{said}: whether it brought back any of the {lost:.2f} points that the stages before it had cost cannot "
            "be told."
        )
    share = "nothing" if points <= 0 else "all" if points >= lost else f"{100 * points / lost:.0f} %"
    return f"{said}: it brought back {share} of the {lost:.2f} points that the stages before it had cost."


def activations(chain: SimpleNamespace) -> str | None:
    """Of the last stage with pruned activations: zeros that were there anyway, and those that pruning added."""
    pruned = [stage for stage in finished(chain) if stage.notebook == "prune_activations"]
    if not pruned:
        return None
    stage = pruned[-1]
    natural, added = mean(stage, "zeros_natural_pct"), mean(stage, "zeros_pruned_pct")
    said = f"At {_named(stage)} {natural:.2f} % of what enters {entered(stage.rows)} is zero without being pruned"
    if added <= 0:
        return f"{said} (natural sparsity); pruning removed nothing that was not zero already."
    more = "more" if added > natural else "less"
    kept, after, active = (mean(stage, name) for name in ("macs_kept", "macs_natural", "macs_active"))
    return (
        f"{said} (natural sparsity), and pruning adds {added:.2f} %, {more} than there was. Of the MACs that weight "
        f"masks leave, zeros that are there anyway ({anyway(stage.rows)}) make {100 * (kept - after) / kept:.1f} % "
        f"superfluous and pruned ones {100 * (after - active) / kept:.1f} %."
    )


def masks(chain: SimpleNamespace) -> str | None:
    """Whether pruned weights stayed removed: each stage counts those that it keeps and its source had removed."""
    found = [(stage.rows[BACK].astype(float).mean(), stage) for stage in finished(chain) if BACK in stage.rows]
    known = [(count, stage) for count, stage in found if not math.isnan(count)]
    if not known:
        return None
    back = [f"{count:,.0f} by {_named(stage)}" for count, stage in known if count > 0]
    if back:
        return f"**Pruned weights came back:** {' and '.join(back)}."
    if unknown := {stage.number for stage in finished(chain)} - {1} - {stage.number for _, stage in known}:
        listed = ", ".join(map(str, sorted(unknown)))
        return f"No stage that counted it brought a pruned weight back; not counted: {listed}."
    return "No stage brought a pruned weight back."


def decoded(chain: SimpleNamespace) -> str | None:
    """Whether the network decoded from its code is the one that was coded."""
    found = [(a, b) for a, b in steps(chain) if b.notebook == "coded"]
    if not found:
        return None
    before, after = found[-1]
    both = before.rows.merge(after.rows, on="seed")
    same = (both["test_loss_y"] - both["test_loss_x"]).abs() <= LOSSLESS * both["test_loss_x"].abs()
    if ((both["top1_pct_y"] == both["top1_pct_x"]) & same).all():
        return "The decoded network has the accuracy and the test loss of that before coding: coding lost nothing."
    top1, loss = ([both[f"{name}_{end}"].mean() for end in "xy"] for name in ("top1_pct", "test_loss"))
    return (
        f"**Coding is not lossless:** the decoded network has a top-1 accuracy of {top1[1]:.2f} % and a test loss of "
        f"{loss[1]:.6g}, before coding they were {top1[0]:.2f} % and {loss[0]:.6g}."
    )


def beside(chains: list[SimpleNamespace]) -> str | None:
    """Where the chains of one task end: the smallest file and the highest accuracy; None with fewer than two."""
    last = [(chain.name, finished(chain)[-1]) for chain in chains]
    if len(last) < 2:
        return None
    small, good = (
        min(last, key=lambda one: mean(one[1], "file_bytes")),
        max(last, key=lambda one: mean(one[1], "top1_pct")),
    )
    said = f"Of {len(last)} chains {_ends(*small)} with the smallest file"
    if small[0] == good[0]:
        return f"{said} and the highest accuracy."
    return f"{said}, and {_ends(*good)} with the highest accuracy."


def _ends(name: str, stage: SimpleNamespace) -> str:
    return f"{name} ends ({mean(stage, 'file_bytes'):,.0f} bytes, {mean(stage, 'top1_pct'):.2f} %)"


def by_layer(layers: pd.DataFrame) -> str:
    """Which layer has most of the bytes, how evenly weights are kept, and which layers have none left.

    `layers` is layers.csv of a run.
    """
    share = 100 * layers["kept"] / layers["weights"]
    large, bytes_ = layers["bytes"].idxmax(), 100 * layers["bytes"].max() / layers["bytes"].sum()
    said = f"{code(layers['layer'][large])} takes {bytes_:.1f} % of the bytes of all layers."
    if share.max() - share.min() < 0.5:
        said += f" Every layer keeps about {share.mean():.0f} % of its weights."
    else:
        low, high = share.idxmin(), share.idxmax()
        said += (
            f" Most is kept of {code(layers['layer'][high])} ({share[high]:.1f} %), "
            f"least of {code(layers['layer'][low])} ({share[low]:.1f} %)."
        )
    empty = layers.loc[layers["kept"] == 0, "layer"]
    return f"{said} **No weight is left** in {', '.join(code(name) for name in empty)}." if len(empty) else said


def points_of(points: float) -> str:
    """`1.20 points less`, `0.30 points more`, `no difference`."""
    return f"{abs(points):.2f} points {'more' if points > 0 else 'less'}" if round(points, 2) else "no difference"


def _named(stage: SimpleNamespace) -> str:
    return f"stage {stage.number} ({stage.short})"
