"""A run is one directory: `run.json` first, tables and tensors, and `metrics.json` last.

`metrics.json` appears by a rename when everything else is there; its existence means that the run finished.
"""

import io
import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import pandas as pd

from lib import machine, parameters, paths
from lib.files import read_json, replacing, write_json

RUN, METRICS, ERROR, NOTEBOOK = "run.json", "metrics.json", "error.json", "notebook.ipynb"
NEIGHBOURS = "WORKBENCH_NEIGHBOURS"  # environment variable by which a study tells how many others run
PROGRESS = "progress.json"  # only while the run is under way

# Folders beside the runs of a study: attempts under way, named <run>.<process>, and the state of trainings.
ATTEMPTS, CHECKPOINTS = ".attempts", ".checkpoints"

# Parameters that name a run even when a study does not sweep them, in this order.
IDENTITY = ("data", "model", "pruner")


@dataclass(frozen=True)
class Run:
    """A run that has begun: where it writes, with what parameters, since when (seconds of the monotonic clock)."""

    notebook: str
    directory: Path
    parameters: dict
    started: float


def run_id(notebook: str, values: dict, swept: Iterable[str] = ()) -> str:
    """`accuracy-mnist-fc-snip-c1-seed1`: the notebook, what is compared, then the swept values, the seed last."""
    parts = [notebook, *(str(values[name]) for name in IDENTITY if values.get(name))]
    tokens = {"compression": "c", "ratio": "x", "density": "d", "sparsity": "s", "rounds": "r"}
    others = [name for name in swept if name not in (*IDENTITY, "seed", "source", "sources")]
    parts += [f"{tokens.get(name, name)}{_token(values[name])}" for name in others]
    if "seed" in values:
        parts.append(f"seed{values['seed']}")
    return "-".join(parts)


def _token(value) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_token, value))
    if isinstance(value, dict):
        return "+".join(_token(f"{key}_") + _token(each) for key, each in value.items())
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    # papermill formats paths with str.format, and a separator would open a folder
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in text)


def begin(notebook: str, namespace: dict) -> Run:
    """Check the parameters found in `namespace` (a notebook's `globals()`), and write `run.json`.

    An empty `run_dir` means a person at the keyboard: the run goes to runs/scratch and replaces the one that had
    the same settings. ValueError in one line for a value that is not allowed.
    """
    declared = parameters.declared(notebook)
    values = parameters.resolve(notebook, {name: namespace[name] for name in declared})
    run_dir = values.pop("run_dir", "")
    if run_dir:
        directory = Path(run_dir)
        directory = directory if directory.is_absolute() else paths.ROOT / directory
    else:
        swept = [name for name in ("density", "rounds") if name in values]
        directory = paths.RUNS / paths.SCRATCH / run_id(notebook, values, swept)
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(
        directory / RUN,
        {
            "notebook": notebook,
            "parameters": values,
            "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": machine.hardware(),
            "threads": machine.threads(),
            "load_at_start": machine.load(),
            # runs of the same study that were under way on this machine
            "neighbours": int(os.environ.get(NEIGHBOURS, 0)),
            "versions": machine.versions(),
            "git": machine.git(),
        },
    )
    return Run(notebook, directory, values, time.monotonic())


def note(run: Run, **facts) -> None:
    """Add facts to `run.json`, such as `data=dataset.info`; each replaces what stood under its name."""
    write_json(run.directory / RUN, read_json(run.directory / RUN) | facts)


def checkpoint(run: Run, training: str) -> Path:
    """The file for the state of a training of this run (`train(checkpoint=...)`), the same for every attempt at it."""
    return _checkpoints(run) / f"{training}.pt"


def _checkpoints(run: Run) -> Path:
    folder, name = run.directory.parent, run.directory.name
    if folder.name == ATTEMPTS:
        folder, name = folder.parent, name.rpartition(".")[0]
    return folder / CHECKPOINTS / name


def finish(run: Run, metrics: dict, **tables: pd.DataFrame | list[dict]) -> dict:
    """Write each table as `<name>.csv`, then `metrics.json`: the run counts as done from here on.

    `metrics` is flat, with units in its keys; not-a-number becomes null. Adds `wall_s`, from `begin` to now.
    The states of its trainings are no longer needed and go.
    """
    for name, rows in tables.items():
        with replacing(run.directory / f"{name}.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    metrics = {key: _plain(value) for key, value in metrics.items()}
    metrics["wall_s"] = round(time.monotonic() - run.started, 3)
    (run.directory / PROGRESS).unlink(missing_ok=True)
    write_json(run.directory / METRICS, metrics)
    shutil.rmtree(_checkpoints(run), ignore_errors=True)
    return metrics


def _plain(value):
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def directory(source: str) -> Path:
    """The folder of the finished run `study/run`; ValueError names what is there instead."""
    folder = paths.RUNS / source
    if source.count("/") != 1 or not all(map(paths.is_name, source.split("/"))):
        raise ValueError(f"no finished run {source!r}: allowed is study/run, such as quick/accuracy-seed1")
    if not (folder / METRICS).is_file():
        study = folder.parent
        there = [d.name for d in finished(study)] if study.is_dir() and study != paths.RUNS else []
        raise ValueError(
            f"no finished run {source!r}: allowed is study/run"
            + (f", one of {', '.join(there)}" if there else f", and {study} holds none")
        )
    return folder


def parameters_of(source: str) -> dict:
    """The resolved parameters of the finished run `study/run`."""
    return read_json(directory(source) / RUN)["parameters"]


def in_study() -> bool:
    """Whether a study executes this notebook, and not a person."""
    return NEIGHBOURS in os.environ


def study_of(run: Run) -> str:
    """The study (or scratch) that `run` belongs to, also while it is still an attempt in a hidden folder."""
    parent = run.directory.parent
    return (parent.parent if parent.name.startswith(".") else parent).name


def finished(folder: Path) -> list[Path]:
    """The finished run directories in `folder`, by name."""
    return sorted(path.parent for path in folder.glob(f"[!.]*/{METRICS}"))


def load(study: str, only: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a finished run of `study`: `run`, parameters, metrics, and where it ran.

    `only` restricts to these run ids, in their order. An empty study gives an empty frame.
    """
    folders = {d.name: d for d in finished(paths.RUNS / study)}
    names = folders if only is None else [name for name in only if name in folders]
    return pd.DataFrame([_row(folders[name]) for name in names])


def _row(folder: Path) -> dict:
    run = read_json(folder / RUN)
    values = {name: hashable(value) for name, value in run["parameters"].items()}
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


def hashable(value):
    """A parameter as a cell of a frame whose rows are grouped by it: a list as a tuple, a table as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return tuple(value) if isinstance(value, list) else value


def facts(study: str, run: str) -> dict:
    """Everything in `run.json` of one run."""
    return read_json(paths.RUNS / study / run / RUN)


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
