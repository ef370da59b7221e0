"""Single runs of a study, executed here and now: by a person, or by a task of a cluster."""

import os
import threading

from lib import machine
from lib.study import attempts, quiet, state
from lib.study.attempt import GPUS, attempt
from lib.study.execute import stoppable


def execute_runs(planned: dict, names: list[str], threads: int | None = None) -> dict[str, str]:
    """Execute these runs of the plan, one after the other; return run -> error of those that did not get done.

    A finished run is left as it is, and so is one that something else executes. The plan is left beside the runs where
    there is none. ValueError, before anything starts, for a run that the study does not have or whose source is not
    done and not among those before it. Ctrl-C stops the kernel, removes the attempt and raises KeyboardInterrupt.
    """
    known = {run["id"]: run for run in planned["runs"]}
    for position, name in enumerate(names):
        if name not in known:
            study = planned["study"]
            raise ValueError(f"study {study} has no run {name!r}: python -m lib.study status {study} shows them")
        for source in known[name]["sources"]:
            if state.of(planned, known[source]) != "done" and source not in names[:position]:
                raise ValueError(f"{name} needs {source}, which is not done: execute that first")
    state.refuse_links(planned)
    state.check(planned)
    if not (state.folder(planned) / state.PLAN).is_file():
        state.save(planned)
    errors = {}
    for name in names:
        if error := stoppable(execute_run, planned, known[name], threads):
            errors[name] = error
    return errors


def not_done(source: str) -> str:
    """Why a run does not start before `source`."""
    return f"not started: its source {source} is not done"


def execute_run(
    planned: dict, run: dict, threads: int | None = None, stopping: threading.Event | None = None
) -> str | None:
    """Execute one run; its error, None when it is done.

    A SLURM task takes its own earlier start for dead, whatever that says of itself: SLURM starts no task again before.
    """
    stopping = stopping or threading.Event()
    missing = [s for s in run["sources"] if state.of(planned, {"id": s}) != "done"]
    if missing:
        return not_done(missing[0])
    task = os.environ.get(attempts.SLURM_TASK)
    others = [one for one in attempts.under_way(planned["study"]) if one["run"] == run["id"] and one["alive"]]
    if other := next((one for one in others if not task or one.get("slurm") != task), None):
        return f"not started: attempt {other['number']} on {attempts.where(other)} executes it"
    with quiet.machine(run["exclusive"], stopping) as held:
        if not held:
            return "stopped before it started"
        given = os.environ.get(GPUS) if task else None
        return attempt(planned, run, threads or machine.threads(), stopping, gpu=given)
