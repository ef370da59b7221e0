"""A report without the parts that a study does not have."""

PREFIX = "part-"


def fitting(notebook: dict, parts: set[str]) -> dict:
    """`notebook` (as JSON holds it) without the cells whose tag `part-NAME` names none of `parts`.

    A cell without such a tag stays; one with several needs one of them.
    """
    return notebook | {"cells": [cell for cell in notebook["cells"] if _wanted(cell, parts)]}


def _wanted(cell: dict, parts: set[str]) -> bool:
    named = {tag.removeprefix(PREFIX) for tag in cell["metadata"].get("tags", []) if tag.startswith(PREFIX)}
    return not named or bool(named & parts)
