"""Notebook to Typst source to PDF, in this process apart from one call of pandoc (0.2 s)."""

import logging
import os
import subprocess
import tempfile
from pathlib import Path

import pypandoc
import typst

from lib.files import replacing
from lib.light import GRAMMAR, without
from lib.report import fonts, markdown

with without(GRAMMAR):
    import nbformat

HERE = Path(__file__).parent
log = logging.getLogger(__name__)

# pandoc's Markdown, cut down to what JupyterLab shows the same way. Off: marks at the start of a line that mean nothing
# in a notebook (% title, | verse, (@) lists, ruled tables, --- metadata), and ~ and ^ as subscripts ("~5 s").
READER = (
    "markdown-blank_before_header-blank_before_blockquote-citations-yaml_metadata_block-pandoc_title_block-line_blocks"
    "-fancy_lists-example_lists-definition_lists-simple_tables-multiline_tables-grid_tables-subscript-superscript"
    "-inline_notes+lists_without_preceding_blankline+autolink_bare_uris"
)


def export(notebook_path, pdf_path):
    """Write the PDF of the notebook at `notebook_path` to `pdf_path`, whole or not at all; folders are made.

    Returns `pdf_path` as a Path. ValueError, one line, names the notebook and what is wrong with it; FileNotFoundError
    where there is none.
    """
    notebook_path, pdf_path = Path(notebook_path), Path(pdf_path)
    try:
        nb = nbformat.read(notebook_path, as_version=4)
    except nbformat.reader.NotJSONError:
        raise ValueError(f"{notebook_path}: not a notebook (its text is not JSON)") from None
    data = pdf(nb, name=notebook_path.stem, where=notebook_path.parent)
    with replacing(pdf_path) as temporary:
        temporary.write_bytes(data)
    return pdf_path


def pdf(nb, name="notebook", where="."):
    """The PDF, as bytes, of notebook node `nb`. Equal notebooks give equal bytes.

    `name`: the title where the notebook has none, and the notebook's name in errors. `where`: the folder that pictures
    named in Markdown cells are looked for in. ValueError: see `typst_source`.
    """
    with tempfile.TemporaryDirectory() as work:
        typst_source(nb, work, name, where)
        return _compile(Path(work), name)


def typst_source(nb, work, name="notebook", where="."):
    """Write Typst's input (main.typ, report.typ and the pictures) into the folder `work`; return the text of main.typ.

    ValueError, one line: an errored cell, a label used twice, a reference without a target, maths or a picture that
    pandoc does not understand. In a notebook that was never run, references to its figures stay plain text.
    """
    work = Path(work)
    try:
        text = markdown.from_notebook(nb, work)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    (work / "notebook.md").write_text(text, encoding="utf-8")
    (work / "report.typ").write_bytes((HERE / "report.typ").read_bytes())
    _pandoc(work, name, Path(where).resolve(), draft=not markdown.executed(nb))
    return (work / "main.typ").read_text(encoding="utf-8")


def _pandoc(work, name, where, draft):
    command = [
        pypandoc.get_pandoc_path(), "notebook.md", "-f", READER, "-t", "typst", "-o", "main.typ",
        "--template", HERE / "main.typ", "--lua-filter", HERE / "report.lua",
        "--columns=10000",  # or pipe tables with long lines get proportional widths
        f"--resource-path=.{os.pathsep}{where}",
        f"--metadata=name:{name}", f"--metadata=draft:{'true' if draft else 'false'}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, encoding="utf-8")
    if done.returncode or done.stderr.strip():  # a warning is maths or a link that would be missing from the page
        raise ValueError(f"{name}: {_first_complaint(done.stderr)}")


def _first_complaint(text):
    """pandoc's words in one line: an error, a warning, or a line of report.lua's own."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("stack traceback")]
    return " ".join(lines)[:400] or "pandoc failed without a word"


def _compile(work, name):
    faces = typst.Fonts(include_system_fonts=False, font_paths=[str(fonts.folder())])  # the same page on every machine
    try:
        data, warnings = typst.compile_with_warnings(
            str(work / "main.typ"), root=str(work), format="pdf", font_paths=faces
        )
    except typst.TypstError as error:
        raise ValueError(f"{name}: Typst cannot set it: {' '.join(str(error).split())}") from None
    for warning in warnings:
        words = " ".join(str(warning).split())
        if "is deprecated" not in words:  # symbol names that pandoc writes and this Typst still takes
            log.warning("%s: %s", name, words)
    return data
