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
from lib.files import SAVE_NOW
from lib.study import private, state, status

PATIENT_S = 240  # of one step, on a machine that others use too

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


SUBMIT = ("--engine", "slurm", "--mem", "200M")


def names(*values: str, notebook: str = "stub", **fixed) -> dict:
    return {"notebook": notebook, "fixed": {"act": "wait"} | fixed, "grid": {"name": list(values)}}


def attempt(sweep, run: str) -> dict:
    """The record of the attempt at `run` that is under way, once there is one."""
    return until(lambda: _newest(sweep.runs / "s" / runs.ATTEMPTS, run), PATIENT_S)


def _newest(folder: Path, run: str) -> dict | None:
    found = [json.loads(path.read_text()) for path in folder.glob(f"{run}.*/attempt.json")]
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


def test_kernel_killed_process_killed_and_one_cancelled(sweep):
    """The others go on; what a machine may do wrong is tried again, what a person ended is not."""
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
    started = time.monotonic()
    row = become(sweep, cancelled, "failed")
    assert "cancelled" in row["detail"]
    assert time.monotonic() - started < PATIENT_S
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

    before = sweep.done("s")
    again = sweep.run("run", "s", *SUBMIT)
    assert (again.returncode, again.stderr) == (0, "")
    assert sweep.executed()[6:] == [cancelled]
    assert before.items() <= sweep.done("s").items()
    assert not (sweep.runs / "s" / runs.ATTEMPTS).exists()


def test_requeue_preemption_and_a_second_execution(sweep):
    """The driver has left; a task that is requeued goes on from its state, and one that was done changes nothing."""
    plain, saving = "stub-namea-seed1", "saving-nameb-seed1"
    sweep.write("s", names("a"), names("b", notebook="saving"))
    left = sweep.run("run", "s", *SUBMIT, "--detach")
    assert (left.returncode, left.stderr) == (0, "")
    until(lambda: len(sweep.executed()) == 2, PATIENT_S)
    numbers = {run: task(sweep, run) for run in (plain, saving)}
    assert subprocess.run(["scontrol", "requeue", numbers[plain]]).returncode == 0
    assert subprocess.run(["scancel", "--signal=USR2", numbers[saving]]).returncode == 0
    saved = sweep.runs / "s" / runs.CHECKPOINTS / saving / "training.pt"
    until(saved.is_file, PATIENT_S)  # the warning reached the kernel
    until(lambda: len(sweep.executed()) == 4, PATIENT_S)
    for run in numbers:
        assert attempt(sweep, run)["restarts"] == 1
        assert task(sweep, run) == numbers[run]
    sweep.go.touch()
    for run in numbers:
        become(sweep, run, "done")
    assert {run: found["value"] for run, found in sweep.values("s").items()} == {plain: 2, saving: 102}

    before = sweep.done("s")
    until(lambda: not said("squeue", "-h"), PATIENT_S)
    assert subprocess.run(["scontrol", "requeue", numbers[plain]]).returncode == 0
    until(lambda: said("squeue", "-h", "-t", "running"), PATIENT_S)
    until(lambda: not said("squeue", "-h"), PATIENT_S)
    assert sweep.done("s") == before
    assert len(sweep.executed()) == 4
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
