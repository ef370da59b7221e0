"""Execute one run with papermill, in a folder of its own, and publish it by a rename."""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

from jupyter_core.utils import ensure_event_loop
from traitlets.config import Config

from lib import paths, runs
from lib.files import write_json
from lib.light import GRAMMAR, without
from lib.study import attempts, state
from lib.study.client import WorkbenchClient
from lib.study.healing import explain
from lib.study.nursery import Nursery, NurseryProvisioner

with warnings.catch_warnings(), without(GRAMMAR):
    # papermill 2.7 uses names that its dependencies have deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import papermill
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines


class WorkbenchEngine(NBClientEngine):
    """Papermill's own engine, with an environment and a log file (`kernel.log`) for the kernel."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, env, log, nursery, start_timeout=120, **_):
        # the system's short temporary folder: a socket's path may have no more than about 100 characters
        with tempfile.TemporaryDirectory(prefix="kernel-") as sockets, log.open("w", encoding="utf-8") as stream:
            options = {"startup_timeout": start_timeout, "kernel_name": kernel_name, "config": _connection(sockets)}
            client = PapermillNotebookClient(nb_man, **options)
            if nursery:
                manager = client.create_kernel_manager()
                provisioner = {"kernel_spec": manager.kernel_spec, "parent": manager, "nursery": nursery}
                manager.provisioner = NurseryProvisioner(**provisioner)
            return client.execute(env=env, stderr=stream)


def _connection(folder: str) -> Config:
    """Unix sockets in `folder`: other users cannot listen in, and no two kernels can be given one port."""
    sockets = {} if sys.platform == "win32" else {"transport": "ipc", "ip": f"{folder}/socket"}
    return Config({"KernelManager": {"client_factory": WorkbenchClient, **sockets}})


LOG = "kernel.log"
GPUS = "CUDA_VISIBLE_DEVICES"


papermill_engines.register("workbench", WorkbenchEngine)


def execute_notebook(
    source: Path, target: Path, parameters: dict, threads: int | None = None, nursery: Nursery | None = None, **env: str
) -> None:
    """Run `source` into `target`, every cell from the top in a fresh kernel with the repository as working directory.

    `threads` limits the cores of the kernel, `nursery` forks it where that is possible, and `env` adds environment
    variables. The first error in a cell ends it with papermill's exception, and `target` holds the cells up to
    there. What the kernel itself says, outside the notebook, is in kernel.log beside `target`.
    """
    environment = {**os.environ, **env}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with _own_loop_closed():
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=parameters,
            engine_name="workbench",
            kernel_name="python3",
            cwd=str(paths.ROOT),
            progress_bar=False,
            env=environment,
            log=target.with_name(LOG),
            nursery=nursery,
        )


@contextlib.contextmanager
def _own_loop_closed():
    """Close the event loop that nbclient makes in a thread and leaves open; that of the main thread may be others'."""
    try:
        yield
    finally:
        if threading.current_thread() is not threading.main_thread():
            ensure_event_loop().close()


def attempt(
    planned: dict,
    run: dict,
    threads: int,
    stopping: threading.Event,
    nursery: Nursery | None = None,
    gpu: str | None = None,
) -> str | None:
    """Execute `run` of the plan; None when it is published as done, else its error in one line.

    This is the one entry to a run, whichever engine it comes from. A published run is not started again. Everything is
    written into a folder of this attempt, which takes the run's place by one rename: whatever dies, a run is never
    half there, and of two attempts at once the first result stays. The states of its trainings go after that, so
    whatever is lost before is soon made again. A failed attempt is published too, with its notebook and `error.json`,
    unless it failed because the study is `stopping`. An attempt whose folder another host took for dead publishes
    nothing, and its error, LostRun, is one that may heal. `gpu` is the number of the only one that the run shall see.
    """
    study = state.folder(planned)
    if state.of(planned, run) == "done":
        return None
    try:
        work = attempts.begin(planned["study"], run["id"], gpu=gpu)
    except OSError as full:
        return explain(full)
    number, error = int(work.name.rpartition(".")[2]), None
    try:
        environment = {runs.NEIGHBOURS: str(attempts.beside(planned["study"], work))}
        environment |= {GPUS: gpu} if gpu is not None else {}
        with attempts.beating(work):
            execute_notebook(
                paths.notebook(run["notebook"]),
                work / runs.NOTEBOOK,
                {**run["parameters"], "run_dir": _relative(work)},
                threads,
                nursery=nursery,
                **environment,
            )
    except Exception as raised:  # whatever it was, the other runs go on, and the report names it
        error = explain(raised)
    if not attempts.still_ours(work):  # this host was silent for so long that another took it for dead
        attempts.end(work, published=True)
        return f"LostRun: the folder of attempt {number} was removed, or given to another, while it was under way"
    if not error and not (work / runs.METRICS).is_file():
        error = f"notebook {run['notebook']} ended without runs.finish"
    if error and stopping.is_set():
        attempts.end(work)
        return error
    try:
        if error:
            (work / runs.METRICS).unlink(missing_ok=True)
            write_json(work / runs.ERROR, {"error": error})
            attempts.failed(planned["study"], run["id"], number, error)  # first: then its number is not free again
        publish(work, study / run["id"])
    except OSError as full:  # a full disk also keeps the error from being written
        error = error or explain(full)
        with contextlib.suppress(OSError):
            attempts.failed(planned["study"], run["id"], number, error)
        attempts.end(work)
        return error
    attempts.end(work, published=True)
    attempts.drop_states(planned["study"], run["id"])
    return None if state.of(planned, run) == "done" else error  # of two attempts the other may have got there


def publish(work: Path, directory: Path) -> bool:
    """Put `work` in the place of `directory`, where at most an earlier failure gives way; whether it got there.

    A finished run stays, and `work` is removed: two attempts at one run came to an end. A rename that meets a folder
    with something in it fails, so nobody's result is overwritten, on a shared folder of several hosts neither.
    """
    while True:
        try:
            os.rename(work, directory)
            return True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if (directory / runs.METRICS).is_file():
            shutil.rmtree(work, ignore_errors=True)
            return False
        aside = work.with_name(f".{directory.name}.{os.getpid()}-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):  # another took it away already
            os.rename(directory, aside)
        if (aside / runs.METRICS).is_file():  # it came between the look and the rename
            publish(aside, directory)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def _relative(path: Path) -> str:
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else str(path)
