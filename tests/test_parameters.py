"""The parameters cell as an interface: read, completed, checked."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from stub_study import write_notebook

from lib import parameters, paths

NOTEBOOKS = sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture
def declare(tmp_path):
    numbers = iter(range(100))

    def declared(cell: str) -> dict:
        name = f"n{next(numbers)}"
        write_notebook(tmp_path, name, (cell,))
        return parameters.declared(tmp_path / f"{name}.ipynb")

    return declared


def test_names_defaults_and_help_in_order(declare):
    found = declare('a = 1  # whole\nb = "x # y"  # text\nc = [0.1,\n 2.0]  # list, over two lines')
    assert found == {
        "a": {"default": 1, "help": "whole"},
        "b": {"default": "x # y", "help": "text"} | {"help": found["b"]["help"]},
        "c": {"default": [0.1, 2.0], "help": "list, over two lines"},
    }
    assert list(found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a = 1", "a needs a comment"),
        ("a = 1  # so a = 1", "a needs a comment without an equals sign"),
        ("import os  # no", "holds 'import os  # no', not name = value"),
        ("a: int = 1  # typed", "not name = value"),
        ("a.b = 1  # part", "not name = value"),
    ],
)
def test_lines_that_papermill_would_skip(declare, cell, message):
    with pytest.raises(ValueError, match=r"n0\.ipynb") as caught:
        declare(cell)
    assert message in str(caught.value)


def test_no_parameters_cell(tmp_path):
    (tmp_path / "n.ipynb").write_text('{"cells": [{"cell_type": "markdown", "metadata": {}, "source": []}]}')
    with pytest.raises(ValueError, match="has no cell tagged 'parameters'"):
        parameters.declared(Path(tmp_path / "n.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_notebooks_accept_their_defaults(name):
    defaults = {key: entry["default"] for key, entry in parameters.declared(name).items()}
    assert parameters.resolve(name, {}) == defaults == parameters.resolve(name, defaults)


def test_given_values_replace_defaults_and_keep_their_type():
    found = parameters.resolve("accuracy", {"lr": 1, "epochs": 3, "density": 1})
    assert (found["lr"], type(found["lr"]), found["epochs"], found["density"]) == (1.0, float, 3, 1.0)
    assert list(found) == list(parameters.declared("accuracy"))


def test_defaults_are_not_shared():
    parameters.resolve("timing", {})["sources"].append("spoiled")
    assert parameters.resolve("timing", {})["sources"] == []


def test_error_counts_the_others():
    with pytest.raises(ValueError, match=r"\(and 2 more\)$") as caught:
        parameters.resolve("accuracy", {"pruner": "x", "epochs": 0, "batch": -1})
    assert "\n" not in str(caught.value)


RATES = {
    "lr_schedule: received 'linear', input should be 'constant', 'steps' or 'cosine'": {"lr_schedule": "linear"},
    "lr_drops is [2] with lr_schedule constant: lr_schedule steps is allowed there": {"lr_drops": [2]},
    "lr_drop_factor is 0.5 with lr_schedule constant: lr_schedule steps is allowed there": {"lr_drop_factor": 0.5},
    "lr_drops is [] with lr_schedule steps: one epoch or more is allowed": {"lr_schedule": "steps"},
    "lr_drops is [7] with rewind_epochs + epochs 6: epochs before 6 are allowed": {
        "lr_schedule": "steps",
        "lr_drops": [7],
        "epochs": 5,
        "rewind_epochs": 1,
    },
    "lr_warmup is 4 with epochs 3 and lr_schedule constant: 0 to 3 epochs are allowed": {
        "lr_warmup": 4,
        "epochs": 3,
        "rewind_epochs": 0,
    },
    "lr_drops.0: received 0, input should be greater than 0": {"lr_drops": [0]},
    "lr_warmup: received -1, input should be greater than or equal to 0": {"lr_warmup": -1},
    "density is 1 with levels: less than 1 is allowed, as levels remove weights": {"density": 1.0},
    "levels: received 0, input should be greater than 0": {"levels": 0},
}


@pytest.mark.parametrize("message", RATES)
def test_rates_and_levels_that_cannot_be(message):
    with pytest.raises(ValueError, match="^notebook multishot: ") as caught:
        parameters.resolve("multishot", RATES[message])
    assert str(caught.value).removeprefix("notebook multishot: ") == message


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("lr", "1e-3", True),
        ("lr", "1.0E3", True),
        ("lr", "0.1", False),
        ("lr", "ten", False),
        ("lr", "infinite", False),
        ("epochs", "1e3", False),
        ("epochs", "three", False),
        ("also", "biases", False),
        ("seed", [1, "1e3"], False),
    ],
)
def test_only_a_text_that_would_be_a_number_is_told_how_to_write_one(name, text, hint):
    with pytest.raises(ValueError, match=f"{name}: received ") as caught:
        parameters.resolve("accuracy", {name: text})
    assert str(caught.value).endswith(" (YAML reads 1e-3 as text: write 1.0e-3)") == hint
    assert "\n" not in str(caught.value)


def test_rates_fit_the_training_before_pruning_too():
    steps = {"lr_schedule": "steps", "lr_drops": [3], "epochs": 5}
    parameters.Allowed(**steps)
    parameters.Allowed(**steps, pre_epochs=4)
    with pytest.raises(ValidationError, match=r"lr_drops is \[3\] with pre_epochs 2: epochs before 2 are allowed"):
        parameters.Allowed(**steps, pre_epochs=2)
    with pytest.raises(ValidationError, match="lr_warmup is 2 with pre_epochs 1 and lr_schedule constant"):
        parameters.Allowed(lr_warmup=2, epochs=5, pre_epochs=1)
    assert parameters.Allowed(lr_warmup=2, epochs=5, pre_epochs=0).lr_warmup == 2


def test_rates_reach_the_notebook():
    given = {"lr_schedule": "steps", "lr_drops": [2, 4], "lr_drop_factor": 0.2, "lr_warmup": 1}
    assert {name: parameters.resolve("multishot", given)[name] for name in given} == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": "int4"}, "grid: received 'int4', input should be 'fixed', 'int8' or 'shared'"),
        ({"weight_bits": 1}, "weight_bits is 1 with grid fixed: 2 to 16 is allowed"),
        ({"weight_bits": 17}, "weight_bits is 17 with grid fixed: 2 to 16 is allowed"),
        ({"grid": "shared", "weight_bits": 9}, "weight_bits is 9 with grid shared: 1 to 8 is allowed"),
        ({"grid": "int8", "weight_bits": 4}, "weight_bits is 4 with grid int8: 8 is allowed"),
        (
            {"weight_bits": 6, "fraction_bits": 6},
            "fraction_bits is 6 with weight_bits 6: 0 to 5 is allowed, or -1 to choose",
        ),
        ({"fraction_bits": -2}, "fraction_bits is -2 with weight_bits 8: 0 to 7 is allowed, or -1 to choose"),
        (
            {"grid": "shared", "weight_bits": 6, "fraction_bits": 4},
            "fraction_bits is 4 with grid shared, which has no point: -1 is allowed",
        ),
    ],
)
def test_grids_that_cannot_be(given, message, declare, tmp_path):
    declare('grid = "fixed"  # kind\nweight_bits = 8  # bits\nfraction_bits = -1  # behind the point')
    with pytest.raises(ValueError, match=r"^notebook \S+: ") as caught:
        parameters.resolve(tmp_path / "n0.ipynb", given)
    assert str(caught.value).partition(": ")[2] == message
    for can in ({"weight_bits": 16, "fraction_bits": 15}, {"grid": "shared", "weight_bits": 1}, {"grid": "int8"}):
        found = parameters.resolve(tmp_path / "n0.ipynb", can)
        assert {name: found[name] for name in can} == can


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retrain": "rewind", "source": "s/dense"}, "source is 's/dense' with retrain rewind, which trains anew"),
        ({"retrain": "none", "pruner": "movement"}, "pruner movement with retrain none: it scores trainings"),
        ({"pruner": "movement"}, "pruner movement with retrain none"),  # the default
        ({"retrain": "again"}, "retrain: received 'again', input should be 'none' or 'rewind'"),
        ({"step": 1.0}, "step: received 1.0"),
        ({"iterations": 0}, "iterations: received 0"),
    ],
)
def test_repeated_pruning_that_cannot_be(given, message):
    with pytest.raises(ValueError, match="^notebook repeated: ") as caught:
        parameters.resolve("repeated", given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeated_pruning_that_can():
    for given in ({"retrain": "rewind", "pruner": "movement"}, {"retrain": "none", "source": "s/dense"}):
        assert {name: parameters.resolve("repeated", given)[name] for name in given} == given
    assert parameters.resolve("multishot", {"pruner": "movement"})["pruner"] == "movement", "it has no such choice"


def test_activation_pruning_is_by_a_known_method_and_a_share():
    parameters.Allowed(activation_method="map-similarity", activation_share=0.0, calibrated=True)
    with pytest.raises(ValidationError, match="'element-l1', 'element-l2', 'map-l1', 'map-l2' or 'map-similarity'"):
        parameters.Allowed(activation_method="l1")
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValidationError, match="activation_share"):
            parameters.Allowed(activation_share=share)
