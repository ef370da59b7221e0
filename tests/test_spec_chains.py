"""Chains of a study file: runs one after the other, each the source of the next."""

import pytest

DENSE = {"accuracy": {"pruner": "dense", "density": 1.0}}
MAG = {"accuracy": {"pruner": "mag", "density": 0.5}}
LOOK = {"sensitivity": {"sparsities": [0.5]}}


def chain(*stages: dict, **more) -> dict:
    return {"chain": "main", "fixed": {"model": "fc", "epochs": 2}, "stages": list(stages)} | more


def test_each_stage_has_the_one_before_as_its_source(expand):
    found = expand(chain(DENSE, MAG, LOOK), seeds=[1, 2])
    assert [run["id"] for run in found] == [
        f"main-{number}-{rest}-seed{seed}"
        for seed in (1, 2)
        for number, rest in enumerate(("accuracy-fc-dense", "accuracy-fc-mag", "sensitivity-fc"), 1)
    ]
    for first, second in zip(found, found[1:], strict=False):
        follows = second["stage"] > 1
        assert second["sources"] == ([first["id"]] if follows else [])
        assert second["parameters"]["source"] == (f"s/{first['id']}" if follows else "")
    assert [run["stage"] for run in found] == [1, 2, 3, 1, 2, 3]
    assert {run["chain"] for run in found} == {"main"}
    assert [run["parameters"]["seed"] for run in found] == [1, 1, 1, 2, 2, 2]
    assert all(run["parameters"].get("epochs", 2) == 2 for run in found)  # fixed, where a stage has it


def test_a_stage_is_left_out_by_deleting_its_line(expand):
    whole, less = expand(chain(DENSE, MAG, LOOK)), expand(chain(DENSE, LOOK))
    assert less[1]["sources"] == [whole[0]["id"]]
    assert less[1]["notebook"] == whole[2]["notebook"] == "sensitivity"


def test_a_chain_may_start_from_an_earlier_run_and_have_stages_without_parameters(expand):
    first = {"notebook": "accuracy", "fixed": {"model": "fc", "pruner": "dense", "density": 1.0}}
    source = "accuracy-{model}-dense-d1-seed{seed}"
    found = expand(first, chain({"sensitivity": None}, source=source, fixed={"model": "fc"}), seeds=[1, 2])
    assert [run["sources"] for run in found[2:]] == [[found[0]["id"]], [found[1]["id"]]]
    assert [run.get("chain") for run in found] == [None, None, "main", "main"]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (chain(), "stages"),
        (chain(DENSE, {"sensitivity": {}, "layers": {}}), "stages.1"),
        (chain(DENSE, {"timing": {}}), "notebook timing has no parameter 'source'"),
        (chain(DENSE, {"sensitivity": {"nothing": 1}}), "no parameter 'nothing'"),
        (chain(DENSE, fixed={"nothing": 1}), "no stage of it has the parameter 'nothing'"),
        (chain(DENSE, chain="../up"), "chain"),
        (chain(DENSE, source="missing"), "'missing' is no earlier run"),
        (chain(DENSE) | {"grid": {"epochs": [1, 2]}}, "grid"),
        (chain({"unknown": {}}), "unknown"),
    ],
)
def test_what_a_chain_may_not_say(expand, block, said):
    with pytest.raises((ValueError, OSError)) as refused:
        expand(block)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_chains_of_one_name_are_refused(expand):
    with pytest.raises(ValueError, match="two runs are called main-1-accuracy-fc-dense-seed1"):
        expand(chain(DENSE), chain(DENSE))
