"""Small notebooks for the tests of the report, with outputs as a kernel would have left them."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="40"><rect width="90" height="40" fill="#1f4e8c"/></svg>'
)
# One grey pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def notebook(*cells):
    """A notebook of these cells, their ids by position so that equal cells give equal notebooks."""
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return new_notebook(cells=list(cells))


def text(source):
    return new_markdown_cell(source)


def code(source="", *outputs, tags=(), **metadata):
    """A cell that was run."""
    return new_code_cell(source, execution_count=1, outputs=list(outputs), metadata={"tags": list(tags), **metadata})


def shown(data, label="", caption="", **report):
    """An output of `display`, captioned where a label is given."""
    report = {**report, **({"label": label, "caption": caption} if label else {})}
    return new_output("display_data", data=data, metadata={"report": report} if report else {})


def figure(label, caption="A figure."):
    return shown({"image/svg+xml": SVG, "image/png": PNG, "text/plain": caption}, label, caption)


def table(label, html, caption="A table."):
    return shown({"text/html": html, "text/plain": caption}, label, caption)


def stdout(words):
    return new_output("stream", name="stdout", text=words)


def stderr(words):
    return new_output("stream", name="stderr", text=words)


def failed(source, name="ZeroDivisionError", words="division\nby zero"):
    """A cell that ended with an error, as a kernel leaves it."""
    return code(source, new_output("error", ename=name, evalue=words, traceback=[]))
