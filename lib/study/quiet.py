"""Runs that are timed have the machine to themselves, whichever studies of this user are under way on it.

Two files in the system's temporary folder, locked by `flock`: every run holds `machine` together with the others, a
timed one holds it alone. `gate` is taken first, so that a timed run that waits is not passed by others for ever. The
system lets go of both when a process dies.
"""

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

FOLDER = "WORKBENCH_MACHINE"
LOOK_AGAIN_S = 0.1


def folder() -> Path:
    """Where the files lie: one place a user and machine."""
    name = f"workbench-{os.getuid()}" if hasattr(os, "getuid") else "workbench"
    return Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / name)


@contextlib.contextmanager
def machine(alone: bool, stopping: threading.Event) -> Iterator[bool]:
    """Wait for the machine, alone or together with runs that are not timed, and hold it inside the `with`.

    Yields whether it is held: not, if the study is `stopping` before it was free. Where files cannot be locked (on
    Windows, or without a temporary folder) nothing is waited for. PermissionError if the folder is another user's, who
    could make every run wait for ever.
    """
    with contextlib.ExitStack() as held:
        try:
            place = folder()
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            theirs = hasattr(os, "getuid") and place.lstat().st_uid != os.getuid()
            files = [held.enter_context((place / name).open("a")) for name in ("gate", "machine") if not theirs]
        except OSError:
            yield True
            return
        if theirs:
            raise PermissionError(f"{place} belongs to another user: set {FOLDER} to a folder of your own")
        gate, room = files
        got = _lock(gate, True, stopping) and _lock(room, alone, stopping)
        if not alone or not got:
            gate.close()
        yield got


def _lock(file: IO, alone: bool, stopping: threading.Event) -> bool:
    """Hold a lock on the open `file` until that is closed; False if the study is to stop first."""
    if sys.platform == "win32":
        return True
    how = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
    while not stopping.is_set():
        try:
            fcntl.flock(file, how)
            return True
        except OSError:
            time.sleep(LOOK_AGAIN_S)
    return False
