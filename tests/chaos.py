"""Studies of six tiny runs, each with one kill at a random moment, started again and compared with an undisturbed one.

`python tests/chaos.py --studies 100 --seed 0` says how many of how many came out equal, in all columns but the times,
and prints seed, kind and moment of those that did not; its exit code is 0 when all did. `--only 17` repeats the study
number 17 alone.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [name for name in (str(HERE.parent), str(HERE)) if name not in sys.path]  # executed by hand

from stub_study import Bench, kernels, write_notebook  # noqa: E402

from lib import frames, machine, paths  # noqa: E402

KINDS = ("driver", "nursery", "kernel", "run")  # whose process is killed; `run` is one that executes runs by hand
JOBS = 2
PATIENCE_S = 240.0  # for a study that takes seconds, on a machine that others use too
STUDY = "s"

# Every table holds what it got from the run's sources, so that a source read half done, or a mixture of two attempts,
# is seen in every run after it.
LINK = (
    """name = "a"  # of the run
seed = 1  # of the table
source = ""  # earlier run
sources = []  # earlier runs
run_dir = ""  # folder""",
    """import random, time
import pandas as pd
from lib import runs
run = runs.begin("link", globals())""",
    """tables = [pd.read_csv(runs.directory(s) / "rows.csv") for s in [source, *sources] if s]
before = pd.concat([pd.DataFrame(), *tables])
draw = random.Random(f"{name} {seed}")
for step in range(4):
    (run.directory / "half.csv").write_text("step\\\\n" * step)
    time.sleep(0.05)
(run.directory / "half.csv").unlink()
rows = [{"name": name, "value": draw.random()} for _ in range(20)] + before.to_dict("records")""",
    """runs.finish(run, {"total": sum(row["value"] for row in rows), "rows": len(rows)}, rows=rows)""",
)
# a nursery that imports what these runs need: torch takes ten seconds
DRIVE = """import sys
from lib.study import execute, nursery
small = ("ipykernel.kernelapp", "ipykernel.ipkernel", "numpy", "pandas")
execute.Nursery = lambda: nursery.Nursery(small)
from lib.study.__main__ import main
sys.exit(main(sys.argv[1:]))"""


AFTER = {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["b", "c"], "f": []}  # name -> what it builds on


class Six(Bench):
    """A workbench below `root` with the study of six runs."""

    program = ("-c", DRIVE)

    def __init__(self, root: Path):
        super().__init__(root, root / "notebooks")
        write_notebook(self.notebooks, "link", LINK)
        self.write(STUDY, *(_block(name, sources) for name, sources in AFTER.items()))

    def begin(self, kind: str) -> Popen:
        """Start the study: by a driver, or its runs by hand, one after the other."""
        if kind != "run":
            return self.start("run", STUDY, "--jobs", str(JOBS))
        threads = max(1, machine.cores() // JOBS)
        return self.start("execute", STUDY, *map(_id, AFTER), "--threads", str(threads))

    def begun(self, process: Popen) -> None:
        """Wait until the study has begun, as its plan shows."""
        while process.poll() is None and not (self.runs / STUDY / "plan.json").exists():
            time.sleep(0.01)


def _block(name: str, sources: list[str]) -> dict:
    found = [_id(one) for one in sources]
    before = {"source": found[0]} if len(found) == 1 else {"sources": found}
    return {"notebook": "link", "fixed": before, "grid": {"name": [name]}}


def _id(name: str) -> str:
    return f"link-name{name}-seed1"


def results(bench: Six) -> dict[str, dict]:
    """Run -> all of it but the times: its row of the frame that reports read, its tables, the names of its files."""
    with _at(bench.runs):
        frame = frames.load(STUDY)
    changing = [c for c in frame if c.endswith("_s") or c in ("cpu_busy_pct", "neighbours")]
    rows = frame.drop(columns=changing).set_index("run").to_dict("index") if len(frame) else {}
    folders = {run: bench.runs / STUDY / run for run in rows}
    return {
        run: rows[run]
        | {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.csv")}
        | {"files": sorted(path.name for path in folder.iterdir())}
        for run, folder in folders.items()
    }


@contextlib.contextmanager
def _at(folder: Path):
    before, paths.RUNS = paths.RUNS, folder
    try:
        yield
    finally:
        paths.RUNS = before


def undisturbed(folder: Path) -> tuple[dict[str, dict], dict[str, float]]:
    """What a study comes to by itself, and by kind how many seconds it lasts from its plan on."""
    lasted, found = {}, {}
    for kind in ("driver", "run"):
        bench = Six(folder / kind)
        process = bench.begin(kind)
        bench.begun(process)
        start = time.monotonic()
        said = _ended(process)
        lasted[kind], found[kind] = time.monotonic() - start, results(bench)
        if process.returncode or len(found[kind]) < len(AFTER):
            raise RuntimeError(f"an undisturbed study ended with {process.returncode}: {said}")
    if found["driver"] != found["run"]:
        raise RuntimeError("runs by hand came to something else than those of a driver")
    return found["driver"], {kind: lasted["run" if kind == "run" else "driver"] for kind in KINDS}


def disturbed(folder: Path, kind: str, moment_s: float, expected: dict[str, dict]) -> tuple[float, list[str]]:
    """Kill `kind` when the study has lasted `moment_s`, start it again: the moment, and what is other than `expected`.

    A process that is not there at the moment is waited for. Where the study ends before that, because the machine was
    slower when it was timed, another is begun and its moment comes after half the time.
    """
    for number in range(8):
        bench = Six(folder / str(number))
        try:
            first = bench.begin(kind)
            bench.begun(first)
            time.sleep(moment_s)
            hit = _kill(first, kind)
            _ended(first)
            if hit:
                return moment_s, _started_again(bench, expected)
            moment_s /= 2
        except TimeoutExpired:
            return moment_s, ["it hangs"]
        finally:
            bench.close()
    return moment_s, ["it ended before anything could be killed"]


def _started_again(bench: Six, expected: dict[str, dict]) -> list[str]:
    before = bench.done(STUDY)
    again = bench.begin("driver")
    said = _ended(again)
    wrong = [f"the second start ended with {again.returncode}: {said}"] if again.returncode else []
    after = bench.done(STUDY)
    wrong += [f"{run} was finished and has changed" for run in before if after.get(run) != before[run]]
    return wrong + _differences(bench, expected)


def _differences(bench: Six, expected: dict[str, dict]) -> list[str]:
    found = results(bench)
    wrong = [f"{run} is missing" for run in expected if run not in found]
    for run, wanted in expected.items():
        names = sorted(
            name
            for name in {**wanted, **found.get(run, wanted)}
            if found.get(run, wanted).get(name) != wanted.get(name)
        )
        wrong += [f"{run} differs in {', '.join(names)}"] if names else []
    allowed = {*expected, "plan.json", ".lock", ".lock.owner", ".tries"}  # tries are kept until the next start
    left = sorted(path.name for path in (bench.runs / STUDY).iterdir() if path.name not in allowed)
    return wrong + ([f"left over: {', '.join(left)}"] if left else [])


def _kill(process: Popen, kind: str) -> bool:
    """Kill the first of its kind there is; False where the study ended first."""
    while process.poll() is None:
        if victims := _victims(process, kind):
            with contextlib.suppress(psutil.NoSuchProcess):
                victims[0].kill()
                return True
        time.sleep(0.005)
    return False


def _victims(process: Popen, kind: str) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        if kind == "kernel":
            return kernels(process)
        if kind == "nursery":
            children = psutil.Process(process.pid).children()
            return [child for child in children if "lib.study.nursery_main" in child.cmdline()]
        return [psutil.Process(process.pid)]
    return []


def _ended(process: Popen) -> str:
    out, err = process.communicate(timeout=PATIENCE_S)
    return " / ".join((out + err).strip().splitlines()[-3:])


def draw(seed: int, number: int) -> tuple[str, float]:
    """Kind and moment, a share of the undisturbed study's duration, of the study with this number."""
    source = random.Random(f"{seed} {number}")
    return source.choice(KINDS), source.random()


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--studies", type=int, default=100, metavar="N", help="how many (default: 100)")
    made.add_argument("--seed", type=int, default=0, help="of kinds and moments (default: 0)")
    made.add_argument("--only", type=int, metavar="NUMBER", help="the study with this number alone")
    given = made.parse_args(arguments)
    numbers = range(given.studies) if given.only is None else [given.only]
    equal = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        expected, lasts_s = undisturbed(Path(scratch))
        for number in numbers:
            kind, share = draw(given.seed, number)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                moment_s, wrong = disturbed(Path(folder), kind, share * lasts_s[kind], expected)
            equal += not wrong
            what = f"study {number} of seed {given.seed}: {kind} killed after {moment_s:.2f} of {lasts_s[kind]:.1f} s"
            print(f"{what}: {'; '.join(wrong) or 'equal'}", flush=True)
    print(f"{equal} of {len(numbers)} studies equal an undisturbed one in all columns but the times")
    return int(equal < len(numbers))


if __name__ == "__main__":
    sys.exit(main())
