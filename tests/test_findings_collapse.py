"""Where methods collapse, and what ablations say: sentences turn when the numbers do."""

import math

import pandas as pd
import pytest
from frames import layers, run, study

from lib import tables
from lib.findings import ablations, collapse

TASK = "MNIST / FC"


def broken(pruner: str, compression: float, **more) -> dict:
    return run(pruner, 10.0, compression, collapsed_layers="a b", **more)


def test_the_maximum_is_one_weight_in_every_layer():
    rows = layers("x", {"a": 1, "b": 1, "c": 1}, weights=1000)
    assert collapse.maximum(rows) == pytest.approx(3.0)  # 3,000 weights in three layers
    done, _ = study(run("snip"), run("snip", model="resnet20"))
    both = pd.concat([layers(done["run"][0], {"a": 1}, 10), layers(done["run"][1], {"a": 1, "b": 1}, 100)])
    assert collapse.maxima(done, both) == {"MNIST / ResNet-20": pytest.approx(2.0), TASK: pytest.approx(1.0)}


def test_critical_compression_lies_between_the_last_intact_and_the_first_broken():
    done, _ = study(
        run("snip", compression=1), run("snip", compression=2), broken("snip", 3), run("snip", compression=4),
        broken("rand", 1), run("synflow", compression=1), run("synflow", compression=4),
        run("grasp", compression=1, seed=1), broken("grasp", 1, seed=2), run("dense", compression=0),
    )  # fmt: skip
    found = collapse.critical(done).set_index("method")
    assert found.loc["SNIP"].tolist()[1:] == [2, 3]  # an intact network beyond does not mend it
    assert math.isnan(found.loc["Rand", "held"])
    assert math.isnan(found.loc["GraSP", "held"]), "one seed that breaks is enough"
    table = collapse.table(done, {TASK: 4.5})
    assert table.loc[(TASK, "compression")].to_dict() == {
        "Rand": "under 1", "SNIP": "2 to 3", "GraSP": "under 1", "SynFlow": "over 4", "theoretical maximum": "4.5",
    }  # fmt: skip


def test_where_methods_break_is_said_in_ratios_densities_and_sparsities_too():
    done, _ = study(run("snip", compression=1), broken("snip", 2), run("synflow", compression=3), broken("rand", 1))
    table = collapse.table(done, {TASK: 4.0}).loc[TASK]
    assert table["SNIP"].to_dict() == {
        "compression": "1 to 2", "ratio": "10 to 100", "density (%)": "10 to 1", "sparsity (%)": "90 to 99",
    }  # fmt: skip
    # a method that holds longer keeps less
    assert table["SynFlow"].tolist() == ["over 3", "over 1,000", "under 0.1", "over 99.9"]
    assert table["Rand"].tolist() == ["under 1", "under 10", "over 10", "under 90"]
    assert table["theoretical maximum"].tolist() == ["4", "10,000", "0.01", "99.99"]
    assert collapse.table(done.assign(word="ratio"), {TASK: 4.0}).loc[TASK].index.tolist() == table.index.tolist()[1:]
    assert collapse.table(done[:0], {}).empty


def test_a_network_without_a_path_is_broken_though_no_layer_is_empty():
    done, _ = study(run("snip", compression=1), run("snip", compression=2, connected=False))
    assert collapse.critical(done).loc[0, ["held", "broke"]].tolist() == [1, 2]


def test_sentences_name_the_first_and_the_last():
    done, _ = study(run("snip", compression=1), broken("snip", 2), run("rand", compression=1), broken("rand", 3))
    (said,) = collapse.sentences(done, {TASK: 4.5})
    assert "the first to break is SNIP, at compression 2" in said
    assert "the last is Rand, at compression 3" in said
    assert "4.50" in said
    done, _ = study(broken("snip", 2), run("rand", compression=2))
    assert "Rand left the network whole up to compression 2" in collapse.sentences(done, {TASK: 4.5})[0]
    whole, _ = study(run("snip"), run("rand"))
    assert "no method broke a network" in collapse.sentences(whole, {TASK: 4.5})[0]
    assert collapse.sentences(study(run("snip"))[0], {TASK: 4.5}) == []


def ablated(pruner: str, as_it_is: float, **kinds: float) -> list[dict]:
    rows = [run(pruner, as_it_is)]
    return rows + [run(pruner, top1, ablation=kind, run=f"{pruner}-{kind}") for kind, top1 in kinds.items()]


def test_ablations_say_what_a_mask_is_worth():
    done, plan = study(
        *ablated("snip", 80.0, shuffle=80.1, invert=10.0), *ablated("rand", 50.0, shuffle=40.0, invert=60.0),
        run("dense", 90.0, compression=0), run("snip", 1.0, compression=2),
    )  # fmt: skip
    ((place, runs),) = ablations.compared(done, plan).items()
    assert place == (TASK, 1.0)
    assert len(runs) == 6, "neither the dense network nor another compression"
    assert ablations.kinds(plan) == ["none", "shuffle", "invert"]
    shuffle, invert = ablations.sentences(runs, 10_000)
    assert "costs Rand (-10.0)" in shuffle
    assert "changes SNIP (+0.1) by no more than 2 standard errors: there which weights of a layer" in shuffle
    assert "costs SNIP (-70.0)" in invert
    assert "gains Rand (+10.0)" in invert
    assert "standard errors" not in invert
    guessing, _ = study(*ablated("synflow", 10.0, shuffle=10.1), *ablated("snip", 80.0, shuffle=60.0))
    (said,) = ablations.sentences(guessing, 1000)
    assert "shows nothing of SynFlow" in said
    assert "standard errors" not in said
    assert ablations.sentences(study(run("snip"))[0], 100) == []
    assert ablations.sentences(runs[:0], 100) == []


def test_the_ablation_table_marks_gaps():
    done, plan = study(*ablated("snip", 80.0, shuffle=70.0), run("rand", None), run("dense", 90.0, compression=0))
    (planned,) = ablations.compared(plan, plan).values()
    table = ablations.table(done, planned)
    assert table.columns.tolist() == ["as it is", "shuffle"]
    assert table.loc["SNIP"].tolist() == ["80.00", "70.00"]
    assert table.loc["Rand"].tolist() == [tables.MISSING, ""]
