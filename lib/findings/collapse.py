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
    """Critical compression of each method by task, with the theoretical maximum in the last column.

    `2 to 2.5` lies between the last tried compression that left every network whole and the first that did not;
    `over 4` was not reached.
    """
    found = critical(done)
    cells = found.assign(cell=[_cell(held, broke) for held, broke in zip(found["held"], found["broke"], strict=True)])
    order = [m for m in tables.methods(done) if m in set(found["method"])]
    wide = cells.pivot(index="task", columns="method", values="cell").reindex(index=list(limits), columns=order)
    wide["theoretical maximum"] = [f"{limit:.2f}" for limit in limits.values()]
    return wide.fillna("").rename_axis(columns=None)


def _cell(held: float, broke: float) -> str:
    if math.isnan(broke):
        return f"over {held:g}"
    return f"under {broke:g}" if math.isnan(held) else f"{held:g} to {broke:g}"


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
