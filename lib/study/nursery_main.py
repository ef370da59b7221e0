"""The nursery's program: import once, then fork a kernel for each request. `lib.study.nursery` starts it.

`python -m lib.study.nursery_main MODULE...` with a socket as standard input, over which go lines of JSON: first
`{"ready": true}` when all is imported, then one answer to each request. The end of the input ends the program,
and with it every kernel, however the driver has ended.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import random
import signal
import sys
import traceback

PR_SET_PDEATHSIG = 1  # man 2 prctl: the signal that a process gets when its parent dies


def main(modules: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    if sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # as ipykernel_launcher does: nothing in the working directory may hide a library
    try:
        for name in modules:
            importlib.import_module(name)
    except Exception as error:
        return _answer(error=f"{type(error).__name__}: {error}")
    gc.collect()
    gc.freeze()  # a later collection would touch, and so copy, every page of the imports
    _answer(ready=True)
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "poll" in request:
            _answer(code=exit_code(request["poll"]))
        elif why := refusal(request["env"]):
            _answer(error=why)
        else:
            nursery = os.getpid()
            try:
                pid = os.fork()
            except OSError as error:
                _answer(error=f"no fork: {error}")
                continue
            if pid == 0:
                return kernel(nursery, **request)
            _answer(pid=pid)


def refusal(env: dict[str, str]) -> str | None:
    """Why no kernel with this environment may be forked now; None if one may."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{threads} threads run in the nursery, and a fork would keep one"
    if any(target.startswith("/dev/nvidia") for target in _open_files()):
        return "CUDA has started in the nursery, and does not survive a fork"
    if "OMP_NUM_THREADS" not in env:
        return "OMP_NUM_THREADS is not set, and torch counts the cores only once"
    return None


def _open_files() -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # the one that listed the folder
            continue
    return found


def exit_code(pid: int) -> int | None:
    """None while the kernel runs, else its exit code, or minus the signal that ended it.

    Only this call lets the system forget a dead kernel, so that nobody else can have got its number before the
    driver knows.
    """
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1
    return os.waitstatus_to_exitcode(status) if ended else None


def kernel(nursery: int, argv: list[str], env: dict[str, str], cwd: str, log: str) -> None:
    """Be an IPython kernel until it is shut down; everything that a new process would have is made anew."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != nursery:  # it had died before it could matter
        os._exit(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _redirect(os.open(os.devnull, os.O_RDONLY), 0)  # this was the last copy of the driver's socket
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(output, 1)
    _redirect(output, 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.default_generator.seed()  # of the CPU; those of GPUs do not exist yet
        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))  # OpenMP read the nursery's when it was loaded
    # ipykernel took its parent from the environment when it was imported
    sys.argv = ["ipykernel_launcher", *argv, f"--IPKernelApp.parent_handle={nursery}"]
    code = 1
    try:
        importlib.import_module("ipykernel.kernelapp").launch_new_instance()
        code = 0
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
    finally:
        # what asked to be called at the end is called; taking every module apart would take another second
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(source: int, target: int) -> None:
    os.dup2(source, target)
    os.close(source)


def _answer(**values) -> None:
    os.write(0, (json.dumps(values) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
