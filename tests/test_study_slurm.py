"""What a run on a cluster is, and what the driver does about it, without a cluster."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from types import SimpleNamespace

import pytest
from stub_study import ROOT, until
from submitit.core.utils import UncompletedJobError

from lib import files, runs
from lib.files import SAVE_NOW, write_json
from lib.study import attempts, jobs, judgement, private, slurm, squeue, state, status, submit, task
from lib.study.attempt import publish
from lib.study.cluster import Cluster
from lib.study.execute import Watch
from lib.study.task import LOOK_AGAIN_S, Task, warned

RUN, OTHER = "stub-namea-seed1", "stub-nameb-seed1"


@pytest.fixture
def queue(monkeypatch):
    """SLURM's answer, to be changed: task -> its state; `queue[None] = True` and it does not answer."""
    said = {}

    def look(records):
        tasks = {task: {"state": now, "where": "n1", "reason": "Why"} for task, now in said.items() if task}
        return None if None in said else {"tasks": tasks, "names": {"s-early": "9"}}

    monkeypatch.setattr(squeue, "look", look)
    return said


def row(planned: dict, run: str = RUN) -> tuple[str, str]:
    """State and detail."""
    found = next(one for one in status.rows(planned, judgement.queued(planned)) if one["run"] == run)
    return found["state"], found["detail"]


def ended(run: str) -> dict | None:
    return jobs.ended("s", run, jobs.records("s", [run])[run])


def begin(monkeypatch, task: str, host: str | None = None):
    monkeypatch.setenv(attempts.SLURM_TASK, task)
    with monkeypatch.context() as patch:
        if host:
            patch.setattr(socket, "gethostname", lambda: host)
        work = attempts.begin("s", RUN)
    monkeypatch.delenv(attempts.SLURM_TASK)
    return work


def silent(work) -> None:
    past = (work / attempts.BEAT).stat().st_mtime - attempts.SILENT_S - 1
    os.utime(work / attempts.BEAT, (past, past))


def finish(planned: dict, run: str) -> None:
    folder = state.folder(planned) / run
    parameters = next(one["parameters"] for one in planned["runs"] if one["id"] == run)
    files.write_json(folder / runs.RUN, {"parameters": parameters})
    files.write_json(folder / runs.METRICS, {"wall_s": 1.0})


@pytest.mark.parametrize("now", ["PENDING", "REQUEUE_HOLD", "COMPLETING", "SOMETHING_NEW"])
def test_in_the_queue(planned, queue, now):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = now
    assert row(planned)[0] == "waiting"
    assert "SLURM 5_0" in row(planned)[1]
    assert row(planned, OTHER) == ("waiting", "")


def test_running_until_it_says_nothing(planned, queue, monkeypatch):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = "RUNNING"
    assert row(planned) == ("waiting", "SLURM 5_0: begins on n1")
    work = begin(monkeypatch, "5_0", "n1")
    assert row(planned)[0] == "running"
    silent(work)
    assert row(planned) == ("waiting", "attempt 1 ended without a word, SLURM 5_0 goes on")
    queue["5_0"] = "FAILED"
    state_, detail = row(planned)
    assert state_ == "lost"
    assert "n1, SLURM 5_0 ended without a word" in detail
    assert "FAILED Why" in detail


def test_of_another_host_slurm_knows_sooner_than_the_beat(planned, queue, monkeypatch):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    begin(monkeypatch, "5_0", "n1")
    queue["5_0"] = "NODE_FAIL"
    assert row(planned)[0] == "lost"
    found = judgement.judged(planned, planned["runs"])[RUN]
    assert not found["free"]  # nobody else begins before it is silent


def test_of_this_host_the_process_counts(planned, queue, monkeypatch):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    begin(monkeypatch, "5_0")
    queue["5_0"] = "FAILED"  # its step's daemon died, the notebook carried on
    assert row(planned)[0] == "running"


def test_gone_without_a_word(planned, queue):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    assert row(planned) == ("lost", "LostRun: SLURM 5_0 is not there any more")


def test_no_answer_is_no_loss(planned, queue, monkeypatch):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue[None] = True
    assert row(planned) == ("waiting", "SLURM 5_0; SLURM does not answer here")
    work = begin(monkeypatch, "5_0", "n1")
    assert row(planned)[0] == "running"
    silent(work)
    assert row(planned)[0] == "waiting"
    finish(planned, RUN)
    assert row(planned)[0] == "done"


def test_cancelled_by_a_person(planned, queue):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = "CANCELLED"
    assert row(planned) == ("failed", "cancelled (SLURM 5_0)")


def test_to_look_imports_neither_papermill_nor_submitit():
    """Either takes seconds."""
    code = "import sys, lib.study.__main__; print(*{'papermill', 'submitit', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_slurm_is_not_asked_about_what_is_done(planned, monkeypatch):
    for run in (RUN, OTHER):
        jobs.write("s", run, "s-1", 0, "5_0")
        finish(planned, run)
    monkeypatch.setattr(squeue, "_output", lambda *_: pytest.fail("asked"))
    assert {one["state"] for one in status.now(planned)} == {"done"}


def test_what_the_task_said_counts_at_once(planned, queue):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = "RUNNING"  # with the next run of its group
    jobs.end("s", RUN, "s-1", "ValueError: no")
    assert row(planned) == ("failed", "ValueError: no")
    jobs.end("s", RUN, "an earlier job", "ValueError: no")
    assert row(planned)[0] == "waiting"
    jobs.end("s", RUN, "s-1", "not started: its source x is not done")
    assert judgement.judged(planned, planned["runs"])[RUN]["state"] == "new"


def test_a_driver_that_died_while_it_handed_over(planned, queue):
    jobs.write("s", RUN, "s-early", 3)
    queue["9_3"] = "PENDING"
    assert judgement.judged(planned, planned["runs"])[RUN]["record"]["task"] == "9_3"
    jobs.write("s", RUN, "never arrived", 0)
    assert judgement.judged(planned, planned["runs"])[RUN] == {"state": "new", "held": False}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": [], "index": 0, "task": null}'])
def test_a_record_that_is_none_of_ours(planned, queue, text):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    (jobs.folder("s") / f"{OTHER}.json").write_text(text)
    assert set(jobs.records("s", [RUN, OTHER])) == {RUN}
    jobs.end("s", RUN, "s-1", "ValueError: no")
    assert ended(RUN)
    (jobs.folder("s") / jobs.ENDED / f"{RUN}.json").write_text(text)
    assert ended(RUN) is None


def test_what_waits_for_a_failure_has_failed(here, queue):
    """Also through others, and while its own task still waits for its turn to say so."""
    sources = {"a": "", "b": "stub-namea-seed{seed}", "c": "stub-nameb-seed{seed}"}
    blocks = [{"notebook": "stub", "grid": {"name": [n]}, "fixed": {"source": s}} for n, s in sources.items()]
    here.write("s", *blocks)
    planned = state.plan("s")
    first, second, third = (run["id"] for run in planned["runs"])
    for number, run in enumerate((first, second)):
        jobs.write("s", run, f"s-{number}", 0, f"{number}_0")
        queue[f"{number}_0"] = "PENDING"
    assert {row(planned, run)[0] for run in (first, second, third)} == {"waiting"}
    jobs.end("s", first, "s-0", "ValueError: no")
    assert row(planned, first) == ("failed", "ValueError: no")
    assert row(planned, second) == ("failed", f"not started: its source {first} failed")
    assert row(planned, third) == ("failed", f"not started: its source {second} failed")
    finish(planned, second)
    assert row(planned, third) == ("waiting", "")


class Seen(Watch):
    def __init__(self):
        self.tries, self.ends, self.left, self.had = [], {}, [], []

    def waiting(self, runs, why):
        self.had.append(([run["id"] for run in runs], why))

    def later(self, runs, why):
        self.left.append(([run["id"] for run in runs], why))

    def tried(self, run, error):
        self.tries.append((run["id"], error))

    def ended(self, run, error):
        self.ends[run["id"]] = error


@pytest.fixture
def follow(planned, queue, monkeypatch):
    """Drive `planned` with a cluster that `tell(number of the submission, id, task)` answers for."""

    def driven(tell, **more):
        handed = []

        def submit(planned, chosen, having, options):
            for run in chosen:
                handed.append(run["id"])
                task = str(len(handed))
                jobs.forget("s", run["id"])
                jobs.write("s", run["id"], f"s-{task}", 0, task)
                queue[task] = "PENDING"
                tell(handed.count(run["id"]), run["id"], task)
            return {str(len(handed)): chosen}, None

        monkeypatch.setattr(slurm, "submit", submit)
        monkeypatch.setattr(slurm, "POLL_S", 0.01)
        monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
        watch = Seen()
        return slurm.run_study(planned, Cluster(), watch, **more), handed, watch

    return driven


def test_what_is_lost_is_tried_again(planned, queue, follow):
    def tell(number, run, task):
        if run == OTHER or number == 3:
            finish(planned, run)
        else:
            queue[task] = "NODE_FAIL" if number == 1 else "TIMEOUT"

    errors, handed, watch = follow(tell)
    assert errors == {}
    assert handed == [RUN, OTHER, RUN, RUN]
    assert watch.ends == {RUN: None, OTHER: None}
    assert [error.split(" SLURM")[0] for _, error in watch.tries] == ["LostRun:", "LostRun:"]
    assert len(attempts.tries("s", RUN)) == 2


def test_a_machine_that_stays_broken_comes_to_an_end(planned, queue, follow):
    def tell(number, run, task):
        queue[task] = "FAILED"

    errors, handed, _ = follow(tell, retries=1)
    assert sorted(handed) == sorted([RUN, OTHER] * 2)
    assert set(errors) == {RUN, OTHER}
    assert row(planned)[0] == "failed"
    queue.clear()  # SLURM forgets
    assert row(planned)[0] == "failed"


@pytest.mark.parametrize(
    ("said", "error", "times"),
    [(None, "ValueError: no", 1), (None, "DeadKernelError: died", 3), ("CANCELLED", None, 1)],
)
def test_what_cannot_heal_is_not_tried_again(planned, queue, follow, said, error, times):
    def tell(number, run, task):
        if run == OTHER:
            return finish(planned, run)
        if error:
            jobs.end("s", run, f"s-{task}", error)
        queue[task] = said or "COMPLETED"

    errors, handed, _ = follow(tell)
    assert list(errors) == [RUN]
    assert handed.count(RUN) == times
    again, handed, _ = follow(lambda number, run, task: finish(planned, run))
    assert (again, handed) == ({}, [RUN])  # a person starts it once more


def test_another_driver_s_runs_are_left_to_it(planned, queue, follow):
    jobs.write("s", RUN, "s-other", 0, "77")
    queue["77"] = "PENDING"

    def tell(number, run, task):
        finish(planned, run)
        finish(planned, RUN)

    errors, handed, watch = follow(tell)
    assert (errors, handed) == ({}, [OTHER])
    assert set(watch.ends) == {RUN, OTHER}


@pytest.fixture
def chained(here, planned):
    """A plan of two runs of which the second builds on the first."""
    first = {"notebook": "stub", "grid": {"name": ["a"]}}
    here.write("s", first, {"notebook": "stub", "grid": {"name": ["b"]}, "fixed": {"source": "stub-namea-seed{seed}"}})
    found = state.plan("s")
    state.save(found)
    return found


def test_two_drivers_count_the_same_failures(planned, queue, follow):
    _, handed, _ = follow(lambda number, run, task: finish(planned, run) if run == OTHER else None, detach=True)
    drivers = [slurm._Driver(planned, Cluster(), Seen(), retries=2) for _ in range(2)]
    for driver in drivers:
        driver.turn(first=True)
    for driver in drivers * 3:  # each failure is found by the one whose turn it is
        queue |= dict.fromkeys(queue, "NODE_FAIL")
        driver.turn()
    assert handed.count(RUN) == 3
    assert [list(driver.errors) for driver in drivers] == [[RUN], [RUN]]


def test_slurm_is_asked_less_often_while_nothing_changes(planned, follow, monkeypatch):
    """But at once when a task has said something."""
    clock, looks = [0.0], []

    def sleep(seconds):
        clock[0] += seconds
        if 20 <= clock[0] < 20 + seconds:
            for run in (RUN, OTHER):
                finish(planned, run)
                jobs.end("s", run, jobs.records("s", [run])[run]["name"], None)

    def look(*given, judged=judgement.judged):
        looks.append(clock[0])
        return judged(*given)

    monkeypatch.setattr(slurm, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(judgement, "judged", look)
    assert follow(lambda *_: None)[0] == {}
    gaps = [after - before for before, after in zip(looks[1:-1], looks[2:-1], strict=False)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 100 * gaps[0]
    assert looks[-1] == pytest.approx(20, abs=0.02)


def test_nothing_to_do_needs_no_cluster(planned, monkeypatch, tmp_path):
    for run in (RUN, OTHER):
        finish(planned, run)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.run_study(planned, Cluster()) == {}


@pytest.fixture
def sbatch(here, queue, monkeypatch):
    """What is handed over in place of calling it: ids. Each task begins at once and does what it can."""
    handed = []

    def one(study, groups, where, after, exclusive, options):
        (group,) = groups
        (run,) = group
        handed.append(run["id"])
        task = str(100 + len(handed))
        jobs.forget(study, run["id"])
        jobs.write(study, run["id"], f"s-{task}", 0, task)
        planned = {"study": study, "runs": [run]}
        missing = [source for source in run["sources"] if state.of(planned, {"id": source}) != "done"]
        if missing:
            jobs.end(study, run["id"], f"s-{task}", f"not started: its source {missing[0]} is not done")
        else:
            finish(planned, run["id"])
        queue[task] = "COMPLETED"
        return [task]

    monkeypatch.setenv(private.FOLDER, str(here.root / "submit"))
    monkeypatch.setattr(submit, "_submit", one)
    monkeypatch.setattr(slurm, "POLL_S", 0.01)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    return handed


@pytest.mark.parametrize("task", ["", "5_0", "7_0"])
def test_what_builds_on_a_run_that_slurm_does_not_have_waits(chained, queue, sbatch, monkeypatch, task):
    """By hand; the step's daemon died and the notebook carries on; another task has it. Not submitted to no purpose."""
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = "FAILED"
    work = begin(monkeypatch, task)
    watch, ticks = Seen(), count()

    def tick():
        if next(ticks) == 8:
            attempts.end(work)
            finish(chained, RUN)

    monkeypatch.setattr(watch, "tick", tick)
    assert slurm.run_study(chained, Cluster(), watch) == {}
    assert sbatch == [OTHER]
    assert watch.left == [([OTHER], slurm.OUTSIDE)]
    assert watch.ends == {RUN: None, OTHER: None}


@pytest.mark.parametrize("blind", [1, 9])
def test_nodes_that_see_the_folder_as_it_was_are_not_asked_for_ever(chained, queue, sbatch, monkeypatch, blind):
    """A task does not find its source, which is done."""
    finish(chained, RUN)
    metrics = state.folder(chained) / RUN / runs.METRICS
    os.utime(metrics, (1e9, 1e9))
    monkeypatch.setattr(slurm, "SETTLED_S", 0.1)
    seen_at, hand_over = [], submit._submit

    def hand(study, groups, *rest):
        seen_at.append(time.monotonic())
        with monkeypatch.context() as patch:
            if len(sbatch) < blind:
                patch.setattr(state, "of", lambda *_: "waiting")
            return hand_over(study, groups, *rest)

    monkeypatch.setattr(submit, "_submit", hand)
    why = f"StaleFolder: its task did not see that its source {RUN} is done"
    assert slurm.run_study(chained, Cluster(), Seen(), retries=2) == ({OTHER: why} if blind > 3 else {})
    assert sbatch == [OTHER] * min(blind + 1, 3)
    assert seen_at[1] - seen_at[0] >= 0.1, "time for the node to look again"
    assert len(attempts.tries("s", OTHER)) == min(blind, 3)
    if blind > 3:
        assert row(chained, OTHER) == ("failed", why)
        assert slurm.run_study(chained, Cluster(), Seen(), retries=0) == {OTHER: why}, "a new start asks again"
        assert sbatch == [OTHER] * 4


def test_a_run_that_something_else_had_is_handed_over_as_often_as_it_is_free(planned, queue, sbatch, monkeypatch):
    """Its task met another attempt, which died: that is no failure of the task."""
    finish(planned, OTHER)
    hand_over, met = submit._submit, count()

    def hand(study, groups, *rest):
        (task,) = hand_over(study, groups, *rest)
        if groups[0][0]["id"] == RUN and next(met) < 4:
            shutil.rmtree(state.folder(planned) / RUN)
            jobs.end(study, RUN, f"s-{task}", "not started: attempt 1 on another executes it")
        return [task]

    monkeypatch.setattr(submit, "_submit", hand)
    assert slurm.run_study(planned, Cluster(), Seen(), retries=0) == {}
    assert sbatch.count(RUN) == 5
    assert attempts.tries("s", RUN) == []


@pytest.mark.parametrize("said", ["SUSPENDED", "RUNNING", None])
def test_what_slurm_may_still_execute_keeps_its_attempt(planned, queue, sbatch, monkeypatch, said):
    """However silent it is: the task may be suspended, its folder may not answer."""
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0" if said else None] = said or True
    work = begin(monkeypatch, "5_0", "n1")
    silent(work)
    slurm.run_study(planned, Cluster(), detach=True)
    assert sbatch == [OTHER]
    assert work.is_dir()
    queue.clear()
    queue["5_0"] = "NODE_FAIL"
    slurm.run_study(planned, Cluster(), detach=True)
    assert sbatch == [OTHER, RUN]
    assert not work.is_dir()


def test_the_driver_may_leave(planned, follow):
    errors, handed, watch = follow(lambda *_: None, detach=True)
    assert (errors, sorted(handed), watch.ends) == ({}, [RUN, OTHER], {})
    errors, handed, _ = follow(lambda *_: None, detach=True)
    assert handed == []


def test_a_warning_has_the_state_saved(here, monkeypatch):
    """And children started meanwhile do not see the signal, which would end them."""
    folder = here.runs / "s" / runs.CHECKPOINTS / RUN
    called, saved = threading.Event(), folder / "training.pt"
    with warned("s", lambda run: called.set()) as (begin, warning):
        begin(RUN)
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.kill(os.getpid(), signal.SIGUSR2)
        deadline = time.monotonic() + 60
        while not (folder / SAVE_NOW).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert warning.is_set()
        assert not called.is_set()
        (folder / "other.pt").symlink_to("gone")  # between two looks
        assert not called.wait(3 * LOOK_AGAIN_S)
        with monkeypatch.context() as patch:
            patch.setattr(task, "listed", _refuse)
            assert not called.wait(3 * LOOK_AGAIN_S)
        saved.write_text("state")
        assert called.wait(60)
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _refuse(*_):
    raise OSError(5, "Input/output error")


def test_without_a_warning_nothing_is_saved(here):
    with warned("s", lambda run: pytest.fail("requeued")) as (begin, warning):
        begin(RUN)
    assert not warning.is_set()
    assert not here.runs.exists()


@pytest.fixture
def in_task(planned, here, monkeypatch):
    """As inside a task 5_1 with both runs; `requeued` lists submitit's handler's calls. Signals are put back."""
    monkeypatch.setenv(private.FOLDER, str(here.root / "submit"))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv(attempts.SLURM_TASK, "")  # so that it is put back
    requeued = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, lambda *_: requeued.append(1))
    for run in (RUN, OTHER):
        jobs.write("s", run, "s-1", 1, "5_1")
    yield requeued
    for number, handler in handlers.items():
        signal.signal(number, handler)


def warn() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)
    for _ in range(100):  # Python's handler waits for the end of a sleep; several looks of the thread that acts
        time.sleep(0.01)


def test_a_failure_that_came_after_the_task_counts(planned, here, queue):
    """Of another engine, or of the task itself that died before it could say so; an older one does not."""
    jobs.write("s", RUN, "s-1", 0, "5_0")
    folder = here.runs / "s" / RUN
    files.write_json(folder / runs.ERROR, {"error": "ValueError: no"})
    record = {"run": RUN, "number": 1, "host": "h", "process": 1, "born": 0.0}
    queue["5_0"] = "NODE_FAIL"
    for others in ({"slurm": None, "started_utc": "2999"}, {"slurm": "5_0", "started_utc": "1999"}):
        files.write_json(folder / attempts.ATTEMPT, record | others)
        assert row(planned) == ("failed", "ValueError: no")
        assert not judgement.judged(planned, planned["runs"])[RUN]["heals"]
    files.write_json(folder / attempts.ATTEMPT, record | {"slurm": None, "started_utc": "1999"})
    assert row(planned)[0] == "lost"
    files.write_json(folder / attempts.ATTEMPT, record | {"slurm": None, "started_utc": "2999"})
    queue["5_0"] = "PENDING"
    assert row(planned)[0] == "waiting", "SLURM will execute it"


def test_what_slurm_may_execute_of_other_plans_keeps_its_attempts(planned, queue, monkeypatch):
    spared = []
    monkeypatch.setattr(attempts, "clear", lambda study, spare: spared.append(spare))
    for number, run in enumerate((RUN, "stub-nameb-seed7", "stub-namec-seed7")):
        jobs.write("s", run, f"s-{number}", 0, f"{number}_0")
    queue |= {"0_0": "SUSPENDED", "1_0": "SUSPENDED", "2_0": "COMPLETED"}
    judgement.clear("s")
    queue[None] = True
    judgement.clear("s")
    judgement.clear("nothing")
    assert spared == [{RUN, "stub-nameb-seed7"}, {RUN, "stub-nameb-seed7", "stub-namec-seed7"}, set()]


def test_an_attempt_of_nobody_known_is_not_that_of_a_task_without_a_number(planned, queue, monkeypatch):
    jobs.write("s", RUN, "s-1", 0)
    work = attempts.begin("s", RUN)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another")
        assert row(planned)[0] == "running"
    attempts.end(work)


def test_a_task_without_its_source_says_so(planned, here, in_task):
    Task("s", "s-1", [planned["runs"][1] | {"sources": [RUN]}])()
    assert ended(OTHER)["error"] == f"not started: its source {RUN} is not done"
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()
    assert in_task == []


@pytest.mark.parametrize("names", [[RUN], [RUN, OTHER]])
def test_what_a_warned_task_did_not_begin_is_requeued(planned, in_task, monkeypatch, names):
    """Once; and not for nothing, when the last of its runs has ended in the time that was left."""
    executed = []

    def execute(planned, run, *_):
        executed.append(run["id"])
        warn()

    monkeypatch.setattr(task, "execute_run", execute)
    Task("s", "s-1", [run for run in planned["runs"] if run["id"] in names])()
    assert executed == [RUN]
    assert ended(RUN)["error"] is None
    assert len(in_task) == len(names) - 1


def test_a_run_that_cannot_save_is_requeued_once(planned, in_task, monkeypatch):
    monkeypatch.setattr(task, "SAVED_WITHIN_S", 0.1)
    monkeypatch.setattr(task, "execute_run", lambda *_: warn())
    Task("s", "s-1", planned["runs"])()
    assert in_task == [1]


def test_after_the_last_requeue_the_run_has_failed(planned, queue, in_task, monkeypatch):
    def enough(*_):
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    def execute(planned, run, *_):
        warn()
        queue["5_1"] = "TIMEOUT"
        until(lambda: row(planned)[0] == "failed")
        assert "a longer --time is needed" in row(planned)[1]
        assert not judgement.judged(planned, planned["runs"])[RUN]["heals"]

    signal.signal(signal.SIGUSR2, enough)
    monkeypatch.setattr(task, "SAVED_WITHIN_S", 0.1)
    monkeypatch.setattr(task, "execute_run", execute)
    Task("s", "s-1", planned["runs"][:1])()
    assert ended(RUN)["error"] is None  # it came to its end in the time that was left


def test_a_folder_that_takes_nothing_is_the_error(planned, here, queue, in_task, monkeypatch):
    """The driver reads it where the user's own folder can be written."""

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(here.runs))

    monkeypatch.setattr(task, "execute_run", full)
    (jobs.folder("s") / jobs.ENDED).write_text("in the way of the folder")
    queue["5_1"] = "COMPLETED"
    before = jobs.told("s")
    Task("s", "s-1", planned["runs"])()
    assert jobs.told("s") != before
    for run in (RUN, OTHER):
        assert row(planned, run) == ("failed", f"OSError: [Errno 28] No space left on device: '{here.runs}'")
        assert not judgement.judged(planned, planned["runs"])[run]["heals"]
    (jobs.folder("s") / jobs.ENDED).unlink()
    jobs.forget("s", RUN)
    jobs.write("s", RUN, "s-1", 1, "5_1")
    assert ended(RUN) is None


def test_what_tasks_leave_goes_when_they_are_over(planned, here, queue, monkeypatch):
    """But for the last task of a run that is not done: its log may say why."""
    monkeypatch.setenv(private.FOLDER, str(here.root / "submit"))
    where = private.folder("s")
    for number in ("5_0", "5_1", "6", "7", "8_0"):
        for end in ("submitted.pkl", "0_log.out", "0_log.err", "0_result.pkl"):
            (where / f"{number}_{end}").write_text(end)
    for number in "5678":
        (where / f"{number}_submission.sh").write_text("")
        (where / f".submission_file_{number}.sh").symlink_to(where / f"{number}_submission.sh")

    def left() -> set[str]:
        slurm._tidy(planned)
        return {path.name.split("_submi")[0].removesuffix("_0_log.out") for path in where.glob("*_submission.sh")} | {
            path.name.removesuffix("_submitted.pkl") for path in where.glob("*_submitted.pkl")
        }

    going = {"5_0", "5_1", "8_0"}
    monkeypatch.setattr(squeue, "going", lambda: going)
    jobs.write("s", RUN, "s-1", 0, "5_0")
    jobs.write("s", "of another plan", "s-2", 0, "6")
    assert left() == {"5", "5_0", "5_1", "6", "8", "8_0"}, "7 was given up for another task"
    finish(planned, RUN)
    assert left() == {"5", "5_0", "5_1", "6", "8", "8_0"}
    going -= {"5_0", "8_0"}
    assert left() == {"5", "5_1", "6"}
    write_json(here.runs / "s" / "of another plan" / runs.METRICS, {})
    assert left() == {"5", "5_1"}
    monkeypatch.setattr(squeue, "going", lambda: None)
    assert left() == {"5", "5_1"}
    monkeypatch.setattr(squeue, "going", set)
    assert left() == set()
    assert list(where.iterdir()) == []


def test_a_driver_says_what_slurm_has_already_and_why_a_task_does_not_start(planned, queue, follow, monkeypatch):
    def look(records):
        reason = "Priority" if turns[0] < 3 else "PartitionConfig"
        tasks = {task: {"state": now, "where": "n1", "reason": reason} for task, now in queue.items()}
        return {"tasks": tasks, "names": {}}

    def tick():
        turns[0] += 1
        if turns[0] == 8:
            for run in (RUN, OTHER):
                finish(planned, run)

    turns = [0]
    monkeypatch.setattr(squeue, "look", look)
    monkeypatch.setattr(Seen, "tick", lambda self: tick())
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = "PENDING"
    errors, handed, watch = follow(lambda *_: None)
    assert (errors, handed) == ({}, [OTHER])
    assert watch.had == [
        ([RUN], "in the queue, Priority; options of this command do not reach them, scancel ends them"),
        ([RUN, OTHER], "in the queue, PartitionConfig"),
    ]


def test_a_run_whose_task_is_busy_with_others_waits_for_them(planned, queue, monkeypatch):
    for index, run in enumerate((RUN, OTHER)):
        jobs.write("s", run, "s-1", index, "5_0")
    queue["5_0"] = "RUNNING"
    assert row(planned, OTHER) == ("waiting", "SLURM 5_0: begins on n1")
    begin(monkeypatch, "5_0")
    assert row(planned, OTHER) == ("waiting", "SLURM 5_0: after others of its task on n1")


def test_a_failed_run_says_where(planned, here, queue, monkeypatch):
    work = begin(monkeypatch, "5_0", "n1")
    write_json(work / runs.ERROR, {"error": "ValueError: no"})
    publish(work, here.runs / "s" / RUN)
    jobs.write("s", RUN, "s-1", 0, "5_0")
    jobs.end("s", RUN, "s-1", "ValueError: no")
    queue["5_0"] = "COMPLETED"
    found = next(one for one in status.rows(planned, judgement.queued(planned)) if one["run"] == RUN)
    assert [found[name] for name in ("state", "attempt", "where", "detail")] == [
        "failed", 1, "n1, SLURM 5_0", "ValueError: no",
    ]  # fmt: skip


def test_a_task_that_told_the_truth_is_no_failure(chained, queue, sbatch):
    """Its source was done after it had looked, and before the driver looks."""
    jobs.write("s", OTHER, "s-1", 0, "5_0")
    jobs.end("s", OTHER, "s-1", f"not started: its source {RUN} is not done")
    queue["5_0"] = "COMPLETED"
    later = jobs.ended_ns("s", OTHER) + 10**9
    finish(chained, RUN)
    os.utime(state.folder(chained) / RUN / runs.METRICS, ns=(later, later))
    assert slurm.run_study(chained, Cluster(), Seen(), retries=0) == {}
    assert sbatch == [OTHER]
    assert attempts.tries("s", OTHER) == []


def test_silence_is_told_once(planned, queue, follow, monkeypatch):
    def tick():
        turns[0] += 1
        if turns[0] == 5:
            for run in (RUN, OTHER):
                finish(planned, run)

    turns = [0]
    monkeypatch.setattr(Seen, "tick", lambda self: tick())
    for index, run in enumerate((RUN, OTHER)):
        jobs.write("s", run, "s-1", index, f"5_{index}")
    queue[None] = True
    errors, handed, watch = follow(lambda *_: None)
    assert (errors, handed) == ({}, [])
    assert watch.had == [([RUN, OTHER], judgement.SILENT)]


def test_a_record_of_somebody_elses_attempt_may_hold_anything(planned, queue, monkeypatch):
    jobs.write("s", RUN, "s-1", 0, "5_0")
    queue["5_0"] = "RUNNING"
    work = begin(monkeypatch, "5_0", "n1")
    write_json(work / attempts.ATTEMPT, attempts.read(work) | {"slurm": ["x"]})
    assert row(planned)[0] == "running"


def test_a_new_task_does_not_stand_where_the_last_one_failed(planned, here, queue, monkeypatch):
    work = begin(monkeypatch, "5_0", "n1")
    write_json(work / runs.ERROR, {"error": "DeadKernelError: no"})
    publish(work, here.runs / "s" / RUN)
    jobs.write("s", RUN, "s-2", 0, "6_0")
    queue["6_0"] = "PENDING"
    found = next(one for one in status.rows(planned, judgement.queued(planned)) if one["run"] == RUN)
    assert (found["state"], found["where"], found["detail"]) == ("waiting", "", "SLURM 6_0: in the queue, Why")
