"""A parameter that is a table, such as the shares of layers: from the study file to the frame of its runs."""

import json

import pytest
from stub_study import write_notebook

from lib import feasible, frames, parameters, paths, runs
from lib.study import beforehand, state

CELLS = (
    """data = "digits"  # of the run
method = "element-l1"  # of pruning
share_kept = 0.5  # of every layer
pruning_scope = "local"  # or global
layer_shares = {}  # pattern of layers to share
seed = 1  # of the draws
run_dir = ""  # folder""",
    """from lib import runs
run = runs.begin("shares", globals())
found = sum(layer_shares.values()) + len(layer_shares)""",
    """runs.finish(run, {"value": found})""",
)


@pytest.fixture
def shares(here):
    write_notebook(here.notebooks, "shares", CELLS)
    return here


def test_from_the_study_to_the_frame(shares):
    tables = [{}, {"*": 0.25, "last": 1}, {"layers.0": 0.5}]
    shares.write("s", {"notebook": "shares", "grid": {"layer_shares": tables}})
    planned = state.plan("s")
    ids = ["shares-layer_shares-seed1", "shares-layer_shares__0.25+last_1-seed1"]
    ids += ["shares-layer_shareslayers.0_0.5-seed1"]
    assert [run["id"] for run in planned["runs"]] == ids
    assert [run["parameters"]["layer_shares"] for run in planned["runs"]] == tables
    done = shares.run("run", "s", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    frame = frames.load("s", ids)
    assert frame["value"].tolist() == [0, 3.25, 1.5]
    assert frame["layer_shares"].tolist() == ["", "* 0.25, last 1.0", "layers.0 0.5"]
    assert frame.groupby("layer_shares").size().tolist() == [1, 1, 1]
    written = json.loads((paths.RUNS / "s" / ids[1] / runs.RUN).read_text())["parameters"]
    assert written["layer_shares"] == {"*": 0.25, "last": 1}
    state.check(planned)  # what is done was made with these parameters


def test_by_hand(shares):
    run = runs.begin("shares", dict.fromkeys(parameters.declared("shares")) | {
        "data": "digits", "method": "obd", "share_kept": 0, "pruning_scope": "local", "layer_shares": {"a": 0.5},
        "seed": 1, "run_dir": "",
    })  # fmt: skip
    assert (run.parameters["layer_shares"], run.parameters["share_kept"]) == ({"a": 0.5}, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layer_shares": 0.5}, "layer_shares: received 0.5, allowed is a table such as {}"),
        ({"layer_shares": ["*"]}, "layer_shares: received ['*'], allowed is a table such as {}"),
        ({"layer_shares": {"*": 1.5}}, "layer_shares.*: received 1.5, input should be less than or equal to 1"),
        ({"layer_shares": {0: 0.5}}, "layer_shares.0.[key]: received 0, input should be a valid string"),
        ({"layer_shares": {"*": "half"}}, "layer_shares.*: received 'half', input should be a valid number"),
        (
            {"layer_shares": {"*": 0.5}, "pruning_scope": "global"},
            "layer_shares is {'*': 0.5} with pruning_scope global: ",
        ),
        ({"pruning_scope": "layer"}, "pruning_scope: received 'layer', input should be 'local' or 'global'"),
        ({"share_kept": 1.1}, "share_kept: received 1.1, input should be less than or equal to 1"),
        ({"share_kept": float("nan")}, "share_kept: received nan, input should be"),
        ({"method": "element-l3"}, "method: received 'element-l3', input should be 'element-rand'"),
        ({"method": "channel-synflow", "data": "sst2"}, "method channel-synflow with data sst2: its input is an image"),
    ],
)
def test_what_is_no_table_of_shares(shares, given, said):
    with pytest.raises(ValueError, match="^notebook shares: ") as caught:
        parameters.resolve("shares", given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_ends_are_shares(shares):
    for share in (0, 1, 0.5):
        assert parameters.resolve("shares", {"share_kept": share})["share_kept"] == share


def test_patterns_are_looked_at_before_a_study_starts():
    values = {"data": "digits", "model": "fc", "seed": 1, "layer_shares": {"layers.*": 0.5, "last": 1.0}}
    assert not beforehand._sure("shares", values)
    assert beforehand._sure("shares", values | {"layer_shares": {}})
    feasible.check("shares", values)
    with pytest.raises(ValueError, match=r"density of layers 'layer\.0' counts for no layer: patterns of layers\.0, "):
        feasible.check("shares", values | {"layer_shares": {"layer.0": 0.5}})
