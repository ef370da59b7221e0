"""What a run costs besides its compute, and the wall time of a whole study: the commands a user types, timed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from lib import paths, runs
from lib.bench.training import spread

# a run so small that nearly all of it is fixed cost
TINY = {"data": "digits", "model": "fc", "pruner": "snip", "density": 0.1, "epochs": 1, "train_images": 640}
TASK = "Digits / FC, 1 epoch of 640 images"
STUDY = """title: Fixed cost
question: What does a run cost besides its compute?
fixed: {fixed}
seeds: {seeds}
blocks: [{{notebook: accuracy}}]
"""
TARGETS = {"plain": 5.0, "study": 3.0, "quick": 120.0}  # seconds


def measure(folder: Path, size: dict) -> tuple[list, list]:
    """Rows for a run by its plain command and for one inside a study, and notes.

    `size`: `plain_runs`, and `study_runs` of which the first is shown apart, since it waits for the imports.
    """
    inside = in_study(folder, size["study_runs"])
    plain = [by_papermill(folder / f"plain-{number}") for number in range(size["plain_runs"])]
    row = {"section": "fixed", "task": TASK, "of": "run"}
    made = [
        row | {"form": "papermill accuracy.ipynb", **spread(plain), "target_s": TARGETS["plain"]},
        row | {"form": "in a study, one run at a time", **spread(inside[1:]), "target_s": TARGETS["study"]},
        row | {"form": "first run of a study", **spread(inside[:1])},
    ]
    return made, [
        "Fixed cost: from the start of the command, or from the study's start of the run, to metrics.json, less the "
        "seconds of training and evaluation in history.csv."
    ]


def by_papermill(directory: Path) -> float:
    """Seconds from starting papermill to metrics.json in `directory`, less the run's compute."""
    values = [word for name, value in TINY.items() for word in ("-p", name, str(value))]
    source, target = paths.notebook("accuracy"), directory / runs.NOTEBOOK
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "papermill", source, target, *values, "-p", "run_dir", directory]
    start = time.time()
    _finish(subprocess.Popen([*command, "--cwd", paths.ROOT], cwd=paths.ROOT, stderr=subprocess.PIPE, text=True))
    return fixed_s(directory, start)


def fixed_s(directory: Path, start: float) -> float:
    """Seconds from `start` (of the clock that files are dated by) to metrics.json, less training and evaluation."""
    history = pd.read_csv(directory / "history.csv")
    compute_s = float((history["train_s"] + history["test_s"]).sum())
    return (directory / runs.METRICS).stat().st_mtime - start - compute_s


def in_study(folder: Path, count: int) -> list[float]:
    """Fixed seconds of each of `count` runs of a study of its own, in order, one run at a time."""
    (folder / "studies").mkdir(parents=True)
    seeds = list(range(1, count + 1))
    text = STUDY.format(fixed=json.dumps(TINY), seeds=json.dumps(seeds))
    (folder / "studies" / "fixed.yaml").write_text(text, encoding="utf-8")
    environment = _elsewhere(folder) | {"WORKBENCH_STUDIES": str(folder / "studies")}
    command = [sys.executable, "-m", "lib.bench.starts", "fixed"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    said = _finish(subprocess.Popen(command, cwd=paths.ROOT, env=environment, **pipes))
    starts = json.loads(said.splitlines()[-1])
    return [fixed_s(folder / "runs" / "fixed" / run, start) for run, start in starts.items()]


def whole(name: str, folder: Path) -> list[dict]:
    """A row with the wall time of study `name` from nothing to its report, with the default number of jobs."""
    command = [sys.executable, "-m", "lib.study", "run", name, "--report"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    start = time.perf_counter()
    _finish(subprocess.Popen(command, cwd=paths.ROOT, env=_elsewhere(folder), **pipes))
    seconds = time.perf_counter() - start
    row = {"section": "fixed", "task": f"study {name}", "form": "runs and report", "of": "study"}
    return [row | spread([seconds]) | {"target_s": TARGETS.get(name)}]


def skipped(name: str) -> dict:
    """The row of a study that was not executed."""
    row = {"section": "fixed", "task": f"study {name}", "form": "skipped in the short mode", "of": "study", "n": 0}
    return row | {"target_s": TARGETS.get(name)}


def _elsewhere(folder: Path) -> dict:
    """The environment in which runs and figures go to `folder`."""
    own = {f"WORKBENCH_{name.upper()}": str(folder / name) for name in ("runs", "figures")}
    return os.environ | own


def _finish(process: subprocess.Popen) -> str:
    """Wait for the end; what it printed. RuntimeError in one line when it failed; it dies with this process."""
    try:
        out, err = process.communicate()
    finally:
        process.terminate()  # does nothing to one that has ended
        process.wait()
    if process.returncode:
        lines = (err or out or "").strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"{' '.join(map(str, process.args[1:4]))} failed: {lines[-1]}")
    return out or ""
