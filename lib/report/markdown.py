"""A notebook as one Markdown file for pandoc, its pictures beside it."""

import base64
import re
import textwrap
from pathlib import Path

from lib.report import css

# Tags that hide a cell's code; papermill's own parameter cell is `injected-parameters`.
HIDE_CODE = {"remove-input", "parameters", "injected-parameters"}
HIDE_OUTPUT = {"remove-output"}
# nbconvert would drop such cells before `--execute` runs them, so they are dropped here.
HIDE_CELL = {"remove-cell", "papermill-error-cell-tag"}

MIMES = ["text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/html", "text/latex", "text/plain"]
SUFFIX = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg"}
LABEL = re.compile(r"(fig|tbl)-[A-Za-z0-9][\w-]*")
COLUMNS = 120  # characters of printed text in a line of the page; Typst breaks code at spaces only


def from_notebook(nb, folder):
    """The Markdown text of notebook `nb` (an nbformat 4 node); pictures are written into `folder`.

    Left out: code hidden by a tag or folded in JupyterLab, cells tagged `remove-cell`, widgets, progress bars, stderr,
    and outputs with `{"report": {"skip": true}}` in their metadata. ValueError, one line: an output that is an error, a
    label that is used twice or is not `fig-...` or `tbl-...`.
    """
    parts, labels = [], set()
    for cell in nb.cells:
        if HIDE_CELL & _tags(cell):
            continue
        if cell.cell_type == "markdown":
            parts.append(_with_attachments(cell, Path(folder)))
        elif cell.cell_type == "code":
            parts.extend(_code_cell(cell, Path(folder), labels))
    return "\n\n".join(part for part in parts if part) + "\n"


def executed(nb):
    """Whether any code cell of `nb` was run."""
    return any(cell.get("outputs") or cell.get("execution_count") for cell in nb.cells if cell.cell_type == "code")


def fence(text, info):
    """`text` as a fenced block, the fence longer than any run of backticks inside."""
    ticks = "`" * max([3] + [len(run) + 1 for run in re.findall("`+", text)])
    return f"{ticks} {info}\n{text.rstrip()}\n{ticks}"


def printed(text):
    """Printed text as a block: no terminal colours, overwritten lines gone, long lines cut."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    lines = [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    pieces = [piece for line in lines for piece in _cut(line)]
    return fence("\n".join(pieces), "{.output}") if any(pieces) else ""


def _cut(line):
    return textwrap.wrap(line, COLUMNS, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False) or [""]


def _tags(cell):
    return set(cell.metadata.get("tags", ()))


def _code_hidden(cell):
    folded = cell.metadata.get("jupyter", {}).get("source_hidden")
    removed = cell.metadata.get("transient", {}).get("remove_source")  # the mark of nbconvert's own tag options
    return bool(HIDE_CODE & _tags(cell) or folded or removed)


def _code_cell(cell, folder, labels):
    """The Markdown parts of one code cell: its code, then its outputs in order."""
    if cell.source.strip() and not _code_hidden(cell):
        yield fence(cell.source, "python")
    for out in cell.outputs:
        if out.output_type == "error":
            raise ValueError(f"{_whereabouts(cell)} ended with {out.ename}: {_one_line(out.evalue)}")
    if not HIDE_OUTPUT & _tags(cell):
        for out in _joined(cell.outputs):
            yield printed(out) if isinstance(out, str) else _output(out, folder, labels)


def _whereabouts(cell):
    """Words that find a cell again: its number in the notebook and its first line."""
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return f"cell In [{cell.execution_count or ' '}] ({first[:60]})"


def _one_line(text):
    return " ".join(text.split())


def _joined(outputs):
    """What a reader sees of `outputs`: no stderr, no widgets, printed text in one piece (sent in pieces by time)."""
    text = ""
    for out in outputs:
        if out.output_type == "stream":
            text += out.text if out.name == "stdout" else ""
        elif not _unseen(out):
            if text:
                yield text
            text = ""
            yield out
    if text:
        yield text


def _unseen(out):
    skipped = out.metadata.get("report", {}).get("skip")
    return skipped or not out.data or any("jupyter.widget" in mime for mime in out.data)


def _output(out, folder, labels):
    """One displayed output as Markdown: its most typographic form among MIMES."""
    mime = next((mime for mime in MIMES if mime in out.data), None)
    report = out.metadata.get("report", {})
    label, caption = report.get("label", ""), report.get("caption", "")
    if label:
        _note(label, labels)
    if mime in SUFFIX:
        name = _write_picture(out.data[mime], mime, folder)
        return _captioned(f"![]({name})", label, caption) if caption else _centred(name)
    if mime == "text/html":
        table = fence(_plain_html(out.data[mime], bool(caption)), "{=html}")
        return _captioned(table, label, caption) if caption else table
    if mime in ("text/markdown", "text/latex"):
        return out.data[mime]
    return printed(out.data["text/plain"]) if mime else ""


def _note(label, labels):
    if not LABEL.fullmatch(label):
        raise ValueError(f"label {label!r}: it must begin with fig- or tbl- and hold letters, digits, - and _ only")
    if label in labels:
        raise ValueError(f"label {label!r} is used by two outputs of the notebook: a label names one figure or table")
    labels.add(label)


def _captioned(content, label, caption):
    """A block that report.lua makes a figure of."""
    return f"::: {{{'#' + label if label else ''} .captioned}}\n{content}\n\n{caption}\n:::"


def _centred(name):
    return fence(f'#align(center, image("{name}"))', "{=typst}")


def _plain_html(html, captioned):
    """HTML without style sheets and scripts; a captioned table without the caption that JupyterLab shows."""
    html = css.inline(html)
    html = re.sub(r"<(script|iframe|video|audio|template)\b.*?(</\1>|$)", "", html, flags=re.S | re.I)
    return re.sub(r"<caption.*?</caption>", "", html, flags=re.S) if captioned else html


def _write_picture(data, mime, folder):
    name = f"picture{sum(1 for _ in folder.glob('picture*'))}{SUFFIX[mime]}"
    (folder / name).write_bytes(data.encode() if mime == "image/svg+xml" else base64.b64decode(data))
    return name


def _with_attachments(cell, folder):
    """The source of a Markdown cell, its attached pictures as files."""
    text = cell.source
    for attached, forms in cell.get("attachments", {}).items():
        mime = next((mime for mime in SUFFIX if mime in forms), None)
        if mime:
            text = text.replace(f"attachment:{attached}", _write_picture(forms[mime], mime, folder))
    return text
