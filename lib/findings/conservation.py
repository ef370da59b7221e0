"""Is what goes into a hidden unit what comes out of it, for which scores, and what follows: Tanaka et al. 2020.

Frames are those of `lib.conservation`, as the notebook `conservation` leaves them.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from lib import catalog, markup, shares, tables
from lib.findings import settings as common

SALIENCY = "saliency"  # dL/dw * w, of which SNIP takes the absolute value
ROUNDING = 1e-6  # a relative difference of float64 sums above this is none of rounding; signed ones nearly cancel
STRAIGHT = 0.01  # slope and R² within this of 1 are called proportional
CHANGED = 0.05  # R² before and after training that differ by less are called alike


def label(score: str) -> str:
    """The name of a score in figures and tables."""
    return "signed SNIP" if score == SALIENCY else catalog.label(score)


def scores(frame: pd.DataFrame) -> list[str]:
    """The scores of a frame in its order."""
    return list(dict.fromkeys(frame["score"]))


def network(row: pd.Series, several_seeds: bool = False) -> str:
    """What a run of the notebook looked at: `Digits / FC`, with the seed where a study has several."""
    return tables.task(row) + (f", seed {row['seed']}" if several_seeds else "")


def networks(looked: list[SimpleNamespace]) -> dict[str, SimpleNamespace]:
    """The runs by name, in order."""
    several = len({one.row["seed"] for one in looked}) > 1
    return {network(one.row, several): one for one in looked}


# Units


def differences(units: pd.DataFrame) -> pd.Series:
    """|incoming - outgoing| of each unit in shares of the larger of the two, in [0, 2]; 0 where both are 0."""
    larger = units[["incoming", "outgoing"]].abs().max(axis=1)
    return ((units["incoming"] - units["outgoing"]).abs() / larger.where(larger > 0, 1.0)).rename("difference")


def unit_table(units: pd.DataFrame) -> pd.DataFrame:
    """A row a score: hidden units, median and largest relative difference, and whether that is rounding."""
    found = differences(units).groupby(units["score"], sort=False).agg(["size", "median", "max"])
    found.columns = ["units", "median_difference", "largest_difference"]
    found["conserved"] = found["largest_difference"] < ROUNDING
    return found.rename(index=label).rename_axis("score")


def shown_units(units: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`unit_table` of several networks below one another, by name; small differences with their power of ten."""
    joined = pd.concat({name: unit_table(rows) for name, rows in units.items()}, names=["network"])
    for column in ("median_difference", "largest_difference"):
        joined[column] = joined[column].map(lambda share: f"{share:.2f}" if share >= 0.005 else f"{share:.0e}")
    return joined


def units(frame: pd.DataFrame) -> list[str]:
    """Which scores are conserved from unit to unit, and by how much the others are not."""
    if frame.empty:
        return []
    table = unit_table(frame)
    kept, others = table[table["conserved"]], table[~table["conserved"]]
    said = []
    if len(kept):
        said.append(
            f"{_and(kept.index)} {_are(kept)} conserved: incoming and outgoing score of all "
            f"{kept['units'].iloc[0]:,} hidden units are equal up to rounding (largest relative difference "
            f"{kept['largest_difference'].max():.0e})."
        )
    if len(others):
        worst = ", ".join(f"{row['median_difference']:.0%} for {name}" for name, row in others.iterrows())
        said.append(f"{_and(others.index)} {_are(others)} not: the two differ by a median of {worst}.")
    return said


# Layers


def fit(sizes: pd.Series, means: pd.Series) -> dict:
    """Slope and R² of the line of best fit of log(mean) on log(1 / size); NaN where fewer than two sizes differ.

    Both are 1 where the mean is proportional to the inverse size, that is, where every layer has the same total.
    """
    positive = (means > 0).to_numpy()
    x, y = -np.log(sizes.to_numpy(dtype=float)[positive]), np.log(means.to_numpy(dtype=float)[positive])
    if len(set(x)) < 2:
        return {"slope": np.nan, "r2": np.nan}
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    residual, total = ((y - slope * x) ** 2).sum(), (y @ y)
    return {"slope": slope, "r2": 1 - residual / total if total > 0 else np.nan}


def shown(found: dict) -> str:
    """`slope 0.93, R² 0.990`."""
    return f"slope {found['slope']:.2f}, R² {found['r2']:.3f}".replace("-", "−")


def layer_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a score: slope and R² of mean score against inverse size, and the largest over the smallest layer total."""
    rows = {}
    for score in scores(frame):
        part = frame[frame["score"] == score]
        totals = part["total"].abs()
        ratio = totals.max() / totals.min() if totals.min() > 0 else np.inf
        rows[label(score)] = fit(part["size"], part["mean"]) | {"largest_over_smallest_total": ratio}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score").rename(columns={"r2": "R²"})


def proportional(table: pd.DataFrame) -> pd.Series:
    """Of each score in a `layer_table`, whether the mean score is proportional to the inverse of the layer's size."""
    return ((table[["slope", "R²"]] - 1).abs() < STRAIGHT).all(axis=1)


def totals(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a layer, a column a score: the layer's total score in shares of the last layer's."""
    order = list(dict.fromkeys(frame["layer"]))
    table = frame.pivot(index="layer", columns="score", values="total").loc[order, scores(frame)]
    table = (table / table.iloc[-1]).rename(columns=label).rename_axis(columns=None)
    table.insert(0, "size", frame.drop_duplicates("layer").set_index("layer")["size"].loc[order])
    return table


def layers(frame: pd.DataFrame, units: pd.DataFrame) -> list[str]:
    """For which scores every layer has the same total, so that a weight's mean score is 1 / size.

    `units` are those of the same network; they tell a score that nothing conserves from a flow that is shared.
    """
    if frame.empty:
        return []
    table = layer_table(frame)
    straight = proportional(table)
    said = []
    if straight.any():
        said.append(
            f"With {_and(table.index[straight])} the mean score of a layer is proportional to the inverse of its size "
            f"(slope and R² within {STRAIGHT:g} of 1): in one ranking of all weights the largest layer empties first."
        )
    if not straight.all():
        each = [f"{name} ({shown({'slope': r['slope'], 'r2': r['R²']})})" for name, r in table[~straight].iterrows()]
        what = "It is" if said else "The mean score of a layer is"
        said.append(f"{what} not proportional{'' if said else ' to the inverse of its size'} with {_and(each)}.")
    return [*said, *_shared(table[~straight], units)]


def _shared(bent: pd.DataFrame, units: pd.DataFrame) -> list[str]:
    """Scores that units conserve and layers do not: there are ways around the layers."""
    known = unit_table(units)["conserved"] if len(units) else {}
    found = bent[[bool(known.get(name, False)) for name in bent.index]]
    if found.empty:
        return []
    each = [f"{row['largest_over_smallest_total']:.3g} times the smallest with {n}" for n, row in found.iterrows()]
    return [
        f"{_and(found.index)} {_are(found)} conserved in every unit between two layers all the same; that the layers' "
        f"totals differ (the largest is {_and(each)}) shows paths beside the layers, such as shortcuts, that share the "
        "flow."
    ]


# Magnitudes


def fits(frame: pd.DataFrame) -> pd.DataFrame:
    """`epoch`, `slope`, `r2` of the mean squared weight against the inverse size of the layers."""
    parts = frame.groupby("epoch")
    return pd.DataFrame([{"epoch": epoch} | fit(part["size"], part["mean_square"]) for epoch, part in parts])


def magnitudes(frame: pd.DataFrame) -> list[str]:
    """Whether training brought the squared magnitudes of the layers nearer to conservation."""
    table = fits(frame) if len(frame) else pd.DataFrame()
    if len(table) < 2 or table["r2"].isna().any():
        return []
    first, last = table.iloc[0], table.iloc[-1]
    gain = last["r2"] - first["r2"]
    numbers = f"from {shown(first)} before training to {shown(last)} after {last['epoch']:.0f} epochs"
    if abs(gain) < CHANGED:
        return [f"Training left the relation of mean squared weight and inverse layer size as it was ({numbers})."]
    how = "closer to" if gain > 0 else "further from"
    return [
        f"Training brought mean squared weight and inverse layer size {how} one line on logarithmic axes ({numbers}); "
        "slope 1 would be the same total in every layer."
    ]


# Cuts


def cut_table(frame: pd.DataFrame, word: str = "compression") -> pd.DataFrame:
    """A row a schedule and density, a column a number of rounds: the largest cut in units of the flow."""
    table = frame.pivot(index=["schedule", "density"], columns="rounds", values="cut_ratio")
    table = table.sort_index(level=[0, 1], ascending=[False, False])  # linear before exponential, mild before hard
    heads = [{"schedule": s, **shares.columns(_compression(d), word)} for s, d in table.index]
    table.index = pd.MultiIndex.from_frame(pd.DataFrame(heads))
    return table.rename(columns=_rounds).rename_axis(columns=None)


def cuts(frame: pd.DataFrame, word: str = "compression") -> list[str]:
    """From how many rounds on each schedule cuts less than the flow, and whether that kept the layers."""
    if frame.empty:
        return []
    schedules = sorted(frame.groupby("schedule"), reverse=True)  # linear before exponential, as in the figure
    return [*(_by_schedule(part, schedule, word) for schedule, part in schedules), emptied([frame])]


def _by_schedule(part: pd.DataFrame, schedule: str, word: str) -> str:
    sufficient, never = [], []
    for density, rows in sorted(part.groupby("density"), reverse=True):
        at, least = shares.say(_compression(density), word), enough(rows)
        if least is None:
            never.append(at)
        else:
            sufficient.append(f"from {_rounds(least)} on at {at}")
    said = [f"every round removes less than the flow {_and(sufficient)}"] if sufficient else []
    most = _rounds(part["rounds"].max())
    said += [f"with up to {most} some round removes as much or more at {_and(never)}"] if never else []
    return f"In the {schedule} schedule {'; '.join(said)}."


def enough(rows: pd.DataFrame) -> int | None:
    """The least number of rounds from which on no tried one has a cut as large as the flow; None without one.

    `rows` are those of one schedule and density.
    """
    beyond = rows.loc[_full(rows), "rounds"].max()
    later = rows["rounds"] if np.isnan(beyond) else rows.loc[rows["rounds"] > beyond, "rounds"]
    return None if later.empty else int(later.min())


def emptied(frames: list[pd.DataFrame]) -> str:
    """How many settings emptied a layer, of those whose cuts stayed below the flow and of the others: theorem 3."""
    rows = pd.concat(frames)
    full, lost = _full(rows), rows["emptied"] > 0
    parts = [
        (f"whose cuts all stayed below the flow {(~full & lost).sum()} emptied a layer", (~full).sum()),
        (f"with a cut as large as the flow or larger {(full & lost).sum()} did", full.sum()),
    ]
    said = "; ".join(f"of the {n} setting{'s' if n > 1 else ''} {text}" for text, n in parts if n)
    return f"{said[0].upper()}{said[1:]}."


def _rounds(count: int) -> str:
    return f"{count} round{'s' if count > 1 else ''}"


def _full(rows: pd.DataFrame) -> pd.Series:
    """Whether a cut was as large as the flow; one that removes all of it is 1 up to rounding."""
    return rows["cut_ratio"] >= 1 - ROUNDING


def _compression(density: float) -> float:
    return float(np.round(-np.log10(density), 3)) + 0.0


def _are(many) -> str:
    return "are" if len(many) > 1 else "is"


def _and(names) -> str:
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# The report


def title(book: SimpleNamespace, looked: dict[str, SimpleNamespace], said: list[str]) -> str:
    """Title block in Markdown: title, question, byline, abstract (of the sentences of `conclusions`)."""
    total = len(book.everything) + len(book.gaps)
    whose = "Reference results of study" if book.reference else "Study"
    byline = f"{whose} {book.name}, {len(book.everything)} of {total} runs finished: {', '.join(looked) or 'none'}"
    return f"# {markup.plain(book.title)}\n\n*{book.question}*\n\n{byline}\n\n**Abstract.** {' '.join(said)}"


def about(name: str, figure: str, said: list[str]) -> list[str]:
    """Sentences on one of several networks, introduced by its name and the label of its figure; [] without any."""
    return [f"**{name}** ([Figure](#{figure})).", *said] if said else []


def settings(book: SimpleNamespace, looked: dict[str, SimpleNamespace]) -> pd.DataFrame:
    """Two columns, `setting` and `value`: networks, scoring, schedules and training, then data, software, hardware."""
    rows = [(f"Network: {name}", _setting(one.row)) for name, one in looked.items()]
    rows.append(("Scoring", "10 training images a class, not augmented, evaluation mode, float64, biases set to zero"))
    return pd.concat([pd.DataFrame(rows, columns=["setting", "value"]), common.settings(book)], ignore_index=True)


def _setting(row: pd.Series) -> str:
    images = f"{row['train_images']:,}" if row["train_images"] else "all"
    return (
        f"{row['weights']:,.0f} prunable weights, {row['units']:,.0f} hidden units with a layer of their own on either "
        f"side; rounds of scoring {', '.join(map(str, row['round_counts']))}; trained for {row['epochs']} epochs of "
        f"{images} images, optimizer {row['optimizer']}, lr {row['lr']:g}, weight decay {row['weight_decay']:g}, "
        f"batch {row['batch']}, seed {row['seed']}"
    )


def conclusions(
    units: dict[str, pd.DataFrame],
    layers: dict[str, pd.DataFrame],
    cuts: dict[str, pd.DataFrame],
    magnitudes: dict[str, pd.DataFrame],
    word: str = "compression",
) -> list[str]:
    """One or two sentences on each part, over all networks, whose frames are given by name."""
    if not units:
        return []
    return [*_all_units(units), *_all_layers(layers), *_all_cuts(cuts, word), *_all_magnitudes(magnitudes)]


def _all_units(units: dict[str, pd.DataFrame]) -> list[str]:
    table = pd.concat({name: unit_table(rows) for name, rows in units.items()}, names=["network"])
    kept = table["conserved"].groupby("score", sort=False).agg(["all", "any"])
    count = table.groupby("network")["units"].max().sum()
    always, never = _and(kept.index[kept["all"]]), _and(kept.index[~kept["any"]])
    said = [f"in every one of the {count:,} hidden units looked at incoming and outgoing score are equal for {always}"]
    said = (said if always else []) + ([f"in no network for {never}"] if never else [])
    for score in kept.index[kept["any"] & ~kept["all"]]:
        where = table.xs(score, level="score")["conserved"]
        said.append(f"for {score} only in {_and(where.index[where])}")
    text = "; ".join(said)
    return [f"{text[0].upper()}{text[1:]}."]


def _all_layers(layers: dict[str, pd.DataFrame]) -> list[str]:
    found: dict[str, list[str]] = {}  # the scores that are proportional -> networks
    for name, rows in layers.items():
        kept = proportional(layer_table(rows))
        found.setdefault(_and(kept.index[kept]) or "no score", []).append(name)
    each = ", ".join(f"for {scores} in {_and(names)}" for scores, names in found.items())
    return [f"The mean score of a layer is proportional to the inverse of its size {each}."]


def _all_cuts(cuts: dict[str, pd.DataFrame], word: str) -> list[str]:
    common = set.intersection(*(set(rows["density"]) for rows in cuts.values()))
    said = [_hardest(cuts, schedule, min(common), word) for schedule in ("linear", "exponential") if common]
    return [*said, emptied(list(cuts.values()))]


def _hardest(cuts: dict[str, pd.DataFrame], schedule: str, density: float, word: str) -> str:
    sufficient, never = [], []
    for name, rows in cuts.items():
        rows = rows[(rows["schedule"] == schedule) & (rows["density"] == density)]
        least = enough(rows)
        if least is None:
            never.append(f"{name} (up to {_rounds(rows['rounds'].max())})")
        else:
            sufficient.append(f"from {_rounds(least)} on in {name}")
    said = [f"every cut of the {schedule} schedule is below the flow {_and(sufficient)}"] if sufficient else []
    what = "some cut is not" if sufficient else f"some cut of the {schedule} schedule is as large as the flow"
    said += [f"{what} with any tried number of rounds in {_and(never)}"] if never else []
    return f"At {shares.say(_compression(density), word)} {'; '.join(said)}."


def _all_magnitudes(magnitudes: dict[str, pd.DataFrame]) -> list[str]:
    each = []
    for name, rows in magnitudes.items():
        table = fits(rows)
        if len(table) > 1 and not table["r2"].isna().any():
            each.append(f"from {table['r2'].iloc[0]:.2f} to {table['r2'].iloc[-1]:.2f} in {name}")
    return [f"Training took R² of squared magnitude and inverse layer size {_and(each)}."] if each else []
