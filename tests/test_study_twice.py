"""The same run executed twice at once, by hand and beside a driver: one result, not mixed."""

import json
import socket

import pytest
from stub_study import PATIENCE_S, until

from lib import runs
from lib.files import read_json
from lib.study import state
from lib.study.__main__ import main

RUN, OTHER = "stub-namea-seed1", "stub-nameb-seed1"


def names(*values: str, **fixed) -> dict:
    return {"notebook": "stub", "fixed": fixed, "grid": {"name": list(values)}}


def shown(here, capsys) -> str:
    """What `status` prints, of this process."""
    main(["status", "s"])
    return capsys.readouterr().out


def check_whole(here, run: str = RUN) -> None:
    """One result, its files those of one attempt, and nothing beside it."""
    folder = here.runs / "s" / run
    assert read_json(folder / runs.METRICS)["value"] == 2
    record = read_json(folder / "attempt.json")
    assert json.loads((folder / runs.NOTEBOOK).read_text())["metadata"]["papermill"]["parameters"]["run_dir"].endswith(
        f"{run}.{record['number']}"
    )
    assert not (here.runs / "s" / runs.ATTEMPTS).exists()


def test_by_hand_while_it_is_executed(here, capsys):
    here.write("s", names("a", act="wait"))
    first = here.start("execute", "s", RUN)
    until(lambda: here.executed())
    second = here.run("execute", "s", RUN)
    assert (second.returncode, second.stderr) == (1, "")
    assert f"{RUN}: FAILED, not started: attempt 1 on " in second.stdout
    assert "1 running, 0 failed, 0 waiting" in shown(here, capsys)
    here.go.touch()
    out, err = first.communicate(timeout=PATIENCE_S)
    assert (first.returncode, err) == (0, "")
    assert f"{RUN}: done" in out
    assert here.executed() == [RUN]
    check_whole(here)
    assert "1 done, 0 failed, 0 waiting" in shown(here, capsys)


def test_by_hand_at_the_same_moment(here, capsys):
    here.write("s", names("a"))
    both = [here.start("execute", "s", RUN) for _ in range(2)]
    ends = [one.communicate(timeout=PATIENCE_S) for one in both]
    assert all(err == "" for _, err in ends)
    assert 0 in [one.returncode for one in both]
    assert all(one.returncode == 0 or "not started: attempt" in out for one, (out, _) in zip(both, ends, strict=True))
    assert 1 <= len(here.executed()) <= 2
    check_whole(here)
    assert "1 done" in shown(here, capsys)


def test_by_hand_what_a_driver_executes(here, capsys):
    here.write("s", names("a", "b", act="wait"))
    driver = here.start("run", "s", "--jobs", "1")
    until(lambda: here.executed() == [RUN])
    beside = here.run("execute", "s", RUN)
    assert (beside.returncode, "not started: attempt 1 on" in beside.stdout) == (1, True)
    assert "1 running, 0 failed, 1 waiting" in shown(here, capsys)
    here.go.touch()
    _, err = driver.communicate(timeout=PATIENCE_S)
    assert (driver.returncode, err) == (0, "")
    assert here.executed() == [RUN, OTHER]
    check_whole(here)
    check_whole(here, OTHER)


def test_a_driver_leaves_what_a_person_executes(here, capsys):
    here.write("s", names("a", act="wait"), names("b", source="stub-namea-seed{seed}"))
    person = here.start("execute", "s", RUN)
    until(lambda: here.executed() == [RUN])
    driver = here.start("run", "s", "--jobs", "2")
    until(lambda: (here.runs / "s" / ".lock.owner").exists())
    assert "1 running, 0 failed, 1 waiting" in shown(here, capsys)
    here.go.touch()
    ends = [one.communicate(timeout=PATIENCE_S) for one in (person, driver)]
    assert [one.returncode for one in (person, driver)] == [0, 0]
    assert all(err == "" for _, err in ends)
    assert here.executed() == [RUN, OTHER]
    check_whole(here)
    assert here.values("s")[OTHER] == {"value": 3}
    assert "2 done, 0 failed, 0 waiting" in shown(here, capsys)


def test_two_drivers_with_different_seeds(here):
    """They are one study: the second waits, and each run is executed once."""
    here.write("s", names("a"))
    drivers = [here.start("run", "s", "--jobs", "1", "--seeds", *seeds) for seeds in (["1", "2"], ["2", "3"])]
    ends = [one.communicate(timeout=PATIENCE_S) for one in drivers]
    assert [one.returncode for one in drivers] == [0, 0]
    assert all(err == "" for _, err in ends)
    owners = (here.runs / "s" / ".lock.owner").read_text().split()[1:]
    assert owners[1:] == ["on", socket.gethostname()]
    assert int(owners[0]) in [one.pid for one in drivers]
    assert sorted(here.executed()) == [f"stub-namea-seed{seed}" for seed in (1, 2, 3)]
    check_whole(here)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["stub-namez-seed1"], "study s has no run 'stub-namez-seed1': python -m lib.study status s shows them"),
        (["../s"], "study s has no run '../s': python -m lib.study status s shows them"),
        ([OTHER], f"{OTHER} needs {RUN}, which is not done: execute that first"),
        ([OTHER, RUN], f"{OTHER} needs {RUN}, which is not done: execute that first"),
    ],
)
def test_what_cannot_be_executed_is_one_line(here, capsys, asked, said):
    here.write("s", names("a"), names("b", source="stub-namea-seed{seed}"))
    assert main(["execute", "s", *asked]) == 2
    assert capsys.readouterr() == ("", f"error: {said}\n")
    assert here.executed() == []
    assert not (here.runs / "s").exists()
    assert state.plan("s")["runs"][1]["sources"] == [RUN]
