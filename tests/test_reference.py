"""Our own results: kept without anything heavy, reported apart, and never taken for a user's."""

import json
import shutil

import pandas as pd
import pytest
from stub_study import Bench

from lib import files, paths, runs
from lib.study import __main__ as command
from lib.study import execute, reference, state

STUB = {"notebook": "stub", "grid": {"name": ["a", "b", "c"]}}
RUNS = [f"stub-name{name}-seed1" for name in "abc"]
KEPT = ["masks.safetensors", "metrics.json", "rows.csv", "run.json", "trace.json.gz"]
NOTEBOOK = json.dumps({"cells": [], "metadata": {"papermill": {"input_path": f"{paths.ROOT}/notebooks/stub.ipynb"}}})


def finish(study: str, names=tuple(RUNS), started="2026-01-02T00:00:00+00:00", value=1) -> None:
    """Write runs of `study` as finished, with everything that a real one may leave."""
    planned = state.plan(study)
    for run in planned["runs"]:
        if run["id"] not in names:
            continue
        folder = state.folder(planned) / run["id"]
        shutil.rmtree(folder, ignore_errors=True)
        files.write_json(folder / runs.RUN, {"parameters": run["parameters"], "started_utc": started})
        for name in ("weights.safetensors", "masks.safetensors", "rows.csv", "trace.json.gz", "kernel.log"):
            (folder / name).write_text(f"{name} {value}")
        (folder / runs.NOTEBOOK).write_text(NOTEBOOK)
        files.write_json(folder / runs.METRICS, {"wall_s": 2.0, "value": value})


def tree(folder) -> dict:
    """Every file below `folder`: its content and time."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def kept(here, capsys):
    """`kept()` runs the command; it returns its code, what it said, and the kept study's folder."""
    here.write("s", STUB)

    def keep(*arguments: str):
        code = command.main(["keep", "s", *arguments])
        out, err = capsys.readouterr()
        return code, out + err, here.runs / "reference" / "s"

    return keep


def test_only_what_is_light_is_kept(here, kept):
    finish("s")
    code, out, folder = kept()
    assert (code, "3 copied; weights and logs stay" in out) == (0, True)
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", *RUNS]
    for run in RUNS:
        names = sorted(path.name for path in (folder / run).iterdir())
        assert [name for name in names if name != runs.NOTEBOOK] == KEPT
        assert (runs.NOTEBOOK in names) == (run == RUNS[0])  # one of each notebook shows how it looks
        assert (folder / run / runs.METRICS).read_bytes() == (here.runs / "s" / run / runs.METRICS).read_bytes()
    assert state.load_plan("reference/s") == state.plan("s")
    notebook = (folder / RUNS[0] / runs.NOTEBOOK).read_text()
    assert str(paths.ROOT) not in notebook
    assert json.loads(notebook)["metadata"]["papermill"]["input_path"] == "./notebooks/stub.ipynb"


def test_a_pruned_run_shows_its_notebook():
    done = [
        {"id": f"{notebook}-{pruner}", "notebook": notebook, "parameters": {"pruner": pruner}}
        for notebook, pruner in (("accuracy", "dense"), ("accuracy", "snip"), ("accuracy", "rand"), ("amp", "dense"))
    ]
    assert reference._key_runs(done) == {"accuracy-snip", "amp-dense"}
    assert reference._key_runs(done[:1]) == {"accuracy-dense"}


def test_keeping_again_changes_nothing(here, kept):
    finish("s")
    before = (kept(), tree(here.runs))[1]
    code, out, _ = kept()
    assert (code, "3 there already" in out, "copied" in out) == (0, True, False)
    assert tree(here.runs) == before


def test_later_runs_replace_earlier_ones_and_not_the_reverse(here, kept):
    finish("s")
    _, _, folder = kept()
    (folder / RUNS[1] / "old.csv").write_text("of an earlier version")
    finish("s", RUNS[1:2], started="2026-01-03T00:00:00+00:00", value=2)
    assert "1 copied, 2 there already" in kept()[1]
    assert json.loads((folder / RUNS[1] / runs.METRICS).read_text())["value"] == 2
    assert not (folder / RUNS[1] / "old.csv").exists()
    finish("s", RUNS[1:2], started="2026-01-01T00:00:00+00:00", value=3)
    assert "2 there already, 1 left, the reference's are newer" in kept()[1]
    assert json.loads((folder / RUNS[1] / runs.METRICS).read_text())["value"] == 2


def test_what_is_large_is_left_out_and_said(here, kept, monkeypatch):
    monkeypatch.setattr(reference, "LARGEST", 1000)
    finish("s")
    (here.runs / "s" / RUNS[2] / "rows.csv").write_text("x" * 1001)
    _, out, folder = kept()
    assert f"left out, over 0.000953674 MiB: {RUNS[2]}/rows.csv" in out
    assert out.count("left out") == 1
    assert not (folder / RUNS[2] / "rows.csv").exists()
    assert (folder / RUNS[1] / "rows.csv").exists()


def test_masks_of_a_large_network_are_left_out(here, kept, monkeypatch):
    monkeypatch.setattr(reference, "LARGEST_MASKS", 100)
    finish("s")
    (here.runs / "s" / RUNS[2] / "masks.safetensors").write_text("x" * 101)
    (here.runs / "s" / RUNS[2] / "rows.csv").write_text("x" * 101)
    _, out, folder = kept()
    assert f"left out, over 9.53674e-05 MiB: {RUNS[2]}/masks.safetensors" in out
    assert out.count("left out") == 1
    assert (folder / RUNS[2] / "rows.csv").exists()
    assert (folder / RUNS[1] / "masks.safetensors").exists()


def test_only_finished_runs_of_the_plan_are_kept(here, kept):
    finish("s", RUNS[:1])
    shutil.copytree(here.runs / "s" / RUNS[0], here.runs / "s" / "of-another-plan")
    files.write_json(here.runs / "s" / RUNS[1] / runs.ERROR, {"error": "E: no"})
    code, out, folder = kept()
    assert code == 1
    assert [path.name for path in sorted(folder.glob("*/"))] == RUNS[:1]
    assert f"gap: {RUNS[1]}: E: no" in out
    assert f"gap: {RUNS[2]}: not executed yet" in out
    here.write("s", {"notebook": "stub", "grid": {"name": ["b", "c"]}})
    finish("s")
    assert f"not in the plan, so in no report: {folder / RUNS[0]}" in kept()[1]


def test_nothing_to_keep_and_runs_that_do_not_fit(here, kept):
    code, out, folder = kept()
    assert (code, out.count("\n"), "has no finished run" in out) == (2, 1, True)
    finish("s")
    here.write("s", STUB | {"fixed": {"act": "raise"}})
    code, out, _ = kept()
    assert (code, out.count("\n"), "made with other parameters" in out) == (2, 1, True)
    assert not folder.exists()


def test_a_copy_that_fails_leaves_the_earlier_runs_whole(here, kept, monkeypatch):
    finish("s")
    _, _, folder = kept()
    before = tree(folder)
    finish("s", started="2026-01-03T00:00:00+00:00", value=2)
    copy, left = shutil.copyfile, [7]

    def full(source, target):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    code, out, _ = kept()
    assert (code, "No space left" in out) == (1, True)
    after = tree(folder)
    assert sorted(after) == sorted(before)
    values = [json.loads((folder / run / runs.METRICS).read_text())["value"] for run in RUNS]
    assert values == [2, 1, 1]
    assert {name: after[name] for name in after if RUNS[0] not in name} == {
        name: before[name] for name in before if RUNS[0] not in name
    }


def test_reference_runs_are_never_taken_for_the_users(here, kept, monkeypatch, capsys):
    """With a whole reference beside it, a study executes every run of its own."""
    finish("s")
    kept()
    before = tree(here.runs / "reference")
    shutil.rmtree(here.runs / "s")
    executed = []
    monkeypatch.setattr(
        execute, "attempt", lambda planned, run, *_: executed.append(run["id"]) or finish("s", [run["id"]])
    )
    assert command.main(["run", "s"]) == 0
    assert sorted(executed) == RUNS
    assert tree(here.runs / "reference") == before
    assert "3 runs, 0 done, 3 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s", "--from", "others"), "invalid choice: 'others' (choose from"),
        (("t", "--from", "reference"), "study 't' has no reference results: those that have are s"),
        (("s", "--from", "reference", "--seeds", "2"), "--seeds goes with your own runs"),
    ],
)
def test_bad_input_of_the_reference_report(here, kept, capsys, arguments, message):
    finish("s")
    kept()
    before = tree(here.root)
    try:
        code = command.main(["report", *arguments])
    except SystemExit as ended:
        code = ended.code
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert tree(here.root) == before


@pytest.fixture
def ours(tmp_path):
    """A bench with the real notebooks and a copy of the results in the repository."""
    made = Bench(tmp_path, paths.NOTEBOOKS)
    shutil.copytree(paths.ROOT / "runs" / "reference", made.runs / "reference")
    yield made
    made.close()


def outputs(path) -> str:
    book = json.loads(path.read_text(encoding="utf-8"))
    found = [o for cell in book["cells"] for o in cell.get("outputs", [])]
    assert not [o for o in found if o["output_type"] in ("error", "stream")]
    return json.dumps(found)


def test_report_of_the_reference(ours):
    before = tree(ours.runs)
    done = ours.run("report", "cos568-small", "--from", "reference")
    missing = len(json.loads((ours.runs / "reference" / "cos568-small" / "plan.json").read_text())["runs"]) - len(
        runs.finished(ours.runs / "reference" / "cos568-small")
    )
    assert (done.returncode, done.stderr) == (int(missing > 0), "")
    assert done.stdout.count("gap: ") == missing
    folder = ours.figures / "reference" / "cos568-small"
    assert f"Report: {folder / 'report.pdf'}" in done.stdout
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "tbl-accuracy.csv").is_file()
    said = outputs(folder / "summary.ipynb")
    assert "Reference results of study cos568-small" in said
    assert "These are the reference results that come with the workbench, not yours:" in said
    assert "Beside the reference" not in said
    assert tree(ours.runs) == before
    assert [path.name for path in ours.figures.iterdir()] == ["reference"]


def test_own_report_has_the_reference_beside_it(ours, monkeypatch):
    """The reference's runs as a user's own, one of them changed; then without a reference."""
    from lib.study import report

    for name in ("RUNS", "FIGURES"):
        monkeypatch.setattr(paths, name, getattr(ours, name.lower()))
        monkeypatch.setenv(f"WORKBENCH_{name}", str(getattr(ours, name.lower())))
    own = ours.runs / "quick"
    shutil.copytree(ours.runs / "reference" / "quick", own)
    changed = next(own.glob("accuracy-digits-fc-snip-*")) / runs.METRICS
    metrics = json.loads(changed.read_text())
    files.write_json(changed, metrics | {"top1_pct": metrics["top1_pct"] - 7.5})
    report.make_report(state.load_plan("quick"))
    said = outputs(ours.figures / "quick" / "summary.ipynb")
    assert "## Beside the reference results" in said
    assert "points**: SNIP at compression 1 on Digits / FC, yours" in said
    assert "These are the reference results" not in said
    table = pd.read_csv(ours.figures / "quick" / "tbl-beside.csv")
    assert len(table) == len(list(own.glob("accuracy-*")))
    differing = table[table["difference (points)"].round(6) != 0]
    assert differing[["method", "difference (points)"]].to_numpy().tolist() == [["SNIP", -7.5]]
    assert "other settings" not in " ".join(table.columns)
