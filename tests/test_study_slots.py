"""Places of the runs at once: which GPU each sees, and who has the machine to itself."""

import threading
import time

import pytest

from lib import machine
from lib.study import execute, quiet


@pytest.fixture
def gpus(monkeypatch):
    """A machine with so many GPUs of 16 GiB, and 64 cores."""

    def made(count: int, visible: str | None = None):
        found = {"gpus": [{"name": "G", "memory_mib": 16384, "driver": "1"}] * count}
        monkeypatch.setattr(machine, "hardware", lambda: found)
        monkeypatch.setattr(machine, "cores", lambda: 64)
        monkeypatch.delenv(execute.GPUS, raising=False)
        if visible is not None:
            monkeypatch.setenv(execute.GPUS, visible)

    return made


@pytest.mark.parametrize(
    ("count", "visible", "jobs", "per_gpu", "wanted"),
    [
        (0, None, 3, None, [None] * 3),
        (2, None, 4, None, ["0", "1", "0", "1"]),
        (2, None, None, 3, ["0", "1"] * 3),
        (4, "2,3", 2, None, ["2", "3"]),
        (4, "2,3", None, 1, ["2", "3"]),
        (1, None, None, None, ["0"] * 4),  # 16 GiB, 4 a run
        (2, None, None, None, ["0", "1"] * 4),
        (2, "", None, None, [None] * 32),  # GPUs that this process may not use
        (2, "-1", None, None, [None] * 32),
        (2, "NoDevFiles", None, None, [None] * 32),
        (2, " 1, -1,0", 2, None, ["1", "1"]),
        (2, "0,7,1", 2, None, ["0", "0"]),  # there is no GPU 7, and CUDA reads no further
        (1, "MIG-a,MIG-b", None, None, ["MIG-a", "MIG-b"]),
        (1, "GPU-a", None, None, ["GPU-a"] * 4),
    ],
)
def test_slots(gpus, count, visible, jobs, per_gpu, wanted):
    gpus(count, visible)
    assert execute.slots(jobs, per_gpu) == wanted


def test_slots_that_do_not_fit(gpus):
    gpus(0)
    with pytest.raises(ValueError, match="received 2 runs on a GPU, and there is no GPU here"):
        execute.slots(None, 2)
    gpus(2)
    with pytest.raises(ValueError, match="received 5 runs at once, and 2 on each of 2 GPUs are fewer"):
        execute.slots(5, 2)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_MACHINE", str(tmp_path / "machine"))


def test_timed_runs_have_the_machine_to_themselves(alone):
    going, together, lock = set(), [], threading.Lock()

    def run(name: str, timed: bool) -> None:
        with quiet.machine(timed, threading.Event()) as held:
            assert held
            with lock:
                going.add(name)
                together.append(set(going))
            time.sleep(0.05)
            with lock:
                going.discard(name)

    threads = [
        threading.Thread(target=run, args=(f"{'timed' if n % 3 == 0 else 'shared'}{n}", n % 3 == 0)) for n in range(9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 9
    for group in together:
        assert len(group) == 1 or not any(name.startswith("timed") for name in group)
    assert any(len(group) > 1 for group in together)


def test_a_study_that_stops_does_not_wait_for_the_machine(alone):
    stopping = threading.Event()
    with quiet.machine(True, stopping) as first:
        assert first
        threading.Timer(0.2, stopping.set).start()
        with quiet.machine(False, stopping) as second:
            assert not second


def test_a_folder_of_somebody_else_is_refused(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(quiet.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    held = quiet.machine(False, threading.Event())
    with pytest.raises(PermissionError, match="machine belongs to another user: set WORKBENCH_MACHINE to a f"), held:
        pass
