"""A study read back from its directories, finished in part."""

import shutil

import pytest

from lib import files, runs, summary, tables
from lib.study import state

FACTS = {
    "threads": 1, "neighbours": 0, "load_at_start": {"cpu_busy_pct": 1.0},
    "data": {"name": "digits", "test_images": 9, "fingerprint": "sha256:1"},
    "hardware": {"cpu": "x", "cores": 1, "memory_gib": 1.0, "os": "y", "gpus": []},
}  # fmt: skip


@pytest.fixture
def study(bench, monkeypatch):
    """A plan over the real notebooks; `finish` writes a run as finished."""
    from lib import paths

    for name in ("RUNS", "STUDIES", "FIGURES"):
        monkeypatch.setattr(paths, name, getattr(bench, name.lower()))
    bench.write(
        "s",
        {"notebook": "accuracy", "grid": {"pruner": ["snip", "rand"], "compression": [0.5, 1]}},
        {"notebook": "layers", "fixed": {"source": "accuracy-snip-c1-seed{seed}"}},
        {"notebook": "timing", "fixed": {"sources": ["accuracy-*"]}},
    )
    planned = state.plan("s")
    state.save(planned)

    def finish(name: str, metrics: dict, **tables: str):
        (entry,) = (run for run in planned["runs"] if run["id"].startswith(name))
        folder = state.folder(planned) / entry["id"]
        files.write_json(folder / runs.RUN, FACTS | {"notebook": entry["notebook"], "parameters": entry["parameters"]})
        files.write_json(folder / runs.METRICS, metrics | {"wall_s": 1.0})
        for table, text in tables.items():
            (folder / f"{table}.csv").write_text(text)

    return finish


def test_nothing_finished_is_an_error(study):
    with pytest.raises(ValueError, match="'s' has no finished run"):
        summary.load("s")
    with pytest.raises(ValueError, match="'t' was never started"):
        summary.load("t")


def test_part_of_a_study(study):
    study("accuracy-snip-c0.5", {"top1_pct": 50.0}, history="epoch,x\n1,2\n", layers="layer,kept\na,3\n")
    study("layers", {"weights": 5}, parts="layer,kept\na,1\n")
    book = summary.load("s")
    assert list(book.done["run"]) == ["accuracy-snip-c0.5-seed1"]
    assert book.done["method"].tolist() == ["SNIP"]
    assert book.done["compression"].tolist() == [0.5]
    assert len(book.planned) == 4
    assert len(book.everything) == 2
    assert set(book.gaps.values()) == {"not executed yet"}
    assert len(book.gaps) == 4
    assert book.histories.to_dict("records") == [{"run": "accuracy-snip-c0.5-seed1", "epoch": 1, "x": 2}]
    assert book.data == [FACTS["data"]]
    assert summary.test_set(book, book.planned["task"].iloc[0]) == {"images": 9, "classes": 10}
    assert summary.read(summary.closer(book, "layers"), "parts")["kept"].tolist() == [1]
    assert summary.closer(book, "timing") is None
    assert summary.timings(book) == []
    assert "timing" in summary.missing(book, "timing")
    assert summary.missing(book, "layers") is None


def test_a_table_of_which_a_run_had_no_rows_is_empty(study):
    study("layers", {"weights": 5}, parts="\n", more="a,b\n")
    one = summary.closer(summary.load("s"), "layers")
    assert summary.read(one, "parts").empty
    assert summary.read(one, "more").columns.tolist() == ["a", "b"]
    with pytest.raises(FileNotFoundError):
        summary.read(one, "other")


def test_looks_are_told_apart_by_their_seeds(study):
    from lib import paths

    study("layers", {"weights": 5})
    (alone,) = summary.looks(summary.load("s"), "layers")
    assert (alone.suffix, alone.seed, alone.row["weights"]) == ("", "", 5)
    assert alone.directory == paths.RUNS / "s" / alone.run
    planned = state.load_plan("s")
    again = alone.directory.with_name(alone.run.replace("seed1", "seed2"))
    state.save(planned | {"runs": [*planned["runs"], {**planned["runs"][-2], "id": again.name}]})
    shutil.copytree(alone.directory, again)
    facts = files.read_json(again / runs.RUN)
    files.write_json(again / runs.RUN, facts | {"parameters": facts["parameters"] | {"seed": 2}})
    both = summary.looks(summary.load("s"), "layers")
    assert [(one.run, one.suffix, one.seed) for one in both] == [
        (alone.run, "", ", seed 1"), (again.name, "-2", ", seed 2"),
    ]  # fmt: skip
    assert summary.looks(summary.load("s"), "trace") == []


def test_only_closer_looks_are_finished(study):
    study("layers", {"weights": 5})
    book = summary.load("s")
    assert book.done.empty
    assert len(book.planned) == 4
    assert book.histories.empty


def test_timings_are_joined_with_what_they_time(study):
    macs = {"macs_kept": 5, "macs_dense": 50}
    study("accuracy-snip-c1", {"top1_pct": 50.0} | macs)
    one = "s/accuracy-snip-c1-seed1,permanent"
    rows = f"network,form,repeat,seconds\n{one},1,1.0\n{one},2,3.0\n"
    study("timing", {"networks": 1}, timings=rows)
    book = summary.load("s")
    (timed,) = summary.timings(book)
    assert (timed.task, timed.row["notebook"]) == (book.planned["task"].iloc[0], "timing")
    (row,) = timed.rows.to_dict("records")
    assert (row["method"], row["compression"], row["median_s"]) == ("SNIP", 1.0, 2.0)
    assert row["network"] == "SNIP at compression 1"


def test_parts_are_what_the_plan_has_to_show(study):
    def plan(*runs):
        return {"runs": [{"id": str(i), "notebook": "accuracy", "parameters": r} for i, r in enumerate(runs)]}

    one = {"data": "digits", "model": "fc", "pruner": "snip", "seed": 1}
    few = [one | {"density": d} for d in (1, 0.5, 0.1, 0.01)]
    compared = {"accuracy", "methods-by-layer"}
    assert summary.parts(state.plan("s")) == compared | {"layers", "timing"}
    assert summary.parts(plan(*few)) == compared | {"collapse"}
    assert summary.parts(plan(*few[:3])) == compared
    assert summary.parts(plan(one | {"density": 0.1, "ablation": "shuffle"})) == {"ablations"}
    assert summary.parts({"runs": [{"id": "x", "notebook": "trace", "parameters": {}}]}) == {"trace"}
    layers = [
        {"id": p, "notebook": "layers", "parameters": one | {"pruner": p, "density": 0.1}} for p in ("snip", "rand")
    ]
    assert summary.parts({"runs": layers}) == {"layers", "methods-by-layer"}
    assert summary.parts({"runs": layers[:1]}) == {"layers"}


def test_layers_come_from_closer_looks_where_these_compare_methods(study, bench):
    row = "layer,kept,weights,density,macs_kept,macs_dense,shape\na,3,6,0.5,1,2,2x3\n"
    study("accuracy-snip-c1", {"top1_pct": 50.0}, layers=row)
    study("layers", {"weights": 5}, layers=row)
    book = summary.load("s")
    ((at, (rows, chosen)),) = summary.by_layer(book, 1.0).items()
    assert (at, rows["run"].tolist()) == ((book.planned["task"].iloc[0], 1.0), ["accuracy-snip-c1-seed1"])
    # a compression that the task was not pruned to: the highest that it was
    ((at, (again, _)),) = summary.by_layer(book, 3.0).items()
    assert (at[1], again["run"].tolist()) == (1.0, rows["run"].tolist())
    bench.write(
        "s",
        {"notebook": "accuracy", "grid": {"pruner": ["snip", "rand"], "compression": [0.5, 1]}},
        {"notebook": "layers", "fixed": {"ratio": 10}, "grid": {"pruner": ["snip", "rand"]}},
    )
    planned = state.plan("s")
    state.save(planned)
    looked = [r["id"] for r in planned["runs"] if r["notebook"] == "layers"]
    for entry in planned["runs"][-2:-1]:
        folder = state.folder(planned) / entry["id"]
        files.write_json(folder / runs.RUN, FACTS | {"notebook": "layers", "parameters": entry["parameters"]})
        files.write_json(folder / runs.METRICS, {"weights": 5, "wall_s": 1.0})
        (folder / "layers.csv").write_text(row)
    ((at, (rows, chosen)),) = summary.by_layer(summary.load("s"), 1.0).items()
    assert at == ("Digits / ResNet-20", 1.0)  # the notebook's own default
    assert (rows["run"].tolist(), chosen["run"].tolist()) == (looked[:1], looked)


def test_compressions_of_closer_looks_are_not_averaged(study, bench):
    study("accuracy-snip-c1", {"top1_pct": 50.0})
    bench.write("s", {"notebook": "layers", "grid": {"pruner": ["snip", "rand"], "ratio": [2, 10, 50]}})
    planned = state.plan("s") | {"runs": state.plan("s")["runs"][:-1]}  # at ratio 50 nothing to compare
    state.save(planned)
    for entry in planned["runs"]:
        folder = state.folder(planned) / entry["id"]
        files.write_json(folder / runs.RUN, FACTS | {"notebook": "layers", "parameters": entry["parameters"]})
        files.write_json(folder / runs.METRICS, {"weights": 5, "wall_s": 1.0})
        density = entry["parameters"]["density"]
        (folder / "layers.csv").write_text(f"layer,density,shape,weights,macs_dense\na,{density},1,10,10\n")
    found = summary.by_layer(summary.load("s"), 1.0)
    assert [at for _, at in found] == pytest.approx([0.301, 1.0], abs=1e-3)
    for (_, compression), (rows, chosen) in found.items():
        shown = tables.layer_densities(rows, chosen)
        assert shown.loc["a", ["Rand", "SNIP"]].tolist() == pytest.approx([100 * 10**-compression] * 2, rel=1e-3)


def test_runs_without_a_section_are_named(study, bench):
    study("accuracy-snip-c1", {"top1_pct": 50.0})
    assert summary.unreported(summary.load("s")) is None
    book = summary.load("s")
    book.everything = book.everything.assign(notebook="conservation")
    assert summary.unreported(book) == "This report has no section for the runs of the notebook `conservation`."


def as_reference(bench) -> None:
    (bench.runs / "reference").mkdir()
    shutil.copytree(bench.runs / "s", bench.runs / "reference" / "s")


def test_reference_runs_stand_in_until_there_are_own_ones(study, bench):
    study("layers", {"weights": 5})
    as_reference(bench)
    shutil.rmtree(bench.runs / "s")
    book = summary.load("s")
    assert (book.reference, book.study, book.name) == (True, "reference/s", "s")
    assert (len(book.everything), len(book.gaps)) == (1, 5)
    assert book.folder is None  # nothing that is not the user's lies among the user's figures
    assert book.beside is None
    assert summary.closer(book, "layers").directory.is_dir()
    with pytest.raises(ValueError, match="'s' was never started"):
        summary.load("s", "own")


def test_a_study_that_began_still_shows_the_reference(study, bench):
    study("layers", {"weights": 5})
    as_reference(bench)
    shutil.rmtree(next((bench.runs / "s").glob("layers*")))
    assert summary.load("s").reference
    with pytest.raises(ValueError, match="no finished run"):
        summary.load("s", "own")


@pytest.mark.parametrize("results", ["", "own"])
def test_own_runs_come_first_with_the_reference_beside(study, bench, results):
    study("layers", {"weights": 5})
    as_reference(bench)
    study("accuracy-snip-c0.5", {"top1_pct": 50.0}, history="epoch,x\n1,2\n")
    book = summary.load("s", results)
    assert (book.reference, book.study, book.folder) == (False, "s", bench.figures / "s")
    assert len(book.everything) == 2
    assert len(book.beside.everything) == 1
    assert book.beside.reference
    theirs = summary.load("s", "reference")
    assert (theirs.reference, theirs.beside, theirs.folder) == (True, None, bench.figures / "reference" / "s")
    assert (len(theirs.everything), len(theirs.done)) == (1, 0)


def test_reference_asked_for_and_not_there(study, bench):
    study("layers", {"weights": 5})
    assert summary.load("s").beside is None
    with pytest.raises(ValueError, match="study 's' has no reference results: those that have are none"):
        summary.load("s", "reference")
    with pytest.raises(ValueError, match="results: received 'mine', allowed is own, reference, or nothing"):
        summary.load("s", "mine")
    as_reference(bench)
    with pytest.raises(ValueError, match="study '../s' has no reference results: those that have are s$"):
        summary.load("../s", "reference")
