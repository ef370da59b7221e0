"""A study on a cluster: SLURM has the runs, and this follows them; it may be killed and started again at any time."""

import contextlib
import shutil
import time

from filelock import FileLock

from lib.study import attempts, jobs, state
from lib.study.cluster import Cluster
from lib.study.execute import RETRIES, Watch, drop_orphans
from lib.study.judgement import judged
from lib.study.submit import submit

POLL_S = 2.0
LOCK = ".slurm.lock"


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
    attempts.failed(study, run, max(dead, default=max(known, default=0) + 1), error, heals=True)


@contextlib.contextmanager
def _turn(planned: dict):
    """Of several drivers one at a time looks and submits, so that no run is handed over twice."""
    path = state.folder(planned) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
