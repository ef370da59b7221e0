import sys

import pytest
import torch

from lib import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak")
MIB = 2**20


def use(mib: int) -> None:
    torch.ones(mib * MIB, dtype=torch.uint8)  # written to, so that the pages are really there


@linux
def test_the_peak_is_that_of_the_block():
    with memory.peak() as used:
        use(150)
    assert used["memory_of"] == "process"
    assert 140 < used["peak_memory_mib"] - used["memory_before_mib"] < 200


@linux
def test_an_earlier_higher_peak_does_not_count():
    use(300)
    with memory.peak() as used:
        use(20)
    assert used["peak_memory_mib"] - used["memory_before_mib"] < 100


def test_a_system_that_cannot_reset_says_so(monkeypatch):
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    with memory.peak() as used:
        pass
    assert used["memory_of"] == "process since its start"
    assert used["peak_memory_mib"] >= used["memory_before_mib"] > 0


def test_an_error_inside_passes_through():
    with pytest.raises(ZeroDivisionError), memory.peak():
        raise ZeroDivisionError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_on_a_gpu_it_is_what_torch_allocated():
    torch.ones(100 * MIB, dtype=torch.uint8, device="cuda")
    with memory.peak("cuda") as used:
        torch.ones(10 * MIB, dtype=torch.uint8, device="cuda")
    assert used["memory_of"] == "GPU"
    assert used["peak_memory_mib"] - used["memory_before_mib"] == pytest.approx(10, abs=1)
