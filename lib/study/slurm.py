"""A study on a cluster: SLURM has the runs, and this follows them; it may be killed and started again at any time.

What a run is stands on the shared folder first: its result, the record of the attempt that executes it, and what its
task said at its end. SLURM is asked about the rest only.
"""

import contextlib
import shutil
import socket
import time

from filelock import FileLock

from lib.study import attempts, jobs, squeue, state
from lib.study.attempt import may_heal
from lib.study.cluster import Cluster
from lib.study.execute import RETRIES, Watch, drop_orphans
from lib.study.submit import submit

POLL_S = 2.0
LOCK = ".slurm.lock"
SILENT = "SLURM does not answer here"


def run_study(
    planned: dict,
    options: Cluster,
    watch: Watch | None = None,
    detach: bool = False,
    retries: int = RETRIES,
) -> dict[str, str]:
    """Have SLURM execute every run of the plan that is not done; return run id -> error of those that did not get done.

    A run that SLURM has is left to it, whoever submitted it. One that was lost, or failed as machines fail, is
    submitted up to `retries` times more and goes on from its checkpoint; one that a person cancelled is not. With
    `detach` everything is submitted, and what comes of it is left to a later call. RuntimeError where SLURM is missing
    or refuses.
    """
    if not shutil.which("sbatch"):
        raise RuntimeError("there is no sbatch here: start this on a node of the cluster from which jobs are submitted")
    driver = _Driver(planned, options, watch or Watch(), retries)
    with _turn(planned):
        state.check(planned)
        state.save(planned)
        driver.turn(first=True)
    while driver.open and not detach:
        time.sleep(POLL_S)
        driver.watch.tick()
        with _turn(planned):
            driver.turn()
    if not driver.open:
        attempts.clear(planned["study"])
    return driver.errors


def queued(planned: dict) -> dict[str, dict]:
    """What SLURM and its tasks say of the runs that have not ended well and are not under way, for `status.rows`."""
    told = ("waiting", "lost", "failed")
    return {
        run: {"state": now["state"], "detail": now["detail"]}
        for run, now in judged(planned, [run for run in planned["runs"] if state.of(planned, run) != "done"]).items()
        if now["state"] in told
    }


def judged(planned: dict, chosen: list[dict]) -> dict[str, dict]:
    """Run -> {"state", "detail", "record"}; state is one of

    - done, running: as its folder and the record of its attempt say;
    - waiting: SLURM has it, or its task is between two of its runs;
    - lost, failed: it ended, `heals` says whether another try may help, and `free` that nothing executes it;
    - new: nobody has it.
    """
    study = planned["study"]
    records = jobs.records(study, [run["id"] for run in chosen])
    said = squeue.look(records)  # before the folders: what has ended has written everything by then
    mine: dict[str, list[dict]] = {}
    for one in attempts.under_way(study):
        mine.setdefault(one["run"], []).append(one)
    found = {}
    for identifier, run in ((run["id"], run) for run in chosen):
        record = records.get(identifier)
        end = jobs.ended(study, identifier, record) if record else None
        found[identifier] = _judge(state.of(planned, run), record, end, mine.get(identifier, []), said)
    return found


def _judge(made: str, record: dict | None, end: dict | None, mine: list[dict], said: dict | None) -> dict:
    if made == "done":
        return {"state": "done"}
    alive = next((one for one in reversed(mine) if one["alive"]), None)
    if record is None:
        return {"state": "running"} if alive else {"state": "new"}
    task = record["task"] or _found(record, said)
    record = record | {"task": task}
    now = said["tasks"].get(task) if said else None
    over = said is not None and (now is None or now["state"] in squeue.FINAL)
    here = alive and alive["host"] == socket.gethostname()  # our own system knows better than SLURM
    if alive and (here or not over or alive.get("slurm") != task):
        return {"state": "running", "record": record}
    if end and end["error"] and not end["error"].startswith(("not started", "stopped")):
        return _ended("failed", end["error"], may_heal(end["error"]), alive)
    if end:
        return {"state": "running"} if alive else {"state": "new", "detail": end["error"]}
    if over and task is None:  # its driver died before it had handed it over
        return {"state": "new"}
    if not over:
        return {"state": "waiting", "detail": _waits(task, now, mine), "record": record}
    if now and now["state"] == "CANCELLED":
        return _ended("failed", f"cancelled (SLURM {task})", False, alive)
    return _ended("lost", _lost(task, now, mine), True, alive)


def _found(record: dict, said: dict | None) -> str | None:
    """The task of a record whose driver died before it could write it down."""
    job = said["names"].get(record["name"]) if said else None
    if job is None:
        return None
    task = f"{job}_{record['index']}"
    return task if task in said["tasks"] else job


def _ended(kind: str, detail: str, heals: bool, alive: dict | None) -> dict:
    return {"state": kind, "detail": detail, "heals": heals, "free": alive is None}


def _waits(task: str | None, now: dict | None, mine: list[dict]) -> str:
    if now is None:
        return f"SLURM {task}; {SILENT}" if task else SILENT
    if now["state"] == "RUNNING" and mine:
        return f"attempt {mine[-1]['number']} ended without a word, SLURM {task} goes on"
    words = {"RUNNING": f"begins on {now['where']}", "PENDING": f"in the queue, {now['reason']}"}
    return f"SLURM {task}: {words.get(now['state'], now['state'])}"


def _lost(task: str | None, now: dict | None, mine: list[dict]) -> str:
    why = f"SLURM {task} {now['state'] if now else 'is not there any more'}"
    if now and now["reason"] not in ("", "None"):
        why += f" {now['reason']}"
    return f"{attempts.lost(mine[-1])}; {why}" if mine else f"LostRun: {why}"


class _Driver:
    """The runs that are not at their end, and how often each may still be tried."""

    def __init__(self, planned: dict, options: Cluster, watch: Watch, retries: int):
        self.planned, self.options, self.watch = planned, options, watch
        self.open = [run for run in planned["runs"] if state.of(planned, run) != "done"]
        self.left = {run["id"]: retries for run in self.open}
        self.errors: dict[str, str] = {}
        self.shown: set[str] = set()  # of those that are running

    def turn(self, first: bool = False) -> None:
        """Look at every open run once, and hand over those that nobody has. A first look forgets earlier failures."""
        found = judged(self.planned, self.open)
        having = {run: now["record"] for run, now in found.items() if now.get("record")}
        if first and not having:
            attempts.forget(self.planned["study"])
        chosen = [run for run in list(self.open) if self._wanted(run, found[run["id"]], first)]
        for run in drop_orphans(self.open, self.errors):
            self._close(run, self.errors[run["id"]], record=False)
        chosen = [run for run in chosen if run["id"] not in self.errors]
        if chosen:
            attempts.clear(self.planned["study"])
            for job, runs in submit(self.planned, chosen, having, self.options).items():
                self.watch.submitted(job, runs)

    def _wanted(self, run: dict, now: dict, first: bool) -> bool:
        """Whether to submit it; tells the watch what became of it."""
        if now["state"] == "running" and run["id"] not in self.shown:
            self.shown.add(run["id"])
            self.watch.started(run)
        if now["state"] == "done":
            self._end(run, None)
        if now["state"] == "new" or (first and now.get("free")):
            return True
        if not now.get("free"):
            return False
        if now["heals"] and self.left[run["id"]] > 0:
            self._try_again(run, now)
            return True
        self._close(run, now["detail"])
        return False

    def _try_again(self, run: dict, now: dict) -> None:
        self.left[run["id"]] -= 1
        self.shown.discard(run["id"])
        if now["state"] == "lost":
            _record(self.planned["study"], run["id"], now["detail"])
        self.watch.tried(run, now["detail"])

    def _close(self, run: dict, error: str, record: bool = True) -> None:
        """Nothing more is done for `run`; what SLURM alone knew, and soon forgets, is written down."""
        study, identifier = self.planned["study"], run["id"]
        entry = jobs.records(study, [identifier]).get(identifier) if record else None
        if entry and not jobs.ended(study, identifier, entry):
            jobs.end(study, identifier, entry["name"], error)
        self.errors[run["id"]] = error
        self._end(run, error)

    def _end(self, run: dict, error: str | None) -> None:
        self.open = [one for one in self.open if one["id"] != run["id"]]
        self.watch.ended(run, error)


def _record(study: str, run: str, error: str) -> None:
    """Add a lost attempt to those that count, under its own number or that of an attempt that never began."""
    dead = [one["number"] for one in attempts.under_way(study) if one["run"] == run]
    known = [one["number"] for one in attempts.tries(study, run)]
    attempts.failed(study, run, max(dead, default=max(known, default=0) + 1), error)


@contextlib.contextmanager
def _turn(planned: dict):
    """Of several drivers one at a time looks and submits, so that no run is handed over twice."""
    path = state.folder(planned) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
