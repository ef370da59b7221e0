import pytest

from lib.report import css

HTML = """<style type="text/css">
#T_1a_row0_col0, #T_1a_row1_col0 { background-color: #440154; color: #f1f1f1; }
#T_1a_row0_col0 { font-weight: bold; ; }
#T_1a th { padding: 3px; }
</style>
<table id="T_1a"><td id="T_1a_row0_col0" class="data">1</td><td id="T_1a_row1_col0">2</td><td id="T_1a_row2_col0">3</td>
<td id="mine">4</td></table>"""


def test_rules_move_into_the_cells_they_name():
    html = css.inline(HTML)
    assert '<td style="background-color: #440154; color: #f1f1f1; font-weight: bold" class="data">1</td>' in html
    assert '<td style="background-color: #440154; color: #f1f1f1">2</td>' in html
    assert "<td>3</td>" in html
    assert "<style" not in html


def test_only_the_random_names_of_pandas_go():
    html = css.inline(HTML)
    assert "T_1a" not in html
    assert '<td id="mine">' in html


def test_tables_that_differ_by_their_random_name_only_become_equal():
    assert css.inline(HTML) == css.inline(HTML.replace("T_1a", "T_9f"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("#12ab34", "#12ab34"),
        ("yellow", "#ffff00"),
        ("rgb(255, 0, 16)", "#ff0010"),
        ("rgba(0,128,0,0.5)", "#008000"),
        ("inherit", "inherit"),
    ],
)
def test_colours_become_hexadecimal(given, expected):
    assert css.colour(given) == expected
