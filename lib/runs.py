"""A run is one directory: `run.json` first, tables and tensors, and `metrics.json` last.

`metrics.json` appears by a rename when everything else is there; its existence means that the run finished.
"""

import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lib import machine, parameters, paths
from lib.files import listed, read_json, replacing, write_json

RUN, METRICS, ERROR, NOTEBOOK = "run.json", "metrics.json", "error.json", "notebook.ipynb"
NEIGHBOURS = "WORKBENCH_NEIGHBOURS"  # environment variable by which a study tells how many others run
PROGRESS = "progress.json"  # only while the run is under way

# Folders beside the runs of a study: attempts under way, named <run>.<number>, and the state of trainings.
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
            "started_utc": now(),
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


def now() -> str:
    """The time in UTC, to the second, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def finish(run: Run, metrics: dict, **tables) -> dict:
    """Write each table, a DataFrame or a list of dicts, as `<name>.csv`, then `metrics.json`: from here on it is done.

    `metrics` is flat, with units in its keys; not-a-number becomes null. Adds `wall_s`, from `begin` to now.
    The states of its trainings are no longer needed and go; those of an attempt of a study stay until it is published.
    """
    import pandas as pd  # takes a second, and who only asks for the state of runs does not need it

    for name, rows in tables.items():
        with replacing(run.directory / f"{name}.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    metrics = {key: _plain(value) for key, value in metrics.items()}
    metrics["wall_s"] = round(time.monotonic() - run.started, 3)
    (run.directory / PROGRESS).unlink(missing_ok=True)
    write_json(run.directory / METRICS, metrics)
    if run.directory.parent.name != ATTEMPTS:
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
    return sorted(path.parent for path in listed(folder, f"[!.]*/{METRICS}"))


def facts(study: str, run: str) -> dict:
    """Everything in `run.json` of one run."""
    return read_json(paths.RUNS / study / run / RUN)
