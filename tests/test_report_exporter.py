import nbformat
import pytest
from nbconvert.exporters import get_exporter
from report_notebooks import code, figure, notebook, text

from lib.report import typeset
from lib.report.exporter import ReportExporter


def test_nbconvert_finds_the_exporter_by_a_name_the_server_takes():
    assert get_exporter("report") is ReportExporter
    assert ReportExporter.file_extension == ".pdf"


def test_it_gives_the_same_bytes_as_the_direct_way_and_no_further_files(tmp_path):
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook(text("# Small\n\nSee [Figure 1](#fig-a)."), code("", figure("fig-a"))), path)
    data, resources = ReportExporter().from_filename(str(path))
    assert data == typeset.export(path, tmp_path / "small.pdf").read_bytes()
    assert "outputs" not in resources
    assert resources["output_extension"] == ".pdf"


def test_the_page_shows_numbers_and_no_hidden_code(tmp_path, pdf_text):
    nb = notebook(
        text("# Title here\n\nSee [Figure 9](#fig-a)."),
        code("hidden_code()", figure("fig-a", "What it shows."), tags=["remove-input"]),
        text("## Second section"),
    )
    words = pdf_text(typeset.pdf(nb))
    assert "Figure 1. What it shows." in words
    assert "See Figure 1." in words
    assert "1 Second section" in words
    assert "hidden_code" not in words


@pytest.fixture
def pdf_text(tmp_path):
    """A function from PDF bytes to their text, by poppler's pdftotext."""
    import shutil
    import subprocess

    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")

    def read(data):
        (tmp_path / "x.pdf").write_bytes(data)
        done = subprocess.run([program, "-layout", tmp_path / "x.pdf", "-"], capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split())

    return read
