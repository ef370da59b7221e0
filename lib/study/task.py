"""What a task of the cluster does: its runs, one after the other, each as every engine executes it.

SLURM's warning before the time limit is SIGUSR2 to all its processes (before the task gives way to another only where
the cluster has PreemptParameters=send_user_signal). The running training is asked for its state (see `lib.checkpoint`),
and the task goes back into the queue.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission

from lib import machine, paths, runs
from lib.files import SAVE_NOW, changed_ns, listed
from lib.study import attempts, jobs
from lib.study.healing import explain
from lib.study.one import execute_run

# of the 90 s that are left, for the training's next step; what cannot save, such as a timing, is begun again
SAVED_WITHIN_S = 45.0
LOOK_AGAIN_S = 0.2
REQUEUES = 10  # after the time limit: a run that never comes to an end does not stay for ever


@dataclass
class Task:
    """Runs of one study, handed over under `name`; plain data, for it travels as a pickle."""

    study: str
    name: str
    runs: list[dict]

    def __call__(self) -> None:
        os.environ[attempts.SLURM_TASK] = number()
        stopping = threading.Event()  # whoever ends the task says why, not the kernel that dies of it
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        requeue = _once(self._give_up)
        with warned(self.study, requeue) as (begin, warning):
            left = self._execute(begin, warning, stopping)
        if left and not stopping.is_set():
            requeue(None)

    def _execute(self, begin: Callable[[str], None], warning: threading.Event, stopping: threading.Event) -> list[dict]:
        """Execute the runs in order, until the task is warned or ended; return those that it did not begin."""
        planned = {"study": self.study, "runs": self.runs}
        for position, run in enumerate(self.runs):
            if stopping.is_set() or warning.is_set():
                return self.runs[position:]
            begin(run["id"])
            try:
                error = execute_run(planned, run, threads(), stopping)
            except OSError as full:  # nothing can be written, so nothing has begun
                error = explain(full)
            if not stopping.is_set():
                self._end(run["id"], error)
        return []

    def _end(self, run: str, error: str | None) -> None:
        print(f"{run}: {error or 'done'}", flush=True)
        try:
            jobs.end(self.study, run, self.name, error)
        except OSError as full:  # neither here nor there: the driver finds it lost
            print(f"{run}: its end could not be written: {explain(full)}", flush=True)

    def _give_up(self, run: str | None) -> None:
        if run:
            self._end(run, f"TimeLimit: not done in {REQUEUES + 1} starts up to it: a longer --time is needed")

    def checkpoint(self) -> DelayedSubmission:
        """What submitit starts after the requeue: the same; runs that are done are not started again."""
        return DelayedSubmission(self)


def number() -> str:
    """Of this task, such as 123_4, or 123 for one that is no part of an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def threads() -> int:
    """Cores that SLURM gave to this task; those of the machine where it does not say."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    return int(given) if given else machine.threads()


def _once(give_up: Callable[[str | None], None]) -> Callable[[str | None], None]:
    """submitit's own way to put this task back, as often as the time limit may end it; at its second call nothing.

    The function takes the id of the run that was warned and has not ended, and hands it to `give_up` after the last.
    """
    handler, asked = signal.getsignal(signal.SIGUSR2), threading.Event()

    def requeue(run: str | None) -> None:
        if asked.is_set() or not callable(handler):
            return
        asked.set()
        try:
            handler(signal.SIGUSR2, None)
        except UncompletedJobError:
            give_up(run)
        except (OSError, subprocess.SubprocessError) as error:  # the driver submits it again
            print(f"not requeued: {explain(error)}", flush=True)

    return requeue


@contextlib.contextmanager
def warned(study: str, requeue: Callable[[str], None]) -> Iterator[tuple[Callable[[str], None], threading.Event]]:
    """Inside the `with`, SIGUSR2 has the state of the running run saved and then calls `requeue` with it, in a thread.

    Not if the `with` is left meanwhile, because the run has ended. Yields a function that takes the id of each run as
    it begins, and an event that is set by the warning. Kernels started inside ignore the signal, from their first
    moment on: a blocked signal stays so in child processes.
    """
    warning, ended, current = threading.Event(), threading.Event(), []

    def act() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})  # one thread must take it
        while not warning.wait(LOOK_AGAIN_S):
            if ended.is_set():
                return
        if current:
            _save(study, current[-1], ended)
        if not ended.is_set():
            requeue(current[-1] if current else None)

    before = signal.signal(signal.SIGUSR2, lambda *_: warning.set())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield current.append, warning
    finally:
        ended.set()
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR2, before)


def _save(study: str, run: str, ended: threading.Event) -> None:
    """Ask the training of `run` for its state, and wait until that is on disk or the run has ended."""
    folder = paths.RUNS / study / runs.CHECKPOINTS / run
    asked, deadline = folder / SAVE_NOW, time.monotonic() + SAVED_WITHIN_S
    try:
        folder.mkdir(parents=True, exist_ok=True)
        asked.touch()
        since = asked.stat().st_mtime_ns
    except OSError:  # a full folder: the last state has to do
        return
    while time.monotonic() < deadline and not ended.wait(LOOK_AGAIN_S):
        with contextlib.suppress(OSError):  # the folder's server may answer the next time
            if any(changed_ns(file) >= since for file in listed(folder, "*.pt")):
                return
