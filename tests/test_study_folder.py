"""A shared folder that is read-only or slow: a clear error or a later end, and nothing half published."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time

import pytest

from lib import paths, runs
from lib.files import read_json
from lib.study import attempt, attempts, execute, healing, state, status
from lib.study.__main__ import main

RUN = "stub-namea-seed1"


@pytest.fixture
def notebook(monkeypatch):
    """Stands in for the notebook: a table in many writes, its metrics last, everything with the number of the call."""
    calls = []

    def executed(source, target, parameters, *_, **env):
        calls.append(threading.get_ident())
        number = len(calls)
        (target.parent / runs.RUN).write_text(
            json.dumps({"parameters": {n: v for n, v in parameters.items() if n != "run_dir"}})
        )
        for _ in range(5):
            with (target.parent / "rows.csv").open("a") as file:
                file.write(f"{number}\n")
            time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):  # another attempt at the run is published: as trainings do
            checkpoint(target.parent.name.rpartition(".")[0])
        (target.parent / runs.METRICS).write_text(json.dumps({"wall_s": 1.0, "number": number}))

    monkeypatch.setattr(attempt, "execute_notebook", executed)
    return calls


def checkpoint(run: str):
    """The state of a training of `run`, made now."""
    path = paths.RUNS / "s" / runs.CHECKPOINTS / run / "training.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def check_whole(folder) -> None:
    number = read_json(folder / runs.METRICS)["number"]
    assert (folder / "rows.csv").read_text() == f"{number}\n" * 5


@contextlib.contextmanager
def read_only(folder):
    """`folder` is read-only inside the `with`, for root too."""
    for options in (["--bind", str(folder), str(folder)], ["-o", "remount,bind,ro", str(folder)]):
        made = subprocess.run(["mount", *options], capture_output=True, text=True)
        if made.returncode:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True)
            pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    "command", [["run", "s"], ["execute", "s", "stub-nameb-seed1"], ["keep", "s"], ["report", "s"]]
)
def test_a_read_only_folder_is_named_in_one_line(planned, here, notebook, capsys, monkeypatch, command):
    monkeypatch.setattr(paths, "FIGURES", here.runs / "figures")
    assert attempt.attempt(planned, planned["runs"][0], 1, threading.Event()) is None
    before, files = here.done("s"), sorted(here.runs.rglob("*"))
    with read_only(here.runs):
        assert main(command) in (1, 2)
        out, err = capsys.readouterr()
        assert "Read-only file system" in out + err
        assert err.count("\n") <= 1
        assert "Traceback" not in out + err
        assert main(["status", "s"]) == 1
        assert "1 done, 0 failed, 1 waiting" in capsys.readouterr().out
    assert here.done("s") == before
    assert sorted(here.runs.rglob("*")) == files


def test_a_folder_that_turns_read_only_publishes_nothing(planned, here, notebook, monkeypatch):
    """By errors in place of a mount: the notebook could still be written, its rename not, and no error either."""

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(attempt.os, "rename", refused)
        patched.setattr(attempts, "write_json", _after(1, refused))
        error = attempt.attempt(planned, planned["runs"][0], 1, threading.Event())
    assert error == "OSError: [Errno 30] Read-only file system"
    assert not healing.may_heal(error)
    assert (here.runs / "s" / runs.CHECKPOINTS / planned["runs"][0]["id"] / "training.pt").exists()  # soon made again
    assert [state.of(planned, run) for run in planned["runs"]] == ["waiting", "waiting"]
    assert execute.run_study(planned, [None]) == {}
    for run in planned["runs"]:
        check_whole(here.runs / "s" / run["id"])
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()
    assert not (here.runs / "s" / runs.CHECKPOINTS).exists()


def test_a_retry_does_not_wait_for_what_its_own_driver_could_not_remove(planned, here, notebook, monkeypatch):
    """The first attempt fails as machines fail, while the folder is read-only."""
    real, tried = attempt.execute_notebook, []

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    def dies_first(*given, **named):
        if not tried:
            raise MemoryError("no room")
        real(*given, **named)

    with monkeypatch.context() as patched:
        watch = execute.Watch()
        watch.tried = lambda run, error: (tried.append(error), patched.undo())
        patched.setattr(attempts.shutil, "rmtree", lambda *_, **__: None)
        patched.setattr(attempt.os, "rename", refused)
        monkeypatch.setattr(attempt, "execute_notebook", dies_first)
        waiting = threading.Thread(target=execute.run_study, args=[planned, [None], watch], daemon=True)
        waiting.start()
        waiting.join(60)
    assert tried == ["MemoryError: no room"]
    assert not waiting.is_alive()
    for run in planned["runs"]:
        check_whole(here.runs / "s" / run["id"])
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()


@pytest.mark.parametrize("fails", [True, False])
def test_nobody_elses_attempt_is_removed(planned, here, notebook, monkeypatch, fails):
    """One that begins just when another is published, and would be given its number."""
    run, publish, begun = planned["runs"][0], attempt.publish, []

    def published(*where):
        publish(*where)
        begun.append(attempts.begin("s", run["id"]))

    def dies(*_, **__):
        raise ValueError("no")

    monkeypatch.setattr(attempt, "publish", published)
    if fails:
        monkeypatch.setattr(attempt, "execute_notebook", dies)
    assert attempt.attempt(planned, run, 1, threading.Event()) == ("ValueError: no" if fails else None)
    assert begun[0].is_dir()
    attempts.end(begun[0])
    assert not begun[0].exists()


def test_a_failure_beside_a_result_is_none(planned, here, notebook, monkeypatch):
    """Of two attempts at a run one fails when the other is done already."""
    run, real = planned["runs"][0], attempt.execute_notebook

    def late(*given, **named):
        monkeypatch.setattr(attempt, "execute_notebook", real)
        assert attempt.attempt(planned, run, 1, threading.Event()) is None
        raise ValueError("no")

    monkeypatch.setattr(attempt, "execute_notebook", late)
    assert attempt.attempt(planned, run, 1, threading.Event()) is None
    check_whole(here.runs / "s" / run["id"])


def test_an_attempt_that_cannot_begin_is_its_runs_error_only(planned, here, notebook, monkeypatch):
    first, second = planned["runs"]
    real = attempts.write_json

    def write(path, value):
        if first["id"] in str(path):
            raise OSError(28, "No space left on device")
        real(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(attempts, "write_json", write)
        errors = execute.run_study(planned, [None, None])
    assert errors == {first["id"]: "OSError: [Errno 28] No space left on device"}
    check_whole(here.runs / "s" / second["id"])
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()


def test_states_of_trainings_stay_until_a_run_is_published(planned, here, notebook):
    """An attempt that was killed after its last training, and one killed after it was published."""
    first, second = planned["runs"]
    states = [checkpoint(run["id"]) for run in (first, second)]
    finished = here.runs / "s" / first["id"]
    finished.mkdir()
    (finished / runs.METRICS).write_text("{}")
    attempts.clear("s")
    assert [file.exists() for file in states] == [False, True]
    assert attempt.attempt(planned, second, 1, threading.Event()) is None
    assert not states[1].parent.parent.exists()


def _after(count: int, refused):
    """`write_json` that works `count` times."""
    real, calls = attempts.write_json, []

    def write(*given):
        calls.append(given)
        return real(*given) if len(calls) <= count else refused()

    return write


@pytest.fixture
def slow(monkeypatch):
    """Every call by which a folder changes, or is looked into, takes a while before it acts and after."""

    def delayed(function):
        def call(*given, **named):
            time.sleep(0.02)
            result = function(*given, **named)
            time.sleep(0.02)
            return result

        return call

    for name in ("rename", "replace", "mkdir", "rmdir", "utime"):
        monkeypatch.setattr(os, name, delayed(getattr(os, name)))


def test_a_slow_folder_shows_each_run_whole(planned, here, notebook, slow):
    """Two attempts at once at each of two runs, and somebody who looks all the time."""
    ended, seen, errors = threading.Event(), set(), []

    def look() -> None:
        while not ended.is_set():
            for row in status.rows(planned):
                seen.add((row["run"], row["state"]))
                if row["state"] == "done":
                    check_whole(here.runs / "s" / row["run"])

    def execute_once(run: dict) -> None:
        errors.append(attempt.attempt(planned, run, 1, threading.Event()))

    looking = _caught(look)
    working = [_caught(lambda run=run: execute_once(run)) for run in planned["runs"] * 2]
    for thread, _ in working:
        thread.join()
    ended.set()
    looking[0].join()
    assert [raised for _, raised in (looking, *working) if raised] == []
    assert errors == [None] * 4
    assert {state for _, state in seen} <= {"waiting", "running", "done"}
    assert (RUN, "running") in seen
    for run in planned["runs"]:
        check_whole(here.runs / "s" / run["id"])
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()
    assert not (here.runs / "s" / runs.CHECKPOINTS).exists()
    assert status.counts(status.rows(planned)) == "2 done, 0 failed, 0 waiting"


def _caught(work) -> tuple[threading.Thread, list]:
    """A started thread, and what it raised."""
    raised = []

    def call() -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, raised


def test_a_slow_folder_executes_each_run_once(planned, here, notebook, slow):
    assert execute.run_study(planned, [None, None]) == {}
    assert len(notebook) == 2
    for run in planned["runs"]:
        check_whole(here.runs / "s" / run["id"])
    assert execute.run_study(planned, [None, None]) == {}
    assert len(notebook) == 2


def test_a_slow_beat_is_not_taken_for_dead(planned, monkeypatch):
    """On another host, up to SILENT_S; the clock is the folder's, so that a host whose own is wrong is believed."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(attempts.socket, "gethostname", lambda: "another")
        work = attempts.begin("s", RUN)
    now = (work / attempts.BEAT).stat().st_mtime
    for silent_s, alive in ((attempts.SILENT_S / 2, True), (attempts.SILENT_S + 1, False)):
        os.utime(work / attempts.BEAT, (now - silent_s, now - silent_s))
        assert [record["alive"] for record in attempts.under_way("s")] == [alive]
    monkeypatch.setattr(attempts.time, "time", lambda: now + 1e6)
    os.utime(work / attempts.BEAT)
    assert [record["alive"] for record in attempts.under_way("s")] == [True]


@pytest.mark.parametrize("again", [False, True])
def test_an_attempt_that_was_taken_for_dead_is_not_mixed_with_the_next(planned, here, notebook, monkeypatch, again):
    """Its host was suspended, or could not reach the folder; it goes on when another host has cleared it away."""
    run, real, begun = planned["runs"][0], attempt.execute_notebook, []

    def wakes_late(source, target, *given, **named):
        (begin,) = (here.runs / "s" / runs.ATTEMPTS).iterdir()
        os.utime(begin / attempts.BEAT, (1e9, 1e9))
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "another")
            attempts.clear("s")
            attempts.forget("s")
            assert attempts.tries("s") == []
            if again:
                begun.append(attempts.begin("s", run["id"]))
        target.parent.mkdir(parents=True, exist_ok=True)  # as every write through a temporary name does
        real(source, target, *given, **named)

    monkeypatch.setattr(attempt, "execute_notebook", wakes_late)
    error = attempt.attempt(planned, run, 1, threading.Event())
    assert error == "LostRun: the folder of attempt 1 was removed, or given to another, while it was under way"
    assert healing.may_heal(error)
    assert state.of(planned, run) == "waiting"
    assert [(work.name, sorted(path.name for path in work.iterdir())) for work in begun] == (
        [(f"{RUN}.2", sorted([attempts.ATTEMPT, attempts.BEAT]))] if again else []
    )


def test_the_neighbours_of_a_run_are_those_of_its_study_on_its_machine(planned, here, monkeypatch):
    told = []
    monkeypatch.setattr(attempt, "execute_notebook", lambda *_, **env: told.append(env[runs.NEIGHBOURS]))
    first, second = planned["runs"]
    attempt.attempt(planned, first, 1, threading.Event())
    beside = attempts.begin("s", second["id"])
    attempt.attempt(planned, first, 1, threading.Event())
    attempts.end(beside)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another")
        attempts.begin("s", second["id"])
    attempt.attempt(planned, first, 1, threading.Event())
    assert told == ["0", "1", "0"]
