"""The report of compression pipelines, made of a study of numbers."""

import re
import shutil

import pandas as pd
import pytest
import stub_pipeline
from notebook_cells import execute, labels, words

from lib import paths, summary
from lib.report import typeset
from lib.study import state

EACH = ("fig-pipeline", "tbl-sizes", "tbl-parts", "tbl-operations", "fig-layers", "tbl-coders", "fig-codes")
SHOWN = {f"{name}-{number}" for name in EACH for number in (1, 2)}
SHOWN |= {"tbl-settings", "fig-tradeoff-1", "tbl-counting", "tbl-weight-methods-1", "tbl-input-methods-1"}
SHOWN |= {"tbl-rounding-1"}  # the other chain does not round


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return tmp_path


def report(made) -> str:
    name = made.save()
    return execute("summary_pipeline", {"study": name}, summary.parts(state.load_plan(name)))


def test_the_report_shows_every_part(here):
    book = report(stub_pipeline.typical())
    assert labels(book) == SHOWN
    said = words(book)
    assert "element-l2 keeps the very same weights as element-l1" in said
    assert "Chain whole: the smallest file, that of stage 6 (coded)" in said
    assert "Rounding (stage 5) made 10.00 % of the kept weights zero" in said
    assert "element-l2 has the very same accuracy, test loss and MACs as element-l1" in said
    assert "**Missing:**" not in said
    assert "Deep Compression\n" not in said.partition("## References")[0]
    assert not re.search(r"\bnan\b", said)
    assert typeset.typst_source(book, here).count("#figure") >= len(SHOWN)
    table = pd.read_csv(paths.FIGURES / "p" / "tbl-sizes-1.csv")
    assert len(table) == len(stub_pipeline.ALL)


def test_missing_stages_are_said_and_the_rest_is_made(here):
    made = stub_pipeline.typical(model="lenet-300-100")
    for run in ("whole-5-quantise-seed1", "whole-6-coded-seed1"):
        shutil.rmtree(here / "runs" / "p" / run)
    book = report(made)
    gone = {"tbl-coders-1", "fig-codes-1", "tbl-rounding-1"}
    assert labels(book) == (SHOWN - gone) | {"tbl-gaps", "tbl-published"}
    said = words(book)
    assert "**Missing:** stage 5 (quantised; `whole-5-quantise-seed1`: not executed yet); stage 6 (coded;" in said
    assert (
        "Chain whole does not reach the 40 times of the paper: its file is 3.3 times smaller (its last stages are miss"
        in said
    )
    typeset.typst_source(book, here)


@pytest.mark.parametrize("left", ["whole-1", "short", "prune_weights-"])
def test_a_report_of_next_to_nothing_is_made(here, left):
    made = stub_pipeline.typical(model="lenet-300-100")
    for folder in (here / "runs" / "p").iterdir():
        if not folder.name.startswith(left):
            shutil.rmtree(folder)
    said = words(report(made))
    assert "**Missing:**" in said
    assert not re.search(r"\bnan\b", said)


def test_a_study_of_methods_alone_has_no_sections_on_chains(here):
    made = stub_pipeline.Pipeline()
    made.add("pretrained-seed1", "pretrained", {"seed": 1}, "")
    made.finish("pretrained-seed1", "pretrained", stub_pipeline.START | stub_pipeline.STAGES["pretrained"], 1)
    for method, top1 in (("element-l1", 80), ("random", 60)):
        at = {"method": method, "share_kept": 0.1, "pruning_scope": "local"}
        made.branch("prune_weights", "pretrained-seed1", top1, digest=method, **at)
    book = report(made)
    assert labels(book) == {"tbl-settings", "tbl-weight-methods-1"}
    assert set(re.findall("^## (.*)$", words(book), re.MULTILINE)) == {
        "Settings", "Which weights go", "Conclusions", "References"
    }  # fmt: skip
