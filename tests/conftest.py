import signal

import pytest
from stub_study import Bench

from lib import parameters, paths
from lib.study import quiet, state


@pytest.fixture
def bench(tmp_path):
    """A workbench with the notebook `stub`, for subprocesses."""
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def here(bench, monkeypatch):
    """The same in this process: lib's folders are those of `bench`."""
    for name in ("RUNS", "STUDIES", "FIGURES", "NOTEBOOKS"):
        monkeypatch.setattr(paths, name, getattr(bench, name.lower()))
    monkeypatch.setenv(quiet.FOLDER, bench.environment[quiet.FOLDER])
    parameters.declared.cache_clear()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield bench
    for number, handler in handlers.items():  # lib.study.__main__ sets its own
        signal.signal(number, handler)
    parameters.declared.cache_clear()


@pytest.fixture
def planned(here):
    """The plan of a study `s` of two runs of `stub`, saved."""
    here.write("s", {"notebook": "stub", "grid": {"name": ["a", "b"]}})
    found = state.plan("s")
    state.save(found)
    return found


@pytest.fixture
def expand(bench, monkeypatch):
    """Runs of a study of these blocks, over the real notebooks."""
    monkeypatch.setattr(paths, "STUDIES", bench.studies)

    def expanded(*blocks: dict, **more) -> list[dict]:
        bench.write("s", *blocks, **more)
        return state.plan("s")["runs"]

    return expanded
