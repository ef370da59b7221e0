"""A workbench of its own for tests: folders, a notebook without torch, and the command line in a subprocess."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat.v4 as nb
import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent

PATIENCE_S = 300  # a bound for what hangs, on a machine that others use too

STUB = (
    """name = "a"  # of the run
act = ""  # what happens in the middle, empty or raise or wait
seed = 1  # added to the value
source = ""  # earlier run
sources = []  # earlier runs
run_dir = ""  # folder""",
    """import os, time
from pathlib import Path
from lib import runs
run = runs.begin("stub", globals())
log = Path(os.environ["STUB_LOG"])
with log.open("a") as stream:
    stream.write(f"{run.directory.name.rsplit('.', 1)[0]}\\n")
(run.directory / "half.csv").write_text("x")""",
    """if act == "raise":
    raise RuntimeError("told to fail\\nsecond line")
while act == "wait" and not log.with_name("go").exists():
    time.sleep(0.05)
before = sum(len(runs.parameters_of(s)["name"]) for s in [source, *sources] if s)""",
    """runs.finish(run, {"value": len(name) + seed + before}, rows=[{"name": name}])""",
)


def write_notebook(folder: Path, name: str, cells: tuple[str, ...]) -> None:
    made = nb.new_notebook(
        cells=[nb.new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    made.cells[0].metadata["tags"] = ["parameters"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.ipynb").write_text(json.dumps(made), encoding="utf-8")


class Bench:
    """Folders below `root`; `run` and `start` are `python -m lib.study` with them."""

    program: tuple[str, ...] = ("-m", "lib.study")  # what python executes

    def __init__(self, root: Path, notebooks: Path | None = None):
        self.root = root
        self.runs, self.studies, self.figures = root / "runs", root / "studies", root / "figures"
        self.notebooks = notebooks or root / "notebooks"
        self.log, self.go = root / "log", root / "go"
        self.started: list[subprocess.Popen] = []
        self.studies.mkdir(parents=True, exist_ok=True)
        if notebooks is None:
            write_notebook(self.notebooks, "stub", STUB)

    @property
    def environment(self) -> dict:
        own = {name: str(getattr(self, name.lower())) for name in ("RUNS", "STUDIES", "FIGURES", "NOTEBOOKS")}
        return (
            os.environ
            | {f"WORKBENCH_{name}": value for name, value in own.items()}
            | {"WORKBENCH_MACHINE": str(self.root / "machine")}  # other tests' timed runs are not waited for
            | {"STUB_LOG": str(self.log), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        )

    def write(self, study: str, *blocks: dict, **more) -> None:
        value = {"title": "T", "question": "Q?", "blocks": list(blocks)} | more
        (self.studies / f"{study}.yaml").write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, *self.program, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.started.append(subprocess.Popen(command, cwd=ROOT, env=self.environment, **pipes))
        return self.started[-1]

    def run(self, *arguments: str, patience_s: float = PATIENCE_S) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=patience_s)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def close(self) -> None:
        """End what a failed test left running."""
        for process in self.started:
            left = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
            for one in [process, *left]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()

    def executed(self) -> list[str]:
        """Ids of the runs whose notebook began, in order, once for each time."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def done(self, study: str) -> dict[str, tuple]:
        """Finished run -> content and time of its metrics.json."""
        found = (self.runs / study).glob("*/metrics.json")
        return {p.parent.name: (p.read_text(), p.stat().st_mtime_ns) for p in found}

    def values(self, study: str) -> dict[str, dict]:
        """Finished run -> its metrics without the times."""
        return {
            run: {k: v for k, v in json.loads(text).items() if not k.endswith("_s")}
            for run, (text, _) in self.done(study).items()
        }


def until(condition, seconds: float = PATIENCE_S):
    """The first true value of `condition()`; AssertionError when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for nothing")


def kernels(process: subprocess.Popen) -> list[psutil.Process]:
    """The kernels below a driver: started by itself, or forked from its nursery."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            forked = "lib.study.nursery_main" in child.cmdline() and child.ppid() != process.pid
            if forked or "ipykernel_launcher" in child.cmdline():
                found.append(child)
    return found


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended; an orphan stays a zombie until process 1 has time for it."""
    return all(_ended(process) for process in processes)


def _ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
