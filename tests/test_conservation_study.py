"""The notebook `conservation` executed by a study, its report made by the summary that the study names."""

import json

import pandas as pd
import pytest
from stub_study import Bench

from lib import parameters, paths, runs

TINY = {"data": "digits", "model": "fc", "compressions": [1], "round_counts": [1, 3], "epochs": 1, "train_images": 100}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A bench in which one of two seeds of the study `flow` was executed, and the whole of it reported."""
    made = Bench(tmp_path_factory.mktemp("conservation"), paths.NOTEBOOKS)
    made.write(
        "flow",
        {"notebook": "conservation", "fixed": TINY | {"compared": ["mag", "synflow"]}},
        summary="summary_conservation",
        seeds=[1, 2],
    )
    made.ended = [made.run("run", "flow", "--seeds", "1"), made.run("report", "flow", "--seeds", "1", "2")]
    return made


def test_a_gap_is_marked_and_the_rest_reported(tiny):
    assert [one.returncode for one in tiny.ended] == [0, 1], [one.stdout + one.stderr for one in tiny.ended]
    assert "".join(one.stderr for one in tiny.ended) == ""
    gaps = pd.read_csv(tiny.figures / "flow" / "tbl-gaps.csv")
    assert gaps.iloc[:, 0].tolist() == ["conservation-digits-fc-seed2"]


def test_the_run_leaves_its_tables(tiny):
    made = tiny.runs / "flow" / "conservation-digits-fc-seed1"
    metrics = json.loads((made / runs.METRICS).read_text())
    assert (metrics["weights"], metrics["units"]) == (119_400, 500)
    tables = {name: pd.read_csv(made / f"{name}.csv") for name in ("units", "layers", "cuts", "magnitudes", "history")}
    assert tables["units"].groupby("score").size().to_dict() == {"mag": 500, "synflow": 500, "saliency": 500}
    flow = tables["layers"][tables["layers"]["score"] == "synflow"]["total"]
    assert flow.max() == pytest.approx(flow.min(), rel=1e-9)
    assert tables["cuts"][["schedule", "rounds"]].to_numpy().tolist() == [
        ["exponential", 1], ["exponential", 3], ["linear", 1], ["linear", 3],
    ]  # fmt: skip
    assert tables["magnitudes"]["epoch"].unique().tolist() == [0, 1]
    book = json.loads((made / runs.NOTEBOOK).read_text())
    outputs = [o for c in book["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] in ("error", "stream")]
    assert (made / "kernel.log").read_text() == ""


def test_the_report_shows_every_part(tiny):
    folder = tiny.figures / "flow"
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    book = json.loads((folder / "summary.ipynb").read_text())
    outputs = [o for c in book["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] in ("error", "stream")]
    labels = {o.get("metadata", {}).get("report", {}).get("label") for o in outputs}
    figures = {f"fig-{name}-1" for name in ("units", "layers", "cuts", "magnitudes")}
    assert figures | {"tbl-settings", "tbl-gaps", "tbl-units", "tbl-totals-1", "tbl-cuts-1"} <= labels
    text = "".join("".join(o.get("data", {}).get("text/markdown", "")) for o in outputs)
    assert "SynFlow and signed SNIP are conserved" in text
    assert "equal for SynFlow and signed SNIP" in text  # the abstract
    assert {p.stem for p in folder.glob("fig-*.png")} == figures


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compared": ["mag", "snap"]}, "unknown pruner 'snap': one of"),
        ({"compared": []}, "compared: received []"),
        ({"compared": "mag"}, "compared: received 'mag', allowed is a list"),
        ({"round_counts": [1, 0]}, "round_counts.1: received 0"),
        ({"round_counts": []}, "round_counts: received []"),
        ({"round_counts": [1.5]}, "round_counts.0: received 1.5"),
        ({"densities": [0.1, 0.0]}, "densities.1: received 0.0"),
    ],
)
def test_impossible_parameters_are_refused(given, message):
    with pytest.raises(ValueError, match=r"^notebook conservation: ") as caught:
        parameters.resolve("conservation", given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
