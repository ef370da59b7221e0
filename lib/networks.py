"""The networks of a study, whichever notebook made them: for what is no comparison of trained accuracies."""

import math
from collections.abc import Iterable

import pandas as pd

from lib import catalog, tables

# Notebooks that, beside `accuracy`, store a network with its masks: others can time it, or start from it.
STORING = ("checkpoint", "multishot", "repeated")
STORED = ["run", "data", "model", "task", "method", "pruner", "rounds", "seed", "compression", "word", "at"]
STORED += ["macs_dense", "macs_kept"]
INVOLVED = ["run", "notebook", "data", "model", "task", "pruner", "rounds", "seed"]


def involved(plan: dict) -> pd.DataFrame:
    """One row a planned run of any notebook that has a network: INVOLVED.

    `pruner` is empty where the run names none, such as one that times others. A trace that was recorded elsewhere is
    left out: what network it is of is not known.
    """
    rows = []
    for run in plan["runs"]:
        values = run["parameters"]
        if "model" in values and not values.get("trace_file"):
            known = {"pruner": "", "rounds": 1, "seed": 0} | values
            named = {"run": run["id"], "notebook": run["notebook"], "task": tables.task(values)}
            rows.append({name: (known | named)[name] for name in INVOLVED})
    return pd.DataFrame(rows, columns=INVOLVED)


def stored(everything: pd.DataFrame, accuracy: pd.DataFrame, word: str) -> pd.DataFrame:
    """One row a finished run that stored a network: STORED, of `accuracy` (described) and of the notebooks STORING.

    A run of `repeated` has the density of its last iteration. A method says in brackets if its mask was ablated and,
    where networks were made in several ways, by which notebook, if not `accuracy`, and whether rewound. MACs are NaN
    where a run has not counted them.
    """
    frames = {"": accuracy.assign(method=[_noted(row) for _, row in accuracy.iterrows()])}
    for notebook in STORING:
        made = everything[everything["notebook"] == notebook].assign(rounds=1)
        if notebook == "repeated" and len(made):
            made = made.assign(density=made["weights_kept"] / made["weights"])
            rewound = made["retrain"] == "rewind"  # these have no source: no difference to name within either kind
            frames["repeated, rewound"], made = tables.described(made[rewound], word), made[~rewound]
        frames[notebook] = tables.described(made, word)
    several = sum(len(frame) > 0 for frame in frames.values()) > 1
    rows = []
    for made_by, frame in frames.items():
        for row in frame.to_dict("records"):
            note = made_by if several else ""
            rows.append({name: row.get(name, math.nan) for name in STORED} | {"method": bracketed(row["method"], note)})
    return pd.DataFrame(rows, columns=STORED)


def names(stored: pd.DataFrame, sources: Iterable[str]) -> dict[str, str]:
    """Those of `sources` (study/run) that are in `stored` -> what a report calls them, see `tables.network_names`."""
    known = stored[stored["run"].isin([source.partition("/")[2] for source in sources])]
    named = dict(zip(known["run"], tables.network_names(known), strict=True))
    return {source: named[run] for source in sources if (run := source.partition("/")[2]) in named}


def _noted(run: pd.Series) -> str:
    return bracketed(run["method"], "" if run["ablation"] == tables.NO_ABLATION else run["ablation"])


def bracketed(method: str, note: str) -> str:
    """`SNIP (note)`, `SynFlow (100 rounds, note)`; the method itself without a note."""
    if not note:
        return method
    return f"{method[:-1]}, {note})" if method.endswith(")") else f"{method} ({note})"


def examples(timing: pd.Series, names: list[str], word: str) -> pd.DataFrame:
    """The networks that a run of the notebook `timing` made for itself, as `stored` describes them.

    `names` are those of its timings.csv, each a pruner; all but the dense one keep the run's density.
    """
    shared = {"data": timing["data"], "model": timing["model"], "rounds": 1, "seed": timing["seed"]}
    rows = [
        {"run": name, "pruner": name, "density": 1.0 if name == "dense" else timing["density"]} | shared
        for name in names
        if name in catalog.PRUNERS
    ]
    made = tables.described(pd.DataFrame(rows), word)
    return made.assign(macs_dense=math.nan, macs_kept=math.nan)[STORED]
