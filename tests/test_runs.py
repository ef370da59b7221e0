"""A run directory: what is written when, and how it is read back."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from lib import frames, paths, runs


def namespace(**given) -> dict:
    return {"name": "a", "act": "", "seed": 1, "source": "", "sources": [], "run_dir": "", "other": object()} | given


def finished(study: str, folder: str, metrics=None, tables=None, **given) -> runs.Run:
    run = runs.begin("stub", namespace(run_dir=str(paths.RUNS / study / folder), **given))
    runs.finish(run, metrics or {}, **(tables or {}))
    return run


@pytest.mark.parametrize(
    ("values", "swept", "wanted"),
    [
        ({"data": "mnist", "model": "fc", "pruner": "snip", "ratio": 9}, ["ratio"], "n-mnist-fc-snip-x9"),
        ({"compression": 0.5, "seed": 1}, ["seed", "compression"], "n-c0.5-seed1"),
        ({"model": "fc", "density": 0.1, "rounds": 100, "seed": 0}, ["density", "rounds"], "n-fc-d0.1-r100-seed0"),
        ({"ratio": 4, "sparsity": 0.5}, ["ratio", "sparsity"], "n-x4-s0.5"),
        ({"lr": 1e-05, "seed": 2}, ["lr", "seed"], "n-lr1e_05-seed2"),
        ({"path": "a/b {c}"}, ["path"], "n-patha_b__c_"),
        ({"density": 0.31622776601683794}, ["density"], "n-d0.316228"),
        ({"also": ["embeddings"], "seed": 1}, ["also"], "n-alsoembeddings-seed1"),
        ({"also": ["biases", "norms"], "lr": [0.1, 1e-05]}, ["also", "lr"], "n-alsobiases+norms-lr0.1+1e_05"),
        ({"also": []}, ["also"], "n-also"),
    ],
)  # fmt: skip
def test_run_id(values, swept, wanted):
    assert runs.run_id("n", values, swept) == wanted


@pytest.mark.parametrize("value", ["../x", "a/b", "a\\b", "a:b", "{x}", "a b", "ü*?", "%s"])
def test_run_id_is_a_plain_folder_name(value, tmp_path):
    found = runs.run_id("n", {"v": value}, ["v"])
    assert found == found.format() == os.path.basename(found)
    (tmp_path / found).mkdir()


def test_begin_writes_everything_but_metrics(here, monkeypatch):
    monkeypatch.setenv("WORKBENCH_NEIGHBOURS", "3")
    run = runs.begin("stub", namespace(name="b", run_dir=str(here.root / "r")))
    assert [p.name for p in run.directory.iterdir()] == [runs.RUN]
    written = json.loads((run.directory / runs.RUN).read_text())
    assert written["parameters"] == {"name": "b", "act": "", "seed": 1, "source": "", "sources": []} == run.parameters
    assert written["notebook"] == "stub"
    assert written["neighbours"] == 3
    assert {"hardware", "versions", "git", "threads", "load_at_start", "started_utc"} <= set(written)


@pytest.mark.parametrize(("given", "message"), [({"seed": "1"}, "seed: received '1'"), ({"seed": -1}, "seed")])
def test_begin_checks(here, given, message):
    with pytest.raises(ValueError, match="notebook stub") as caught:
        runs.begin("stub", namespace(run_dir=str(here.root / "r"), **given))
    assert message in str(caught.value)
    assert not (here.root / "r").exists()


def test_by_hand_the_run_goes_to_scratch_and_replaces_its_like(here):
    first = runs.begin("stub", namespace())
    (first.directory / "rest").touch()
    runs.finish(first, {})
    again = runs.begin("stub", namespace())
    assert again.directory == first.directory == here.runs / "scratch" / "stub-seed1"
    assert [p.name for p in again.directory.iterdir()] == [runs.RUN]


def test_note_keeps_the_rest(here):
    run = runs.begin("stub", namespace())
    before = json.loads((run.directory / runs.RUN).read_text())
    runs.note(run, data={"name": "x"})
    runs.note(run, more=1)
    runs.note(run, data={"name": "y"})
    assert json.loads((run.directory / runs.RUN).read_text()) == before | {"data": {"name": "y"}, "more": 1}


def test_metrics_are_plain_and_come_last(here, monkeypatch):
    run = runs.begin("stub", namespace())
    rows = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": math.nan}]
    runs.finish(
        run,
        {"a": np.float32(0.5), "b": np.int64(3), "c": math.nan, "d": math.inf, "e": "x", "f": np.True_},
        history=rows,
    )
    text = (run.directory / runs.METRICS).read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    wall = found.pop("wall_s")
    assert found == {"a": 0.5, "b": 3, "c": None, "d": None, "e": "x", "f": True}
    assert wall >= 0
    pd.testing.assert_frame_equal(pd.read_csv(run.directory / "history.csv"), pd.DataFrame(rows))

    other = runs.begin("stub", namespace(name="b", run_dir=str(here.root / "r")))
    with pytest.raises(ValueError, match="same length"):
        runs.finish(other, {}, broken={"a": [1], "b": [1, 2]})
    assert not (other.directory / runs.METRICS).exists()


@pytest.mark.parametrize(("folder", "kept"), [("c", False), (".attempts/c.12", True)])
def test_states_of_trainings_go_when_the_run_is_there_to_stay(here, folder, kept):
    """That of an attempt is not: it can be lost before it is published."""
    run = runs.begin("stub", namespace(run_dir=str(here.runs / "s" / folder)))
    state = runs.checkpoint(run, "training")
    assert state == here.runs / "s" / runs.CHECKPOINTS / "c" / "training.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    runs.finish(run, {})
    assert state.exists() is kept


def test_finished_skips_attempts_and_unfinished_runs(here):
    finished("s", "b")
    finished("s", "a")
    finished("s/.attempts", "c.12")
    runs.begin("stub", namespace(run_dir=str(here.runs / "s" / "d")))
    assert [p.name for p in runs.finished(here.runs / "s")] == ["a", "b"]


def test_load_is_a_row_a_run(here):
    finished("s", "x", {"top1_pct": 50.0}, name="one", sources=["s/y"])
    finished("s", "y", {"top1_pct": None}, name="two", seed=2)
    frame = frames.load("s")
    assert list(frame["run"]) == ["x", "y"]
    assert list(frame["name"]) == ["one", "two"]
    assert frame.loc[0, "sources"] == ("s/y",)
    assert frame["top1_pct"].isna().tolist() == [False, True]
    assert {"cpu", "cores", "gpu", "threads", "neighbours", "wall_s", "notebook"} <= set(frame)
    assert list(frames.load("s", ["y", "nothing", "x"])["run"]) == ["y", "x"]
    assert frames.load("nothing").empty


def test_tables_under_one_another(here):
    finished("s", "x", tables={"rows": [{"a": 1}, {"a": 2}]})
    finished("s", "y", tables={"rows": [{"a": 3, "b": 4}]})
    frame = frames.table("s", ["y", "nothing", "x"], "rows")
    assert list(frame.columns) == ["run", "a", "b"]
    assert frame[["run", "a"]].to_numpy().tolist() == [["y", 3], ["x", 1], ["x", 2]]
    assert frames.table("s", ["x"], "absent").empty


def test_many_tables_are_those_read_one_by_one(here):
    """Of the same columns and others, with none, with cells that hold commas, quotes and line ends."""
    made = {
        "a": [{"n": 1, "text": "x", "part": 0.5, "flag": True}],
        "b": [{"n": 2, "text": "y", "part": None, "flag": False}, {"n": 3, "text": None, "part": 2.0, "flag": True}],
        "c": [{"n": 4, "text": 'one,"two"\nthree', "part": 1.0, "flag": True}],
        "d": [{"n": 5, "text": "-", "part": 1.0, "flag": True}],
        "e": pd.DataFrame(columns=["n", "text", "part", "flag"]),
        "f": [{"n": 6, "other": 1}],
        "g": [{"n": 7, "text": "z", "part": 1.0, "flag": False}] * 3,
    }
    for name, rows in made.items():
        finished("s", name, tables={"rows": rows})
    order = ["b", "a", "c", "d", "e", "g", "f"]
    alone = [pd.read_csv(here.runs / "s" / name / "rows.csv").assign(run=name) for name in order]
    wanted = pd.concat([frame for frame in alone if len(frame)], ignore_index=True)
    frame = frames.table("s", order, "rows")
    pd.testing.assert_frame_equal(frame[wanted.columns], wanted)
    assert list(frame.columns)[0] == "run"


def test_directory_of_a_source(here):
    finished("s", "x", name="q")
    assert runs.directory("s/x") == here.runs / "s" / "x"
    assert runs.parameters_of("s/x")["name"] == "q"
    for source in ("s/y", "s", "t/x", "", "/", "s/x/", "../s/x"):
        with pytest.raises(ValueError, match="no finished run") as caught:
            runs.directory(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="one of x"):
        runs.directory("s/y")


def test_study_of_an_attempt(here):
    attempt = runs.begin("stub", namespace(run_dir=str(here.runs / "s" / ".attempts" / "x.7")))
    assert runs.study_of(attempt) == "s"
    assert runs.study_of(finished("t", "x")) == "t"
