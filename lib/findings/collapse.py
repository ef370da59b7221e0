"""How far a method can go before it empties a layer, against how far any method could."""

import math

import pandas as pd

from lib import shares, tables


def maximum(layers: pd.DataFrame) -> float:
    """The theoretical maximum compression of a network, log10(weights / layers); `layers` has a row a layer.

    One weight in every layer is the least with which no layer is empty (Tanaka et al. 2020, arXiv 2006.05467,
    section 3, where the maximum is written as a ratio).
    """
    return math.log10(layers["weights"].sum() / len(layers))


def maxima(done: pd.DataFrame, layers: pd.DataFrame) -> dict[str, float]:
    """Task -> `maximum`, for every task with a finished run; `layers` are the layers.csv of the runs."""
    found = {}
    for task in tables.tasks(done) if len(done) else []:
        known = layers[layers["run"].isin(done.loc[done["task"] == task, "run"])]
        if len(known):
            found[task] = maximum(known[known["run"] == known["run"].iloc[0]])
    return found


def critical(done: pd.DataFrame) -> pd.DataFrame:
    """One row a task and method: `held`, the highest compression up to which no seed broke at any tried compression
    (NaN where one broke at the first), and `broke`, the lowest at which one did (NaN if none did).

    A network is broken when a layer has no weight left, or no path leads from its input to its output.
    """
    pruned = done[done["pruner"] != "dense"]
    rows = []
    for (task, method), runs in pruned.groupby(["task", "method"], sort=False):
        whole = (runs["collapsed_layers"].fillna("") == "") & runs["connected"].fillna(True).astype(bool)
        intact = whole.groupby(runs["compression"]).all().sort_index()
        broke = intact.index[~intact]
        below = intact.index if broke.empty else intact.index[intact.index < broke[0]]
        rows.append({
            "task": task, "method": method, "held": below.max() if len(below) else math.nan,
            "broke": broke[0] if len(broke) else math.nan,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=["task", "method", "held", "broke"])


def table(done: pd.DataFrame, limits: dict[str, float]) -> pd.DataFrame:
    """How far each method can go, by task, with the theoretical maximum in the last column.

    A row each for the compression (where the study speaks of compressions), ratio, density and sparsity. `2 to 2.5`
    lies between the last tried compression that left every network whole and the first that did not; `over 4` was not
    reached.
    """
    found = critical(done)
    order = [m for m in tables.methods(done) if m in set(found["method"])]
    word = done["word"].iloc[0] if len(done) else "compression"
    rows = []
    for task, limit in limits.items():
        ends = found[found["task"] == task].set_index("method")
        for quantity, most in shares.columns(limit, word).items():
            cells = {m: _cell(ends.loc[m, "held"], ends.loc[m, "broke"], quantity, word) for m in ends.index}
            rows.append({"task": task, "quantity": quantity, **cells, "theoretical maximum": most})
    wide = pd.DataFrame(rows, columns=["task", "quantity", *order, "theoretical maximum"])
    return wide.fillna("").set_index(["task", "quantity"])


def _cell(held: float, broke: float, quantity: str, word: str) -> str:
    """Both ends of where a method breaks, in a quantity of `shares.columns`; a density falls from one to the other."""
    less, more = ("over", "under") if quantity == "density (%)" else ("under", "over")
    if math.isnan(broke):
        return f"{more} {shares.columns(held, word)[quantity]}"
    if math.isnan(held):
        return f"{less} {shares.columns(broke, word)[quantity]}"
    return " to ".join(shares.columns(end, word)[quantity] for end in (held, broke))


def sentences(done: pd.DataFrame, limits: dict[str, float]) -> list[str]:
    """Which method holds longest and which breaks first in each task, and what the maximum is."""
    found, said = critical(done), []
    for task, limit in limits.items():
        rows = found[found["task"] == task].set_index("method")
        if len(rows) < 2:
            continue
        word = done["word"].iloc[0]
        broken = rows.dropna(subset="broke")
        whole = rows[rows["broke"].isna()]
        if broken.empty:
            said.append(f"On {task} no method broke a network at any compression tried (the maximum is {limit:.2f}).")
            continue
        first = broken["broke"].min()
        names = ", ".join(broken.index[broken["broke"] == first])
        text = f"On {task} the first to break {'is' if ',' not in names else 'are'} {names}"
        text += f", at {shares.say(first, word)}"
        if len(whole):
            text += f"; {', '.join(whole.index)} left the network whole up to {shares.say(whole['held'].max(), word)}"
        else:
            last = broken["broke"].max()
            text += f"; the last is {', '.join(broken.index[broken['broke'] == last])}, at {shares.say(last, word)}"
        said.append(f"{text}. No method can keep every layer beyond compression {limit:.2f}.")
    return said
