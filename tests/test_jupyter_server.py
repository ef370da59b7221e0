"""What File > Save and Export Notebook As > Report asks of the server, without a browser."""

import json

import nbformat
import pytest
from jupyter_process import get, serving
from report_notebooks import code, failed, figure, notebook, text


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    (root / "deep").mkdir()
    good = notebook(text("# Small\n\nSee [Figure 1](#fig-a)."), code("f()", figure("fig-a")))
    nbformat.write(good, root / "deep" / "small.ipynb")
    nbformat.write(notebook(failed("1 / 0")), root / "failed.ipynb")
    with serving(root, home) as (address, token):
        yield lambda path: get(f"{address}/{path}{'&' if '?' in path else '?'}token={token}")


def test_the_exporter_is_listed(server):
    status, _, body = server("api/nbconvert")
    assert status == 200
    assert json.loads(body)["report"]["output_mimetype"] == "application/pdf"


def test_a_notebook_comes_back_as_one_pdf(server):
    status, headers, body = server("nbconvert/report/deep/small.ipynb?download=true")
    assert status == 200
    assert headers.get_content_type() == "application/pdf"
    assert "small.pdf" in headers["Content-Disposition"]
    assert body.startswith(b"%PDF")


def test_a_notebook_that_cannot_be_exported_says_why(server):
    status, _, body = server("nbconvert/report/failed.ipynb?download=true")
    assert status == 500
    assert "cell In [1] (1 / 0) ended with ZeroDivisionError" in body.decode()
