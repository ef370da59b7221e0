"""Who executes which run: records on the shared folder, which any process on any host can read.

`.attempts/<run>.<number>` is the folder of an attempt, made by whoever executes it; `attempt.json` in it says who that
is, and the time of the file `beat` that it still lives. What became of attempts that failed stands in
`.tries/<run>.<number>.json`, until the next start of the study.
"""

import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from lib import markup, paths, progress, runs
from lib.files import read_json, write_json

TRIES = ".tries"
ATTEMPT, BEAT = "attempt.json", "beat"
BEAT_S = 5.0
SILENT_S = 12 * BEAT_S  # an attempt of another host that has not been heard of for so long is lost; folders may be slow
SLURM_TASK = "WORKBENCH_SLURM_TASK"  # set for what a SLURM task executes: its number, such as 123_4


def begin(study: str, run: str, **facts) -> Path:
    """Make the folder of a new attempt at `run`, the number after the highest there was; `facts` go into its record.

    No two processes get one folder, on whichever hosts they are.
    """
    folder = paths.RUNS / study / runs.ATTEMPTS
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max([one["number"] for one in (*_of(study, run), *tries(study, run))], default=0)
    while True:
        work = folder / f"{run}.{number}"
        try:
            work.mkdir()
            break
        except FileExistsError:
            number += 1
    (work / BEAT).touch()
    me = psutil.Process()
    record = {"run": run, "number": number, "host": socket.gethostname(), "process": me.pid, "born": me.create_time()}
    record |= {"started_utc": runs.now(), "slurm": os.environ.get(SLURM_TASK), **facts}
    if record["slurm"]:
        record["restarts"] = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    write_json(work / ATTEMPT, record)
    return work


@contextlib.contextmanager
def beating(work: Path):
    """Inside the `with` the attempt in `work` says that it lives, every few seconds."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a full disk must not end the run; a published folder has moved
                os.utime(work / BEAT)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def under_way(study: str) -> list[dict]:
    """The record of every attempt there is, with `alive` and `progress`, a line or None, in order of run and number."""
    folder = paths.RUNS / study / runs.ATTEMPTS
    found = [record for work in folder.glob("[!.]*") if (record := _own(work))]
    clock = _clock(folder) if found else 0.0
    for record in found:
        record["alive"] = _alive(folder, record, clock)
        record["progress"] = progress.of(folder / _name(record))
    return sorted(found, key=lambda record: (record["run"], record["number"]))


def alive(study: str, run: str) -> dict | None:
    """The record of an attempt at `run` that is being executed now, anywhere; None if there is none."""
    return next((record for record in under_way(study) if record["run"] == run and record["alive"]), None)


def where(record: dict) -> str:
    """`host`, with the GPU and the SLURM task where there are any: `node3 GPU 1, SLURM 123_4`."""
    gpu = f" GPU {record['gpu']}" if record.get("gpu") not in (None, "") else ""
    return markup.line(f"{record['host']}{gpu}" + (f", SLURM {record['slurm']}" if record.get("slurm") else ""))


def lost(record: dict) -> str:
    """What to say of an attempt whose process is there no more."""
    return f"LostRun: attempt {record['number']} on {where(record)} ended without a word (process {record['process']})"


def failed(study: str, run: str, number: int, error: str, heals: bool) -> None:
    """Record what became of an attempt; `heals` says whether the same run may succeed another time."""
    entry = {"run": run, "number": number, "error": error, "heals": heals, "ended_utc": runs.now()}
    write_json(paths.RUNS / study / TRIES / f"{run}.{number}.json", entry)


def tries(study: str, run: str = "*") -> list[dict]:
    """The records of failed attempts (at `run`) since the last start, by number."""
    pattern = "*" if run == "*" else f"{run}.*"
    found = [read_json(path) for path in (paths.RUNS / study / TRIES).glob(f"{pattern}.json")]
    return sorted((one for one in found if run in ("*", one["run"])), key=lambda one: (one["run"], one["number"]))


def forget(study: str) -> None:
    """A new start: earlier failures no longer count."""
    shutil.rmtree(paths.RUNS / study / TRIES, ignore_errors=True)


def clear(study: str, spare: Collection[str] = ()) -> list[dict]:
    """Remove the folders of attempts that are not alive; return their records. Finished results in them are kept.

    Attempts at the runs in `spare` stay, whatever they say of themselves.
    A process that died between the two renames of `lib.study.attempt.publish` has left one aside.
    """
    folder = paths.RUNS / study / runs.ATTEMPTS
    for aside in folder.glob(".[!.]*"):
        name = aside.name[1:].rpartition(".")[0]
        if (aside / runs.METRICS).is_file() and not (folder.parent / name).exists():
            with contextlib.suppress(OSError):
                os.rename(aside, folder.parent / name)
        elif aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
    dead = [record for record in under_way(study) if not record["alive"] and record["run"] not in spare]
    for record in dead:
        shutil.rmtree(folder / _name(record), ignore_errors=True)
    _remove_empty(folder)
    return dead


def end(work: Path) -> None:
    """Remove the folder of an attempt that comes to nothing."""
    shutil.rmtree(work, ignore_errors=True)
    _remove_empty(work.parent)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or another attempt is in it
        folder.rmdir()


def _of(study: str, run: str) -> list[dict]:
    folder = paths.RUNS / study / runs.ATTEMPTS
    return [record for work in folder.glob(f"{run}.*") if (record := _own(work)) and record["run"] == run]


def read(work: Path) -> dict | None:
    """What `attempt.json` says; None where the folder has none, being made, published, or an older version's."""
    if not (work / ATTEMPT).is_file():
        return None
    try:
        record = read_json(work / ATTEMPT)
    except ValueError:  # it went between the two looks
        return None
    return record if {"run", "number", "host", "process", "born"} <= set(record) else None


def _own(work: Path) -> dict | None:
    """The record of an attempt under way; None where it is not this folder's, so that none leads to another folder."""
    record = read(work)
    return record if record and work.name == f"{record.get('run')}.{record.get('number')}" else None


def _name(record: dict) -> str:
    return f"{record['run']}.{record['number']}"


def _alive(folder: Path, record: dict, clock: float) -> bool:
    if record["host"] == socket.gethostname():
        try:
            process = psutil.Process(record["process"])
            # one that nobody has reaped yet has ended all the same
            return abs(process.create_time() - record["born"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
    try:
        return clock - (folder / _name(record) / BEAT).stat().st_mtime < SILENT_S
    except OSError:  # published or removed just now
        return False


def _clock(folder: Path) -> float:
    """The time as the folder's own server tells it: hosts may differ by minutes. Ours, where nothing can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="..clock-") as file:
            return os.stat(file.name).st_mtime
    except OSError:
        return time.time()
