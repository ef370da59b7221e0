"""The report's first and last words, from the same numbers as everything between."""

from collections.abc import Sequence
from types import SimpleNamespace

import pandas as pd

from lib import catalog, markup, shares, summary, tables
from lib.findings import accuracy, cost


def title(book: SimpleNamespace, more: Sequence[str] = ()) -> str:
    """Title block in Markdown: title, question, byline, and an abstract where there is something to say.

    The title is text as it stands in the study's file, the question Markdown. `more` are sentences
    for the end of the abstract.
    """
    question, rest = _split(book.question)
    said = [text for text in (rest, _subject(book.involved), *_best(book), *_robust(book), *more) if text]
    abstract = [f"**Abstract.** {' '.join(said)}"] if said else []
    return "\n\n".join([f"# {markup.plain(book.title)}", f"*{question}*", _byline(book), *abstract])


def _byline(book) -> str:
    whose = "Reference results of study" if book.reference else "Study"
    parts = [
        f"{whose} {book.name}",
        f"{len(book.everything)} of {len(book.everything) + len(book.gaps)} runs finished",
    ]
    if seeds := book.involved["seed"].nunique():
        parts.append(f"{seeds} seed{'s' if seeds > 1 else ''} a configuration")
    return ", ".join(parts)


def _subject(involved: pd.DataFrame) -> str | None:
    """What the study is about, from the planned runs of all its notebooks: see `lib.networks.involved`."""
    if involved.empty:
        return None
    found = sorted(set(involved["pruner"]) - {"dense", ""}, key=list(catalog.PRUNERS).index)
    networks = " and ".join(tables.tasks(involved))
    if not found:
        return f"It looks at {networks}."
    names = ", ".join(catalog.label(p) for p in found)
    return f"{'Compared are' if len(found) > 1 else 'The pruning method is'} {names} on {networks}."


def _split(text: str) -> tuple[str, str]:
    """The sentences up to the last question mark, and what follows."""
    at = text.rfind("?") + 1 or len(text)
    return text[:at], text[at:].strip()


def _best(book) -> list[str]:
    said = []
    for task in tables.tasks(book.done) if len(book.done) else []:
        runs = book.done[(book.done["task"] == task) & (book.done["pruner"] != "dense")]
        if runs.empty:
            continue
        hardest = runs["compression"].max()
        means = runs[runs["compression"] == hardest].groupby("method")["top1_pct"].mean()
        wanted = book.planned[(book.planned["task"] == task) & (book.planned["compression"] == hardest)]
        if len(means) < 2:
            continue
        of = f"{len(means)} compared" + (
            f" ({wanted['method'].nunique()} planned)" if wanted["method"].nunique() > len(means) else ""
        )
        at, first = f"At {shares.say(hardest, runs['word'].iloc[0])}", list(means.index[means == means.max()])
        which = f"method on {task} is" if len(first) == 1 else f"methods on {task} are, equally,"
        if means.max() <= accuracy.guessing(**summary.test_set(book, task)):
            said.append(f"{at} none of the {len(means)} methods compared on {task} is clearly better than guessing.")
        elif len(first) == len(means):
            said.append(
                f"{at} all {len(means)} methods compared on {task} have the same accuracy ({means.max():.1f} %)."
            )
        else:
            said.append(f"{at} the most accurate {which} {' and '.join(first)} ({means.max():.1f} %), of {of}.")
    return said


def conclusions(book: SimpleNamespace, timings: list[pd.DataFrame], others: list[str]) -> str:
    """A Markdown list: the best method by task and compression, robustness, cost; then the sentences of `others`.

    `timings` are those of one task and run each (see `tables.timing_summary`).
    """
    costs = [sentence for rows in timings for sentence in _cost(rows)]
    said = [*_best(book), *_robust(book), *_collapse(book), *costs, *others]
    return "\n".join(f"- {sentence[0].upper()}{sentence[1:]}" for sentence in said if sentence)


def _robust(book) -> list[str]:
    """The method that loses least from the mildest to the hardest compression, where both were run.

    What only guesses at the mildest has nothing to lose.
    """
    said = []
    for task in tables.tasks(book.done) if len(book.done) else []:
        runs = book.done[(book.done["task"] == task) & (book.done["pruner"] != "dense")]
        table = runs.pivot_table(index="method", columns="compression", values="top1_pct").dropna()
        if table.shape[1] < 2 or len(table) < 2:
            continue
        word, low, high = runs["word"].iloc[0], table.columns.min(), table.columns.max()
        table = table[table[low] > accuracy.guessing(**summary.test_set(book, task))]
        loss = table[low] - table[high]
        if len(loss) < 2 or loss.max() == loss.min():
            continue
        least, most = (list(loss.index[loss == value]) for value in (loss.min(), loss.max()))
        said.append(
            f"From {shares.say(low, word)} to {shares.say(high, word)} on {task}, {' and '.join(least)} "
            f"{'loses' if len(least) == 1 else 'lose'} least ({loss.min():.1f} points) and {' and '.join(most)} most "
            f"({loss.max():.1f} points)."
        )
    return said


def _collapse(book) -> list[str]:
    if book.done.empty:
        return []
    empty = book.done[book.done["collapsed_layers"].fillna("") != ""]
    if empty.empty:
        return ["No run was left with an empty layer."]
    names = ", ".join(dict.fromkeys(empty["method"]))
    return [
        f"{len(empty)} of {len(book.done)} networks lost whole layers ({names}): "
        "a method can collapse at a density that leaves others intact."
    ]


def _cost(timings: pd.DataFrame) -> list[str]:
    permanent = timings[timings["form"] == "permanent"] if len(timings) else timings
    if permanent.empty or cost.noisy(timings):
        return []
    dense = permanent[permanent["pruner"] == "dense"]
    pruned = permanent[(permanent["pruner"] != "dense") & permanent["macs_kept"].notna()]
    if pruned.empty or dense.empty:
        return []
    ratio = dense["median_s"].median() / pruned["median_s"].median()
    saved = pruned["macs_dense"].median() / pruned["macs_kept"].median()
    said = (
        f"Unstructured pruning of {pruned['task'].iloc[0]} removed {1 - 1 / saved:.0%} of the MACs (median over "
        f"{len(pruned)} networks) and made inference {ratio:.2f} times as fast as the dense network"
    )
    noise = (permanent["spread_s"] / permanent["median_s"]).median()
    if abs(ratio - 1) <= 3 * noise:
        return [f"{said}, a difference within the noise: operations on paper are not seconds."]
    return [said + (": operations on paper are not seconds." if ratio < 1 + 0.2 * (saved - 1) else ".")]
