"""Memory: the peak of what happens inside a `with`, and an allocator that keeps what it has."""

import ctypes
import gc
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

MIB = 2**20
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # man 3 mallopt
RESET_OWN_PEAK = "5"  # written to clear_refs: man 5 proc, "reset the peak resident set size"


@contextmanager
def peak(device: torch.device | str = "cpu"):
    """Yield a dict that holds, once the `with` is left:

    - `peak_memory_mib`: the highest use inside it. GPU: what torch had allocated for tensors. CPU: resident
      memory of the whole process, interpreter and libraries included.
    - `memory_before_mib`: the use when it was entered, in the same terms; the difference is what was added.
    - `memory_of`: `GPU`, `process`, or, where the system cannot reset the peak, `process since its start`.

    Before the reset, garbage is collected and free memory is given back to the system, so that what an earlier
    cell left behind does not hide what this one needs.
    """
    used: dict = {}
    gc.collect()
    measure = _Gpu(device) if torch.device(device).type == "cuda" else _Process()
    used |= {"memory_before_mib": measure.now(), "memory_of": measure.of}
    yield used
    used["peak_memory_mib"] = max(measure.peak(), used["memory_before_mib"])


class _Gpu:
    of = "GPU"

    def __init__(self, device):
        self.device = device
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

    def now(self) -> float:
        return torch.cuda.memory_allocated(self.device) / MIB

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated(self.device) / MIB


class _Process:
    def __init__(self):
        _return_free_memory()
        self.of = "process" if _reset_peak() else "process since its start"

    def now(self) -> float:
        import psutil

        return psutil.Process().memory_info().rss / MIB

    def peak(self) -> float:
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) / 1024  # kB
        if sys.platform == "win32":
            import psutil

            return psutil.Process().memory_info().peak_wset / MIB
        import resource

        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / (MIB if sys.platform == "darwin" else 1024)  # bytes there, kB elsewhere


def _return_free_memory() -> None:
    """glibc keeps freed memory; elsewhere nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


def _reset_peak() -> bool:
    """Set the process's peak resident memory to its present one; False where the system has no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text(RESET_OWN_PEAK)
    except OSError:
        return False
    return True


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory instead of returning large blocks to the system at once; False elsewhere.

    A training step frees and asks for the same blocks again and again, and each page that comes back from the
    system has to be zeroed: without that a float32 step of ResNet-20 on two cores takes 0.83 of the time, and the
    forward pass alone 0.6. For the whole process and for good; only glibc has such a switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
