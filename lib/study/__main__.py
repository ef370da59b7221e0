"""Command line: python -m lib.study run|report|status|keep|execute|list."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lib import paths
from lib.command import Parser, interruptible
from lib.progress import duration
from lib.study import attempts, beforehand, cluster, reference, spec, state
from lib.study import status as statuses
from lib.study.cluster import Cluster

TELL_EVERY_S = 60.0
WATCH_S = 2.0
HELD = "waits until the machine is free of timed runs, or, if it is one, of others"
WIDE = 10_000  # characters
BESIDE = 70  # characters that the table of runs needs beside their ids

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
    run.add_argument(
        "--per-gpu", type=_positive, metavar="K", help="runs at once on each GPU (default: as many as fit)"
    )
    run.add_argument("--report", action="store_true", help="then make the report, gaps marked")
    run.add_argument("--engine", choices=["local", "slurm"], default="local", help="this machine, or a cluster's SLURM")
    _cluster_options(run)
    report = _command(commands, "report", "make figures/NAME/report.pdf from the finished runs, gaps marked")
    report.add_argument(
        "--from",
        dest="source",
        choices=[paths.REFERENCE],
        help="instead from the results that come with the workbench, as figures/reference/NAME/report.pdf",
    )
    shown = _command(
        commands, "status", "show each run of a study: done, running and how far, failed and why, or waiting"
    )
    shown.add_argument("--watch", action="store_true", help="again every few seconds, until Ctrl-C or all is done")
    one = _command(commands, "execute", "execute single runs of a study here and now, as every engine does")
    one.add_argument("run", nargs="+", metavar="RUN", help="ids, as status shows them")
    one.add_argument("--threads", type=_positive, metavar="N", help="cores that a run computes with (default: all)")
    _command(commands, "keep", "copy the finished runs, without their weights, to runs/reference/NAME")
    commands.add_parser("list", help="show the studies there are", epilog=CODES)
    return main


def _cluster_options(run: argparse.ArgumentParser) -> None:
    asked = run.add_argument_group("with --engine slurm", "also in the study file or in a file of yours: see README")
    asked.add_argument("--detach", action="store_true", help="submit and leave; status and another run follow it")
    asked.add_argument("--partition", help="part of the cluster")
    asked.add_argument("--gres", help="such as gpu:1")
    asked.add_argument("--time", help="limit of a task, such as 01:30:00; what needs more is requeued and goes on")
    asked.add_argument("--mem", help="such as 8G")
    asked.add_argument("--cpus", type=_positive, metavar="N", help="cores of a task")
    asked.add_argument("--account", help="who pays")
    asked.add_argument("--qos", help="quality of service")
    asked.add_argument("--constraint", help="features that a node must have")
    most = "tasks at once of each array; each set of sources that runs wait for has one"
    asked.add_argument("--array-limit", type=_positive, metavar="N", help=most)
    asked.add_argument("--setup", action="append", metavar="LINE", help='shell line before a task: "module load ..."')
    asked.add_argument("--group", type=_positive, metavar="N", help="runs in one task (default: by known times)")


def _command(commands, name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=CODES)
    command.add_argument("name", metavar="NAME", help="a file studies/NAME.yaml, such as quick")
    command.add_argument(
        "--seeds",
        type=_seed,
        nargs="+",
        metavar="SEED",
        help="in place of the file's" + ("" if name == "run" else ", or of those of the last run or report"),
    )
    return command


def _positive(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0, spec.SEED_MOST)


def _whole(text: str, least: int, most: int = 10**6) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"received {text!r}, allowed is a whole number from {least} to {most}")
    return int(text)


def _given(given: argparse.Namespace) -> dict:
    """The cluster options of the command line that were said."""
    names = (*Cluster.model_fields, "detach")
    return {name: value for name in names if (value := getattr(given, name)) not in (None, False)}


def run_on_slurm(planned: dict, given: argparse.Namespace, console: Console) -> int:
    from lib.study import slurm

    said = _given(given)
    detach = said.pop("detach", False)
    for name in ("jobs", "per_gpu", *(["report"] if detach else [])):
        if getattr(given, name):
            allowed = "without --detach" if name == "report" else "with --engine local"
            raise ValueError(f"--{name.replace('_', '-')} goes {allowed} only: leave it out")
    options = cluster.options(spec.read(planned["study"]).cluster, said)
    missing = [r for r in planned["runs"] if state.of(planned, r) != "done"]
    done = len(planned["runs"]) - len(missing)
    console.print(f"Study {planned['study']}: {_count(planned['runs'])}, {done} done, {len(missing)} to do.")
    if missing:
        slurm.needed()  # before data sets are read
    beforehand.check(missing)
    try:
        with _progress(console) as bar:
            task = bar.add_task("starting", total=len(planned["runs"]), completed=done, left="")
            watch = _Watch(planned, missing, options.array_limit, console, bar, task, here=False)
            errors = slurm.run_study(planned, options, watch, detach)
    except KeyboardInterrupt:
        console.print("What SLURM has goes on, and the next run follows it; scancel ends it.")
        raise
    if detach and missing and not errors:
        shown = f"python -m lib.study status {planned['study']} shows them"
        console.print(f"{shown}; {_again(planned, given)} follows them.", markup=False, soft_wrap=True)
        return 0
    return max(_say_errors(planned, errors, console), make_report(planned, console) if given.report else 0)


def _again(planned: dict, given: argparse.Namespace) -> str:
    """The command without --detach."""
    words = ["python", "-m", "lib.study", "run", planned["study"], "--engine", "slurm"]
    words += ["--seeds", *map(str, given.seeds)] if given.seeds else []
    for name, value in _given(given).items():
        for one in (value if isinstance(value, list) else [value]) if name != "detach" else []:
            words += [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(words)


def run(planned: dict, jobs: int | None, per_gpu: int | None, report: bool, console: Console) -> int:
    from lib.study.execute import run_study, slots, warm  # papermill takes 2 s to import: not for --help

    places = slots(jobs, per_gpu)
    state.check(planned)
    missing = [r for r in planned["runs"] if state.of(planned, r) != "done"]
    done = len(planned["runs"]) - len(missing)
    console.print(f"Study {planned['study']}: {_count(planned['runs'])}, {done} done, {len(missing)} to do.")
    beforehand.check(missing)
    with warm(len(missing)) as nursery:
        with _progress(console) as bar:
            task = bar.add_task("starting", total=len(planned["runs"]), completed=done, left="")
            watch = _Watch(planned, missing, len(places), console, bar, task)
            errors = run_study(planned, places, watch, nursery) if missing else {}
        failed = _say_errors(planned, errors, console)
        return max(failed, make_report(planned, console, nursery) if report else 0)


def _say_errors(planned: dict, errors: dict[str, str], console: Console) -> int:
    for identifier, error in errors.items():
        console.print(f"failed: {identifier}: {error}", style="red", markup=False, highlight=False)
    failed = f"{len(errors)} of {_count(planned['runs'])} failed; start again to try them again."
    console.print(failed if errors else f"Done: {_count(planned['runs'])}.")
    return int(bool(errors))


class _Watch:
    """Turns what the executor reports into lines and a progress bar with an honest time left."""

    def __init__(self, planned, missing, jobs, console, bar, task, here=True):
        self.planned, self.open, self.jobs, self.here = planned, list(missing), jobs, here
        self.console, self.bar, self.task = console, bar, task
        self.running: dict[str, float] = {}
        self.rows: dict[str, TaskID] = {}
        self.told = time.monotonic()

    def started(self, run: dict) -> None:
        self.running[run["id"]] = time.monotonic()
        self.rows[run["id"]] = self.bar.add_task(f"  {run['id']}", total=None, left="")
        self._show()

    def ended(self, run: dict, error: str | None) -> None:
        since = self.running.pop(run["id"], None)
        self.open = [r for r in self.open if r["id"] != run["id"]]
        self.bar.advance(self.task)
        if run["id"] in self.rows:
            self.bar.remove_task(self.rows.pop(run["id"]))
        self._show()
        took = f"{time.monotonic() - since:.1f} s" if since else "done"
        verdict = f"FAILED, {error}" if error else took
        count = f"[{len(self.planned['runs']) - len(self.open)}/{len(self.planned['runs'])}]"
        self.console.print(f"{count} {run['id']}: {verdict}{self._left()}", markup=False, highlight=False)

    def tried(self, run: dict, error: str) -> None:
        self.running.pop(run["id"], None)
        if run["id"] in self.rows:
            self.bar.remove_task(self.rows.pop(run["id"]))
        self.console.print(f"{run['id']}: {error}; it is tried again", markup=False, highlight=False)

    def submitted(self, job: str, runs: list[dict]) -> None:
        self.console.print(f"SLURM {job}: {_names(runs)}", markup=False, highlight=False)

    def waiting(self, runs: list[dict], why: str) -> None:
        self.console.print(f"with SLURM: {_names(runs)}: {why}", markup=False, highlight=False, soft_wrap=True)

    def later(self, runs: list[dict], why: str) -> None:
        self.console.print(f"not submitted yet: {_names(runs)}: {why}", markup=False, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """How far each running training is: a row of its own, or where no terminal shows it, a line each minute."""
        tell = not self.console.is_terminal and time.monotonic() - self.told >= TELL_EVERY_S
        said = {one["run"]: one["progress"] or "started" for one in attempts.under_way(self.planned["study"])}
        waiting = dict.fromkeys(self.running if self.here else (), HELD)
        for identifier, text in (waiting | said).items():
            if identifier in self.rows:
                self.bar.update(self.rows[identifier], description=f"  {identifier}: {text}")
            if tell:
                self.console.print(f"{identifier}: {text}", markup=False, highlight=False, soft_wrap=True)
        if tell:
            self.told = time.monotonic()

    def waits(self, owner: str) -> None:
        text = f"Study {self.planned['study']} is being executed by {owner}: waiting for it to end."
        self.console.print(text, markup=False)

    def _show(self) -> None:
        self.bar.update(self.task, description=f"{len(self.running)} running", left=self._left())

    def _left(self) -> str:
        if not self.open or not self.jobs:  # a cluster without a limit: nobody knows how many go at once
            return ""
        seconds = state.seconds_left(self.planned, self.open, self.jobs)
        # no guess before every kind of run has finished once
        return "" if seconds is None else f", about {duration(seconds)} left"


def _count(runs: list[dict]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def _names(runs: list[dict]) -> str:
    return runs[0]["id"] if len(runs) == 1 else f"{len(runs)} runs, {runs[0]['id']} to {runs[-1]['id']}"


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


def status(planned: dict, watch: bool, console: Console) -> int:
    """Show the table once, or with `watch` until all is done; where no terminal shows it, a line for each change."""
    looks = _looks(planned) if watch else iter([statuses.now(planned)])
    if watch and console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for table in looks:
                live.update(_shown(planned, table, console.width), refresh=True)
        return _open(table)
    told = None
    for table in looks:
        if watch and told != (told := statuses.counts(table)):
            console.print(told)
    console.print(_shown(planned, table, console.width))
    return _open(table)


def _looks(planned: dict) -> Iterator[list[dict]]:
    """The table of runs as it is every few seconds, until all are done."""
    while True:
        table = statuses.now(planned)
        yield table
        if not _open(table):
            return
        time.sleep(WATCH_S)


def _open(table: list[dict]) -> int:
    return int(any(row["state"] != "done" for row in table))


def _shown(planned: dict, table: list[dict], width: int) -> Group:
    """A table, or where the terminal has no room beside the ids, which are to be copied whole, a paragraph a run."""
    title = Text(f"{planned['study']}: {planned['title']}")
    longest = max((len(row["run"]) for row in table), default=0)
    if width < longest + BESIDE:
        return Group(title, *(Text(_in_words(row)) for row in table), Text(statuses.counts(table)))
    shown = Table(title=title, title_justify="left")
    shown.add_column("run", overflow="fold", min_width=longest)
    for name in ("state", "attempt", "where", "detail"):
        shown.add_column(name, overflow="fold")
    for row in table:
        shown.add_row(*(Text(str(row[name])) for name in ("run", "state", "attempt", "where", "detail")))
    return Group(shown, Text(statuses.counts(table)))


def _in_words(row: dict) -> str:
    attempt = f", attempt {row['attempt']}" if row["attempt"] else ""
    where = f" on {row['where']}" if row["where"] else ""
    return f"{row['run']}: {row['state']}{attempt}{where}{': ' if row['detail'] else ''}{row['detail']}"


def execute(planned: dict, names: list[str], threads: int | None, console: Console) -> int:
    """Execute these runs one after the other; 1 if one of them does not get done."""
    from lib.study.one import execute_runs

    errors = execute_runs(planned, names, threads)
    for name in names:
        verdict = f"FAILED, {errors[name]}" if name in errors else "done"
        console.print(f"{name}: {verdict}", markup=False, highlight=False)
    return int(bool(errors))


def list_studies(console: Console) -> int:
    table, broken = Table("study", "runs", "title"), []
    for path in sorted(paths.STUDIES.glob("*.yaml")):
        try:
            planned = state.plan(path.stem)
        except (ValueError, OSError, RecursionError) as error:  # the others are shown all the same
            broken.append(f"{path.name}: {error}")
            continue
        table.add_row(path.stem, str(len(planned["runs"])), Text(planned["title"]))
    console.print(table)
    for error in broken:
        print(f"error: {error}", file=sys.stderr)
    return 2 if broken else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code. Bad input is one line on stderr and code 2."""
    given = parser().parse_args(arguments)
    # nothing is wrapped or shortened in a file or a pipe
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    interruptible()  # kernels stopped, nothing half done
    try:
        if given.command == "list":
            return list_studies(console)
        if given.command == "report" and given.source:
            return make_reference_report(given.name, given.seeds, console)
        # what was started with other seeds is asked for without saying them again
        seeds = given.seeds or (None if given.command == "run" else state.seeds(given.name))
        planned = state.plan(given.name, seeds)
        if given.command == "run" and given.engine == "slurm":
            return run_on_slurm(planned, given, console)
        if given.command == "run":
            if said := _given(given):
                raise ValueError(f"--{next(iter(said)).replace('_', '-')} goes with --engine slurm only: leave it out")
            return run(planned, given.jobs, given.per_gpu, given.report, console)
        if given.command == "status":
            return status(planned, given.watch, console)
        if given.command == "execute":
            return execute(planned, given.run, given.threads, console)
        return {"report": make_report, "keep": keep}[given.command](planned, console)
    except KeyboardInterrupt:
        began = given.command in ("run", "execute", "report")
        kept = ": finished runs are kept, start again to go on" if began else ""
        print(f"interrupted{kept}", file=sys.stderr)
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
