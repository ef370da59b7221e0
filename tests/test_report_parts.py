"""A report leaves out what its study does not have."""

from lib.report.parts import fitting


def cell(name: str, *tags: str) -> dict:
    return {"source": name, "metadata": {"tags": list(tags)} if tags else {}}


def test_cells_of_absent_parts_go_and_all_others_stay():
    notebook = {
        "nbformat": 4,
        "cells": [
            cell("always"), cell("hidden", "remove-input"), cell("trace", "remove-input", "part-trace"),
            cell("amp", "part-amp"), cell("either", "part-trace", "part-amp"),
        ],
    }  # fmt: skip
    kept = fitting(notebook, {"amp", "accuracy"})
    assert [c["source"] for c in kept["cells"]] == ["always", "hidden", "amp", "either"]
    assert kept["nbformat"] == 4
    assert len(notebook["cells"]) == 5
