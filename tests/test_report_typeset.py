import re

import nbformat
import pandas as pd
import pytest
from report_notebooks import PNG, SVG, code, failed, figure, notebook, shown, stdout, table, text

from lib.report import css, frames, typeset

TITLE = "# On pruning\n\n*A study*\n\nAda · Systems\n\n**Abstract.** We prune; see [Table 9](#tbl-a)."


@pytest.fixture
def typ(tmp_path):
    """A function from cells to Typst's source, checked by setting it."""

    def convert(*cells, **options):
        nb = notebook(*cells)
        assert typeset.pdf(nb, **options).startswith(b"%PDF")
        return typeset.typst_source(nb, tmp_path, **options)

    return convert


def html(styler):
    return css.inline(styler.to_html())


def rows(source):
    """The lines of the first table's body, as lists of cell texts without markup."""
    body = source.split("table.hline()", 1)[1].split("\n  )", 1)[0]
    lines = [line for line in body.splitlines() if line.strip().startswith(("[", "table.cell"))]
    return [re.sub(r"#box|table\.cell\([^\[]*\)|[\[\]]", "", line).strip(" ,").split(", ") for line in lines]


def test_title_block_numbers_and_references(typ):
    source = typ(
        text(TITLE),
        text("## First\n\nSee [Figure 7](#fig-a), [Equation 3](#eq-k), [Section 2](#Second-part), [[1]](#ref-he).\n\n"
             "$$ k = 1 \\label{eq-k} $$"),
        code("", table("tbl-a", "<table><tr><th>x</th></tr><tr><td>1</td></tr></table>", "Cap $x^2$ [one].")),
        code("", figure("fig-a", "Under it.")),
        text('## Second part\n\nWords.\n\n## References\n\n1. <span id="ref-he"></span>K. He.'),
    )  # fmt: skip
    assert "title: [On pruning]" in source
    assert "subtitle: [A study]" in source
    assert "byline: [Ada · Systems]" in source
    assert re.search(r"abstract: \[We prune; see #ref\(label\(\"tbl-a\"\)\)\.\]", source)
    for label in ("fig-a", "eq-k", "second-part"):
        assert f'#ref(label("{label}"))' in source
    assert "#link(<ref-he>)" in source
    assert "#metadata(none)<ref-he>" in source
    assert "Cap $x^2$ \\[one\\]" in source
    assert "<fig-a>" in source
    assert "#show: references" in source


def test_a_first_paragraph_without_an_abstract_is_text_and_no_title_takes_the_name(typ):
    source = typ(text("# Layers\n\n*Which?*\n\nThe question in words."))
    assert "byline" not in source
    assert "The question in words." in source
    assert "title: [my\\_notebook]" in typ(text("Words only."), name="my_notebook")


def test_markdown_means_what_the_lab_shows(typ):
    source = typ(text("~5 s and ~6 s, <br> H^2^\n\n(1) not a list\n\n---\na: b\n---\n\n% percent\n\n- a\n- b"))
    assert "#sub" not in source
    assert "#super" not in source
    assert "linebreak" in source or "\\\n" in source
    assert "a: b" in source


def test_columns_of_numbers_stand_right_and_bold_and_colours_survive(typ):
    frame = pd.DataFrame({"name": ["ResNet-20", "FC"], "top-1": ["91.20 ± 0.30 (3)", "–"], "loss": [0.25, 0.5]})
    styler = frames.style(frame).map(
        lambda value: "font-weight: bold; background-color: yellow" if value == 0.5 else ""
    )
    source = typ(code("", table("tbl-a", html(styler))))
    assert "align: (left,right,right,)" in source.replace(" ", "").replace("align:", "align: ")
    assert "#box[91.20 ± 0.30 (3)]" in source
    assert "#box[ResNet-20]" in source
    assert 'fill: rgb("#ffff00")' in source
    assert "#strong[0.5000]" in source


def test_index_names_fold_into_the_header_and_groups_keep_their_rule(typ):
    index = pd.MultiIndex.from_product([["ResNet-20", "FC"], [0.2, 1.0]], names=["network", "compression"])
    source = typ(code("", table("tbl-a", html(frames.style(pd.DataFrame({"Rand": range(4)}, index=index))))))
    header = source.split("table.header(", 1)[1].split("table.hline()", 1)[0]
    assert [name for name in ("network", "compression", "Rand") if name in header] == ["network", "compression", "Rand"]
    assert source.count("rowspan: 2") == 2
    assert "stroke: (top" in source


def test_two_levels_of_columns_have_a_rule_under_each_group(typ):
    columns = pd.MultiIndex.from_product([["accuracy", "time"], ["Rand", "SNIP"]], names=["metric", "pruner"])
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=columns, index=pd.Index([0.5], name="compression"))
    source = typ(code("", table("tbl-a", html(frames.style(frame)))))
    assert source.count("colspan: 2") == 2
    assert source.count("stroke: (bottom") == 2
    assert "metric" not in source


def test_long_tables_break_over_pages(typ):
    frame = pd.DataFrame({"layer": [f"blocks.{number}" for number in range(40)]})
    source = typ(code("", table("tbl-a", html(frames.style(frame)))))
    assert "breakable: true" in source
    assert "breakable" not in typ(code("", table("tbl-a", html(frames.style(frame.head(20))))))


def test_long_column_names_take_lines_only_where_the_table_is_wide(typ):
    narrow = pd.DataFrame({"SynFlow with 100 rounds": ["92.10"]})
    wide = pd.DataFrame({f"SynFlow with {number}00 rounds": ["92.10"] for number in range(1, 9)})
    assert "\\\n" not in typ(code("", table("tbl-a", html(frames.style(narrow))))).split("table.header", 1)[1]
    assert "\\\n" in typ(code("", table("tbl-a", html(frames.style(wide))))).split("table.header", 1)[1]


def test_a_frame_without_a_caption_is_no_numbered_table(typ):
    shown_html = pd.DataFrame({"a": [1]}).to_html()
    source = typ(code("df", shown({"text/html": shown_html, "text/plain": "a"})))
    assert "#figure(" not in source
    assert "table.header" in source


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (text("See [Table 1](#tbl-none)."), r"no target for the reference \[Table 1\]\(#tbl-none\)"),
        (text("$\\nosuchcommand{x}$"), "nosuchcommand"),
        (text("![x](missing.png)"), "no picture missing.png"),
        (text("$$ a \\label{eq-a} $$\n\n$$ b \\label{eq-a} $$"), "eq-a stands on two things"),
    ],
)
def test_what_would_be_missing_on_the_page_stops_the_export(cell, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        typeset.pdf(notebook(cell, code("x = 1")), name="summary")
    assert str(caught.value).startswith("summary: ")
    assert "\n" not in str(caught.value)


def test_a_notebook_that_was_never_run_exports(typ):
    cell = nbformat.v4.new_code_cell("show.figure(fig, 'fig-a', 'Caption.')")
    source = typ(text("# T\n\nSee [Figure 1](#fig-a)."), cell)
    assert "See Figure 1." in source


def test_pictures_named_in_text_are_looked_for_beside_the_notebook_and_never_fetched(typ, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "logo.svg").write_text(SVG)
    source = typ(
        text("Words ![logo](logo.svg) and [![Open in Colab](https://example.org/badge.svg)](https://example.org)."),
        where=beside,
    )
    assert 'image("linked0.svg"' in source
    assert 'link("https://example.org")[Open in Colab]' in source


def test_equal_notebooks_give_equal_bytes():
    def build():
        return notebook(text(TITLE), code("", table("tbl-a", "<table><tr><td>1</td></tr></table>"), stdout("x")))

    assert typeset.pdf(build()) == typeset.pdf(build())


def test_export_writes_whole_files_and_names_what_is_wrong(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "made" / "a.pdf"
    nbformat.write(notebook(text("# A"), code("", shown({"image/png": PNG}))), source)
    assert typeset.export(source, target) == target
    before = target.read_bytes()
    assert before.startswith(b"%PDF")
    nbformat.write(notebook(failed("1 / 0")), source)
    with pytest.raises(
        ValueError, match=r"^a: cell In \[1\] \(1 / 0\) ended with ZeroDivisionError: division by zero$"
    ):
        typeset.export(source, target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["a.pdf"]
    source.write_text("{")
    with pytest.raises(ValueError, match="not a notebook"):
        typeset.export(source, target)
    with pytest.raises(FileNotFoundError):
        typeset.export(tmp_path / "none.ipynb", target)


def test_floats_stay_in_their_section_and_the_layout_settles(caplog):
    sections = [
        cell
        for number in range(4)
        for cell in (
            text(f"## Section {number}\n\n" + "Words and more words. " * 60),
            code("", *[figure(f"fig-{number}-{place}") for place in range(5)]),
        )
    ]
    assert typeset.pdf(notebook(*sections)).startswith(b"%PDF")
    assert not caplog.records
