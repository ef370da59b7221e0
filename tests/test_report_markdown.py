import pytest
from report_notebooks import PNG, code, failed, figure, notebook, shown, stderr, stdout, table, text

from lib.report import markdown


def test_hidden_code_leaves_no_trace_and_its_outputs_stay(tmp_path):
    nb = notebook(
        code("bootstrap()", stdout("installing"), tags=["remove-cell"]),
        code("plumbing()", stdout("numbers"), tags=["remove-input"]),
        code("seed = 1", tags=["parameters"]),
        code("seed = 2", tags=["injected-parameters"]),
        code("folded()", jupyter={"source_hidden": True}),
        code("noise()", stdout("loud"), tags=["remove-output"]),
        code("visible()"),
    )
    written = markdown.from_notebook(nb, tmp_path)
    for absent in ("bootstrap", "installing", "plumbing", "seed", "folded", "loud"):
        assert absent not in written
    for present in ("numbers", "noise()", "visible()"):
        assert present in written


def test_widgets_progress_bars_stderr_and_skipped_outputs_are_left_out(tmp_path):
    widget = shown({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "IntSlider(value=0)"})
    nb = notebook(
        code("", widget, stderr("50%|#####"), shown({"text/markdown": "*caption in the Lab*"}, skip=True)),
    )
    assert markdown.from_notebook(nb, tmp_path).strip() == ""


def test_printed_text_is_one_block_however_it_was_sent(tmp_path):
    pieces = notebook(code("", stdout("one\n"), stderr("x"), stdout("two\n")))
    whole = notebook(code("", stdout("one\ntwo\n")))
    assert markdown.from_notebook(pieces, tmp_path) == markdown.from_notebook(whole, tmp_path)


def test_printed_text_loses_colours_and_overwritten_lines_and_is_cut():
    shown_text = markdown.printed("\x1b[31mred\x1b[0m\n10%\r100%\n" + "x" * 300)
    assert "red\n100%\n" in shown_text
    assert max(map(len, shown_text.splitlines())) == markdown.COLUMNS
    assert shown_text.count("x") == 300


def test_a_fence_is_longer_than_any_inside():
    assert markdown.fence("```python\n```", "python").startswith("```` python\n")


def test_pictures_are_written_beside_the_text(tmp_path):
    nb = notebook(code("", figure("fig-a"), shown({"image/png": PNG, "text/plain": "<Figure>"})))
    written = markdown.from_notebook(nb, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture0.svg", "picture1.png"]
    assert "::: {#fig-a .captioned}\n![](picture0.svg)\n\nA figure.\n:::" in written
    assert "<Figure>" not in written


def test_attached_pictures_become_files(tmp_path):
    cell = text("![x](attachment:x.png)")
    cell["attachments"] = {"x.png": {"image/png": PNG}}
    assert "![x](picture0.png)" in markdown.from_notebook(notebook(cell), tmp_path)


def test_an_error_names_its_cell(tmp_path):
    cell = failed("1 / 0")
    cell.execution_count = 7
    with pytest.raises(ValueError, match=r"^cell In \[7\] \(1 / 0\) ended with ZeroDivisionError: division by zero$"):
        markdown.from_notebook(notebook(cell), tmp_path)


def test_an_error_is_never_hidden(tmp_path):
    cell = failed("f()", "E", "x")
    cell.metadata["tags"] = ["remove-output", "remove-input"]
    with pytest.raises(ValueError, match="ended with E: x"):
        markdown.from_notebook(notebook(cell), tmp_path)


def test_a_label_names_one_thing(tmp_path):
    with pytest.raises(ValueError, match="'fig-a' is used by two"):
        markdown.from_notebook(notebook(code("", figure("fig-a")), code("", figure("fig-a"))), tmp_path)


@pytest.mark.parametrize("label", ["curves", "fig-", "tbl-a b", "eq-x"])
def test_labels_have_a_form(tmp_path, label):
    with pytest.raises(ValueError, match="must begin with fig- or tbl-"):
        markdown.from_notebook(notebook(code("", table(label, "<table></table>"))), tmp_path)
