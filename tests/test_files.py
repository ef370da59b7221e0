"""Files appear whole or not at all."""

import errno
import json
import math
import os
from pathlib import Path

import pytest

from lib import files


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "deep" / "a.csv"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert temporary.suffix == ".csv"
        assert temporary.parent == path.parent
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    """Of two threads, or two hosts that gave out one process number: the last to end has it, whole."""
    path = tmp_path / "a"
    with files.replacing(path) as first:
        with files.replacing(path) as second:
            assert first != second
            second.write_text("second")
        first.write_text("first")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_in_one_go(tmp_path):
    path = tmp_path / "a"
    files.write_text(path, "old")
    before = path.stat().st_ino
    files.write_text(path, "new µ")
    assert path.read_text(encoding="utf-8") == "new µ"
    assert path.stat().st_ino != before  # another file took the name
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_json_refuses_what_other_languages_cannot_read(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


def test_json_round_trip(tmp_path):
    value = {"a": 1, "b": [0.1, None, True], "c": {"d": "µ"}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value == json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"[1]", b"null", b"\xff\xfe{}", b"\0" * 40])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_lies_in_a_folder_is_listed_by_name_and_one_that_is_not_there_is_empty(tmp_path):
    for name in ("b.json", "a.json", ".c.json", "d"):
        (tmp_path / name).touch()
    assert [path.name for path in files.listed(tmp_path, "*.json")] == ["a.json", "b.json"]
    assert [path.name for path in files.listed(tmp_path, ".*")] == [".c.json"]
    assert files.listed(tmp_path / "gone", "*") == []
    assert files.listed(tmp_path / "d", "*") == []


@pytest.mark.parametrize(
    ("number", "times", "found"),
    [(errno.ENOENT, 1, []), (errno.ESTALE, 1, ["a"]), (errno.ESTALE, 99, None), (errno.EACCES, 1, None)],
)
def test_a_folder_that_changes_while_it_is_listed(tmp_path, monkeypatch, number, times, found):
    """One that goes is empty; where NFS says that something was stale, it is looked at again."""
    (tmp_path / "a").touch()
    looks, glob = [], Path.glob

    def refuse(*given):
        looks.append(1)
        if len(looks) <= times:
            raise OSError(number, os.strerror(number))
        return glob(*given)

    monkeypatch.setattr(Path, "glob", refuse)
    if found is None:
        with pytest.raises(OSError, match=os.strerror(number)):
            files.listed(tmp_path, "*")
    else:
        assert [path.name for path in files.listed(tmp_path, "*")] == found


def test_the_time_of_a_change(tmp_path):
    assert files.changed_ns(tmp_path / "a") == 0
    files.write_text(tmp_path / "a", "x")
    os.utime(tmp_path / "a", ns=(5, 7))
    assert files.changed_ns(tmp_path / "a") == 7
