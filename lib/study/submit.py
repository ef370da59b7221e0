"""Hand runs over to SLURM: in groups, as one job array for each set of sources, through submitit."""

import contextlib
import io
import os
import re
import shlex
import uuid
from pathlib import Path

import submitit

from lib import paths
from lib.study import jobs, private, squeue, state
from lib.study.cluster import MINUTES, WARNING_S, Cluster, minutes
from lib.study.task import REQUEUES, Task

TASK_S = 120.0  # of runs in one task at least, where their times are known: start-up takes two to five seconds
RUNS_MOST = 20  # in one task: what dies costs no more
ARRAY_MOST = 1000  # tasks; fewer where the cluster's own limit is lower
AT_ONCE = 256  # tasks of an array


# Of sbatch's refusals, those that pass: a limit of jobs at once (such as QOSMaxSubmitJobPerUserLimit or MaxJobCount),
# and a controller that is busy or being restarted, which may have taken the job all the same.
LIMIT = re.compile(r"(Max|Grp)Submit|MaxJobCount|temporarily unable")
BUSY = re.compile(r"timed out|Unable to contact slurm controller")


class NotNow(Exception):
    """SLURM takes no more jobs for now; the text is its own."""


def submit(
    planned: dict, chosen: list[dict], records: dict[str, dict], options: Cluster
) -> tuple[dict[str, list[dict]], str | None]:
    """Hand over those of the `chosen` runs whose sources are done or with SLURM; return number of a job -> its runs.

    And why SLURM takes no more now, in its own words, or None: then some are left, to be handed over later. `records`
    (see `lib.study.jobs`) are of the runs that SLURM has now. A record is written before a run is handed over and
    completed after, so that a driver that dies between the two leaves its name. RuntimeError in one line where sbatch
    refuses for another reason.
    """
    tasks = {run: record["task"] for run, record in records.items()}
    where, made, left = private.folder(planned["study"]), {}, list(chosen)
    seconds, most = state.seconds_each(planned, chosen), 0
    while ready := _ready(planned, left, tasks):
        most = most or squeue.array_most(ARRAY_MOST)
        for (after, exclusive), together in _alike(ready, tasks, planned).items():
            groups = grouped(together, options.group, seconds)
            while groups:
                some = groups[:most]
                try:
                    numbers = _submit(planned["study"], some, where, after, exclusive, options)
                except NotNow as refused:
                    if len(some) == 1 or not LIMIT.search(str(refused)):
                        return made, str(refused)
                    most = len(some) // 2  # each task counts: fewer may have room
                    continue
                groups = groups[len(some) :]
                made[numbers[0].partition("_")[0]] = [run for group in some for run in group]
                for number, group in zip(numbers, some, strict=True):
                    tasks |= {run["id"]: number for run in group}
        left = [run for run in left if run["id"] not in tasks]
    return made, None


def _open_sources(planned: dict, run: dict) -> list[str]:
    return [source for source in run["sources"] if state.of(planned, {"id": source}) != "done"]


def _ready(planned: dict, left: list[dict], tasks: dict[str, str]) -> list[dict]:
    """The runs whose sources are done, or in a task of their own that theirs can wait for."""
    waiting = {run["id"] for run in left}
    return [run for run in left if all(s in tasks and s not in waiting for s in _open_sources(planned, run))]


def _alike(ready: list[dict], tasks: dict[str, str], planned: dict) -> dict[tuple, list[dict]]:
    """(tasks to wait for, alone on a node) -> runs."""
    found: dict[tuple, list[dict]] = {}
    for run in ready:
        after = tuple(sorted({tasks[source] for source in _open_sources(planned, run)}))
        found.setdefault((after, run["exclusive"]), []).append(run)
    return found


def grouped(together: list[dict], size: int | None, seconds: dict[str, float | None]) -> list[list[dict]]:
    """The runs of each task, in order: `size` of them, or as many as take TASK_S by the `seconds` that each may take.

    A run whose time nothing is known of has a task of its own.
    """
    if size:
        return _portions(together, size)
    groups, filled = [], TASK_S
    for run in together:
        takes = seconds[run["id"]]
        takes = TASK_S if takes is None else takes
        if filled + takes > TASK_S or len(groups[-1]) == RUNS_MOST:
            groups.append([])
            filled = 0.0
        groups[-1].append(run)
        filled += takes
    return groups


def _portions(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _submit(study: str, groups: list[list[dict]], where: Path, after, exclusive: bool, options: Cluster) -> list[str]:
    """One array, or a job for a single group; the number of each task."""
    name = f"{private.slug(study)}-{uuid.uuid4().hex[:12]}"
    for index, group in enumerate(groups):
        for run in group:
            jobs.forget(study, run["id"])
            jobs.write(study, run["id"], name, index)
    executor = submitit.SlurmExecutor(folder=where, max_num_timeout=REQUEUES)
    executor.update_parameters(**parameters(name, after, exclusive, options))
    try:
        # submitit prints what sbatch says, and raises it as well
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            made = [executor.submit(Task(study, name, group)) for group in groups]
        numbers = [job.job_id for job in made]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        private.drop_unsent(where)
        if BUSY.search(str(error)):  # the records stay: it may have arrived, under this name
            raise NotNow(_said(error)) from None
        for group in groups:
            for run in group:
                jobs.forget(study, run["id"])
        if LIMIT.search(str(error)):
            raise NotNow(_said(error)) from None
        raise RuntimeError(f"sbatch refused: {_said(error)}") from None
    for index, group in enumerate(groups):
        for run in group:
            jobs.write(study, run["id"], name, index, numbers[index])
    return numbers


def parameters(name: str, after: tuple[str, ...], exclusive: bool, options: Cluster) -> dict:
    """What submitit shall write into the batch file, without what is left to the cluster."""
    exported = {key: value for key, value in os.environ.items() if key.startswith("WORKBENCH_")}
    exported["PYTHONPATH"] = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    lines = [f"export {key}={shlex.quote(value)}" for key, value in exported.items()]
    asked = {
        "job_name": name,
        "time": minutes(options.time) if options.time else MINUTES,
        "signal_delay_s": WARNING_S,
        "partition": options.partition,
        "gres": options.gres,
        "mem": options.mem,
        "cpus_per_task": options.cpus,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "array_parallelism": options.array_limit or AT_ONCE,
        "setup": [*lines, *(text for line in options.setup or [] for text in (line, _checked(line)))],
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        "exclusive": True if exclusive else None,
        "additional_parameters": {"chdir": str(paths.ROOT), "requeue": True},
    }
    # submitit would send its own name as the key of an accounting that few clusters have
    return {key: value for key, value in asked.items() if value is not None} | {"wckey": None}


def _checked(line: str) -> str:
    """Ends the task if the line before failed: without its module a run may compute elsewhere, and nobody sees it."""
    return f"[ $? -eq 0 ] || {{ echo {shlex.quote(f'--setup {line}: failed')} >&2; exit 1; }}"


def _said(error: Exception) -> str:
    """sbatch's own words are the last that submitit passes on; which limit it is stands before the general line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if "sbatch: error" in line] or lines or [type(error).__name__]
    return ([line for line in said if "Batch job submission failed" not in line] or said)[-1]
