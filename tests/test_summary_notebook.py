"""The report of studies that have only some of the parts: each has its sections, and nothing of the others.

The runs are executed once, in this process and at tiny size; a study is then a plan of some of them.
"""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from notebook_cells import execute, labels, words
from stub_study import Bench
from test_notebooks import write_original

from lib import paths, runs, summary
from lib.catalog import RUNTIMES
from lib.report import typeset
from lib.study import state

SMALL = {"model": "fc", "train_images": 100}
DIGITS = SMALL | {"data": "digits"}
RUNTIME = {"model": "fc", "repeats": 2, "warmup": 1, "calibration_images": 20}
FILE = {"source": "checkpoint-fc-d0.2-seed{seed}"}
BLOCKS = [
    {"notebook": "checkpoint", "fixed": {"model": "fc", "density": 0.2, "checkpoint": "CHECKPOINT"}},
    {"notebook": "accuracy", "fixed": FILE | SMALL | {"pruner": "mag", "density": 0.1, "epochs": 1}},
    {"notebook": "layers", "fixed": FILE | {"model": "fc"}},
    {"notebook": "layers", "fixed": SMALL, "grid": {"pruner": ["rand", "snip"], "density": [0.5, 0.1]}},
    {
        "notebook": "timing",
        "fixed": {"model": "fc", "sources": ["checkpoint-*"], "test_images": 20, "batch": 10, "repeats": 2},
    },
    {"notebook": "timing", "fixed": {"model": "fc", "density": 0.5, "test_images": 20, "batch": 20, "repeats": 2}},
    {"notebook": "trace", "fixed": FILE | {"model": "fc", "batch": 16}},
    {"notebook": "multishot", "fixed": SMALL | {"pruner": "snip", "density": 0.1, "epochs": 1, "levels": 2}},
    {
        "notebook": "runtime",
        "fixed": RUNTIME | {"sources": ["checkpoint-*", "accuracy-*"], "latency_batches": [1, 8]},
    },
    {"notebook": "runtime", "fixed": RUNTIME | {"density": 0.1, "structured_rate": 0.0, "latency_batches": [4]}},
    {"notebook": "repeated", "fixed": DIGITS | {"epochs": 1, "iterations": 2, "timed_passes": 0}},
    {
        "notebook": "timing",
        "fixed": {
            "model": "fc",
            "density": 0.25,
            "sources": ["repeated-*"],
            "test_images": 20,
            "batch": 10,
            "repeats": 2,
        },
    },
    {
        "notebook": "structured",
        "fixed": SMALL | {"pre_epochs": 1, "tune_epochs": 0, "rates": [0.5], "latency_batches": [2], "repeats": 2},
    },
    {"notebook": "sensitivity", "fixed": DIGITS | {"epochs": 1, "test_images": 50}},
    {"notebook": "amp", "fixed": SMALL | {"epochs": 2, "densities": [0.5, 0.1]}},
]
# the runs of a study, by how their names begin -> what its report shows beside the settings
STUDIES = {
    ("checkpoint", "layers-fc-seed1", "timing-fc-seed1", "trace"): {
        "tbl-checkpoints", "tbl-block", "tbl-statistics", "fig-histograms-1-1", "tbl-time-permanent-1",
        "tbl-time-masked-forward-1", "fig-trace", "tbl-windows", "tbl-operators",
    },
    ("multishot",): {"tbl-levels-1", "fig-levels-1"},
    ("layers-fc-seed1",): {"tbl-block", "tbl-statistics", "fig-histograms-1-1"},
    ("layers-fc-rand", "layers-fc-snip"): {
        "tbl-block", "tbl-statistics", *(f"fig-histograms-{n}-1" for n in (1, 2, 3, 4)),
        *(f"{name}-{n}" for n in (1, 2) for name in ("tbl-layer-densities", "fig-densities", "tbl-layer-macs")),
    },
    ("amp",): {"tbl-amp", "fig-amp"},
    ("trace",): {"fig-trace", "tbl-windows", "tbl-operators"},
    ("checkpoint", "runtime-fc-seed1"): {"tbl-checkpoints", "tbl-sizes", "tbl-runtimes", "fig-runtimes"},
    ("runtime-fc-d0.1",): {"tbl-sizes", "tbl-runtimes", "fig-runtimes"},
    ("runtime",): {f"{name}{end}" for name in ("tbl-sizes", "tbl-runtimes", "fig-runtimes") for end in ("", "-2")},
    ("repeated", "timing-fc-d0.25"): {"tbl-time-permanent-1", "tbl-time-masked-forward-1"},
    ("checkpoint", "repeated", "sensitivity", "structured"): {"tbl-checkpoints"},
    ("timing-fc-d0.5",): {"tbl-time-permanent-1", "tbl-time-masked-forward-1"},
    ("accuracy", "checkpoint", "timing-fc-seed1"): {
        "tbl-accuracy", "fig-curves-1", "tbl-checkpoints", "tbl-top1-1", "tbl-macs-1",
        "tbl-time-permanent-1", "tbl-time-masked-forward-1", "tbl-layer-densities-1", "fig-densities-1",
        "tbl-layer-macs-1",
    },
}  # fmt: skip
HEADINGS = {
    "accuracy": {"Accuracy of each method", "What compression changes"},
    "methods-by-layer": {"Where each method keeps its weights"},
    "checkpoint": {"Networks from files"},
    "timing": {"Time on the clock"},
    "runtime": {"What is left on disk, and in a runtime"},
    "multishot": {"In many shots"},
    "trace": {"One inference step under the profiler"},
    "layers": {"Weights of the pruned network"},
    "amp": {"Mixed precision"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A plan whose runs are all finished, in folders that `lib.paths` names."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("parts")
        bench = Bench(root, paths.NOTEBOOKS)
        for name in ("RUNS", "STUDIES", "FIGURES"):
            patch.setattr(paths, name, getattr(bench, name.lower()))
        patch.setenv(runs.NEIGHBOURS, "0")
        BLOCKS[0]["fixed"]["checkpoint"] = str(write_original(root / "model.pt"))
        bench.write("s", *BLOCKS)
        planned = state.plan("s")
        for run in planned["runs"]:
            execute(run["notebook"], run["parameters"] | {"run_dir": str(bench.runs / "s" / run["id"])})
        yield planned


def report(whole, *begins: str, **more):
    """(plan, executed summary) of the study of those runs whose names begin so."""
    planned = whole | {"runs": [run for run in whole["runs"] if run["id"].startswith(begins)]} | more
    state.save(planned)
    return planned, execute("summary", {"study": "s"}, summary.parts(planned))


@pytest.mark.parametrize("begins", STUDIES, ids=" ".join)
def test_a_report_has_the_sections_of_its_study_and_no_others(whole, begins, tmp_path):
    planned, book = report(whole, *begins)
    shown = words(book)
    assert labels(book) == STUDIES[begins] | {"tbl-settings"}
    wanted = set().union(*(HEADINGS.get(part, set()) for part in summary.parts(planned)))
    found = set(re.findall("^## (.*)$", shown, re.MULTILINE))
    assert found - {"Conclusions"} == wanted | {"Settings", "References"}
    assert f"{len(planned['runs'])} of {len(planned['runs'])} runs finished" in shown
    assert not re.search(r"\bnan\b|does not include", shown)
    assert typeset.typst_source(book, tmp_path).count("#figure") >= len(STUDIES[begins])  # no reference without target


@pytest.mark.parametrize("begins", [("multishot",), ("checkpoint", "timing-fc-seed1")], ids=" ".join)
def test_opened_by_hand_it_says_what_the_study_has_not(whole, begins, tmp_path):
    planned, _ = report(whole, *begins)
    book = execute("summary", {"study": "s"})
    assert labels(book) == labels(execute("summary", {"study": "s"}, summary.parts(planned)))
    assert "This study does not include this part (notebook `amp`)." in words(book)
    typeset.typst_source(book, tmp_path)


def waiting(whole, **parameters) -> dict:
    """An accuracy run that is planned and not executed."""
    run = next(run for run in whole["runs"] if run["notebook"] == "accuracy")
    values = run["parameters"] | {"source": "", "pruner": "snip"} | parameters
    return run | {"id": "-".join(map(str, ["waiting", *parameters.values()])), "parameters": values, "sources": []}


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ([{"density": 0.1}, {"density": 0.5}], {"tbl-accuracy", "tbl-top1-1", "tbl-macs-1"}),
        ([{"density": 10.0**-c} for c in range(4)], {"tbl-accuracy", "tbl-top1-1", "tbl-macs-1"}),
        ([{"density": 1.0, "pruner": "dense"}], {"tbl-accuracy"}),
        ([{"density": 0.1, "ablation": "shuffle"}], {"tbl-ablations-1"}),
    ],
    ids=["two", "down to the collapse", "dense", "ablated"],
)
def test_a_study_whose_accuracy_runs_are_all_missing(whole, parameters, wanted, tmp_path):
    other = [run for run in whole["runs"] if run["notebook"] == "amp"]
    planned = whole | {"runs": [*other, *(waiting(whole, **values) for values in parameters)]}
    state.save(planned)
    for parts in (summary.parts(planned), None):
        book = execute("summary", {"study": "s"}, parts)
        assert labels(book) == wanted | {"tbl-settings", "tbl-gaps", "tbl-amp", "fig-amp"}
    assert "No run was left with an empty layer" not in words(book), "nothing is known of runs that are missing"
    typeset.typst_source(book, tmp_path)


def test_timed_networks_that_are_gone_are_named(whole):
    _, book = report(whole, "timing-fc-seed1")
    assert "Timed but not shown, since the study has no such finished run: `s/checkpoint-fc-d0.2-seed1`." in words(book)
    assert labels(book) == {"tbl-settings"}


def shown(name: str) -> pd.DataFrame:
    return pd.read_csv(paths.FIGURES / "s" / f"{name}.csv", dtype=str)


def test_networks_in_a_runtime_have_the_names_of_the_report(whole):
    _, book = report(whole, "accuracy", "checkpoint", "runtime-fc-seed1")
    measured = pd.read_csv(paths.RUNS / "s" / "runtime-fc-seed1" / "runtimes.csv")
    weights = measured[measured["runtime"] == RUNTIMES[0]]
    for name in ("tbl-sizes", "tbl-runtimes"):
        assert shown(name)["network"].tolist() == ["SynFlow (checkpoint) at density 20 %", "Mag at density 10 %"]
    assert shown("tbl-sizes")["bit mask (MB)"].astype(float).tolist() == pytest.approx(weights["bitmask_mb"], abs=1e-3)
    assert "s/" not in " ".join(shown("tbl-sizes")["network"])
    assert "When the runtime run began, no other run" in words(book)
    report(whole, "runtime-fc-seed1")
    assert shown("tbl-sizes")["network"].tolist()[0] == "checkpoint-fc-d0.2-seed1", "it is no run of the study any more"


def test_what_a_runtime_gains_is_concluded(whole):
    _, book = report(whole, "runtime-fc-d0.1")
    assert shown("tbl-sizes")["network"].tolist() == ["unpruned", "unstructured 0.1"]
    found = words(book).partition("## Conclusions")[2]
    assert "- Unstructured-pruned, Digits / FC is" in found
    assert "times smaller as bit mask and values, and in ONNX Runtime" in found


def test_a_runtime_that_lacks_a_network_says_so(whole):
    made = next(run for run in whole["runs"] if run["id"] == "runtime-fc-d0.1-seed1")
    folder = paths.RUNS / "s" / "runtime-lacking"
    shutil.copytree(paths.RUNS / "s" / made["id"], folder)
    rows, passes = (pd.read_csv(folder / f"{name}.csv") for name in ("runtimes", "latencies"))
    gone = (rows["network"] != "unpruned") & (rows["runtime"] == RUNTIMES[2])
    rows.loc[gone, ["top1_pct", "disk_mb", "compressed_mb", "max_abs_logit_difference", "max_abs_logit"]] = np.nan
    rows["note"] = np.where(gone, "op not supported: Nothing", "")
    rows.to_csv(folder / "runtimes.csv", index=False)
    lacking = (passes["network"] != "unpruned") & (passes["runtime"] == RUNTIMES[2])
    passes[~lacking].to_csv(folder / "latencies.csv", index=False)
    state.save(whole | {"runs": [made | {"id": "runtime-lacking"}]})
    book = execute("summary", {"study": "s"})
    assert "Not in ONNX Runtime int8: unstructured 0.1 (op not supported: Nothing)." in words(book)
    assert {"tbl-sizes", "tbl-runtimes", "fig-runtimes"} <= labels(book)
    assert pd.isna(shown("tbl-sizes").set_index("network").loc["unstructured 0.1", "int8 (MB)"])
    state.save(
        whole | {"runs": [made | {"id": "runtime-waiting"}, *(r for r in whole["runs"] if r["id"][:3] == "amp")]}
    )
    missing = "**Missing:** the study has no finished run of the notebook `runtime`"
    assert missing in words(execute("summary", {"study": "s"}))


def test_networks_pruned_again_and_again_are_timed_and_have_no_section(whole):
    _, book = report(whole, "accuracy", "checkpoint", "repeated", "sensitivity", "structured", "timing-fc-d0.25")
    said = "This report has no section for the runs of the notebooks `repeated`, `sensitivity`, `structured`."
    assert said in words(book)
    row = shown("tbl-time-permanent-1").iloc[0]
    assert "±" in row["Mag (repeated)"]
    assert float(row["density (%)"]) == pytest.approx(100 * 0.67**2, abs=0.1)


def test_a_network_from_a_file_is_timed_and_tabled_under_its_method(whole):
    _, book = report(whole, "checkpoint", "timing-fc-seed1", "layers-fc-seed1")
    assert "larger in magnitude" not in words(book), "what removed weights were is not in the file"
    measured = pd.read_csv(paths.RUNS / "s" / "timing-fc-seed1" / "timings.csv")
    for form in ("permanent", "masked forward"):
        clock = shown(f"tbl-time-{form.replace(' ', '-')}-1")
        assert clock["ratio"].tolist() == ["5"]
        seconds = float(clock["SynFlow"][0].partition(" ± ")[0])
        assert seconds == pytest.approx(np.median(measured.loc[measured["form"] == form, "seconds"]), rel=0.01)
    (row,) = shown("tbl-checkpoints").to_dict("records")
    assert (row["file"], row["method"], row["density (%)"], row["sparsity (%)"]) == ("model.pt", "SynFlow", "20", "80")
    assert int(row["weights kept"]) == int(row["MACs kept"]) == 23880  # fc uses each of 119,400 weights once


def test_a_start_from_a_file_is_no_training_of_zero_epochs(whole):
    _, book = report(whole, "accuracy", "checkpoint", "timing-fc-seed1")
    found = shown("tbl-accuracy").set_index("quantity")["Mag"]
    assert found["epochs"] == "? + 1"
    assert "? where a network came from elsewhere" in words(book)
    assert "trained for 0 epochs" not in words(book)
    training = shown("tbl-settings").set_index("setting").loc["Training: Digits / FC", "value"]
    assert "epochs before pruning ?, after 1" in training
    assert "SynFlow (checkpoint)" in shown("tbl-time-permanent-1"), "not the SynFlow of an accuracy run"


def test_each_compression_of_the_layers_has_a_table_that_names_it(whole):
    _, book = report(whole, "layers-fc-rand", "layers-fc-snip", word="ratio")
    assert "Digits / FC, SNIP at ratio 2: in " in words(book), "sentences on histograms name their network"
    for number, ratio in ((1, 2), (2, 10)):
        table = shown(f"tbl-layer-densities-{number}")
        kept = (table["weights"].astype(int) * table["SNIP"].astype(float) / 100).sum()
        assert kept == pytest.approx(119_400 / ratio, rel=1e-3)
        assert f"at ratio {ratio} (density {100 // ratio} %, sparsity {100 - 100 // ratio} %): kept weights" in words(
            book
        )


def test_mixed_precision_says_all_three_shares(whole):
    report(whole, "amp")
    table = shown("tbl-amp")
    assert table["ratio"].tolist() == ["2", "2", "10", "10"]
    assert table["density (%)"].tolist() == ["50", "50", "10", "10"]
    assert table["sparsity (%)"].tolist() == ["50", "50", "90", "90"]
    assert table["precision"].tolist() == ["amp", "float32"] * 2


def test_networks_that_timing_makes_itself_promise_nothing(whole):
    _, book = report(whole, "timing-fc-d0.5")
    assert shown("tbl-time-permanent-1")["SNIP"].str.contains("±").all()
    assert "MACs and promises" not in words(book)


def test_settings_tell_how_the_levels_were_trained(whole):
    report(whole, "multishot")
    (said,) = shown("tbl-settings").set_index("setting")["value"].filter(like="multishot")
    for part in ("pruner snip", "levels 2", "rewind epochs 1", "optimizer adam", "lr drops none", "train images 100"):
        assert part in said
