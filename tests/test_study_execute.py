"""Interruption and failure of a study, with a notebook that only waits: whatever dies, a finished run stays."""

import contextlib
import json
import math
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock
from jupyter_core.utils import ensure_event_loop
from stub_study import PATIENCE_S, gone, kernels, until

from lib import command, machine, paths, runs
from lib.study import attempt, execute, state
from lib.study.__main__ import main

TWO = [None, None]  # places of two runs at once on a machine without a GPU


def names(*values: str, **fixed) -> dict:
    return {"notebook": "stub", "fixed": fixed, "grid": {"name": list(values)}}


def states(study: str) -> dict[str, str]:
    planned = state.plan(study)
    return {run["id"]: state.of(planned, run) for run in planned["runs"]}


def test_killed_driver_goes_on_where_it_was(here):
    """And the start after it is two starts at once: one works, the other waits and finds nothing left."""
    here.write("s", names("one"))
    assert here.run("run", "s").returncode == 0
    here.write("s", names("one"), names("four", act="wait"), names("five", source="stub-namefour-seed{seed}"))
    driver = here.start("run", "s", "--jobs", "2")
    until(lambda: len(here.executed()) == 2)
    children = kernels(driver)
    assert len(children) == 1
    driver.kill()
    driver.communicate()
    before = here.done("s")
    assert sorted(states("s").values()) == ["done", "waiting", "waiting"]
    until(lambda: gone(children))  # orphans end by themselves
    assert before == here.done("s")

    here.go.touch()
    drivers = [here.start("run", "s", "--jobs", "2") for _ in range(2)]
    ends = [again.communicate(timeout=PATIENCE_S) for again in drivers]
    assert [again.returncode for again in drivers] == [0, 0]
    assert all(err == "" for _, err in ends)
    assert any("waiting for it to end" in out for out, _ in ends)
    after = here.done("s")
    assert {run: after[run] for run in before} == before  # content and time of writing
    assert sorted(here.executed()[2:]) == sorted(set(after) - set(before))  # each once
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()
    values = {run: found["value"] for run, found in here.values("s").items()}
    assert values == {"stub-nameone-seed1": 4, "stub-namefour-seed1": 5, "stub-namefive-seed1": 9}


def test_failing_cell_and_killed_kernel_leave_the_others(here, capsys):
    here.write("s", names("bad", act="raise"), names("good"))
    failed = here.run("run", "s", "--jobs", "1")
    assert (failed.returncode, failed.stderr) == (1, "")
    assert "failed: stub-namebad-seed1: RuntimeError: told to fail" in failed.stdout
    assert "1 of 2 runs failed" in failed.stdout
    check_failure(here.runs / "s" / "stub-namebad-seed1", "RuntimeError: told to fail", "second line")
    before = here.done("s")
    assert list(before) == ["stub-namegood-seed1"]

    here.write("s", names("bad"), names("good"), names("a", act="wait"))  # `bad` repaired
    driver = here.start("run", "s", "--jobs", "2")
    until(lambda: len(here.done("s")) == 2)
    for number in range(1 + execute.RETRIES):
        until(lambda number=number: here.executed().count("stub-namea-seed1") == 1 + number)
        (kernel,) = kernels(driver)
        kernel.kill()
        kernel.wait()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert (driver.returncode, err) == (1, "")
    assert out.count("it is tried again") == execute.RETRIES
    assert "1 of 3 runs failed" in out
    check_failure(here.runs / "s" / "stub-namea-seed1", "DeadKernelError: ", "runs.begin")
    assert not (here.runs / "s" / "stub-namebad-seed1" / runs.ERROR).exists()
    assert here.done("s")["stub-namegood-seed1"] == before["stub-namegood-seed1"]
    assert here.executed().count("stub-namegood-seed1") == 1
    assert main(["status", "s"]) == 1
    assert "2 done, 1 failed, 0 waiting" in capsys.readouterr().out


def test_a_kernel_killed_once_is_forgiven(here):
    here.write("s", names("a", act="wait"))
    driver = here.start("run", "s")
    until(lambda: here.executed())
    (kernel,) = kernels(driver)
    here.go.touch()
    kernel.kill()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert (driver.returncode, err) == (0, "")
    assert "DeadKernelError" in out
    assert list(here.values("s")) == ["stub-namea-seed1"]


def check_failure(folder, error: str, held: str) -> None:
    """A failed run keeps its notebook and says why, and does not count as done."""
    assert json.loads((folder / runs.ERROR).read_text())["error"].startswith(error)
    assert held in (folder / runs.NOTEBOOK).read_text()
    assert not (folder / runs.METRICS).exists()


def test_runs_whose_source_failed_are_not_started(here, monkeypatch):
    here.write(
        "s",
        names("bad"),
        names("after", source="stub-namebad-seed{seed}"),
        names("last", sources=["stub-nameafter-*"]),
        names("good"),
    )
    fake_attempts(monkeypatch, fails_to_publish="stub-namebad-seed1")
    ended = []
    watch = execute.Watch()
    watch.ended = lambda run, error: ended.append((run["id"], error))
    errors = execute.run_study(state.plan("s"), TWO, watch)
    assert errors["stub-nameafter-seed1"] == "not started: its source stub-namebad-seed1 failed"
    assert errors["stub-namelast-seed1"] == "not started: its source stub-nameafter-seed1 failed"
    assert list(here.done("s")) == ["stub-namegood-seed1"]
    assert sorted(ended) == sorted([*errors.items(), ("stub-namegood-seed1", None)])


def test_interrupt_leaves_no_kernel_and_no_half_run(here):
    here.write("s", names("a"), names("b", act="wait"))
    driver = here.start("run", "s", "--jobs", "2")
    until(lambda: len(here.done("s")) == 1 and len(here.executed()) == 2)
    children = kernels(driver)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130
    assert err == "interrupted: finished runs are kept, start again to go on\n"
    assert len(children) == 1
    assert gone(children)
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()
    assert sorted(states("s").values()) == ["done", "waiting"]


@pytest.mark.parametrize(("count", "gap_s"), [(2, 0.02), (2, 0.2), (4, 0.1)])  # the last with a nursery
def test_an_impatient_interrupt_is_one(here, count, gap_s):
    here.write("s", names(*"abcd"[:count], act="wait"))
    driver = here.start("run", "s", "--jobs", "2")
    until(lambda: len(here.executed()) == 2)
    children = kernels(driver)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        driver.send_signal(number)
        time.sleep(gap_s)
    _, err = driver.communicate(timeout=PATIENCE_S)
    assert (driver.returncode, err) == (130, "interrupted: finished runs are kept, start again to go on\n")
    assert len(children) == 2
    assert gone(children)
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_by_hand_leaves_nothing(here, number):
    here.write("s", names("a", "b", act="wait"))
    person = here.start("execute", "s", "stub-namea-seed1", "stub-nameb-seed1")
    until(here.executed)
    children = kernels(person)
    person.send_signal(number)
    _, err = person.communicate(timeout=PATIENCE_S)
    assert (person.returncode, err) == (130, "interrupted: finished runs are kept, start again to go on\n")
    assert len(children) == 1
    assert gone(children)
    assert here.executed() == ["stub-namea-seed1"]
    assert sorted(path.name for path in (here.runs / "s").iterdir()) == [state.PLAN]


def test_polite_kill_is_an_interrupt(here):
    here.write("s", names("a"))
    (here.runs / "s").mkdir(parents=True)
    with FileLock(here.runs / "s" / state.LOCK):
        driver = here.start("run", "s")
        assert "1 run, 0 done" in driver.stdout.readline()
        assert "waiting for it to end" in driver.stdout.readline()
        driver.send_signal(signal.SIGTERM)
        _, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130
    assert err.startswith("interrupted")
    assert here.executed() == []


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_keeps_finished_runs(here, small_disk, monkeypatch):
    here.runs = small_disk / "runs"
    monkeypatch.setattr(paths, "RUNS", here.runs)
    here.write("s", names("a"))
    assert here.run("run", "s").returncode == 0
    before = here.done("s")
    here.write("s", names("a", "b"))
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"0" * 512)
    ended = here.run("run", "s", "--jobs", "1")
    assert ended.returncode in (1, 2)
    assert "No space left on device" in ended.stdout + ended.stderr
    assert here.done("s") == before
    (small_disk / "filler").unlink()
    assert here.run("run", "s", "--jobs", "2").returncode == 0
    assert {run: here.done("s")[run] for run in before} == before
    assert len(here.done("s")) == 2


def test_full_disk_by_an_error(here, monkeypatch):
    """The same without a mount: the second of three runs meets ENOSPC while it is published."""
    here.write("s", names("a", "b", "c"))
    fake_attempts(monkeypatch, fails_to_publish="stub-nameb-seed1")
    errors = execute.run_study(state.plan("s"), TWO[:1])
    assert list(errors) == ["stub-nameb-seed1"]
    assert "No space left" in errors["stub-nameb-seed1"]
    assert sorted(states("s").values()) == ["done", "done", "waiting"]
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()


def fake_attempts(monkeypatch, fails_to_publish: str = "") -> None:
    from lib.study import attempt

    def notebook(source, target, parameters, *_, **env):
        (target.parent / runs.METRICS).write_text('{"wall_s": 1.0}')
        (target.parent / runs.RUN).write_text(json.dumps({"parameters": parameters}))

    def publish(work, directory):
        if directory.name == fails_to_publish:
            raise OSError(28, "No space left on device")
        os.rename(work, directory)

    monkeypatch.setattr(execute, "FORK_FROM", math.inf)
    monkeypatch.setattr(attempt, "execute_notebook", notebook)
    monkeypatch.setattr(attempt, "publish", publish)


class Recorded:
    """Stands in for `attempt`: sleeps, and notes who ran beside whom and with how many threads."""

    def __init__(self, monkeypatch, took_s: float = 0.05):
        self.running, self.together, self.threads, self.order = set(), {}, {}, []
        self.lock, self.took_s = threading.Lock(), took_s
        monkeypatch.setattr(execute, "FORK_FROM", math.inf)
        monkeypatch.setattr(execute, "attempt", self)

    def __call__(self, planned, run, threads, *_):
        with self.lock:
            self.running.add(run["id"])
            self.order.append(run["id"])
            self.threads[run["id"]] = threads
            for other in self.running:
                self.together.setdefault(other, set()).update(self.running)
        time.sleep(self.took_s)
        with self.lock:
            self.running.discard(run["id"])
        folder = state.folder(planned) / run["id"]
        folder.mkdir(parents=True)
        (folder / runs.METRICS).write_text("{}")
        return None


def test_exclusive_runs_are_alone_with_all_cores(here, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    alone = names("x", "y") | {"exclusive": True}
    here.write("s", names("a"), alone, names("b", "c", "d"))
    watched = Recorded(monkeypatch)
    assert execute.run_study(state.plan("s"), TWO) == {}
    for name in "xy":
        assert watched.together[f"stub-name{name}-seed1"] == {f"stub-name{name}-seed1"}
        assert watched.threads[f"stub-name{name}-seed1"] == 4
    assert {watched.threads[f"stub-name{name}-seed1"] for name in "abcd"} == {2}
    assert any(len(group) > 1 for group in watched.together.values())
    assert len(watched.order) == 6


def test_sources_come_first_and_jobs_bound_the_number(here, monkeypatch):
    here.write(
        "s",
        names("root"),
        names("a", "b", "c", "d", "e", source="stub-nameroot-seed{seed}"),
        names("end", sources=["stub-name?-*"]),
    )
    watched = Recorded(monkeypatch)
    assert execute.run_study(state.plan("s"), [None] * 3) == {}
    assert watched.order[0] == "stub-nameroot-seed1"
    assert watched.order[-1] == "stub-nameend-seed1"
    assert watched.together["stub-nameroot-seed1"] == {"stub-nameroot-seed1"}
    assert watched.together["stub-nameend-seed1"] == {"stub-nameend-seed1"}
    assert len(watched.order) == 7


def test_what_is_done_is_not_done_again(here, monkeypatch):
    here.write("s", names("a", "b"))
    watched = Recorded(monkeypatch, 0)
    execute.run_study(state.plan("s"), TWO)
    folder = here.runs / "s" / "stub-namea-seed1"
    for part in ("a", "b"):
        values = next(r for r in state.plan("s")["runs"] if r["id"] == f"stub-name{part}-seed1")["parameters"]
        (folder.with_name(f"stub-name{part}-seed1") / runs.RUN).write_text(json.dumps({"parameters": values}))
    assert execute.run_study(state.plan("s"), TWO) == {}
    assert sorted(watched.order) == ["stub-namea-seed1", "stub-nameb-seed1"]


def test_a_thread_leaves_no_event_loop_open(here, monkeypatch):
    """nbclient makes one for each thread that has none."""
    made = []
    monkeypatch.setattr(attempt.papermill, "execute_notebook", lambda *_, **__: made.append(ensure_event_loop()))
    execute.stoppable(lambda _: attempt.execute_notebook(here.root / "a.ipynb", here.root / "b.ipynb", {}))
    assert [loop.is_closed() for loop in made] == [True]
    attempt.execute_notebook(here.root / "a.ipynb", here.root / "b.ipynb", {})
    assert not made[1].is_closed(), "that of the main thread may be somebody else's"
    made[1].close()


@pytest.fixture
def interrupted_at_the_start(monkeypatch):
    """Ctrl-C comes when a thread of a pool has begun and nobody has noted it yet; yields what is stopped then."""
    stopped, stop = [], execute.stop

    class Pool(ThreadPoolExecutor):
        def submit(self, *given):
            future = super().submit(*given)
            os.kill(os.getpid(), signal.SIGINT)
            return future

    def noted(begun, stopping):
        stopped.extend(begun)
        stop(begun, stopping)

    monkeypatch.setattr(execute, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(execute, "stop", noted)
    before = {number: signal.getsignal(number) for number in command.SIGNALS}
    command.interruptible()
    yield stopped
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_call_that_has_just_begun_is_stopped_too(interrupted_at_the_start):
    with pytest.raises(KeyboardInterrupt):
        execute.stoppable(lambda stopping: stopping.wait())
    assert [future.done() for future in interrupted_at_the_start] == [True]


def test_a_run_that_has_just_begun_is_stopped_too(planned, interrupted_at_the_start, monkeypatch):
    monkeypatch.setattr(execute, "attempt", lambda planned, run, threads, stopping, *_: stopping.wait())
    with pytest.raises(KeyboardInterrupt):
        execute.run_study(planned, [None])
    assert [future.done() for future in interrupted_at_the_start] == [True]
