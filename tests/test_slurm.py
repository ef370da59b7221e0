"""Studies on a real SLURM of one node, without accounting: whatever dies, each run is done once, or says why not."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from slurm_cluster import Slurm, Unavailable, install, said
from stub_study import PATIENCE_S, STUB, until, write_notebook

from lib import runs
from lib.files import SAVE_NOW, listed
from lib.study import attempts, private, slurm, state, status
from lib.study.cluster import Cluster

PATIENT_S = 240  # of one step, on a machine that others use too
SOON_S = 30  # from an event to a status that tells of it

# Keeps a state where it is asked for one, and says so when it goes on from it.
SAVING = (
    STUB[0],
    STUB[1].replace('begin("stub"', 'begin("saving"'),
    f"""file = runs.checkpoint(run, "training")
asked = file.with_name("{SAVE_NOW}")
resumed = file.is_file()
while not log.with_name("go").exists():
    if asked.is_file() and not file.is_file():
        file.write_text("state")
    time.sleep(0.05)
before = 100 if resumed else 0""",
    STUB[3],
)


@pytest.fixture(scope="module")
def cluster():
    """One SLURM for the tests of this file; of several processes that run them, one at a time has its own."""
    with FileLock(Path(tempfile.gettempdir()) / f"workbench-slurm-{os.getuid()}.lock"):
        slurm, path = None, os.environ["PATH"]
        try:
            try:
                install()
                slurm = Slurm()
                slurm.start()
            except (Unavailable, OSError, subprocess.SubprocessError, TimeoutError) as error:
                pytest.skip(f"no SLURM for tests: {error}")
            yield slurm
        finally:
            if slurm:
                slurm.stop()
            os.environ["PATH"] = path


@pytest.fixture
def sweep(cluster, here, monkeypatch):
    """A workbench whose runs go to the cluster; its jobs are gone after the test."""
    monkeypatch.setenv(private.FOLDER, str(here.root / "submit"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here.root / "config"))
    write_notebook(here.notebooks, "saving", SAVING)
    yield here
    here.close()  # drivers first, they would submit again
    said("scancel", "--quiet", "-u", str(os.getuid()))
    cluster.wait(lambda: not said("squeue", "-h"), PATIENT_S)


@contextlib.contextmanager
def small_disk(place: Path):
    """A disk of a few MiB at `place` inside the `with`; yields a function that fills it and returns the file to remove.

    Or None where that is not allowed: it is root's right, and not in every container.
    """
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", place], capture_output=True).returncode:
        yield None
        return

    def fill() -> Path:
        with contextlib.suppress(OSError), (place / "filling").open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        return place / "filling"

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


SUBMIT = ("--engine", "slurm", "--mem", "200M")


def names(*values: str, notebook: str = "stub", **fixed) -> dict:
    return {"notebook": notebook, "fixed": {"act": "wait"} | fixed, "grid": {"name": list(values)}}


def attempt(sweep, run: str) -> dict:
    """The record of the attempt at `run` that is under way, once there is one."""
    return until(lambda: _newest(sweep.runs / "s" / runs.ATTEMPTS, run), PATIENT_S)


def _newest(folder: Path, run: str) -> dict | None:
    found = [one for work in listed(folder, f"{run}.*") if (one := attempts.read(work))]
    return max(found, key=lambda one: one["number"], default=None)


def rows(sweep) -> dict[str, dict]:
    """What another process says at this moment."""
    return {row["run"]: row for row in status.now(state.plan("s"))}


def become(sweep, run: str, *allowed: str, seconds: float = PATIENT_S) -> dict:
    """The row of `run` when it has one of the `allowed` states."""
    return until(lambda: (row := rows(sweep)[run])["state"] in allowed and row, seconds)


def task(sweep, run: str) -> str:
    return json.loads((sweep.runs / "s" / ".jobs" / f"{run}.json").read_text())["task"]


def kill_kernel(record: dict) -> None:
    for child in psutil.Process(record["process"]).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ipykernel_launcher" in child.cmdline():
                child.kill()
                return
    raise AssertionError("no kernel")


def test_kernel_killed_process_killed_one_cancelled_and_a_full_disk(sweep):
    """The others go on; what a machine may do wrong is tried again; what a person ended or cannot be written is not."""
    with small_disk(sweep.runs) as fill:
        _killed_and_cancelled(sweep)
        if fill:
            _full(sweep, fill)
        before = sweep.done("s")
        again = sweep.run("run", "s", *SUBMIT)
        assert (again.returncode, again.stderr) == (0, "")
        assert before.items() <= sweep.done("s").items()
        assert len(sweep.done("s")) == 4
        assert not (sweep.runs / "s" / runs.ATTEMPTS).exists()
    if not fill:
        pytest.skip("nothing can be mounted here: all but a full disk was shown")


def _killed_and_cancelled(sweep):
    kernel, process, cancelled, other = (f"stub-name{name}-seed1" for name in "abcd")
    sweep.write("s", names("a", "b", "c", "d"))
    driver = sweep.start("run", "s", *SUBMIT)
    until(lambda: len(sweep.executed()) == 4, PATIENT_S)
    table = rows(sweep)
    assert {row["state"] for row in table.values()} == {"running"}
    assert "SLURM" in table[other]["where"]
    kill_kernel(attempt(sweep, kernel))
    psutil.Process(attempt(sweep, process)["process"]).kill()
    assert subprocess.run(["scancel", task(sweep, cancelled)]).returncode == 0
    assert "cancelled" in become(sweep, cancelled, "failed", seconds=SOON_S)["detail"]
    for run in (kernel, process):  # lost, in the queue once more, or at it again
        until(lambda run=run: (row := rows(sweep)[run])["state"] != "running" or row["attempt"] == 2, SOON_S)
    until(lambda: len(sweep.executed()) == 6, PATIENT_S)  # both are at it again
    assert rows(sweep)[other]["state"] == "running"
    sweep.go.touch()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert (driver.returncode, err) == (1, "")
    assert out.count("it is tried again") == 2
    assert f"failed: {cancelled}: cancelled" in out
    assert sorted(sweep.executed()) == sorted([kernel, process] * 2 + [cancelled, other])
    assert set(sweep.done("s")) == {kernel, process, other}
    assert rows(sweep)[cancelled]["state"] == "failed"


def _full(sweep, fill):
    """The run that is left fails with the error of the disk, once, and nothing of it is published."""
    (left,) = set(rows(sweep)) - set(sweep.done("s"))
    sweep.go.unlink()
    driver = sweep.start("run", "s", *SUBMIT)
    until(lambda: len(sweep.executed()) == 7, PATIENT_S)
    fill()
    before = sweep.done("s")
    sweep.go.touch()
    row = become(sweep, left, "failed")
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert (driver.returncode, err) == (1, "")
    for text in (row["detail"], out):
        assert "OSError: [Errno 28] No space left on device" in text
    assert sweep.executed()[6:] == [left]
    assert sweep.done("s") == before
    assert not (sweep.runs / "s" / left / runs.NOTEBOOK).exists()
    filling = fill()  # what the attempt took is free again
    refused = sweep.run("run", "s", *SUBMIT)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in refused.stderr
    filling.unlink()


def test_requeue_time_limit_a_failed_source_and_a_second_execution(sweep):
    """The driver has left; a task that is requeued goes on from its state, and one that was done changes nothing."""
    plain, saving = "stub-namea-seed1", "saving-nameb-seed1"
    bad, after = "stub-namebad-seed1", "stub-nameafter-seed1"
    failing = names("bad", act="raise"), names("after", act="", source=bad)
    sweep.write("s", names("a"), names("b", notebook="saving"), *failing)
    left = sweep.run("run", "s", *SUBMIT, "--detach")
    assert (left.returncode, left.stderr) == (0, "")
    until(lambda: len(sweep.executed()) == 3, PATIENT_S)
    numbers = {run: task(sweep, run) for run in (plain, saving)}
    limit = ["scontrol", "update", f"JobId={numbers[saving]}"]
    assert subprocess.run([*limit, "TimeLimit=2"]).returncode == 0  # the warning comes 30 s after the start or later
    assert subprocess.run(["scontrol", "requeue", numbers[plain]]).returncode == 0
    assert become(sweep, bad, "failed")["detail"] == "RuntimeError: told to fail"
    assert become(sweep, after, "failed")["detail"] == f"not started: its source {bad} failed"
    saved = sweep.runs / "s" / runs.CHECKPOINTS / saving / "training.pt"
    until(saved.is_file, PATIENT_S)  # the warning reached the kernel
    until(lambda: attempt(sweep, saving)["restarts"] == 1, PATIENT_S)
    assert subprocess.run([*limit, "TimeLimit=60"]).returncode == 0
    until(lambda: len(sweep.executed()) == 5, PATIENT_S)
    for run in numbers:
        assert attempt(sweep, run)["restarts"] == 1
        assert task(sweep, run) == numbers[run]
    sweep.go.touch()
    for run in numbers:
        become(sweep, run, "done")
    assert {run: found["value"] for run, found in sweep.values("s").items()} == {plain: 2, saving: 102}

    before = sweep.done("s")
    until(lambda: not said("squeue", "-h"), PATIENT_S)  # what waited for the failed one has had its turn
    assert subprocess.run(["scontrol", "requeue", numbers[plain]]).returncode == 0
    until(lambda: said("squeue", "-h", "-t", "running"), PATIENT_S)
    until(lambda: not said("squeue", "-h"), PATIENT_S)
    assert sweep.done("s") == before
    assert len(sweep.executed()) == 5
    assert {run: row["state"] for run, row in rows(sweep).items()} == {
        **dict.fromkeys(numbers, "done"),
        **dict.fromkeys((bad, after), "failed"),
    }
    assert not (sweep.runs / "s" / runs.ATTEMPTS).exists()


def test_driver_and_node_die_and_two_drivers_go_on(sweep, cluster):
    first, second, after = "stub-namea-seed1", "stub-nameb-seed1", "stub-nameafter-seed1"
    sweep.write("s", names("a", "b"), names("after", source=first, act=""))
    driver = sweep.start("run", "s", *SUBMIT)
    until(lambda: len(sweep.executed()) == 2, PATIENT_S)
    driver.kill()
    driver.communicate()
    begun = time.monotonic()
    assert rows(sweep)[after]["state"] == "waiting"
    numbers = {run: task(sweep, run) for run in (first, second, after)}
    drivers = [sweep.start("run", "s", *SUBMIT) for _ in range(2)]
    time.sleep(max(0.0, 11 - (time.monotonic() - begun)))  # SLURM puts only older jobs back at once
    cluster.kill_node()
    for run in (first, second):
        assert rows(sweep)[run]["state"] != "running"
    cluster.start_node()
    until(lambda: len(sweep.executed()) == 4, PATIENT_S)
    assert {run: task(sweep, run) for run in numbers} == numbers  # it was SLURM that started them again
    sweep.go.touch()
    ends = [one.communicate(timeout=PATIENCE_S) for one in drivers]
    assert [one.returncode for one in drivers] == [0, 0]
    assert all(err == "" for _, err in ends)
    assert sorted(sweep.executed()) == sorted([first, second] * 2 + [after])
    assert {run: found["value"] for run, found in sweep.values("s").items()} == {first: 2, second: 2, after: 7}
    assert not (sweep.runs / "s" / runs.ATTEMPTS).exists()
    assert (sweep.root / "submit").stat().st_mode & 0o077 == 0
    until(lambda: not said("squeue", "-h"), PATIENT_S)
    assert slurm.run_study(state.plan("s"), Cluster()) == {}  # nothing is left to do but to tidy up
    assert private.kept(private.place("s")) == {}
