"""Command line: python -m lib.bench."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

from lib import machine, paths
from lib.bench import fixed, passes, plans, scale, scoring, table, training
from lib.bench.turns import Program
from lib.command import Parser, interruptible

CODES = "Exit code: 0 all measured, 1 something failed, 2 bad option, 130 interrupted."
SECTIONS = ("training", "inference", "pruning", "fixed", "epochs", "quick", "scale")
LONG = ("pruning", "quick", "scale")  # in the short mode only where --only names them
STUDIES = ("cos568", "cos568-small", "quick")

# `rounds` of segments of about `segment_s` for training, `repeats` of passes for inference; see measure() of each
SHORT = {
    "short": True, "training": [("cifar10", "resnet20"), ("mnist", "fc")], "inference": [("cifar10", "resnet20")],
    "rounds": 3, "segment_s": 1.5, "graph": False, "transforms": 256,
    "repeats": 3, "test_images": 768, "train_steps": 12, "fresh": False,
    "score_repeats": 1, "rounds_repeats": 0, "plain_runs": 1, "study_runs": 3, "scale_seeds": scale.SEEDS,
}  # fmt: skip
VGG = [("cifar10", "vgg16-bn")]
FULL = {
    "short": False, "training": [*SHORT["training"], *VGG], "inference": SHORT["inference"],
    "rounds": 7, "segment_s": 10.0, "graph": True, "transforms": 1_000,
    "repeats": 7, "test_images": 10_000, "train_steps": 60, "fresh": True,
    "score_repeats": 5, "rounds_repeats": 1, "plain_runs": 5, "study_runs": 9, "scale_seeds": scale.SEEDS,
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="python -m lib.bench",
        description="Measure the workbench against code in the usual style, side by side in one run, and write "
        "bench.md and bench.csv. The machine should have nothing else to do. Nothing is downloaded: where the files "
        "of CIFAR-10 or MNIST are missing, random images of the same shapes take their place, and the table says so.",
        epilog=CODES,
    )
    made.add_argument(
        "--short",
        action="store_true",
        help="two minutes: fewer and shorter rounds, no VGG-16, no compiled training step on a CPU, no second process "
        "of the baseline, and pruning, the study quick and scale only where --only names them",
    )
    made.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="SECTION",
        help="some of: training (an epoch against the baseline), inference (passes over the test images against the "
        "baseline), pruning (what scores, ranking and histograms of VGG-16 cost, and the memory of scoring and "
        "training), fixed (what a run costs besides its compute), epochs (that studies train, counted), quick (wall "
        "time of that whole study), scale (plan, status and report of a study of 500 runs, and wall times on more "
        "slots, on paper); default: all",
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=paths.FIGURES / "bench",
        help="folder for bench.md and bench.csv (default: figures/bench)",
    )
    return made


class Findings:
    """What has been measured so far: rows, notes, and what failed."""

    def __init__(self):
        self.rows, self.notes, self.errors = [], [], []

    def add(self, what: str, measure: Callable[[], tuple[list, list]]) -> None:
        """Add what `measure` returns; when it fails, the rest still goes on."""
        print(f"{what} ...", file=sys.stderr, flush=True)
        try:
            rows, notes = measure()
        except (RuntimeError, OSError, ValueError) as error:
            self.errors.append(f"{what} failed: {error}")
            return
        self.rows += rows
        self.notes += [note for note in notes if note not in self.notes]


def run(sections: tuple[str, ...], scratch: Path, size: dict) -> Findings:
    """Measure `sections` in turn, as long as `size` says; everything temporary goes below `scratch`."""
    found = Findings()
    if "training" in sections or "inference" in sections:
        _against_baseline(found, sections, scratch, size)
    if "pruning" in sections:
        found.add("pruning", lambda: scoring.measure(scratch / "pruning", size))
    if "fixed" in sections:
        found.add("fixed cost of a run", lambda: fixed.measure(scratch / "fixed", size))
    if "quick" in sections:
        found.add("study quick", lambda: (fixed.whole("quick", scratch / "quick"), []))
    elif "fixed" in sections and size["short"]:
        found.rows.append(fixed.skipped("quick"))
    if "scale" in sections:
        found.add("study of 500 runs", lambda: scale.measure(scratch / "scale", size))
    if "epochs" in sections:
        found.add("epochs of the studies", lambda: (plans.rows(STUDIES), []))
    found.errors += [
        f"{r['task']}, {r['form']}: other logits than the baseline" for r in found.rows if not r.get("same", True)
    ]
    return found


def _against_baseline(found: Findings, sections: tuple[str, ...], scratch: Path, size: dict) -> None:
    # -P and a file, not -m: nothing of lib may set anything in the baseline's process
    frozen = [sys.executable, "-P", str(Path(__file__).with_name("baseline.py"))]
    with ExitStack() as stack:
        programs = [
            stack.enter_context(closing(Program(frozen, scratch / "baseline.log"))),
            stack.enter_context(closing(Program([sys.executable, "-m", "lib.bench.ours"], scratch / "ours.log"))),
        ]
        if "inference" in sections and size["fresh"]:
            programs.append(stack.enter_context(closing(Program(frozen, scratch / "fresh.log"))))
        for program in programs:
            program.send("hello")
        theirs, own, *_ = (program.receive() for program in programs)
        found.notes.append(
            f"The baseline has {theirs['workers']} worker processes and {theirs['threads']} threads, ours "
            f"{own['threads']} threads, on {own['device']}."
        )
        if own["cuda"] and not size["short"]:
            size = size | {"segment_s": None}  # whole epochs
        for section, measure in (("training", training.measure), ("inference", passes.measure)):
            for task in size[section] if section in sections else ():
                asked = (
                    task,
                    *(programs[:2] if section == "training" else (*programs, None)[:3]),
                    _new(scratch / "task"),
                    size,
                )
                found.add(f"{section} {training.title(task)}", lambda measure=measure, asked=asked: measure(*asked))
            if section == "training" and section in sections and size["short"]:
                found.rows += [training.skipped(task) for task in VGG]


def _new(folder: Path) -> Path:
    """`folder`, empty: that of one task, with its images, takes the place of the one before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def facts(short: bool) -> dict:
    """Where and when: a line each at the head of the table, a column each in the CSV."""
    hardware, versions, load, git = machine.hardware(), machine.versions(), machine.load(), machine.git()
    return {
        "mode": "short" if short else "full",
        "date_utc": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": f"{git['commit']}{' and changes' if git['dirty'] else ''}",
        "cpu": f"{hardware['cpu']}, {hardware['cores']} cores",
        "gpu": ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in hardware["gpus"]) or "none",
        "memory_gib": hardware["memory_gib"],
        "os": hardware["os"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "load_at_start": f"{load['load_1min']} in the last minute, processor {load['cpu_busy_pct']:.0f} % busy",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print; return the exit code."""
    given = parser().parse_args(arguments)
    sections = tuple(given.only or [s for s in SECTIONS if not (given.short and s in LONG)])
    interruptible()  # no program is left behind
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        where = facts(given.short)
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            found = run(sections, Path(scratch), SHORT if given.short else FULL)
        print(table.write(given.out, found.rows, where, found.notes + found.errors))
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for error in found.errors:
        print(f"error: {error}", file=sys.stderr)
    print(f"Table: {given.out / 'bench.md'} and bench.csv", file=sys.stderr)
    return int(bool(found.errors))


if __name__ == "__main__":
    sys.exit(main())
