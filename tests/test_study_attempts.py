"""Who executes which run: records that any process reads, and one result of two attempts at a run."""

import json
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import psutil
import pytest

from lib import runs
from lib.files import read_json, write_json
from lib.study import attempts, status
from lib.study.attempt import publish
from lib.study.healing import may_heal

RUN, OTHER = "stub-namea-seed1", "stub-nameb-seed1"


def elsewhere(monkeypatch, name: str = "another") -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)


def finished(folder, value: int):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / runs.METRICS, {"wall_s": 1.0, "value": value})
    return folder


def alive() -> list[dict]:
    return [record for record in attempts.under_way("s") if record["alive"]]


def test_attempts_have_numbers_of_their_own(planned):
    made = []
    threads = [threading.Thread(target=lambda: made.append(attempts.begin("s", RUN))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(work.name for work in made) == [f"{RUN}.{n}" for n in range(1, 9)]
    attempts.failed("s", RUN, 12, "it failed")
    assert attempts.begin("s", RUN).name == f"{RUN}.13"


@pytest.fixture
def hasty():
    """Threads take turns so often that what may come between two looks at a folder does come."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_attempts_begin_and_are_looked_at_while_others_end(planned, hasty):
    """The last that ends takes the folder of all of them along."""
    raised = []

    def repeat(act) -> None:
        try:
            for _ in range(300):
                act()
        except OSError as error:
            raised.append(error)

    acts = [lambda run=run: attempts.end(attempts.begin("s", run)) for run in ("a", "a", "b", "b")]
    threads = [threading.Thread(target=repeat, args=[act]) for act in (*acts, lambda: attempts.under_way("s"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


def test_failures_are_written_while_a_new_start_forgets_the_earlier_ones(planned, hasty):
    raised, ended = [], threading.Event()

    def forget() -> None:
        while not ended.is_set():
            attempts.forget("s")

    thread = threading.Thread(target=forget)
    thread.start()
    for number in range(300):
        try:
            attempts.failed("s", RUN, number, "it failed")
        except OSError as error:
            raised.append(error)
    ended.set()
    thread.join()
    assert raised == []
    attempts.failed("s", RUN, 300, "it failed")
    attempts.forget("s")
    assert attempts.tries("s") == []


def test_an_attempt_lives_as_long_as_its_process(planned):
    work = attempts.begin("s", RUN)
    assert [record["process"] for record in alive()] == [os.getpid()]
    record = read_json(work / attempts.ATTEMPT)
    write_json(work / attempts.ATTEMPT, record | {"born": record["born"] - 100})  # the number was given anew
    assert alive() == []
    assert [one["run"] for one in attempts.clear("s")] == [RUN]
    assert not work.parent.exists()


def test_on_another_host_it_lives_as_long_as_it_says_so(planned, monkeypatch):
    elsewhere(monkeypatch)
    work = attempts.begin("s", RUN)
    monkeypatch.undo()
    # the folders of the bench went with the undo: read through the record's own place
    from lib import paths

    monkeypatch.setattr(paths, "RUNS", work.parents[2])
    assert [record["host"] for record in alive()] == ["another"]
    past = (work / attempts.BEAT).stat().st_mtime - attempts.SILENT_S - 1
    os.utime(work / attempts.BEAT, (past, past))
    assert alive() == []
    assert "attempt 1 on another ended without a word" in attempts.lost(attempts.clear("s")[0])


@pytest.mark.parametrize("change", [{"system": "another boot pid:[1]"}, {"system": None}, "old"], ids=str)
def test_a_process_of_another_container_or_boot_is_not_looked_up(planned, change):
    """Though the host has our name; nor one of a record that does not say where it is from."""
    work = attempts.begin("s", RUN)
    record = read_json(work / attempts.ATTEMPT) | {"process": 2**22 + 1}  # none is
    write_json(work / attempts.ATTEMPT, record)
    assert alive() == []
    if change == "old":
        del record["system"]
        change = {}
    write_json(work / attempts.ATTEMPT, record | change)
    assert len(alive()) == 1
    os.utime(work / attempts.BEAT, (1e9, 1e9))
    assert alive() == []


def test_a_clock_that_is_put_kills_nobody(planned, monkeypatch):
    """What the system calls the time of its start goes with the clock, and every process's start with that."""
    attempts.begin("s", RUN)
    boot, create = psutil.boot_time, psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: boot() + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create(self) + 3600)
    assert len(alive()) == 1


def test_a_beat_in_the_future_is_none(planned, monkeypatch):
    with monkeypatch.context() as patch:
        elsewhere(patch)
        work = attempts.begin("s", RUN)
    future = (work / attempts.BEAT).stat().st_mtime + attempts.SILENT_S + 10
    os.utime(work / attempts.BEAT, (future, future))
    assert alive() == []


def test_what_died_before_it_had_a_record_goes_when_it_is_silent(planned, here):
    folder = here.runs / "s" / runs.ATTEMPTS
    fresh, silent, unbeaten = (folder / f"{RUN}.{n}" for n in (1, 2, 3))
    for work in (fresh, silent, unbeaten):
        work.mkdir(parents=True)
    spared = folder / f"{OTHER}.1"
    spared.mkdir()
    (silent / attempts.BEAT).touch()
    for path in (silent / attempts.BEAT, unbeaten, spared):
        os.utime(path, (1e9, 1e9))
    assert attempts.clear("s", spare=[OTHER]) == []
    assert sorted(work.name for work in folder.iterdir()) == [f"{RUN}.1", f"{OTHER}.1"]
    attempts.clear("s")
    assert [work.name for work in folder.iterdir()] == [f"{RUN}.1"]


def test_spared_runs_keep_their_attempts(planned, monkeypatch):
    with monkeypatch.context() as patch:
        elsewhere(patch)
        made = [attempts.begin("s", run) for run in (RUN, OTHER)]
    for work in made:
        os.utime(work / attempts.BEAT, (1e9, 1e9))
    assert [record["run"] for record in attempts.clear("s", {OTHER})] == [RUN]
    assert [work.exists() for work in made] == [False, True]


def test_beats_while_it_lives(planned, monkeypatch):
    monkeypatch.setattr(attempts, "BEAT_S", 0.01)
    work = attempts.begin("s", RUN)
    os.utime(work / attempts.BEAT, (0, 0))
    with attempts.beating(work):
        while (work / attempts.BEAT).stat().st_mtime == 0:
            pass


def test_of_two_results_the_first_stays(tmp_path):
    directory = tmp_path / "run"
    assert publish(finished(tmp_path / "run.1", 1), directory)
    assert not publish(finished(tmp_path / "run.2", 2), directory)
    assert read_json(directory / runs.METRICS)["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_result_takes_the_place_of_a_failure(tmp_path):
    write_json(tmp_path / "run" / runs.ERROR, {"error": "before"})
    assert publish(finished(tmp_path / "run.2", 2), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [runs.METRICS]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("number", range(20))
def test_many_results_at_once_leave_one_whole(tmp_path, number):
    write_json(tmp_path / "run" / runs.ERROR, {"error": "before"})
    made = [finished(tmp_path / f"run.{n}", n) for n in range(6)]
    for n, folder in enumerate(made):
        (folder / "table.csv").write_text(f"value\n{n}\n")
    gate, told = threading.Barrier(6), []

    def go(folder):
        gate.wait()
        told.append(publish(folder, tmp_path / "run"))

    threads = [threading.Thread(target=go, args=[folder]) for folder in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    value = read_json(tmp_path / "run" / runs.METRICS)["value"]
    assert (tmp_path / "run" / "table.csv").read_text() == f"value\n{value}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sum(told) >= 1


def test_a_result_put_aside_by_a_process_that_died_comes_back(planned, here):
    finished(here.runs / "s" / runs.ATTEMPTS / f".{RUN}.77-1", 7)
    attempts.clear("s")
    assert read_json(here.runs / "s" / RUN / runs.METRICS)["value"] == 7


@pytest.mark.parametrize(
    ("error", "heals"),
    [
        ("DeadKernelError: Kernel died", True),
        ("OutOfMemoryError: CUDA out of memory", True),
        ("MemoryError: no message", True),
        ("OSError: [Errno 28] No space left on device", False),
        ("ValueError: density is 2", False),
        ("RuntimeError: told to fail", False),
    ],
)
def test_what_may_heal(error, heals):
    assert may_heal(error) is heals


def rows(planned) -> dict[str, dict]:
    return {row["run"]: row for row in status.rows(planned)}


def test_status_of_every_kind(planned, here, monkeypatch):
    first, second = (run["id"] for run in planned["runs"])
    assert {row["state"] for row in rows(planned).values()} == {"waiting"}
    work = attempts.begin("s", first, gpu="1")
    found = rows(planned)[first]
    assert (found["state"], found["attempt"], found["detail"]) == ("running", 1, "started")
    assert found["where"] == f"{socket.gethostname()} GPU 1"
    given = {"host": "n1", "gpu": "1", "slurm": "5_0"}
    assert attempts.where(given | {"restarts": 0}) == "n1 GPU 1, SLURM 5_0"
    assert attempts.where(given | {"restarts": 2}) == "n1 GPU 1, SLURM 5_0, restart 2"
    state_of = {"what": "training", "epoch": 2, "epochs": 4, "train_loss": 1.0, "test_top1_pct": 50.0, "left_s": 20}
    write_json(work / runs.PROGRESS, state_of)
    assert "epoch 2 of 4" in rows(planned)[first]["detail"]
    monkeypatch.setattr(psutil, "Process", _gone)
    assert rows(planned)[first]["state"] == "lost"
    assert "ended without a word" in rows(planned)[first]["detail"]
    monkeypatch.undo()


def _gone(process):
    raise psutil.NoSuchProcess(process)


def test_status_of_what_ended(planned, here):
    first, second = (run["id"] for run in planned["runs"])
    finished(here.runs / "s" / first, 1)
    write_json(here.runs / "s" / second / runs.ERROR, {"error": "ValueError: no"})
    attempts.failed("s", second, 1, "ValueError: no")
    found = rows(planned)
    assert (found[first]["state"], found[first]["detail"]) == ("done", "1.0 s")
    assert (found[second]["state"], found[second]["attempt"], found[second]["detail"]) == (
        "failed",
        1,
        "ValueError: no",
    )
    assert status.counts(list(found.values())) == "1 done, 1 failed, 0 waiting"


def test_looking_at_attempts_of_this_host_writes_nothing(planned, monkeypatch):
    """A process that is killed while it looks would leave it behind."""
    work = attempts.begin("s", RUN)
    monkeypatch.setattr(attempts.tempfile, "TemporaryFile", lambda **_: pytest.fail("a file was made"))
    assert [one["alive"] for one in attempts.under_way("s")] == [True]
    attempts.end(work)


def test_a_folder_that_leads_nowhere_is_an_error(planned, here):
    (here.runs / "s" / runs.ATTEMPTS).symlink_to(here.root / "missing")
    with pytest.raises(FileNotFoundError):
        attempts.begin("s", RUN)
    shutil.rmtree(here.runs)
    here.runs.symlink_to(here.root / "not mounted")
    with pytest.raises(FileNotFoundError):
        attempts.begin("s", RUN)


@pytest.mark.parametrize("number", [0, -1, 10**6, int("9" * 4000)])
def test_numbers_that_are_none_of_ours_count_for_nothing(planned, here, number):
    work = attempts.begin("s", RUN)
    folder = here.runs / "s" / attempts.TRIES
    folder.mkdir()
    (folder / f"{RUN}.1.json").write_text(f'{{"run": "{RUN}", "number": {number}, "error": "no"}}')
    (folder / f"{RUN}.{'9' * 200}{attempts.LOST}").touch()
    record = read_json(work / attempts.ATTEMPT)
    (work / attempts.ATTEMPT).write_text(json.dumps(record | {"number": number}))
    assert attempts.begin("s", RUN).name == f"{RUN}.2"


def test_a_folder_that_cannot_be_read_for_a_moment_stays_ours(planned, here, monkeypatch):
    work = attempts.begin("s", RUN)
    assert attempts.still_ours(work)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", _refuse)
        assert attempts.still_ours(work)
        patch.setattr(Path, "lstat", _refuse)
        assert attempts.still_ours(work)
    write_json(work / attempts.ATTEMPT, read_json(work / attempts.ATTEMPT) | {"host": "another"})
    assert not attempts.still_ours(work)
    shutil.rmtree(work)
    assert not attempts.still_ours(work)


def _refuse(*_, **__):
    raise OSError(5, "Input/output error")


def test_what_died_elsewhere_keeps_its_number_until_its_run_is_done(planned, here, monkeypatch):
    """With a record or before it had one; and what has no number kept for it stays."""
    folder = here.runs / "s" / runs.ATTEMPTS
    with monkeypatch.context() as patch:
        elsewhere(patch)
        silent = [attempts.begin("s", RUN), attempts.begin("s", RUN)]
    (silent[1] / attempts.ATTEMPT).unlink()
    for work in silent:
        os.utime(work / attempts.BEAT, (1e9, 1e9))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", _refuse)
        attempts.clear("s")
    assert sorted(work.name for work in folder.iterdir()) == [f"{RUN}.1", f"{RUN}.2"]
    attempts.clear("s")
    assert not folder.exists()
    attempts.forget("s")
    work = attempts.begin("s", RUN)
    assert work.name == f"{RUN}.3"
    attempts.end(work)
    finished(here.runs / "s" / RUN, 1)
    attempts.clear("s")
    assert list((here.runs / "s" / attempts.TRIES).iterdir()) == []


def test_a_new_start_removes_what_a_killed_process_half_wrote(planned, here):
    attempts.failed("s", RUN, 1, "it failed")
    folder = here.runs / "s" / attempts.TRIES
    for name, old in ((".1.r.json", True), (".2.r.json", False)):
        (folder / name).touch()
        if old:
            os.utime(folder / name, (1e9, 1e9))
    attempts.forget("s")
    assert [path.name for path in folder.iterdir()] == [".2.r.json"]


def test_only_what_lives_is_a_neighbour(planned, monkeypatch):
    mine, other = attempts.begin("s", RUN), attempts.begin("s", OTHER)
    assert attempts.beside("s", mine) == 1
    record = read_json(other / attempts.ATTEMPT)
    write_json(other / attempts.ATTEMPT, record | {"born": record["born"] - 100})
    assert attempts.beside("s", mine) == 0


def test_numbers_come_to_an_end(planned, here):
    folder = here.runs / "s" / attempts.TRIES
    folder.mkdir()
    (folder / f"{RUN}.{attempts.NUMBERS[-1]}{attempts.LOST}").mkdir()
    with pytest.raises(OSError, match="no number is left"):
        attempts.begin("s", RUN)
    finished(here.runs / "s" / RUN, 1)
    attempts.clear("s")  # whatever lies there under such a name
