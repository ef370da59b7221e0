"""The stored notebooks executed cell by cell in this process: no kernel, no papermill, and errors with their lines."""

import json
from base64 import b64decode

import matplotlib.pyplot as plt
import pytest
from IPython.core.display import DisplayObject
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from report_notebooks import PNG, SVG

from lib import paths
from lib.report import notebook as show
from lib.report import parts


@plt.rc_context()  # `show.setup` must not change what other tests draw
def execute(name: str, parameters: dict, wanted: set[str] | None = None):
    """Run the notebook `name` with these parameters, and return it as if a kernel had run it, outputs and all.

    `wanted` are the parts of a report (all cells where None). The panel, its last cell, is left out: it draws for the
    screen.
    """
    book = json.loads(paths.notebook(name).read_text(encoding="utf-8"))
    cells = (book if wanted is None else parts.fitting(book, wanted))["cells"][:-1]
    namespace, done = {}, []
    for cell in cells:
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if cell["cell_type"] == "markdown":
            done.append(new_markdown_cell(source, metadata=cell["metadata"]))
        elif "remove-cell" not in tags:  # that one is for Colab, in IPython's own language
            source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items()) * ("parameters" in tags)
            outputs = _run(source, f"{name} {cell['id']}", namespace)
            done.append(new_code_cell(source, execution_count=1, metadata=cell["metadata"], outputs=outputs))
    return new_notebook(cells=done)


def _run(source: str, name: str, namespace: dict) -> list:
    """Run one cell; what it displays, as a kernel would have sent it. A figure is made but not drawn: one pixel is."""
    outputs = []

    def display(shown, raw=False, metadata=None):
        data = {"text/markdown": shown.data} if isinstance(shown, DisplayObject) else shown
        outputs.append(new_output("display_data", data=data, metadata=metadata or {}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show, "display", display)
        patch.setattr(show, "_lay_out", lambda figure: None)
        patch.setattr(show, "_drawn", lambda figure, box, kind, **_: SVG.encode() if kind == "svg" else b64decode(PNG))
        exec(compile(source, name, "exec"), namespace)
    return outputs


def labels(book) -> set[str]:
    """The labels of the figures and tables in an executed notebook."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return {output.metadata["report"]["label"] for output in outputs if "label" in output.metadata.get("report", {})}


def words(book) -> str:
    """What a reader of an executed notebook finds: its texts, those its code displays, and the captions."""
    found = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    for cell in book.cells:
        for output in cell.get("outputs", []):
            found.append(output.data.get("text/markdown", ""))
    return "\n".join(found)
