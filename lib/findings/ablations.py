"""What the details of a mask are worth: accuracy when they are destroyed (Frankle et al. 2021, arXiv 2009.08576)."""

import pandas as pd

from lib import catalog, tables
from lib.findings.accuracy import CLEAR, difference, guessing

MEANING = {
    "shuffle": "which weights of a layer are kept does not matter, how many does",
    "reinitialise": "the particular initial values do not matter",
    "invert": "the order of the scores does not matter",
}


def kinds(plan: pd.DataFrame) -> list[str]:
    """The ablations of a study in the catalogue's order, the untouched method first."""
    return [kind for kind in catalog.ABLATIONS if kind in set(plan["ablation"])]


def compared(frame: pd.DataFrame, plan: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
    """(task, compression) -> the runs of `frame` there, as they are and ablated; where `plan` has an ablation."""
    tried = plan[plan["ablation"] != tables.NO_ABLATION]
    places = sorted(set(zip(tried["task"], tried["compression"], strict=True)))
    return {
        (task, compression): frame[(frame["task"] == task) & (frame["compression"] == compression)]
        for task, compression in places
    }


def table(done: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Top-1 (%) by method of runs that `compared` put together, a column an ablation; gaps marked."""
    found = tables.grid(done, plan, "top1_pct", "method", columns="ablation")
    return found.loc[tables.methods(plan), kinds(plan)].rename(columns={tables.NO_ABLATION: "as it is"})


def sentences(runs: pd.DataFrame, images: int | None, classes: int = 10) -> list[str]:
    """For each ablation, the methods that it costs clearly, that it does not, and that gain by it.

    Nothing is concluded for a method that guesses already as it is.

    `runs` are finished ones that `compared` put together.
    """
    said = []
    if runs.empty:
        return said
    task, chance = runs["task"].iloc[0], guessing(images, classes)
    for kind, meaning in MEANING.items():
        found: dict[str, list[str]] = {"lose": [], "gain": [], "stay": [], "lost": []}
        for method in tables.methods(runs):
            mine = runs[runs["method"] == method]
            before = mine.loc[mine["ablation"] == tables.NO_ABLATION, "top1_pct"]
            after = mine.loc[mine["ablation"] == kind, "top1_pct"]
            if before.empty or after.empty:
                continue
            if before.mean() <= chance:
                found["lost"].append(method)
                continue
            change, error = difference(after, before, images)
            clear = abs(change) > CLEAR * error
            found["stay" if not clear else "lose" if change < 0 else "gain"].append(f"{method} ({change:+.1f})")
        said.append(_say(kind, meaning, task, found))
    return [sentence for sentence in said if sentence]


def _say(kind: str, meaning: str, task: str, found: dict[str, list[str]]) -> str | None:
    if not any(found.values()):
        return None
    parts = []
    if found["lose"]:
        parts.append(f"costs {', '.join(found['lose'])} points")
    if found["gain"]:
        parts.append(f"gains {', '.join(found['gain'])}")
    if found["stay"]:
        parts.append(f"changes {', '.join(found['stay'])} by no more than {CLEAR:g} standard errors: there {meaning}")
    if found["lost"]:
        parts.append(f"shows nothing of {', '.join(found['lost'])}, no better than guessing as it is")
    return f"On {task}, `{kind}` {'; '.join(parts)}."
