"""The notebooks of the pruning lab executed by a study, its report made by the summary that the study names."""

import json
import shutil

import pandas as pd
import pytest
from notebook_cells import execute, labels, words
from stub_study import PATIENCE_S, Bench

from lib import paths, runs, summary
from lib.report import typeset
from lib.study import state

TINY = {"data": "digits-20x20", "model": "mlp-2x16", "train_images": 200}
DENSE = "accuracy-{data}-{model}-dense-s0-seed{seed}"
WITHOUT = "repeated-{data}-{model}-mag-retrainnone-seed{seed}"
SMALLER = "structured-{data}-{model}-seed{seed}"
REPEATED = TINY | {"iterations": 2, "epochs": 1}
MAGNITUDE = REPEATED | {"pruner": "mag", "latency_batches": [1, 8], "timed_passes": 3}
BLOCKS = [
    {"notebook": "accuracy", "fixed": TINY | {"pruner": "dense", "sparsity": 0, "epochs": 1}},
    {"notebook": "repeated", "fixed": MAGNITUDE | {"source": DENSE}, "grid": {"retrain": ["none"]}},
    {"notebook": "repeated", "fixed": MAGNITUDE, "grid": {"retrain": ["rewind"]}},
    {
        "notebook": "repeated",
        "fixed": REPEATED | {"iterations": 1, "timed_passes": 0},
        "grid": {"pruner": ["wanda"], "retrain": ["rewind"]},
    },
    {
        "notebook": "multishot",
        "fixed": TINY | {"pruner": "mag", "scope": "fours", "schedule": "linear", "sparsity": 0.75, "levels": 3}
        | {"epochs": 1, "rewind_epochs": 0},
    },
    {"notebook": "structured", "fixed": TINY | {"source": DENSE, "rates": [0.5], "latency_batches": [8], "repeats": 3}},
    {"notebook": "sensitivity", "fixed": TINY | {"source": DENSE, "sparsities": [0.5, 0.9], "test_images": 100}},
    {
        "notebook": "runtime",
        "fixed": {
            "data": "digits-20x20", "model": "mlp-2x16", "latency_batches": [1, 8], "repeats": 3, "warmup": 1,
            "sources": [DENSE, WITHOUT, SMALLER],
        },
    },
    {
        "notebook": "quantized",
        "fixed": TINY | {"sparsity": 0.5, "levels": 1, "epochs": 1, "latency_batches": [1, 8], "repeats": 3},
    },
]  # fmt: skip
# notebook -> what its sections show
SHOWN = {
    "repeated": {
        "tbl-base", "tbl-sparsity-1", "tbl-forms-1", "tbl-none-1", "tbl-rewind-1", "fig-iterations-1", "tbl-methods-1",
        "fig-methods-1",
    },
    "multishot": {"tbl-patterns-1"},
    "structured": {"tbl-structured-1", "fig-structured-1"},
    "sensitivity": {"tbl-sensitivity-1", "fig-sensitivity-1"},
    "runtime": {"tbl-runtimes-1", "fig-runtimes-1"},
    "quantized": {"tbl-quantised-1", "fig-quantised-1", "tbl-int8-1", "tbl-steps-1"},
}  # fmt: skip
ALWAYS = {"tbl-settings", "tbl-contributions"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A bench in which a small lab was executed and reported, by the command."""
    made = Bench(tmp_path_factory.mktemp("lab"), paths.NOTEBOOKS)
    made.write("lab", *BLOCKS, summary="summary_lab", fixed={"batch": 64, "lr": 0.001})
    made.ended = [made.run("run", "lab", patience_s=3 * PATIENCE_S), made.run("report", "lab")]
    yield made
    made.close()


def outputs(path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_every_run_is_executed_without_a_word_on_the_side(lab):
    assert [one.returncode for one in lab.ended] == [0, 0], [one.stdout + one.stderr for one in lab.ended]
    assert "".join(one.stderr for one in lab.ended) == ""
    assert len(lab.done("lab")) == len(BLOCKS)
    for run in lab.done("lab"):
        folder = lab.runs / "lab" / run
        assert not [o for o in outputs(folder / runs.NOTEBOOK) if o["output_type"] in ("error", "stream")], run
        assert (folder / "kernel.log").read_text() == "", run


def test_the_report_shows_every_part(lab):
    folder = lab.figures / "lab"
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    shown = outputs(folder / "summary.ipynb")
    assert not [o for o in shown if o["output_type"] in ("error", "stream")]
    found = {o.get("metadata", {}).get("report", {}).get("label") for o in shown} - {None}
    assert found == ALWAYS.union(*SHOWN.values())
    assert {p.stem for p in folder.glob("fig-*.png")} == {label for label in found if label.startswith("fig-")}
    text = "".join("".join(o.get("data", {}).get("text/markdown", "")) for o in shown)
    assert "prune.global_unstructured(parameters" in text
    assert "**Missing:**" not in text
    assert "does not include" not in text
    named = pd.read_csv(folder / "tbl-runtimes-1.csv")["network"].unique().tolist()
    assert named == ["Dense", "Mag (repeated) at sparsity 55.1 %", "neurons 0.5"]
    sizes = pd.read_csv(folder / "tbl-base.csv")
    assert sizes["network"].tolist() == ["Digits-20x20 / MLP-2x16"]
    assert pd.read_csv(folder / "tbl-methods-1.csv")["iteration"].tolist() == [0, 1], "Wanda was pruned once"
    patterns = pd.read_csv(folder / "tbl-patterns-1.csv")
    assert patterns["pattern"].tolist() == ["dense", "3:4", "2:4", "1:4"]
    assert patterns["sparsity (%)"].tolist() == [0, 25, 50, 75]


def without(lab, monkeypatch, tmp_path, *begins: str):
    """The report's notebook, executed here, when the runs whose names begin so are not finished."""
    shutil.copytree(lab.runs, tmp_path / "runs")
    for name, folder in (("RUNS", tmp_path / "runs"), ("STUDIES", lab.studies), ("FIGURES", tmp_path / "figures")):
        monkeypatch.setattr(paths, name, folder)
    for folder in (tmp_path / "runs" / "lab").iterdir():
        if folder.name.startswith(begins):
            shutil.rmtree(folder)
    return execute("summary_lab", {"study": "lab"}, summary.parts(state.load_plan("lab")))


@pytest.mark.parametrize("notebook", SHOWN)
def test_a_missing_part_is_said_and_the_rest_is_made(lab, monkeypatch, tmp_path, notebook):
    book = without(lab, monkeypatch, tmp_path, notebook)
    rest = set().union(*(shown for name, shown in SHOWN.items() if name != notebook))
    assert labels(book) == ALWAYS | rest | {"tbl-gaps"}
    said = words(book)
    assert said.count("**Missing:**") == 1
    assert f"**Missing:** the study has no finished run of the notebook `{notebook}`" in said
    typeset.typst_source(book, tmp_path)


def test_one_of_two_ways_is_reported_alone(lab, monkeypatch, tmp_path):
    book = without(lab, monkeypatch, tmp_path, "repeated-digits-20x20-mlp-2x16-mag-retrainrewind")
    gone = {"tbl-rewind-1", "tbl-methods-1", "fig-methods-1"}
    assert labels(book) == (ALWAYS.union(*SHOWN.values()) | {"tbl-gaps"}) - gone
    assert "rewound and retrained" not in words(book).partition("## Conclusions")[2]
    typeset.typst_source(book, tmp_path)
