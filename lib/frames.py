"""The finished runs of a study as frames."""

import io
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pandas as pd

from lib import paths
from lib.files import read_json
from lib.runs import METRICS, RUN, finished


def load(study: str, only: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a finished run of `study`: `run`, parameters, metrics, and where it ran.

    `only` restricts to these run ids, in their order. An empty study gives an empty frame.
    """
    folders = {d.name: d for d in finished(paths.RUNS / study)}
    names = folders if only is None else [name for name in only if name in folders]
    return pd.DataFrame([_row(folders[name]) for name in names])


def _row(folder: Path) -> dict:
    run = read_json(folder / RUN)
    values = {name: _hashable(value) for name, value in run["parameters"].items()}
    hardware = run["hardware"]
    gpus = ", ".join(f"{g['name']} (driver {g['driver']})" for g in hardware["gpus"])
    place = {
        "cpu": hardware["cpu"],
        "cores": hardware["cores"],
        "memory_gib": hardware["memory_gib"],
        "os": hardware["os"],
        "gpu": gpus or "none",
        "threads": run["threads"],
        "cpu_busy_pct": run["load_at_start"]["cpu_busy_pct"],
        "neighbours": run["neighbours"],
    }
    return {"run": folder.name, "notebook": run["notebook"], **values, **read_json(folder / METRICS), **place}


def _hashable(value):
    """A parameter as a cell of a frame whose rows are grouped by it: a list as a tuple, a table as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return tuple(value) if isinstance(value, list) else value


def table(study: str, names: Iterable[str], file: str) -> pd.DataFrame:
    """The tables `file`.csv of several runs under one another, with a first column `run`."""
    found = ((name, paths.RUNS / study / name / f"{file}.csv") for name in names)
    texts = [(name, path.read_text(encoding="utf-8")) for name, path in found if path.is_file()]
    if not texts:
        return pd.DataFrame(columns=["run"])
    joined = pd.concat([_parsed(list(alike)) for _, alike in groupby(texts, key=_columns)], ignore_index=True)
    return joined[["run", *(c for c in joined if c != "run")]]


def _columns(table: tuple[str, str]) -> tuple[str, str]:
    """What the tables that are parsed together share; one with quoted cells, which may hold line ends, is alone."""
    name, text = table
    return name if '"' in text else "", text.partition("\n")[0]


def _parsed(tables: list[tuple[str, str]]) -> pd.DataFrame:
    """Tables of the same columns as one, with their `run`: hundreds of small ones are read in a tenth of the time."""
    if len(tables) == 1:
        return pd.read_csv(io.StringIO(tables[0][1])).assign(run=tables[0][0])
    bodies = [(name, [line for line in text.split("\n")[1:] if line.strip()]) for name, text in tables]
    lines = [tables[0][1].partition("\n")[0], *(line for _, body in bodies for line in body)]
    return pd.read_csv(io.StringIO("\n".join(lines))).assign(run=[name for name, body in bodies for _ in body])
