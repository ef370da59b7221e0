"""Command line: python -m lib.study run|report|status|keep|list."""

import argparse
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lib import paths, runs
from lib.command import Parser, interruptible
from lib.files import read_json
from lib.progress import duration
from lib.study import beforehand, reference, state

TELL_EVERY_S = 60.0

CODES = "Exit code: 0 all done, 1 a run or the report failed or is missing, 2 bad input, 130 interrupted."


def parser() -> argparse.ArgumentParser:
    main = Parser(
        prog="python -m lib.study",
        description="Execute studies (studies/NAME.yaml) with papermill, look at them, and make their reports.",
        epilog=CODES,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _command(commands, "run", "execute what is missing of a study; finished runs are never done again")
    run.add_argument("--jobs", type=_positive, metavar="N", help="runs at once (default: half the cores, at least 2)")
    run.add_argument("--report", action="store_true", help="then make the report, gaps marked")
    report = _command(commands, "report", "make figures/NAME/report.pdf from the finished runs, gaps marked")
    report.add_argument(
        "--from",
        dest="source",
        choices=[paths.REFERENCE],
        help="instead from the results that come with the workbench, as figures/reference/NAME/report.pdf",
    )
    _command(commands, "status", "show each run of a study: done, running and how far, failed and why, or waiting")
    _command(commands, "keep", "copy the finished runs, without their weights, to runs/reference/NAME")
    commands.add_parser("list", help="show the studies there are", epilog=CODES)
    return main


def _command(commands, name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=CODES)
    command.add_argument("name", metavar="NAME", help="a file studies/NAME.yaml, such as quick")
    command.add_argument(
        "--seeds", type=_seed, nargs="+", metavar="SEED", help="seeds in place of those in the study file"
    )
    return command


def _positive(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"received {text!r}, allowed is a whole number from {least} on")
    return int(text)


def run(planned: dict, jobs: int | None, report: bool, console: Console) -> int:
    from lib.study.execute import default_jobs, run_study, warm  # papermill takes 2 s to import: not for --help

    jobs = jobs or default_jobs()
    state.check(planned)
    missing = [r for r in planned["runs"] if state.of(planned, r) != "done"]
    done = len(planned["runs"]) - len(missing)
    console.print(f"Study {planned['study']}: {len(planned['runs'])} runs, {done} done, {len(missing)} to do.")
    beforehand.check(missing)
    with warm(len(missing)) as nursery:
        with _progress(console) as bar:
            task = bar.add_task("starting", total=len(planned["runs"]), completed=done, left="")
            watch = _Watch(planned, missing, jobs, console, bar, task)
            told = (watch.started, watch.ended, watch.waits, watch.tick)
            errors = run_study(planned, jobs, *told, nursery) if missing else {}
        for identifier, error in errors.items():
            console.print(f"failed: {identifier}: {error}", style="red", markup=False, highlight=False)
        if errors:
            console.print(f"{len(errors)} of {len(planned['runs'])} runs failed; start again to try them again.")
        return max(int(bool(errors)), make_report(planned, console, nursery) if report else 0)


class _Watch:
    """Turns what the executor reports into lines and a progress bar with an honest time left."""

    def __init__(self, planned, missing, jobs, console, bar, task):
        self.planned, self.open, self.jobs = planned, list(missing), jobs
        self.console, self.bar, self.task = console, bar, task
        self.running: dict[str, float] = {}
        self.rows: dict[str, TaskID] = {}
        self.told = time.monotonic()

    def started(self, run: dict) -> None:
        self.running[run["id"]] = time.monotonic()
        self.rows[run["id"]] = self.bar.add_task(f"  {run['id']}", total=None, left="")
        self._show()

    def ended(self, run: dict, error: str | None) -> None:
        took = time.monotonic() - self.running.pop(run["id"], time.monotonic())
        self.open = [r for r in self.open if r["id"] != run["id"]]
        self.bar.advance(self.task)
        if run["id"] in self.rows:
            self.bar.remove_task(self.rows.pop(run["id"]))
        self._show()
        verdict = f"FAILED, {error}" if error else f"{took:.1f} s"
        count = f"[{len(self.planned['runs']) - len(self.open)}/{len(self.planned['runs'])}]"
        self.console.print(f"{count} {run['id']}: {verdict}{self._left()}", markup=False, highlight=False)

    def tick(self) -> None:
        """How far each running training is: a row of its own, or where no terminal shows it, a line each minute."""
        tell = not self.console.is_terminal and time.monotonic() - self.told >= TELL_EVERY_S
        for identifier, text in state.under_way(self.planned).items():
            if identifier in self.rows:
                self.bar.update(self.rows[identifier], description=f"  {identifier}: {text}")
            if tell:
                self.console.print(f"{identifier}: {text}", markup=False, highlight=False, soft_wrap=True)
        if tell:
            self.told = time.monotonic()

    def waits(self, owner: str) -> None:
        self.console.print(f"Study {self.planned['study']} is being executed by {owner}: waiting for it to end.")

    def _show(self) -> None:
        self.bar.update(self.task, description=f"{len(self.running)} running", left=self._left())

    def _left(self) -> str:
        if not self.open:
            return ""
        seconds = state.seconds_left(self.planned, self.open, self.jobs)
        # no guess before every kind of run has finished once
        return "" if seconds is None else f", about {duration(seconds)} left"


def _progress(console: Console) -> Progress:
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}{task.fields[left]}"),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def make_report(planned: dict, console: Console, nursery=None) -> int:
    from lib.study.report import make_report

    pdf = make_report(planned, nursery)
    console.print(f"Report: {pdf}", soft_wrap=True)
    return _say_gaps(planned, console)


def _say_gaps(planned: dict, console: Console) -> int:
    missing = state.gaps(planned)
    for identifier, why in missing.items():
        console.print(f"gap: {identifier}: {why}", style="yellow", markup=False, highlight=False)
    return int(bool(missing))


def make_reference_report(study: str, seeds: list[int] | None, console: Console) -> int:
    from lib.study.report import make_reference_report

    if seeds:
        raise ValueError("--seeds goes with your own runs, the reference has those of its plan: leave it out")
    pdf = make_reference_report(study)
    console.print(f"Report: {pdf}", soft_wrap=True)
    return _say_gaps(reference.plan(study), console)


def keep(planned: dict, console: Console) -> int:
    done = reference.keep(planned)
    target = paths.RUNS / reference.place(planned["study"])
    words = {"copied": "copied", "unchanged": "there already", "newer": "left, the reference's are newer"}
    count = ", ".join(f"{len(done[name])} {text}" for name, text in words.items() if done[name])
    console.print(f"{target}: {count}; weights and logs stay where they are.", soft_wrap=True)
    for name in done["large"]:
        most = reference.largest(name) / 2**20
        console.print(f"left out, over {most:g} MiB: {name}", markup=False, soft_wrap=True)
    for name in done["strangers"]:
        console.print(f"not in the plan, so in no report: {target / name}", markup=False, soft_wrap=True)
    return _say_gaps(planned, console)


def status(planned: dict, console: Console) -> int:
    table = Table("run", "state", "", title=f"{planned['study']}: {planned['title']}", title_justify="left")
    counts = {"done": 0, "running": 0, "failed": 0, "waiting": 0}
    under_way = state.under_way(planned)
    for entry in planned["runs"]:
        now = "running" if entry["id"] in under_way else state.of(planned, entry)
        counts[now] += 1
        table.add_row(entry["id"], now, under_way.get(entry["id"]) or _headline(planned, entry, now))
    console.print(table)
    console.print(", ".join(f"{count} {name}" for name, count in counts.items() if count or name != "running"))
    return int(counts["done"] < len(planned["runs"]))


def _headline(planned: dict, entry: dict, now: str) -> str:
    if now == "failed":
        return state.reason(planned, entry)
    if now == "waiting":
        return f"after {', '.join(entry['sources'])}" if len(entry["sources"]) == 1 else ""
    metrics = read_json(state.folder(planned) / entry["id"] / runs.METRICS)
    top1 = f"top-1 {metrics['top1_pct']:.2f} %, " if metrics.get("top1_pct") is not None else ""
    return f"{top1}{metrics['wall_s']:.1f} s"


def list_studies(console: Console) -> int:
    table = Table("study", "runs", "title")
    for path in sorted(paths.STUDIES.glob("*.yaml")):
        planned = state.plan(path.stem)
        table.add_row(path.stem, str(len(planned["runs"])), planned["title"])
    console.print(table)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code. Bad input is one line on stderr and code 2."""
    given = parser().parse_args(arguments)
    console = Console(highlight=False)
    interruptible()  # kernels stopped, nothing half done
    try:
        if given.command == "list":
            return list_studies(console)
        if given.command == "report" and given.source:
            return make_reference_report(given.name, given.seeds, console)
        planned = state.plan(given.name, given.seeds)
        if given.command == "run":
            return run(planned, given.jobs, given.report, console)
        return {"report": make_report, "status": status, "keep": keep}[given.command](planned, console)
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept, start again to go on", file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
