"""Execute what is missing of a study: a pool of slots, dependencies, and runs that want the machine alone."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import psutil
from filelock import FileLock, Timeout

from lib import machine
from lib.study import state
from lib.study.attempt import attempt
from lib.study.nursery import Nursery

LOCK = ".lock"
# of GPU memory that one run may take: ResNet-20 with 256 images, CIFAR-10 beside it, and torch's own context
RUN_ON_GPU_MIB = 4096
FORK_FROM = 3  # runs; for fewer, ordinary kernels on both cores have started before the nursery is ready


def default_jobs() -> int:
    """Runs at once: one for each two cores, at least two on a machine that has two; as many as fit on its first GPU.

    A small network fills neither two cores nor a GPU.
    """
    cores = os.cpu_count() or 1
    jobs = max(1, cores // 2, min(2, cores))
    gpus = machine.hardware()["gpus"]
    return max(1, min(jobs, gpus[0]["memory_mib"] // RUN_ON_GPU_MIB)) if gpus else jobs


@contextlib.contextmanager
def warm(count: int):
    """A nursery for so many runs, open inside the `with`; None where ordinary kernels are quicker."""
    nursery = Nursery() if count >= FORK_FROM else None
    try:
        yield nursery
    finally:
        if nursery:
            nursery.close()


def run_study(
    planned: dict,
    jobs: int,
    on_start: Callable[[dict], None] = lambda run: None,
    on_end: Callable[[dict, str | None], None] = lambda run, error: None,
    on_wait: Callable[[str], None] = lambda owner: None,
    on_tick: Callable[[], None] = lambda: None,
    nursery: Nursery | None = None,
) -> dict[str, str]:
    """Execute every run of the plan that is not done; return run id -> error of those that did not get done.

    `jobs` runs go at once and divide the cores; a run with `exclusive` waits until it is alone and has all of them.
    A second driver of the same study waits for the first (`on_wait` is told), then does what is missing. `on_tick` is
    called about once a second. `nursery` forks the kernels and stays open; without one, this makes its own. Ctrl-C
    stops the kernels, removes the unfinished attempts and raises KeyboardInterrupt; the states of unfinished trainings
    stay.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(_only_driver(planned, on_wait))
        state.check(planned)
        state.save(planned)
        state.clear_attempts(planned)
        waiting = [run for run in planned["runs"] if state.of(planned, run) != "done"]
        errors: dict[str, str] = {}
        running: dict[Future, dict] = {}
        stopping = threading.Event()
        nursery = nursery or held.enter_context(warm(len(waiting)))
        pool = ThreadPoolExecutor(jobs)
        try:
            while waiting or running:
                for run in _drop_orphans(waiting, errors):
                    on_end(run, errors[run["id"]])
                for run in _startable(waiting, list(running.values()), jobs):
                    waiting.remove(run)
                    on_start(run)
                    share = (_threads(run, jobs), len(running), stopping, nursery)
                    running[pool.submit(attempt, planned, run, *share)] = run
                ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                on_tick()
                for future in ended:
                    run = running.pop(future)
                    if error := future.result():
                        errors[run["id"]] = error
                    on_end(run, errors.get(run["id"]))
        except BaseException:
            stopping.set()  # so that what dies now is not published as failed
            if nursery:
                nursery.close()  # before the kernels are stopped: another may be about to start
            raise
        finally:
            stopping.set()
            # again and again: a kernel may be about to start
            while wait(running, timeout=0.2).not_done:
                stop_kernels()
            pool.shutdown(wait=True, cancel_futures=True)
            state.clear_attempts(planned)
    return errors


def _threads(run: dict, jobs: int) -> int:
    cores = os.cpu_count() or 1
    return cores if run["exclusive"] else max(1, cores // jobs)


def _startable(waiting: list[dict], running: list[dict], jobs: int) -> list[dict]:
    """Runs to start now, in order; `waiting` and `running` are also what their sources may still be in."""
    if any(run["exclusive"] for run in running):
        return []
    unfinished = {run["id"] for run in (*waiting, *running)}
    ready = [run for run in waiting if not unfinished & set(run["sources"])]
    shared = [run for run in ready if not run["exclusive"]][: max(0, jobs - len(running))]
    if shared or running:
        return shared
    return ready[:1]


def _drop_orphans(waiting: list[dict], errors: dict[str, str]) -> list[dict]:
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
    path = state.folder(planned) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(path.with_suffix(".owner").read_text() if path.with_suffix(".owner").exists() else "another process")
        lock.acquire()
    try:
        path.with_suffix(".owner").write_text(f"process {os.getpid()}")
        yield
    finally:
        lock.release()


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
