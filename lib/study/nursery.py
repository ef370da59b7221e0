"""Kernels that need not import torch: one process imports it, and is forked for each run.

Importing what the notebooks need costs about ten seconds of a core, and a study pays it for every run. A fork
of a process that has it already costs hundredths. Nothing else is shared: each run still has a process, a
notebook, and random generators of its own.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Any

from lib import paths

# By name, because this half never imports torch: only the nursery's own process does. torch._dynamo is what
# torch.optim drags in. lib itself stays out, it is quick to import.
MODULES = (
    "torch",
    "torch._dynamo",
    "safetensors.torch",
    "numpy",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "jinja2",
    "mlxtend.data",
    "pydantic",
    "ipywidgets",
    "IPython",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
)

# Only a process of one thread can be forked whole, and these libraries start theirs when they are imported.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")

# what ipykernel itself sets, but matplotlib reads it when it is imported
BACKEND = "module://matplotlib_inline.backend_inline"

PATIENCE_S = 120.0  # for the imports on a busy machine, or an answer on one that swaps
LAUNCHER = "ipykernel_launcher"


class NurseryError(Exception):
    """This kernel cannot be forked, in one line; an ordinary one can be started."""


class Nursery:
    """The process that kernels are forked from; it imports in the background from construction to the first `fork`.

    Safe to use from several threads. Where it does not work, each `fork` says so by NurseryError.
    """

    def __init__(self, modules: tuple[str, ...] = MODULES):
        self.process = None
        self._lock = threading.Lock()
        self._ready = self._closed = False
        self._broken = None if sys.platform == "linux" else "kernels are forked on Linux only"
        if self._broken:
            return
        environment = {"MPLBACKEND": BACKEND, **os.environ, **ONE_THREAD}
        # of a kernel that this driver itself may run in: ipykernel would wait for the death of that one
        environment.pop("JPY_PARENT_PID", None)
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(PATIENCE_S)
        self._stream = self._socket.makefile("r", encoding="utf-8")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lib.study.nursery_main", *modules],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=paths.ROOT,
                env=environment,
            )

    def fork(self, command: list[str], env: dict[str, str], cwd: str, log: str) -> "Forked":
        """Start the kernel that `command` would start; its output goes to the file `log`.

        NurseryError when it cannot be done here, RuntimeError when the nursery has been closed.
        """
        if command[0] != sys.executable or LAUNCHER not in command:
            raise NurseryError(f"the kernel is started by {' '.join(command[:3])}")
        argv = command[command.index(LAUNCHER) + 1 :]
        answer = self._ask({"argv": argv, "env": env, "cwd": cwd, "log": log})
        if "error" in answer:
            raise NurseryError(answer["error"])
        return Forked(self, answer["pid"])

    def poll(self, pid: int) -> int | None:
        """Exit code of a forked kernel, None while it runs. When the nursery has died, so have its kernels."""
        try:
            return self._ask({"poll": pid})["code"]
        except (NurseryError, RuntimeError):
            return -signal.SIGKILL

    def close(self) -> None:
        """End the nursery and every kernel forked from it; a `fork` under way in another thread fails."""
        self._closed = True
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        with self._lock:  # whoever waited for an answer has got the end of the stream
            self._stream.close()
            self._socket.close()

    def _ask(self, request: dict) -> dict:
        with self._lock:
            if not self._broken and not self._closed:
                try:
                    self._await_imports()
                    return self._exchange(request)
                except (OSError, ValueError) as error:
                    self._broken = self._broken or f"no nursery: {error}"
                    self.process.kill()
        if self._closed:
            raise RuntimeError("the study is being stopped")
        raise NurseryError(self._broken)

    def _await_imports(self) -> None:
        if not self._ready:
            answer = self._read()
            if "error" in answer:
                raise ValueError(answer["error"])
            self._ready = True

    def _exchange(self, request: dict) -> dict:
        self._socket.sendall((json.dumps(request) + "\n").encode())
        return self._read()

    def _read(self) -> dict:
        line = self._stream.readline()
        if not line:
            raise OSError("the process has ended")
        return json.loads(line)


class Forked:
    """The part of subprocess.Popen that a kernel's provisioner uses, for a process that is the nursery's child."""

    stdin = stdout = stderr = None

    def __init__(self, nursery: Nursery, pid: int):
        self.nursery, self.pid, self.returncode = nursery, pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.poll(self.pid)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class NurseryProvisioner(LocalProvisioner):
    """Starts a kernel by a fork of `nursery`, or, saying why in its log, the ordinary way."""

    nursery = Any()

    async def launch_kernel(self, cmd: list[str], **options) -> dict:
        log = options["stderr"]
        cwd = options.get("cwd") or Path.cwd()
        try:
            self.process = self.nursery.fork(cmd, options["env"], str(cwd), os.path.abspath(log.name))
        except NurseryError as why:
            print(f"This kernel was not forked but started, which only takes longer: {why}", file=log, flush=True)
            return await super().launch_kernel(cmd, **options)
        # a session of its own: its number is not asked for, because the kernel may be just about to open it
        self.pid = self.pgid = self.process.pid
        self.cwd = cwd
        return self.connection_info
