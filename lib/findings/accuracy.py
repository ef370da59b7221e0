"""Who is accurate, by how much, within what spread; which runs collapsed; whether the epochs sufficed."""

import math
from collections.abc import Iterable

import pandas as pd

from lib import shares, tables
from lib.markup import code

# Sentences call a difference clear when it exceeds this many standard errors of the difference.
CLEAR = 2.0
ONE_BY_ONE = 8  # runs with empty layers are named each, with their layers, up to so many: more would fill a page


def at_compression(
    done: pd.DataFrame, plan: pd.DataFrame, task: str, compression: float, images: int | None, classes: int = 10
) -> list[str]:
    """Sentences on the top-1 of one task at one compression; `images` and `classes` are those of its test set."""
    runs = _with_seeds(done, plan, task, compression)
    if runs.empty:
        return []
    said = [
        winner(runs, task, compression, images),
        against_dense(runs, _dense(done, plan, task)),
        untrained(runs, images, classes),
        rounds_matter(runs, images),
        magnitude_costs(runs, plan),
    ]
    return [sentence for sentence in said if sentence]


def _with_seeds(done: pd.DataFrame, plan: pd.DataFrame, task: str, compression: float) -> pd.DataFrame:
    if done.empty:
        return done
    pruned = (plan["task"] == task) & (plan["compression"] == compression) & (plan["pruner"] != "dense")
    return done[done["run"].isin(plan.loc[pruned, "run"])]


def _dense(done: pd.DataFrame, plan: pd.DataFrame, task: str) -> pd.DataFrame:
    return done[done["run"].isin(plan.loc[(plan["task"] == task) & (plan["pruner"] == "dense"), "run"])]


def standard_error(values: pd.Series, images: int | None) -> float:
    """Standard error (points) of a mean accuracy in %: over seeds, or of the test set itself for one seed.

    One seed on N test images: sqrt(p (100 - p) / N), the binomial standard error. NaN where N is unknown.
    """
    if len(values) > 1:
        return values.std(ddof=1) / math.sqrt(len(values))
    share = float(values.iloc[0])
    return math.sqrt(share * (100 - share) / images) if images else math.nan


def difference(a: pd.Series, b: pd.Series, images: int | None) -> tuple[float, float]:
    """Mean difference a - b, and its standard error."""
    error = math.hypot(standard_error(a, images), standard_error(b, images))
    return a.mean() - b.mean(), error


def _verdict(difference: float, error: float, seeds: int) -> str:
    if math.isnan(error):
        return "with no known uncertainty"
    clear = "beyond" if abs(difference) > CLEAR * error else "within"
    basis = f"over {seeds} seeds" if seeds > 1 else "of the test set alone, since there is one seed"
    return f"{clear} {CLEAR:g} standard errors of the difference ({error:.2f} points, {basis})"


def winner(runs: pd.DataFrame, task: str, compression: float, images: int | None) -> str | None:
    """The most accurate method, its lead over the second, and whether that lead is clear; or which ones are equal."""
    means = runs.groupby("method")["top1_pct"].mean().sort_values(ascending=False)
    if len(means) < 2:
        return None
    where = f"On {task} at {shares.explain(compression, runs['word'].iloc[0])}, "
    last = f"the last is {means.index[-1]} with {means.iloc[-1]:.2f} %."
    equal = list(means.index[means == means.max()])
    if len(equal) == len(means):
        return f"{where}all {len(means)} methods have the same accuracy, {means.max():.2f} %."
    if len(equal) > 1:
        return f"{where}{' and '.join(equal)} are equally the most accurate with {means.max():.2f} %; {last}"
    first, second = (runs.loc[runs["method"] == name, "top1_pct"] for name in means.index[:2])
    lead, error = difference(first, second, images)
    seeds = min(len(first), len(second))
    return (
        f"{where}**{means.index[0]}** is the most accurate with {means.iloc[0]:.2f} %, {lead:.2f} points ahead of "
        f"{means.index[1]} ({means.iloc[1]:.2f} %), {_verdict(lead, error, seeds)}; {last}"
    )


def against_dense(runs: pd.DataFrame, dense: pd.DataFrame) -> str | None:
    """How far the best pruned network is from the dense one."""
    if dense.empty:
        return None
    means = runs.groupby("method")["top1_pct"].mean()
    loss = dense["top1_pct"].mean() - means.max()
    side = f"{loss:.2f} points below" if loss > 0 else f"{-loss:.2f} points above"
    return f"The best pruned network is {side} the dense one ({dense['top1_pct'].mean():.2f} %)."


def guessing(images: int | None, classes: int) -> float:
    """The accuracy (%) up to which a network on this test set may only guess: chance and CLEAR standard errors."""
    chance = 100 / classes
    return chance + CLEAR * (math.sqrt(chance * (100 - chance) / images) if images else 0.0)


def untrained(runs: pd.DataFrame, images: int | None, classes: int = 10) -> str | None:
    """Methods that are not clearly better than guessing one of the classes."""
    means = runs.groupby("method")["top1_pct"].mean()
    lost = means[means <= guessing(images, classes)]
    if lost.empty:
        return None
    names = ", ".join(f"{name} ({value:.2f} %)" for name, value in lost.items())
    return f"Not better than guessing one of {classes} classes ({100 / classes:.3g} %): {names}."


def rounds_matter(runs: pd.DataFrame, images: int | None) -> str | None:
    """SynFlow with one round against SynFlow with many."""
    synflow = runs[runs["pruner"] == "synflow"]
    counts = sorted(synflow["rounds"].unique())
    if len(counts) < 2:
        return None
    once, often = (synflow.loc[synflow["rounds"] == n, "top1_pct"] for n in (counts[0], counts[-1]))
    gain, error = difference(often, once, images)
    word = "better" if gain > 0 else "worse"
    emptied = synflow.loc[synflow["rounds"] == counts[0], "collapsed_layers"].fillna("").str.split().str.len().max()
    why = f"; with one round it empties {emptied:.0f} layer{'s' if emptied > 1 else ''}" if emptied else ""
    return (
        f"SynFlow scored in {counts[-1]:.0f} rounds is {abs(gain):.2f} points {word} than in {counts[0]:.0f} "
        f"({often.mean():.2f} against {once.mean():.2f} %), {_verdict(gain, error, min(len(once), len(often)))}{why}."
    )


def magnitude_costs(runs: pd.DataFrame, plan: pd.DataFrame) -> str | None:
    """Methods that rank trained weights saw more training: said wherever their accuracy stands beside the others'."""
    chosen = plan[plan["run"].isin(runs["run"])]
    before_of = chosen.apply(lambda run: tables.pre_epochs(plan, run), axis=1)
    if (before_of[chosen["pruner"] == "mag"] == 0).any():
        return "Mag ranked weights that were trained for 0 epochs: initial ones, whose size means little."
    trained = chosen[before_of > 0]
    others = chosen[before_of == 0]["epochs"]
    if trained.empty or others.empty:
        return None
    run = trained.iloc[0]
    before, after = before_of[run.name], int(run["epochs"])
    names = " and ".join(tables.methods(trained))
    were, its = ("were", "their") if trained["method"].nunique() > 1 else ("was", "its")
    return (
        f"{names} {were} trained for {before:.0f} epochs before pruning and {after} after, the others only for "
        f"{others.max():.0f} after pruning, so {its} accuracy costs {(before + after) / others.max():.1f} times their "
        "training."
    )


def by_compression(
    done: pd.DataFrame, plan: pd.DataFrame, task: str, images: int | None = None, classes: int = 10
) -> list[str]:
    """The winner at each compression of one task, and how far each method falls from the mildest to the hardest.

    `images` and `classes` are those of the test set: where all may only guess, none has won.
    """
    if done.empty:
        return []
    runs = done[(done["task"] == task) & (done["pruner"] != "dense")]
    if runs.empty:
        return []
    word = runs["word"].iloc[0]
    table = runs.pivot_table(index="method", columns="compression", values="top1_pct")
    said, guessed = [], []
    for compression in table.columns:
        column = table[compression].dropna()
        if len(column) > 1 and column.max() <= guessing(images, classes):
            guessed.append(shares.say(compression, word))
        elif len(column) > 1:
            first = list(column.index[column == column.max()])
            names = "all" if len(first) == len(column) else " and ".join(first)
            said.append(f"{names} at {shares.say(compression, word)} ({column.max():.2f} %)")
    parts = [f"The most accurate method of {task}: {', '.join(said)}."] if said else []
    if guessed:
        parts.append(f"At {' and at '.join(guessed)} none is clearly better than guessing.")
    whole = table.dropna()
    if len(whole) > 1 and whole.shape[1] > 1:
        low, high = whole.columns.min(), whole.columns.max()
        loss = (whole[low] - whole[high]).sort_values()
        falls = ", ".join(f"{name} {round(-value, 1) + 0.0:+.1f}" for name, value in loss.items())
        change = f"From {shares.say(low, word)} to {shares.say(high, word)}"
        parts.append(f"{change} the accuracies change by {falls} points.")
    return parts


def collapses(done: pd.DataFrame, compressions: Iterable[float]) -> list[str]:
    """Which runs at these compressions were left with empty layers: a sentence each, or if there are many, a task."""
    if done.empty:
        return []
    chosen = done[done["compression"].isin(list(compressions))]
    chosen = chosen[chosen["collapsed_layers"].fillna("") != ""]
    if len(chosen) > ONE_BY_ONE:
        return [_together(task, runs) for task, runs in chosen.groupby("task", sort=False)]
    said = []
    for _, run in chosen.iterrows():
        names = run["collapsed_layers"].split()
        rest = "a path from input to output remains" if run["connected"] else "no input reaches the output any more"
        layers = ", ".join(code(n.removesuffix(".weight")) for n in names)
        said.append(
            f"{run['method']} at {run['at']} on {run['task']} (seed {run['seed']}) leaves "
            f"{len(names)} layer{'s' if len(names) > 1 else ''} without a weight: {layers}; {rest}."
        )
    return said


def _together(task: str, runs: pd.DataFrame) -> str:
    word, firsts = runs["word"].iloc[0], runs.groupby("method", sort=False)["compression"].min()
    several = runs["compression"].nunique() > 1
    names = [f"{name} (first at {shares.say(at, word)})" if several else name for name, at in firsts.items()]
    where = "" if several else f" at {shares.say(firsts.iloc[0], word)}"
    cut = int((~runs["connected"].astype(bool)).sum())
    return (
        f"On {task}{where}, {len(runs)} run{'s' if len(runs) > 1 else ''} left layers without a weight, of "
        f"{', '.join(names)}; in {cut} of them no input reaches the output any more."
    )


def epochs_sufficed(histories: pd.DataFrame, plan: pd.DataFrame, tail: float = 0.2) -> list[str]:
    """Whether test accuracy still rose over the last fifth of the epochs, and for whom the second half of them mattered
    most, for each task of `histories`.
    """
    frame = histories.merge(plan[["run", "task", "method", "pruner"]], on="run")
    said = []
    for task, runs in frame[frame["pruner"] != "dense"].groupby("task"):
        last = int(runs["epoch"].max())
        span = max(1, round(tail * last))
        if last <= span:
            continue
        mean = runs.groupby(["method", "epoch"])["test_top1_pct"].mean().unstack("epoch")
        rise = (mean[last] - mean[last - span]).dropna()
        rising = rise[rise > 0.5]
        window = f"last {span} of {last} epochs" if span > 1 else f"last of {last} epochs"
        gap = runs.loc[runs["epoch"] == last, "train_top1_pct"].mean() - mean[last].mean()
        if rising.empty:
            verdict = f"no method gained more than 0.5 points in the {window}, so the epochs sufficed"
        else:
            names = ", ".join(f"{name} {value:+.1f}" for name, value in rising.items())
            verdict = (
                f"{len(rising)} of {len(rise)} methods still gained in the {window} ({names} points), so the epochs "
                "did not suffice for these and the ranking may still change"
            )
        side = "above" if gap > 0 else "below"
        said.append(
            f"On {task}, {verdict}. Training accuracy ends {abs(gap):.1f} points {side} test accuracy on average"
            + (", a sign of over-fitting." if gap > 3 else ".")
        )
        said += _second_half(mean, last)
    return said


def _second_half(mean: pd.DataFrame, last: int) -> list[str]:
    """Who depends on the training length, from `mean`: test accuracy (%) by method and epoch."""
    half = last // 2
    gains = (mean[last] - mean[half]).dropna().sort_values(ascending=False) if half else pd.Series(dtype=float)
    if len(gains) < 2:
        return []
    text = f"From epoch {half} to {last} it changed by {', '.join(f'{n} {v:+.1f}' for n, v in gains.items())} points"
    if gains.iloc[0] - gains.median() > 1:
        text += f": {gains.index[0]} depends most on the training length"
    before, after = (mean.loc[gains.index, epoch].rank(ascending=False, method="min") for epoch in (half, last))
    moved = (before - after).abs().idxmax()
    if before[moved] != after[moved]:
        text += f"; of {len(gains)} methods {moved} went from place {before[moved]:.0f} to {after[moved]:.0f}"
    return [f"{text}."]
