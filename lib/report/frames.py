"""A DataFrame as the report shows it when its author gives no Styler of their own."""

import math
import re

import pandas as pd

MISSING = "–"
DIGITS = 4  # significant digits of a column's largest number
UNITS = {"us": "µs", "ms": "ms", "s": "s", "pct": "%", "mib": "MiB", "gib": "GiB"}
GROUPED = 10_000  # thousands are set apart in a table that holds a number as large


def style(frame):
    """A Styler of `frame`: one number of decimals a column, missing values as "–", a plain row index hidden.

    ValueError where a row's or a column's name comes twice.
    """
    if not (frame.columns.is_unique and frame.index.is_unique):
        raise ValueError("a table's row and column names must each be different: pandas styles cells by name")
    numbers = frame.select_dtypes("number")
    grouped = any(_largest(numbers[column]) >= GROUPED for column in numbers.columns)
    styler = frame.style.format(
        {column: formatter(frame[column], grouped) for column in frame.columns}, na_rep=MISSING, escape="html"
    )
    for axis, index in ((0, frame.index), (1, frame.columns)):
        for level in range(index.nlevels):
            styler = styler.format_index(label, axis=axis, level=level, escape="html")
    if plain(frame.index):
        styler = styler.hide(axis="index")
    return styler.hide(axis="columns", names=True) if any(frame.columns.names) else styler


def plain(index):
    """Whether a row index only counts the rows."""
    return isinstance(index, pd.RangeIndex) and index.name is None


def formatter(column, grouped=False):
    """value -> text for one column: the same decimals for every number of it, by the size of the largest.

    grouped: thousands are set apart by commas.
    """
    if pd.api.types.is_bool_dtype(column):
        return lambda value: "yes" if value else "no"
    if not pd.api.types.is_numeric_dtype(column):
        return lambda value: number(value, "g") if isinstance(value, float) else words(value)
    largest = _largest(column)
    spec = f".{_decimals(column, largest)}f" if largest == 0 or largest >= 1e-4 else f".{DIGITS - 2}e"
    return lambda value: number(value, f",{spec}" if grouped else spec)


def _finite(column):
    return [abs(float(value)) for value in column.dropna() if math.isfinite(float(value))]


def _largest(column):
    return max(_finite(column), default=0.0)


def _decimals(column, largest):
    """Decimals that show DIGITS significant digits of the largest number; none where all are whole."""
    if all(value.is_integer() for value in _finite(column)):
        return 0
    return max(0, DIGITS - 1 - math.floor(math.log10(largest)))


def number(value, spec):
    """`value` formatted by `spec`, with a true minus sign."""
    return format(value, spec).replace("-", "−") if not spec.endswith("e") else format(value, spec)


def label(value):
    """A row's or column's name: floats without trailing zeros, missing ones empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, "g").replace("-", "−")
    return words(heading(value)) if isinstance(value, str) else value


def words(value):
    """Text of a cell, already escaped for HTML, in which dollars and backslashes begin no maths; others as they are."""
    return re.sub(r"[$\\]", _apart, value) if isinstance(value, str) else value


def _apart(match):
    return f"<span>&#{ord(match[0])};</span>"


def heading(name):
    """A column's name in print: `duration_ms` is "duration (ms)", `weight_shape` is "weight shape"."""
    stem, _, last = name.rpartition("_")
    if stem and last in UNITS:
        name = f"{stem} ({UNITS[last]})"
    return name.replace("_", " ") if re.fullmatch(r"[a-z][a-z0-9_]*( \(.*\))?", name) else name
