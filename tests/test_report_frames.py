import re

import numpy as np
import pandas as pd
import pytest

from lib.report import frames


def cells(frame):
    """Rows of the shown table, as texts."""
    rows = re.findall(r"<tr>(.*?)</tr>", frames.style(frame).to_html(), re.S)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]


def test_a_plain_row_index_is_hidden_and_a_named_one_is_shown():
    frame = pd.DataFrame({"a": [1, 2]})
    assert cells(frame) == [["a"], ["1"], ["2"]]
    assert cells(frame.set_index(pd.Index([0.2, 1.0], name="compression")))[-2:] == [["0.2", "1"], ["1", "2"]]


def test_a_column_has_one_number_of_decimals_by_its_largest_number():
    frame = pd.DataFrame(
        {"accuracy": [91.234, 8.0], "loss": [0.12345, 0.5], "whole": [3.0, np.nan], "tiny": [1e-7, 3e-6]}
    )
    assert cells(frame)[1:] == [["91.23", "0.1235", "3", "1.00e-07"], ["8.00", "0.5000", "–", "3.00e-06"]]


def test_thousands_are_set_apart_in_tables_with_large_numbers_only():
    assert cells(pd.DataFrame({"seed": [1234]}))[1] == ["1234"]
    assert cells(pd.DataFrame({"kept": [1234], "macs": [40_813_184]}))[1] == ["1,234", "40,813,184"]


def test_missing_negative_infinite_and_true():
    frame = pd.DataFrame({"x": [-1.5, np.inf, np.nan], "ok": [True, False, True], "word": ["a", None, "<b>"]})
    assert cells(frame)[1:] == [["−1.500", "yes", "a"], ["inf", "no", "–"], ["–", "yes", "&lt;b&gt;"]]


def test_an_empty_frame_is_a_header():
    assert cells(pd.DataFrame({"a": [], "b": []})) == [["a", "b"]]


def test_names_that_come_twice_are_refused():
    with pytest.raises(ValueError, match="different"):
        frames.style(pd.DataFrame([[1, 2]], columns=["a", "a"]))
