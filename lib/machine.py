"""What machine this is: read where a run happens, so that no report has to guess."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from lib.paths import ROOT

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "papermill", "safetensors")


@cache
def hardware() -> dict:
    """Processor, logical cores, memory (GiB), operating system, and each GPU with its driver; plain JSON."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": f"{platform.system()} {platform.release()}",
        "gpus": _gpus(),
    }


def versions() -> dict:
    """Versions of Python and of the packages that decide the numbers; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def load() -> dict:
    """How busy the machine is right now, apart from us: CPU share over 0.1 s, and the load of the last minute."""
    return {
        "cpu_busy_pct": psutil.cpu_percent(interval=0.1),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cores() -> int:
    """Cores that this process may use: within a job of a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads that one run computes with: OMP_NUM_THREADS, which a study sets for each run, or all cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())


def git() -> dict:
    """Commit and whether tracked files differ from it; both None outside a git checkout."""
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "HEAD"])
    if commit is None:
        return {"commit": None, "dirty": None}
    return {
        "commit": commit[:12],
        "dirty": bool(_output(["git", "--no-optional-locks", "-C", str(ROOT), "status", "--porcelain", "-uno"])),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor() or platform.machine()


def _gpus() -> list[dict]:
    query = "--query-gpu=name,memory.total,driver_version"
    lines = _output(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    rows = [line.split(", ") for line in (lines or "").splitlines()]
    return [{"name": r[0], "memory_mib": int(r[1]), "driver": r[2]} for r in rows if len(r) == 3]


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
