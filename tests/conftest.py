import signal

import pytest
from stub_study import Bench

from lib import parameters, paths


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
    parameters.declared.cache_clear()
    handler = signal.getsignal(signal.SIGTERM)  # lib.study.__main__ sets its own
    yield bench
    signal.signal(signal.SIGTERM, handler)
    parameters.declared.cache_clear()
