"""Execute what is missing of a study: a pool of slots, dependencies, and runs that want the machine alone."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import psutil
from filelock import FileLock, Timeout

from lib import machine, markup
from lib.command import noting, uninterrupted
from lib.files import write_text
from lib.study import attempts, judgement, quiet, state
from lib.study.attempt import GPUS, attempt
from lib.study.healing import may_heal
from lib.study.nursery import Nursery

RETRIES = 2  # further attempts at a run that failed as machines fail
# of GPU memory that one run may take: ResNet-20 with 256 images, CIFAR-10 beside it, and torch's own context
RUN_ON_GPU_MIB = 4096
FORK_FROM = 3  # runs; for fewer, ordinary kernels on both cores have started before the nursery is ready


def default_jobs() -> int:
    """Runs at once: one for each two cores, at least two on a machine that has two; as many as fit on its GPUs.

    A small network fills neither two cores nor a GPU.
    """
    cores = machine.cores()
    jobs = max(1, cores // 2, min(2, cores))
    gpus = _visible()
    return max(1, min(jobs, sum(memory // RUN_ON_GPU_MIB for memory in gpus.values()))) if gpus else jobs


def _visible() -> dict[str, int]:
    """GPUs that this process may use, by the name CUDA_VISIBLE_DEVICES has for them -> memory in MiB.

    As CUDA reads that variable: the first name that is none, such as -1, ends the list. A part of a GPU (MIG) counts as
    one with room for one run, as nothing says its size; a GPU named by its UUID is taken for one like the first.
    """
    memory = [gpu["memory_mib"] for gpu in machine.hardware()["gpus"]]
    sizes = {str(number): mib for number, mib in enumerate(memory)}
    given = os.environ.get(GPUS)
    if given is None or not memory:
        return sizes
    found = {}
    for name in map(str.strip, given.split(",")):
        mib = RUN_ON_GPU_MIB if name.startswith("MIG-") else memory[0] if name.startswith("GPU-") else sizes.get(name)
        if mib is None:
            break
        found[name] = mib
    return found


def slots(jobs: int | None, per_gpu: int | None) -> list[str | None]:
    """What each of the runs at once may see: the name of a GPU, all of them in turn; None on a machine without.

    `jobs` is how many there are, `per_gpu` how many on a GPU; the other follows where one is None. ValueError where
    they do not fit together.
    """
    gpus = list(_visible())
    if per_gpu and not gpus:
        raise ValueError(f"received {per_gpu} runs on a GPU, and there is no GPU here: leave --per-gpu out")
    if per_gpu and jobs and jobs > per_gpu * len(gpus):
        raise ValueError(f"received {jobs} runs at once, and {per_gpu} on each of {len(gpus)} GPUs are fewer")
    jobs = jobs or (per_gpu * len(gpus) if per_gpu else default_jobs())
    return [gpus[n % len(gpus)] if gpus else None for n in range(jobs)]


@contextlib.contextmanager
def warm(count: int):
    """A nursery for so many runs, open inside the `with`; None where ordinary kernels are quicker."""
    nursery = Nursery() if count >= FORK_FROM else None
    try:
        yield nursery
    finally:
        if nursery:
            nursery.close()


class Watch:
    """What a driver tells whoever looks on; this one keeps it to itself."""

    def started(self, run: dict) -> None:
        """An attempt at `run` begins."""

    def ended(self, run: dict, error: str | None) -> None:
        """`run` is done, or will not be, and why."""

    def tried(self, run: dict, error: str) -> None:
        """An attempt at `run` failed as machines fail, and another will follow."""

    def submitted(self, job: str, runs: list[dict]) -> None:
        """A cluster has `runs`, as tasks of `job`."""

    def waiting(self, runs: list[dict], why: str) -> None:
        """A cluster had `runs` already when the driver began, or has them in its queue for an unusual reason."""

    def later(self, runs: list[dict], why: str) -> None:
        """`runs` could not be submitted yet."""

    def waits(self, owner: str) -> None:
        """Another driver has the study."""

    def tick(self) -> None:
        """About a second has passed."""


def run_study(
    planned: dict,
    places: list[str | None],
    watch: Watch | None = None,
    nursery: Nursery | None = None,
    retries: int = RETRIES,
) -> dict[str, str]:
    """Execute every run of the plan that is not done; return run id -> error of those that did not get done.

    As many runs go at once as there are `places` (see `slots`), and divide the cores; a run with `exclusive` waits
    until it is alone on the machine, and has all of them. One that failed as machines fail (see `healing.may_heal`) is
    tried up to `retries` times more, from its checkpoint on. A second driver of the same study waits for the first,
    then does what is missing; a run that something else executes, such as a SLURM task, is left to that. `nursery`
    forks the kernels and stays open; without one, this makes its own. Ctrl-C stops the kernels, removes the unfinished
    attempts and raises KeyboardInterrupt; the states of unfinished trainings stay.
    """
    watch = watch or Watch()
    with contextlib.ExitStack() as held:
        held.enter_context(_only_driver(planned, watch.waits))
        state.check(planned)
        state.save(planned)
        judgement.clear(planned["study"])
        attempts.forget(planned["study"])
        waiting = [run for run in planned["runs"] if state.of(planned, run) != "done"]
        nursery = nursery or held.enter_context(warm(len(waiting)))
        try:
            return _Driver(planned, waiting, places, watch, nursery, retries).drive()
        finally:
            judgement.clear(planned["study"])


class _Driver:
    """What waits, what runs where, and how often a run may still be tried."""

    def __init__(self, planned, waiting, places, watch, nursery, retries):
        self.planned, self.waiting, self.watch, self.nursery = planned, waiting, watch, nursery
        self.free, self.jobs = list(places), len(places)
        self.left = {run["id"]: retries for run in waiting}
        self.running: dict[Future, tuple[dict, str | None]] = {}
        self.errors: dict[str, str] = {}
        self.others: set[str] = set()  # runs that something else had when we last looked
        self.stopping = threading.Event()
        self.pool = ThreadPoolExecutor(self.jobs)

    def drive(self) -> dict[str, str]:
        try:
            while self.waiting or self.running:
                self._start()
                ended, _ = wait(self.running, timeout=1, return_when=FIRST_COMPLETED)
                if not self.running and self.waiting:
                    time.sleep(1)  # another engine has what is left
                self.watch.tick()
                for future in ended:
                    self._collect(future)
        except BaseException:
            self.stopping.set()  # so that what dies now is not published as failed
            if self.nursery:
                self.nursery.close()  # before the kernels are stopped: another may be about to start
            raise
        finally:
            stop(self.running, self.stopping)
            self.pool.shutdown(wait=True, cancel_futures=True)
        return self.errors

    def _start(self) -> None:
        for run in drop_orphans(self.waiting, self.errors):
            self.watch.ended(run, self.errors[run["id"]])
        mine = [run for run, _ in self.running.values()]
        busy = self._elsewhere()
        for run in startable(self.waiting, mine, busy, self.jobs):
            self.waiting.remove(run)
            self.watch.started(run)
            place = self.free.pop(0)
            share = (_threads(run, self.jobs), self.stopping, self.nursery, place)
            with noting():  # a thread that was started is one that `stop` knows
                self.running[self.pool.submit(_attempt, self.planned, run, *share)] = run, place

    def _elsewhere(self) -> set[str]:
        """The waiting runs that something else executes; those that it has finished wait no more."""
        known = {run["id"]: run for run in self.waiting}
        busy = {one["run"] for one in attempts.under_way(self.planned["study"]) if one["alive"]} & set(known)
        for identifier in self.others - busy:
            if identifier in known and state.of(self.planned, known[identifier]) == "done":
                self.waiting.remove(known[identifier])
                self.watch.ended(known[identifier], None)
        self.others = busy
        return busy

    def _collect(self, future: Future) -> None:
        run, place = self.running.pop(future)
        self.free.append(place)
        error = future.result()
        if error and may_heal(error) and self.left[run["id"]] > 0:
            self.left[run["id"]] -= 1
            self.waiting.insert(0, run)
            self.watch.tried(run, error)
            return
        if error:
            self.errors[run["id"]] = error
        self.watch.ended(run, error)


def _attempt(planned: dict, run: dict, threads: int, stopping: threading.Event, *rest) -> str | None:
    with quiet.machine(run["exclusive"], stopping) as held:
        return attempt(planned, run, threads, stopping, *rest) if held else "stopped before it started"


def _threads(run: dict, jobs: int) -> int:
    cores = machine.cores()
    return cores if run["exclusive"] else max(1, cores // jobs)


def startable(waiting: list[dict], running: list[dict], busy: set[str], jobs: int) -> list[dict]:
    """Runs to start now, in order; `waiting` and `running` are also what their sources may still be in.

    Those in `busy` are executed by something else.
    """
    if any(run["exclusive"] for run in running):
        return []
    unfinished = {run["id"] for run in (*waiting, *running)}
    ready = [run for run in waiting if run["id"] not in busy and not unfinished & set(run["sources"])]
    shared = [run for run in ready if not run["exclusive"]][: max(0, jobs - len(running))]
    if shared or running:
        return shared
    return ready[:1]


def drop_orphans(waiting: list[dict], errors: dict[str, str]) -> list[dict]:
    """Take the runs whose source failed out of `waiting`, and say so in `errors`; return them."""
    dropped = []
    for run in list(waiting):
        failed = [source for source in run["sources"] if source in errors]
        if failed:
            errors[run["id"]] = f"not started: its source {failed[0]} failed"
            waiting.remove(run)
            dropped.append(run)
    return dropped


@contextlib.contextmanager
def _only_driver(planned: dict, on_wait: Callable[[str], None]):
    """Hold the study's lock. The kernel releases it when this process dies, however that happens."""
    state.refuse_links(planned)
    path = state.folder(planned) / state.LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path), path.with_suffix(".owner")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(markup.line(owner.read_text(errors="replace")) if owner.exists() else "another process")
        lock.acquire()
    try:
        write_text(owner, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()


def stoppable(call: Callable, *arguments):
    """`call(*arguments, stopping)` in a thread: Ctrl-C would leave papermill's event loop with its work half done."""
    stopping, begun = threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        try:
            with noting():
                begun.append(pool.submit(call, *arguments, stopping))
            return begun[0].result()
        finally:
            stop(begun, stopping)


def stop(begun: Iterable[Future], stopping: threading.Event) -> None:
    """Have these attempts, which heed `stopping`, end without a result, and wait until they have."""
    stopping.set()
    with uninterrupted():
        # again and again: a kernel may be about to start
        while wait(begun, timeout=0.2).not_done:
            stop_kernels()


def stop_kernels(grace_s: float = 2.0) -> None:
    """End the kernels that this process started; Ctrl-C does not reach them, they have sessions of their own."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
