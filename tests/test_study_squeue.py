"""What SLURM says, from recorded output of squeue and sacct; neither is needed to be here."""

import os

import pytest

from lib.study import squeue

RUNNING = "123|4|RUNNING|s-1|n7|None"


def test_lines_of_squeue():
    answer = f"{RUNNING}\n123|5|PENDING|s-1||Priority\n124|N/A|PENDING|s-2||Dependency\n"
    found = squeue.parse(answer)
    assert found["names"] == {"s-1": "123", "s-2": "124"}
    assert found["tasks"] == {
        "123_4": {"state": "RUNNING", "where": "n7", "reason": "None"},
        "123_5": {"state": "PENDING", "where": "", "reason": "Priority"},
        "124": {"state": "PENDING", "where": "", "reason": "Dependency"},
    }


def test_reasons_may_hold_anything():
    found = squeue.parse("1|0|PENDING|s||(launch failed | requeued held)\nslurm_load_jobs: warning\n\n")
    assert found["tasks"]["1_0"]["reason"] == "(launch failed | requeued held)"
    assert len(found["tasks"]) == 1


@pytest.mark.parametrize("before", ["NODE_FAIL", "PREEMPTED", "FAILED"])
@pytest.mark.parametrize("now", ["PENDING", "RUNNING", "REQUEUE_HOLD", "COMPLETING", "SOMETHING_NEW"])
def test_a_task_that_goes_on_is_not_over(before, now):
    lines = [f"9|0|{before}|s|n1|x", f"9|0|{now}|s|n2|y"]
    for order in (lines, lines[::-1]):
        assert squeue.parse("\n".join(order))["tasks"]["9_0"]["state"] == now
    assert now not in squeue.FINAL
    assert before in squeue.FINAL


# sacct -X -n -P -o JobID,State,ExitCode,NodeList
SACCT = """12_0|COMPLETED|0:0|n0
12_1|FAILED|137:0|n0
12_2|CANCELLED by 1000|0:15|n0
12_3|OUT_OF_MEMORY|0:125|n1
12_4|REQUEUED|0:0|n1
12_[5-9]|PENDING|0:0|None assigned
13|TIMEOUT|0:0|n1
14|CANCELLED+|0:0|n1
"""


def test_lines_of_sacct():
    found = squeue.parse_sacct(SACCT)
    states = {task: said["state"] for task, said in found.items()}
    assert states["12_2"] == states["14"] == "CANCELLED"
    assert states["12_4"] == "NODE_FAIL"
    assert found["12_1"] == {"state": "FAILED", "where": "n0", "reason": "exit 137:0"}
    assert found["12_0"]["reason"] == ""
    assert {states[task] for task in ("12_0", "12_1", "12_3", "13")} <= squeue.FINAL


def programs(monkeypatch, **answers):
    """Answers in place of squeue and sacct; returns the commands that were given."""
    given = []

    def output(command, seconds):
        given.append(command)
        return answers.get(command[0])

    monkeypatch.setattr(squeue, "_output", output)
    return given


def records(*tasks: str | None) -> dict[str, dict]:
    return {f"run{n}": {"name": f"s-{n % 2}", "task": task} for n, task in enumerate(tasks)}


def test_one_call_for_all_and_sacct_for_the_absent(monkeypatch):
    given = programs(monkeypatch, squeue="12|0|RUNNING|s-0|n0|None\n", sacct=SACCT)
    found = squeue.look(records("12_0", "12_1", "13", "99_1", None))
    assert [command[0] for command in given] == ["squeue", "sacct"]
    assert "--name=s-0,s-1" in given[0]
    assert {task: said["state"] for task, said in found["tasks"].items()} == {
        "12_0": "RUNNING",  # the queue knows better
        "12_1": "FAILED",
        "13": "TIMEOUT",
    }


def test_without_accounting(monkeypatch):
    programs(monkeypatch, squeue="12|0|RUNNING|s-0|n0|None\n")
    assert set(squeue.look(records("12_0", "12_1"))["tasks"]) == {"12_0"}


def test_without_an_answer_nothing_is_known(monkeypatch):
    given = programs(monkeypatch, sacct=SACCT)
    assert squeue.look(records("12_1")) is None
    assert [command[0] for command in given] == ["squeue"]
    assert squeue.look({}) == {"tasks": {}, "names": {}}


def test_programs_that_are_missing_fail_or_hang(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert squeue.look(records("12_1")) is None
    for text, seconds in (("exit 1", 5), ("while :; do :; done", 0.2)):
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "squeue").chmod(0o755)
        monkeypatch.setattr(squeue, "SQUEUE_S", seconds)
        assert squeue.look(records("12_1")) is None


def test_what_is_not_at_its_end_is_going_on(monkeypatch):
    lines = "1|0|COMPLETED|s|n|x\n1|1|SUSPENDED|s|n|x\n2|N/A|PENDING|t||x\n1|2|COMPLETING|s|n|x\n3|N/A|FAILED|u|n|x\n"
    asked = programs(monkeypatch, squeue=lines)
    assert squeue.going() == {"1_1", "2", "1_2"}
    assert "--states=all" in asked[0], "of those that are suspended, not all versions tell otherwise"
    programs(monkeypatch)
    assert squeue.going() is None


def test_a_persons_own_settings_hide_no_task(tmp_path, monkeypatch):
    """Nor do partitions that are hidden."""
    (tmp_path / "squeue").write_text('#!/bin/sh\nenv | grep SQUEUE_ && exit 1\necho "1|0|PENDING|s-0|n|$*"\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_PARTITION", "another")
    assert "--all" in squeue.look(records("1_0"))["tasks"]["1_0"]["reason"].split()
    assert squeue.going() == {"1_0"}
