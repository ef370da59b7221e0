"""What a run says about its machine, against other sources of the same facts."""

import json
import os
import platform
import subprocess
from importlib.metadata import version

import pytest

from lib import machine, paths


def test_plain_json():
    facts = {
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "load": machine.load(),
        "git": machine.git(),
    }
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_hardware():
    found = machine.hardware()
    assert found["cores"] == os.cpu_count()
    assert found["cpu"].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert found["memory_gib"] == pytest.approx(pages, rel=0.02, abs=0.1)
    assert all(set(gpu) == {"name", "memory_mib", "driver"} for gpu in found["gpus"])


def test_gpus_as_nvidia_smi_prints_them(monkeypatch):
    printed = "NVIDIA H200, 143771, 570.1\nNVIDIA A100-SXM4-40GB, 40960, 570.1"
    monkeypatch.setattr(machine, "_output", lambda command: printed)
    assert machine._gpus() == [
        {"name": "NVIDIA H200", "memory_mib": 143771, "driver": "570.1"},
        {"name": "NVIDIA A100-SXM4-40GB", "memory_mib": 40960, "driver": "570.1"},
    ]
    monkeypatch.setattr(machine, "_output", lambda command: None)
    assert machine._gpus() == []


def test_a_missing_or_failing_program_is_no_answer():
    assert machine._output(["no-such-program-anywhere"]) is None
    assert machine._output(["false"]) is None
    assert machine._output(["echo", "yes"]) == "yes"


def test_versions():
    found = machine.versions()
    assert found["python"] == platform.python_version()
    assert {"torch", "numpy", "pandas"} <= set(found)
    assert all(found[name] == version(name) for name in found if name != "python")


def test_threads_are_those_of_the_study(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "cores", lambda: 5)
    assert machine.threads() == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert machine.cores() == len(before)


def test_git(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.git() == {"commit": None, "dirty": None}
    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "-m", "one")
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    (tmp_path / "untracked").touch()
    assert machine.git() == {"commit": head[:12], "dirty": False}
    (tmp_path / "a").write_text("2")
    assert machine.git()["dirty"] is True
    (tmp_path / "a").write_text("1")
    os.utime(tmp_path / "a", (1e9, 1e9))
    index = (tmp_path / ".git" / "index").read_bytes()
    machine.git()
    assert (tmp_path / ".git" / "index").read_bytes() == index, "a commit beside it would meet a locked index"


def test_the_root_is_this_repository():
    assert (paths.ROOT / "pyproject.toml").is_file()
