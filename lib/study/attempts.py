"""Who executes which run: records on the shared folder, which any process on any host can read.

`.attempts/<run>.<number>` is the folder of an attempt, made by whoever executes it; `attempt.json` in it says who that
is, and the time of the file `beat`, to all who cannot look its process up, that it still lives. What became of attempts
that failed stands in `.tries/<run>.<number>.json`, until the next start of the study; `.tries/<run>.<number>.lost` is
of one that was removed because nothing was heard of its host.
"""

import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from lib import markup, paths, progress, runs
from lib.files import listed, read_known, write_json

TRIES, LOST = ".tries", ".lost"
NUMBERS = range(1, 10**6)  # of attempts; others are not ours
NAME = re.compile(r"([1-9]\d{0,5})", re.ASCII)
MISSED_MOST = 1000  # times in a row that other attempts may take a folder along before it is used
ATTEMPT, BEAT = "attempt.json", "beat"
BEAT_S = 5.0
SILENT_S = 12 * BEAT_S  # an attempt elsewhere that has not been heard of for so long is lost; folders may be slow
# Folder -> record of the attempts that this process executes: a folder may stay after its end, if it is read-only, and
# may be another attempt's, if nothing was heard of this process for so long that it was taken for dead.
_OURS: dict[Path, dict] = {}
SLURM_TASK = "WORKBENCH_SLURM_TASK"  # set for what a SLURM task executes: its number, such as 123_4


def begin(study: str, run: str, **facts) -> Path:
    """Make the folder of a new attempt at `run`, the number after the highest there was; `facts` go into its record.

    No two processes get one folder, on whichever hosts they are. OSError where nothing can be written.
    """
    folder = paths.RUNS / study / runs.ATTEMPTS
    number, missed = 1 + max(_numbers(study, run), default=0), 0
    while True:
        if number not in NUMBERS:
            raise OSError(f"no number is left for an attempt at {run}: move {folder.with_name(TRIES)} away")
        work = folder / f"{run}.{number}"
        try:
            work.mkdir()
            break
        except FileExistsError:
            number += 1
        except FileNotFoundError:  # the first attempt, or the last one ended just now, and took the empty folder along
            missed += 1
            if missed > MISSED_MOST:  # a link in its path leads nowhere
                raise
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                folder.mkdir(parents=True)
    try:
        _write(work, run, number, facts)
    except OSError:
        end(work)
        raise
    return work


def _numbers(study: str, run: str) -> list[int]:
    """Of the attempts at `run` that are under way, that count, and that may go on although they were removed."""
    reserved = [path.stem for path in listed(paths.RUNS / study / TRIES, f"{run}.*{LOST}")]
    numbers = [match[1] for name in reserved if (match := NAME.fullmatch(name.removeprefix(f"{run}.")))]
    return [one["number"] for one in (*_of(study, run), *tries(study, run))] + [int(number) for number in numbers]


def _reserve(study: str, name: str) -> bool:
    """Keep the number, and so the folder, from other attempts: this one's host may only be suspended, and write on."""
    path = paths.RUNS / study / TRIES / f"{name}{LOST}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return True
    except OSError:
        return False


def _write(work: Path, run: str, number: int, facts: dict) -> None:
    (work / BEAT).touch()
    me = psutil.Process()
    record = {"run": run, "number": number, "host": socket.gethostname(), "system": _system()}
    record |= {"process": me.pid, "born": _born(me)}
    record |= {"started_utc": runs.now(), "slurm": os.environ.get(SLURM_TASK), **facts}
    if record["slurm"]:
        record["restarts"] = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    _OURS[work] = record
    write_json(work / ATTEMPT, record)


def still_ours(work: Path) -> bool:
    """Whether the folder is that of the attempt that this process began in it, and of no other since.

    That it cannot be read for a moment is no sign of the contrary.
    """
    found = read(work)
    return work in _OURS and (found == _OURS[work] if found else not _gone(work / ATTEMPT))


def _gone(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def beside(study: str, work: Path) -> int:
    """How many other attempts at runs of the study are alive on this system."""
    return sum(one["alive"] and here(one) and _name(one) != work.name for one in under_way(study))


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
    found = [record for work in listed(folder, "*") if (record := _own(work))]
    clock = _clock(folder) if any(not here(record) for record in found) else 0.0
    for record in found:
        record["alive"] = _alive(folder, record, clock)
        record["progress"] = progress.of(folder / _name(record))
    return sorted(found, key=lambda record: (record["run"], record["number"]))


def where(record: dict) -> str:
    """`host`, with the GPU and the SLURM task where there are any: `node3 GPU 1, SLURM 123_4, restart 2`."""
    gpu = f" GPU {record['gpu']}" if record.get("gpu") not in (None, "") else ""
    slurm = f", SLURM {record['slurm']}" if record.get("slurm") else ""
    restart = f", restart {record['restarts']}" if record.get("restarts") else ""
    return markup.line(f"{record['host']}{gpu}{slurm}{restart}")


def lost(record: dict) -> str:
    """What to say of an attempt whose process is there no more."""
    return f"LostRun: attempt {record['number']} on {where(record)} ended without a word (process {record['process']})"


def failed(study: str, run: str, number: int, error: str) -> None:
    """Record what became of an attempt."""
    entry = {"run": run, "number": number, "error": error, "ended_utc": runs.now()}
    write_json(paths.RUNS / study / TRIES / f"{run}.{number}.json", entry)


def tries(study: str, run: str = "*") -> list[dict]:
    """The records of failed attempts (at `run`) since the last start, by number."""
    pattern = "*" if run == "*" else f"{run}.*"
    files = listed(paths.RUNS / study / TRIES, f"{pattern}.json")
    found = [one for path in files if (one := read_known(path, run=str, number=int, error=str))]
    mine = [one for one in found if run in ("*", one["run"]) and one["number"] in NUMBERS]
    return sorted(mine, key=lambda one: (one["run"], one["number"]))


def forget(study: str) -> None:
    """A new start: earlier failures no longer count. The folder stays, for another engine may write there."""
    folder = paths.RUNS / study / TRIES
    halves = listed(folder, ".*")  # of writes: those of processes that died stay
    clock = _clock(folder) if halves else 0.0
    for path in (*listed(folder, "*.json"), *(half for half in halves if _silent(half, clock))):
        with contextlib.suppress(OSError):
            path.unlink()


def clear(study: str, spare: Collection[str] = ()) -> list[dict]:
    """Remove the folders of attempts that are not alive, but for those at runs in `spare`; return their records.

    Also what processes left that died at other moments: a result put aside, between the two renames of
    `lib.study.attempt.publish`, comes back, and states of the trainings of finished runs go.
    """
    folder = paths.RUNS / study / runs.ATTEMPTS
    for aside in listed(folder, ".[!.]*"):
        name = aside.name[1:].rpartition(".")[0]
        if (aside / runs.METRICS).is_file() and not (folder.parent / name).exists():
            with contextlib.suppress(OSError):
                os.rename(aside, folder.parent / name)
        elif aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
    dead = [record for record in under_way(study) if not record["alive"] and record["run"] not in spare]
    for record in dead:
        if here(record) or _reserve(study, _name(record)):
            shutil.rmtree(folder / _name(record), ignore_errors=True)
    _clear_unrecorded(study, folder, spare)
    _remove_empty(folder)
    for path in listed(folder.parent / TRIES, f"*{LOST}"):
        if (folder.parent / path.stem.rpartition(".")[0] / runs.METRICS).is_file():
            with contextlib.suppress(OSError):
                path.unlink()  # a run that is done has no further attempt
    for states in listed(folder.parent / runs.CHECKPOINTS, "*"):
        drop_states(study, states.name)
    return dead


def _clear_unrecorded(study: str, folder: Path, spare: Collection[str]) -> None:
    """Remove what died between its `mkdir` and its record, or met a full disk there."""
    found = [work for work in listed(folder, "*") if _own(work) is None]
    clock = _clock(folder) if found else 0.0
    for work in found:
        if work.name.rpartition(".")[0] not in spare and _silent(work, clock) and _reserve(study, work.name):
            shutil.rmtree(work, ignore_errors=True)


def end(work: Path, published: bool = False) -> None:
    """This process's attempt has come to its end; remove its folder, unless it was published and is somebody else's."""
    _OURS.pop(work, None)
    if not published:
        shutil.rmtree(work, ignore_errors=True)
    _remove_empty(work.parent)


def drop_states(study: str, run: str) -> None:
    """Remove the states of the trainings of `run` if it is done."""
    folder = paths.RUNS / study
    if (folder / run / runs.METRICS).is_file():
        shutil.rmtree(folder / runs.CHECKPOINTS / run, ignore_errors=True)
        _remove_empty(folder / runs.CHECKPOINTS)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or another attempt is in it
        folder.rmdir()


def _of(study: str, run: str) -> list[dict]:
    folder = paths.RUNS / study / runs.ATTEMPTS
    return [record for work in listed(folder, f"{run}.*") if (record := _own(work)) and record["run"] == run]


def read(work: Path) -> dict | None:
    """What `attempt.json` says; None where the folder has none, being made, published, or an older version's."""
    record = read_known(work / ATTEMPT, run=str, number=int, host=str, process=int, born=int | float)
    return record if record and record["process"] > 0 and record["number"] in NUMBERS else None


def _own(work: Path) -> dict | None:
    """The record of an attempt under way; None where it is not this folder's, so that none leads to another folder."""
    record = read(work)
    return record if record and work.name == f"{record.get('run')}.{record.get('number')}" else None


def _name(record: dict) -> str:
    return f"{record['run']}.{record['number']}"


def here(record: dict) -> bool:
    """Whether the process of this attempt is one that we can look up: of this host, its start, and its container."""
    return record["host"] == socket.gethostname() and record.get("system") == _system()


def _system() -> str:
    """Within what process numbers mean something, where Linux tells; hosts, as containers, may have equal names."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return sys.platform


def _born(process: psutil.Process) -> float:
    """Seconds from the system's start to the process's, as create_time has it before it adds the clock's time."""
    started = psutil.boot_time()
    return process.create_time() - started


def _alive(folder: Path, record: dict, clock: float) -> bool:
    if here(record):
        if record["process"] == os.getpid() and folder / _name(record) not in _OURS:
            return False
        try:
            process = psutil.Process(record["process"])
            # the clock may be put between the two calls of _born, or rounded to another second;
            # one that nobody has reaped yet has ended all the same
            return abs(_born(process) - record["born"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
    return not _silent(folder / _name(record), clock)


def _silent(work: Path, clock: float) -> bool:
    beat = work / BEAT
    try:
        # a beat that is as far ahead is none either: a clock was put back, or the folder comes from elsewhere
        return abs(clock - (beat if beat.exists() else work).stat().st_mtime) >= SILENT_S
    except OSError:  # published or removed just now
        return True


def _clock(folder: Path) -> float:
    """The time as the folder's own server tells it: hosts may differ by minutes. Ours, where nothing can be written."""
    try:
        # without a name where that is possible: nothing is left of it, whenever this process dies
        with tempfile.TemporaryFile(dir=folder, prefix="..clock-") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
