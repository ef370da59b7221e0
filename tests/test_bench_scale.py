"""A study of many runs on disk: its plan, its status and its frames; and rows on paper."""

from pathlib import Path

import pytest
from stub_study import ROOT, Bench

from lib import paths, runs, summary
from lib.bench import scale, table
from lib.files import write_json
from lib.study import state, status


@pytest.fixture
def made(tmp_path, monkeypatch):
    here = Bench(tmp_path, notebooks=ROOT / "notebooks")
    for name in ("RUNS", "STUDIES", "FIGURES"):
        monkeypatch.setattr(paths, name, getattr(here, name.lower()))
    return scale.make("scale", [1])


def test_its_runs_are_finished_and_reported(made):
    assert len(made["runs"]) == 102
    state.check(made)
    assert status.counts(status.rows(made)) == "102 done, 0 failed, 0 waiting"
    book = summary.load("scale")
    assert len(book.done) == 102
    assert not book.gaps
    assert len(book.histories) > 102
    assert set(book.done["pruner"]) == {"dense", "mag", *scale.PRUNERS}


def test_what_grows_with_the_runs_grows_in_step(made, monkeypatch):
    """Files that are read for a status: so many a run, however many there are."""
    opened, read_text = [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: opened.append(path) or read_text(path, **how))
    status.rows(made)
    assert len(made["runs"]) <= len(opened) <= 2 * len(made["runs"])


def test_on_paper(here):
    """Three runs of 1 s, 2 s and 3 s, the last after the first, and 1 s for each besides."""
    after = {"name": "c", "source": "stub-namea-seed{seed}"}
    here.write(
        "s",
        {"notebook": "stub", "grid": {"name": ["a", "b"]}},
        {"notebook": "stub", "fixed": after, "grid": {"act": [""]}},
    )
    planned = state.plan("s")
    for number, run in enumerate(planned["runs"], 1):
        write_json(here.runs / "s" / run["id"] / runs.METRICS, {"wall_s": float(number)})
    rows = scale.on_paper(planned, 1.0)
    assert [(row["form"], row["seconds"]) for row in rows] == [
        ("1 slot, on paper", 9.0),
        ("2 slots, on paper", 6.0),  # a 0-2, b 0-3; c 2-6
        ("64 slots, on paper", 6.0),
        ("longest chain of runs, on paper", 6.0),
    ]
    assert [row["ratio"] for row in rows] == [1.0, 1.5, 1.5, 1.5]
    assert "1.50 x" in table.markdown(rows, {"a": "b"}, [])
