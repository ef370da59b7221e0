"""Imports without what they do not need."""

import importlib
import subprocess
import sys

import pytest

from lib import light, paths


def test_a_module_is_hidden_inside_only(tmp_path, monkeypatch):
    (tmp_path / "needless.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "needless", raising=False)
    with light.without("needless"), pytest.raises(ImportError):
        importlib.import_module("needless")
    found = importlib.import_module("needless")
    with light.without("needless"):
        assert importlib.import_module("needless") is found
    assert sys.modules["needless"] is found


@pytest.mark.parametrize("module", ["lib.study.report", "lib.study.attempt"])
def test_a_driver_does_not_wait_for_a_grammar_of_addresses(module):
    """It is installed, and whoever needs it later gets it."""
    check = f"import sys, {module}\nassert {{'papermill', 'nbformat'}} <= set(sys.modules)\n"
    check += f"assert '{light.GRAMMAR}' not in sys.modules\nimport {light.GRAMMAR}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=paths.ROOT)
    assert (done.returncode, done.stderr) == (0, "")
