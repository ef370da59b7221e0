"""A study on a cluster: SLURM has the runs, and this follows them; it may be killed and started again at any time."""

import contextlib
import shutil
import time
from collections import Counter

from filelock import FileLock

from lib import runs
from lib.files import changed_ns, listed
from lib.study import attempts, jobs, judgement, private, squeue, state
from lib.study.cluster import Cluster
from lib.study.execute import RETRIES, Watch, drop_orphans
from lib.study.one import not_done
from lib.study.submit import submit

POLL_S, POLL_MOST_S = 2.0, 15.0  # SLURM is asked less often while nothing changes
SETTLED_S = 60.0  # until when a node of an NFS may have the folder as it was (acdirmax of nfs(5))
AGAIN_S = 30.0  # after a submission was refused because there are too many
# why a task waits for its turn, in SLURM's words and in those of `judgement`
USUAL = {
    f"in the queue, {reason}"
    for reason in ("Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime", "Prolog", "Cleaning")
} | {"in the queue"}
OUTSIDE = "what they build on is not done, and no task that SLURM lists"


def needed() -> None:
    """RuntimeError where nothing can be submitted."""
    if not shutil.which("sbatch"):
        raise RuntimeError("there is no sbatch here: start this on a node of the cluster from which jobs are submitted")


def run_study(
    planned: dict,
    options: Cluster,
    watch: Watch | None = None,
    detach: bool = False,
    retries: int = RETRIES,
) -> dict[str, str]:
    """Have SLURM execute every run of the plan that is not done; return run id -> error of those that did not get done.

    A run that SLURM has is left to it, whoever submitted it, and so is one that something else executes. One that was
    lost, or failed as machines fail, is submitted up to `retries` times more and goes on from its checkpoint; one that
    a person cancelled is not. With `detach` what can be is submitted, and the rest is left to a later call.
    RuntimeError where SLURM is missing or refuses; where it only has too many jobs, the rest is submitted later.
    """
    driver = _Driver(planned, options, watch or Watch(), retries)
    if driver.open:
        needed()
    with _turn(planned):
        state.check(planned)
        state.save(planned)
        driver.turn(first=True)
    if not detach:
        driver.follow()
    if not driver.open:
        judgement.clear(planned["study"])
    _tidy(planned)
    return driver.errors


class _Driver:
    """The runs that are not at their end, and how often each has failed."""

    def __init__(self, planned: dict, options: Cluster, watch: Watch, retries: int):
        self.planned, self.options, self.watch, self.retries = planned, options, watch, retries
        self.open = [run for run in planned["runs"] if state.of(planned, run) != "done"]
        self.seen, self.before = Counter(), Counter()  # failures by run: that we saw, and from before our start
        self.due: set[str] = set()  # of those that failed, what is to be submitted and has not been
        self.again = 0.0  # when sbatch may be asked once more
        self.found: dict[str, dict] = {}
        self.errors: dict[str, str] = {}
        self.shown: set[str] = set()  # of those that are running
        self.told: set[str] = set()
        self.unseen: dict[str, float] = {}  # when we saw first that a task had not seen its source

    def follow(self) -> None:
        """Look again until every run is at its end, at once when a task has said something."""
        looked, pause, told = time.monotonic(), POLL_S, jobs.told(self.planned["study"])
        while self.open:
            time.sleep(POLL_S)
            self.watch.tick()
            now = jobs.told(self.planned["study"])
            if now == told and time.monotonic() - looked < pause:
                continue
            with _turn(self.planned):
                changed = self.turn()
            looked, pause, told = time.monotonic(), POLL_S if changed else min(1.5 * pause, POLL_MOST_S), now

    def turn(self, first: bool = False) -> bool:
        """Look at every open run once, and hand over those that nobody has; return whether there was anything new.

        A first look forgets earlier failures, unless SLURM already has runs of the study.
        """
        study, found = self.planned["study"], judgement.judged(self.planned, self.open)
        changed, self.found = found != self.found, found
        if first and not any(now["held"] for now in found.values()):
            attempts.forget(study)
        if first:
            self.before = Counter(one["run"] for one in attempts.tries(study))
        self._tell(found, first)
        chosen = [run for run in list(self.open) if self._wanted(run, found[run["id"]], first)]
        for run in drop_orphans(self.open, self.errors):
            self._close(run, self.errors[run["id"]], record=False)
        chosen = [run for run in chosen if run["id"] not in self.errors]
        if chosen and time.monotonic() >= self.again:
            self._hand_over(chosen, found)
        return changed

    def _tell(self, found: dict[str, dict], first: bool) -> None:
        """What SLURM has when this begins, and later why tasks wait, each reason once, unless it is for their turn."""
        groups: dict[str, list[dict]] = {}
        for run in self.open:
            now = found[run["id"]]
            why = now.get("detail", "under way").partition(": ")
            why = judgement.SILENT if judgement.SILENT in why[0] else why[2] or why[0]
            known = now["state"] == "waiting" or (now["state"] == "running" and "record" in now)
            odd = why == judgement.SILENT or (why.startswith("in the queue") and why not in USUAL)
            if known and why not in self.told and (first or odd):
                groups.setdefault(why, []).append(run)
        for why, together in groups.items():
            self.told.add(why)
            reach = first and why != judgement.SILENT
            more = "; options of this command do not reach them, scancel ends them" if reach else ""
            self.watch.waiting(together, f"{why}{more}")

    def _hand_over(self, chosen: list[dict], found: dict[str, dict]) -> None:
        judgement.clear(self.planned["study"])
        having = {run: now["record"] for run, now in found.items() if "record" in now}
        made, refused = submit(self.planned, chosen, having, self.options)
        for job, together in made.items():
            self.watch.submitted(job, together)
        handed = {run["id"] for together in made.values() for run in together}
        self.due -= handed
        if refused:
            self.again = time.monotonic() + AGAIN_S
        later, why = [run for run in chosen if run["id"] not in handed], refused or OUTSIDE
        if later and why not in self.told:
            self.told.add(why)
            self.watch.later(later, why)

    def _wanted(self, run: dict, now: dict, first: bool) -> bool:
        """Whether to submit it; tells the watch what became of it."""
        if now["state"] == "running" and run["id"] not in self.shown:
            self.shown.add(run["id"])
            self.watch.started(run)
        if now["state"] == "done":
            self._end(run, None)
        if now["state"] == "new":
            unseen = self._unseen(run, now)
            if unseen is None:
                return True
            since = self.unseen.setdefault(run["id"], time.monotonic())
            if not first and time.monotonic() - since < SETTLED_S:
                return False
            now = now | {"detail": f"StaleFolder: its task did not see that its source {unseen} is done"}
        if not now.get("free"):
            self.due.discard(run["id"])
            return False
        if first or run["id"] in self.due:
            self.due.add(run["id"])
            return True
        if now["heals"] and self._failures(run, now) <= self.retries:
            self.due.add(run["id"])
            self.shown.discard(run["id"])
            self.watch.tried(run, now["detail"])
            return True
        self._close(run, now["detail"])
        return False

    def _unseen(self, run: dict, now: dict) -> str | None:
        """The source for want of which its task did not start it, if it was done: the node had the folder as it was."""
        study = self.planned["study"]
        missed = next((s for s in run["sources"] if now.get("detail") == not_done(s)), None)
        if missed is None or state.of(self.planned, {"id": missed}) != "done":
            return None
        done_ns = changed_ns(state.folder(self.planned) / missed / runs.METRICS)
        return missed if done_ns < jobs.ended_ns(study, run["id"]) else None

    def _failures(self, run: dict, now: dict) -> int:
        """How often it has failed since our start, this time included, under whichever driver."""
        study, identifier = self.planned["study"], run["id"]
        if now["state"] in ("lost", "new"):
            _record(study, identifier, now["detail"])
        self.seen[identifier] += 1
        return max(self.seen[identifier], len(attempts.tries(study, identifier)) - self.before[identifier])

    def _close(self, run: dict, error: str, record: bool = True) -> None:
        """Nothing more is done for `run`; what SLURM alone knew, and soon forgets, or only we, is written down."""
        study, identifier = self.planned["study"], run["id"]
        entry = jobs.records(study, [identifier]).get(identifier) if record else None
        if entry and (jobs.ended(study, identifier, entry) or {}).get("error") != error:
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
    with contextlib.suppress(OSError):  # on a full disk this driver's own count has to do
        attempts.failed(study, run, max(dead, default=max(known, default=0) + 1), error)


def _tidy(planned: dict) -> None:
    """Remove the pickles and logs of tasks that are over, but for the last ones of runs that are not done."""
    where = private.place(planned["study"])
    kept = set(private.kept(where))
    going = squeue.going() if kept else None
    if going is None:
        return
    given = [path.stem for path in listed(jobs.folder(planned["study"]), "*.json")]
    records = jobs.records(planned["study"], given)
    last = {entry["task"] for run, entry in records.items() if state.of(planned, {"id": run}) != "done"}
    held = last | going
    private.drop(where, kept - held - {task.partition("_")[0] for task in held if task})  # an array has one batch file


@contextlib.contextmanager
def _turn(planned: dict):
    """Of several drivers one at a time looks and submits, so that no run is handed over twice."""
    state.refuse_links(planned)
    path = state.folder(planned) / state.CLUSTER_LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
