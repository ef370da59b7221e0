"""Study files expanded to runs, and what a study file may not say."""

import math
import os

import pytest

from lib import paths
from lib.study import state

STUDIES = sorted(path.stem for path in paths.STUDIES.glob("*.yaml"))


def accuracy(fixed=(), **more) -> dict:
    return {"notebook": "accuracy", "fixed": dict(fixed)} | more


def by_id(expanded: list[dict]) -> dict[str, dict]:
    return {run["id"]: run["parameters"] for run in expanded}


@pytest.mark.parametrize("name", STUDIES)
def test_stored_studies_expand(name):
    planned = state.plan(name)
    ids = [run["id"] for run in planned["runs"]]
    assert len(ids) == len(set(ids)) > 0
    assert planned["question"].strip()
    for number, run in enumerate(planned["runs"]):
        assert set(run["sources"]) <= set(ids[:number])  # sources come before
        assert os.path.basename(run["id"]) == run["id"].format() == run["id"]  # a plain folder name
        assert "run_dir" not in run["parameters"]
        if "density" in run["parameters"]:
            assert 0 < run["parameters"]["density"] <= 1


@pytest.mark.parametrize("name", STUDIES)
def test_every_seed_is_a_study_of_its_own(name):
    def of_seed(found, seed):
        return [run for run in found if run["id"].endswith(f"-seed{seed}")]

    both, alone = state.plan(name, [3, 4])["runs"], state.plan(name, [4])["runs"]
    assert len(of_seed(both, 3)) >= len(of_seed(both, 4)) > 0
    every = {run["id"]: run for run in alone}
    for run in of_seed(both, 4):
        assert run == every[run["id"]]
        assert run["parameters"]["seed"] == 4
        assert all(source.endswith("-seed4") for source in run["sources"])


def test_product_of_the_grid_less_exclusions(expand):
    grid = {"pruner": ["rand", "snip"], "compression": [0.5, 1, 2]}
    found = expand(accuracy(grid=grid, exclude=[{"pruner": "snip", "compression": 2}]), seeds=[1, 2])
    wanted = {(p, c, s) for p in grid["pruner"] for c in grid["compression"] for s in (1, 2)}
    wanted -= {("snip", 2, 1), ("snip", 2, 2)}
    got = {(r["parameters"]["pruner"], r["parameters"]["density"], r["parameters"]["seed"]) for r in found}
    assert got == {(p, 10.0**-c, s) for p, c, s in wanted}
    assert len(found) == len(wanted)


@pytest.mark.parametrize(
    ("written", "density"),
    [
        ({"compression": 0}, 1.0),
        ({"compression": 0.5}, 10**-0.5),
        ({"ratio": 4}, 0.25),
        ({"density": 0.3}, 0.3),
        ({"sparsity": 0.9}, 0.1),
    ],
)
def test_every_way_to_write_a_density(expand, written, density):
    (run,) = expand(accuracy(written))
    assert run["parameters"]["density"] == pytest.approx(density, rel=1e-12)


def test_lists_of_densities(expand):
    (run,) = expand({"notebook": "amp", "fixed": {"compressions": [0, 1, 2]}})
    assert run["parameters"]["densities"] == pytest.approx([1, 0.1, 0.01])


def test_source_is_found_by_its_template_and_shares_data_and_model(expand):
    dense = accuracy({"pruner": "dense", "compression": 0, "data": "mnist", "model": "resnet8", "train_images": 100})
    magnitude = accuracy({"pruner": "mag", "source": "accuracy-mnist-resnet8-dense-c0-seed{seed}"})
    found = expand(dense, magnitude, seeds=[1, 2])
    for seed, run in enumerate(found[2:], 1):
        assert run["sources"] == [f"accuracy-mnist-resnet8-dense-c0-seed{seed}"]
        assert run["parameters"]["source"] == f"s/{run['sources'][0]}"
        got = {name: run["parameters"][name] for name in ("data", "model", "seed", "train_images", "pruner", "density")}
        assert got == {
            "data": "mnist", "model": "resnet8", "seed": seed, "train_images": 100, "pruner": "mag", "density": 0.1,
        }  # fmt: skip  # the data and the network are the source's, the pruning its own


def test_one_that_only_looks_takes_over_the_pruning(expand):
    source = accuracy({"pruner": "grasp", "compression": 1, "rounds": 3, "model": "resnet8", "seed": 7})
    look = {"notebook": "layers", "fixed": {"source": "accuracy-resnet8-grasp-c1-r3-seed7", "seed": 7}}
    found = expand(source, look)[-1]["parameters"]
    wanted = {"pruner": "grasp", "density": 0.1, "rounds": 3, "model": "resnet8", "data": "digits", "seed": 7}
    assert {name: found[name] for name in wanted} == wanted


def test_one_that_prunes_anew_does_not(expand):
    source = accuracy({"pruner": "dense", "sparsity": 0, "data": "digits-20x20", "model": "mlp-2x16"})
    where = {"source": "accuracy-digits-20x20-mlp-2x16-dense-s0-seed{seed}"}
    for notebook in ("structured", "sensitivity", "repeated"):
        found = expand(source, {"notebook": notebook, "fixed": where})[-1]["parameters"]
        assert {name: found[name] for name in ("data", "model", "seed")} == {
            "data": "digits-20x20", "model": "mlp-2x16", "seed": 1,
        }  # fmt: skip
        assert found.get("pruner", "mag") == "mag", "the source's is dense"
    smaller = expand(source, {"notebook": "structured", "fixed": where})[-1]["parameters"]
    assert smaller["scope"] == "layer", "its own, of units; that of the source is global"


def test_sparsities_of_a_notebook_are_its_own(expand):
    (tried,) = expand({"notebook": "sensitivity", "fixed": {"sparsities": [0.5, 0.9]}})
    assert tried["parameters"]["sparsities"] == [0.5, 0.9]
    assert "densities" not in tried["parameters"]
    (other,) = expand({"notebook": "amp", "fixed": {"sparsities": [0.5, 0.9]}})
    assert other["parameters"]["densities"] == pytest.approx([0.5, 0.1])
    with pytest.raises(ValueError, match=r"sparsities.0: received 1.5"):
        expand({"notebook": "sensitivity", "fixed": {"sparsities": [1.5]}})


def test_patterns_take_every_match_once(expand):
    many = accuracy(grid={"pruner": ["rand", "snip"]})
    timing = {
        "notebook": "timing",
        "seeds": "first",
        "exclusive": True,
        "fixed": {"sources": ["*snip*-seed{seed}", "accuracy-*-seed{seed}"]},
    }
    run = expand(many, timing, seeds=[1, 2])[-1]
    assert run["sources"] == ["accuracy-snip-seed1", "accuracy-rand-seed1"]
    assert run["exclusive"] is True


def test_first_seed_only(expand):
    found = expand(accuracy(seeds="first"), {"notebook": "amp"}, seeds=[5, 6])
    assert [run["parameters"]["seed"] for run in found] == [5, 5, 6]


def test_study_wide_values_go_where_they_are_known(expand):
    found = expand(
        accuracy(), {"notebook": "timing"}, {"notebook": "amp", "fixed": {"batch": 9}}, fixed={"lr": 0.5, "batch": 7}
    )
    assert [run["parameters"]["batch"] for run in found] == [7, 7, 9]
    assert [run["parameters"].get("lr") for run in found] == [0.5, None, 0.5]


REFUSED = [
    ({"pruner": "snap"}, "unknown pruner 'snap': one of dense, rand"),
    ({"model": "resnet21"}, "received 'resnet21', depth of a CIFAR ResNet is 21: 6n + 2 is allowed"),
    ({"data": "cifar1000"}, "unknown data 'cifar1000'"),
    ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
    ({"dropout": 0.5}, "no parameter 'dropout': one of data, model"),
    ({"ratio": 0.5}, "ratio: received 0.5, which keeps 2; allowed is 1 or more"),
    ({"density": 0}, "received 0, which keeps 0; allowed is a density in (0, 1]"),
    ({"density": 1.5}, "received 1.5"),
    ({"density": math.nan}, "received nan"),
    ({"compression": -1}, "received -1, which keeps 10"),
    ({"compression": -1000}, "received -1000"),
    ({"compression": 400}, "received 400"),
    ({"ratio": 0}, "received 0"),
    ({"sparsity": 1}, "received 1"),
    ({"density": "0.1"}, "density: received '0.1', allowed is a number"),
    ({"density": True}, "received True"),
    ({"density": 0.1, "compression": 1}, "density and compression both say"),
    ({"lr": "1e-3"}, "lr: received '1e-3', allowed is a number such as 0.001 (YAML reads 1e-3 as text: write 1.0e-3)"),
    ({"lr": 0.0}, "lr"),
    ({"lr": -1.0}, "lr"),
    ({"lr": math.inf}, "lr"),
    ({"weight_decay": -0.1}, "weight_decay"),
    ({"epochs": "ten"}, "epochs: received 'ten', allowed is a whole number"),
    ({"epochs": 1.5}, "epochs: received 1.5"),
    ({"epochs": True}, "epochs: received True"),
    ({"epochs": 0}, "epochs"),
    ({"batch": 0}, "batch"),
    ({"rounds": 0}, "rounds"),
    ({"train_images": -1}, "train_images"),
    ({"schedule": "cosine"}, "schedule"),
    ({"scope": "row"}, "scope"),
    ({"precision": "int8"}, "precision"),
    ({"seed": -1}, "seed"),
    ({"seed": "one"}, "seed: received 'one', allowed is a whole number"),
    ({"pruner": "dense", "density": 0.5}, "pruner dense keeps every weight, so density must be 1, not 0.5"),
    ({"source": "accuracy-none-seed{seed}"}, "source 'accuracy-none-seed1' is no earlier run"),
    ({"source": "{depth}"}, "source: received '{depth}', its placeholders may be"),
    ({"source": "{"}, "source: received '{'"),
]  # fmt: skip


@pytest.mark.parametrize(("fixed", "message"), REFUSED)
def test_refused_values(expand, fixed, message):
    with pytest.raises(ValueError, match=r"^study s: ") as caught:
        expand(accuracy(fixed))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"notebook": "accurasy"}, "unknown notebook 'accurasy': one of accuracy, amp"),
        ({"notebook": "../notebooks/accuracy"}, "unknown notebook"),
        ({"notebook": "timing", "fixed": {"sources": ["resnet*"]}}, "sources pattern 'resnet*' matches no earlier run"),
        ({"notebook": "timing", "fixed": {"sources": "resnet"}}, "sources: received 'resnet', allowed is a list"),
        ({"notebook": "timing", "fixed": {"sources": 5}}, "sources: received 5"),
        ({"notebook": "amp", "fixed": {"compressions": 1}}, "compressions: received 1, allowed is a list"),
        ({"notebook": "amp", "fixed": {"compressions": []}}, "densities"),
        ({"notebook": "amp", "fixed": {"densities": [0.5, 2]}}, "received 2"),
        ({"notebook": "accuracy", "grid": {"pruner": "snip"}}, "grid"),
        ({"notebook": "accuracy", "seeds": "some"}, "seeds"),
        ({"notebook": "accuracy", "exclusiv": True}, "exclusiv"),
        ({"fixed": {}}, "notebook"),
    ],
)
def test_refused_blocks(expand, block, message):
    with pytest.raises(ValueError, match=r".") as caught:
        expand(block)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_may_not_differ_from_its_source(expand):
    source = accuracy({"pruner": "dense", "compression": 0})
    other = accuracy({"pruner": "mag", "model": "resnet8", "source": "accuracy-dense-c0-seed{seed}"})
    with pytest.raises(ValueError, match="model 'resnet8' of accuracy differs from 'fc' of its source"):
        expand(source, other)


def test_a_source_may_not_come_later(expand):
    magnitude = accuracy({"pruner": "mag", "source": "accuracy-dense-d1-seed{seed}"})
    with pytest.raises(ValueError, match="is no earlier run, allowed is nothing here: it is the first"):
        expand(magnitude, accuracy({"pruner": "dense", "density": 1}))


def test_two_runs_of_one_name_are_refused(expand):
    with pytest.raises(ValueError, match="two runs are called accuracy-seed1: sweep what tells them"):
        expand(accuracy({"lr": 0.1}), accuracy({"lr": 0.2}))


def test_a_value_for_no_notebook_is_refused(expand):
    with pytest.raises(ValueError, match="no notebook of it has the parameter 'rounds' of `fixed`"):
        expand({"notebook": "timing"}, fixed={"rounds": 3})


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "title: T\nquestion: Q\nblocks: []", "title: T\nquestion: Q"])
def test_malformed_files(bench, monkeypatch, text):
    monkeypatch.setattr(paths, "STUDIES", bench.studies)
    (bench.studies / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"^study s: ") as caught:
        state.plan("s")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seeds", [[], ["one"], [-1], [1.5], 3])
def test_seeds_that_are_no_numbers(expand, seeds):
    with pytest.raises(ValueError, match="^study s: seeds") as caught:
        expand(accuracy(), seeds=seeds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["scratch", "quikc", "../studies/quick", "quick.yaml", ""])
def test_names_that_are_no_study(name):
    with pytest.raises(ValueError, match="study"):
        state.plan(name)


def test_a_study_names_the_notebook_that_makes_its_report(bench, monkeypatch):
    monkeypatch.setattr(paths, "STUDIES", bench.studies)
    bench.write("s", accuracy())
    assert state.plan("s")["summary"] == "summary"
    bench.write("s", accuracy(), summary="summary_conservation")
    assert state.plan("s")["summary"] == "summary_conservation"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sumary", "unknown notebook 'sumary': one of accuracy, amp"),
        ("../summary", "unknown notebook '../summary'"),
        ("accuracy", "summary: notebook 'accuracy' has no parameter 'study', so it makes no report"),
        (5, "summary: received 5"),
    ],
)
def test_a_summary_that_makes_no_report_is_refused(bench, monkeypatch, name, message):
    monkeypatch.setattr(paths, "STUDIES", bench.studies)
    bench.write("s", accuracy(), summary=name)
    with pytest.raises(ValueError, match=r"^study s: ") as caught:
        state.plan("s")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
