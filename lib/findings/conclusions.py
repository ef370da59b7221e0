"""The report's first and last words, from the same numbers as everything between."""

from types import SimpleNamespace

import pandas as pd

from lib import catalog, shares, tables
from lib.findings import cost


def title(book: SimpleNamespace) -> str:
    """Title block in Markdown: title, question, byline, abstract."""
    found = sorted(set(book.planned["pruner"]) - {"dense"}, key=list(catalog.PRUNERS).index)
    names = ", ".join(catalog.label(p) for p in found)
    seeds = len(set(book.planned["seed"]))
    whose = "Reference results of study" if book.reference else "Study"
    byline = (
        f"{whose} {book.name}, {len(book.everything)} of {len(book.everything) + len(book.gaps)} runs finished, "
        f"{seeds} seed{'s' if seeds > 1 else ''} a configuration"
    )
    question, rest = _split(book.question)
    said = [rest, f"Compared are {names} on {' and '.join(tables.tasks(book.planned))}.", *_best(book), *_robust(book)]
    return f"# {book.title}\n\n*{question}*\n\n{byline}\n\n**Abstract.** {' '.join(s for s in said if s)}"


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
        said.append(
            f"At {shares.say(hardest, runs['word'].iloc[0])} the most accurate method on {task} is {means.idxmax()} "
            f"({means.max():.1f} %), of {of}."
        )
    return said


def conclusions(book: SimpleNamespace, timings: pd.DataFrame, others: list[str]) -> str:
    """A Markdown list: the best method by task and compression, robustness, cost; then the sentences of `others`."""
    said = [*_best(book), *_robust(book), *_collapse(book), *_cost(timings), *others]
    return "\n".join(f"- {sentence}" for sentence in said if sentence)


def _robust(book) -> list[str]:
    """The method that loses least from the mildest to the hardest compression, where both were run."""
    said = []
    for task in tables.tasks(book.done) if len(book.done) else []:
        runs = book.done[(book.done["task"] == task) & (book.done["pruner"] != "dense")]
        table = runs.pivot_table(index="method", columns="compression", values="top1_pct").dropna()
        if table.shape[1] < 2 or len(table) < 2:
            continue
        word, low, high = runs["word"].iloc[0], table.columns.min(), table.columns.max()
        loss = table[low] - table[high]
        if loss.max() == loss.min():
            continue
        said.append(
            f"From {shares.say(low, word)} to {shares.say(high, word)} on {task}, {loss.idxmin()} loses least "
            f"({loss.min():.1f} points) and {loss.idxmax()} most ({loss.max():.1f} points)."
        )
    return said


def _collapse(book) -> list[str]:
    empty = book.done[book.done["collapsed_layers"].fillna("") != ""] if len(book.done) else book.done
    if empty.empty:
        return ["No run was left with an empty layer."]
    names = ", ".join(dict.fromkeys(empty["method"]))
    return [
        f"{len(empty)} of {len(book.done)} networks lost whole layers ({names}): "
        "a method can collapse at a density that leaves others intact."
    ]


def _cost(timings: pd.DataFrame) -> list[str]:
    if timings.empty:
        return []
    permanent = timings[timings["form"] == "permanent"]
    pruned, dense = permanent[permanent["pruner"] != "dense"], permanent[permanent["pruner"] == "dense"]
    if pruned.empty or dense.empty or cost.noisy(timings):
        return []
    ratio = dense["median_s"].iloc[0] / pruned["median_s"].median()
    saved = pruned["macs_dense"].median() / pruned["macs_kept"].median()
    said = (
        f"Unstructured pruning removed {1 - 1 / saved:.0%} of the MACs (median over {len(pruned)} networks) and made "
        f"inference {ratio:.2f} times as fast as the dense network"
    )
    noise = (permanent["spread_s"] / permanent["median_s"]).median()
    if abs(ratio - 1) <= 3 * noise:
        return [f"{said}, a difference within the noise: operations on paper are not seconds."]
    return [said + (": operations on paper are not seconds." if ratio < 1 + 0.2 * (saved - 1) else ".")]
