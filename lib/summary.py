"""Everything that the summary notebook shows of a study, read from its run directories."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from lib import paths, runs, tables
from lib.study import reference, state

# Whose runs the summary reads; by default own ones, and the reference's until there are any.
RESULTS = ("", "own", "reference")


def load(study: str, results: str = "") -> SimpleNamespace:
    """The study as frames.

    `results` says whose: `own` runs, the `reference` runs that come with the workbench, or, where it is empty, own
    ones if one is finished and the reference's if not; these are shown only, and `folder` is None.

    `study` (its place below `paths.RUNS`), `name`, `title`, `question`; `reference`, whether these are the reference
    runs; `beside`, the reference runs to compare own ones with, or None; `folder` for its figures; `planned` and
    `done` (accuracy runs, described, a row each); `everything` (finished runs of all notebooks); `gaps` (run -> why
    it is missing); `histories`, `layers` (tables of all finished accuracy runs); `data` (the facts of each set of
    images). ValueError for a study never started, or without reference runs when these are asked for.
    """
    if results not in RESULTS:
        raise ValueError(f"results: received {results!r}, allowed is own, reference, or nothing")
    has_reference = study in reference.studies()
    if results == "reference":
        return _book(study, reference.plan(study), paths.FIGURES / reference.place(study))
    if not results and has_reference and not reference.has_results(study):
        return _book(study, reference.plan(study), None)
    beside = _book(study, reference.plan(study), None) if has_reference else None
    return _book(study, state.load_plan(study), paths.FIGURES / study, beside)


def _book(name: str, plan: dict, folder: Path | None, beside: SimpleNamespace | None = None) -> SimpleNamespace:
    study = plan["study"]
    everything = runs.load(study, [run["id"] for run in plan["runs"]])
    if everything.empty:
        raise ValueError(f"study {name!r} has no finished run: python -m lib.study run {name}")
    accuracy = everything[everything["notebook"] == "accuracy"]
    return SimpleNamespace(
        study=study,
        name=name,
        reference=study != name,
        beside=beside,
        planned_notebooks={run["notebook"] for run in plan["runs"]},
        title=plan["title"],
        question=" ".join(plan["question"].split()),
        folder=folder,
        planned=tables.planned(plan),
        done=tables.described(accuracy),
        everything=everything,
        gaps=state.gaps(plan),
        histories=runs.table(study, accuracy["run"], "history"),
        layers=runs.table(study, accuracy["run"], "layers"),
        data=_data(study, everything["run"]),
        facts={run: runs.facts(study, run) for run in everything["run"]},
    )


def closer(book: SimpleNamespace, notebook: str) -> SimpleNamespace | None:
    """The finished run of a notebook that looks at single networks: `run`, `row`, `directory`; None if missing."""
    found = book.everything[book.everything["notebook"] == notebook]
    if found.empty:
        return None
    row = found.iloc[0]
    return SimpleNamespace(run=row["run"], row=row, directory=paths.RUNS / book.study / row["run"])


def missing(book: SimpleNamespace, notebook: str) -> str | None:
    """What to say in place of a section whose run is not finished."""
    if closer(book, notebook):
        return None
    if notebook not in book.planned_notebooks:
        return f"This study does not include this part (notebook `{notebook}`)."
    return f"**Missing:** the study has no finished run of the notebook `{notebook}`, which this section reports."


def table(book: SimpleNamespace, notebook: str, file: str) -> pd.DataFrame:
    """One table of the first finished run of `notebook`; empty if there is none."""
    one = closer(book, notebook)
    return pd.read_csv(one.directory / f"{file}.csv") if one else pd.DataFrame()


def timings(book: SimpleNamespace, task: str) -> pd.DataFrame:
    """The timing run's passes of one task, a row a network and form, with its pruning; empty if it is missing."""
    rows = table(book, "timing", "timings")
    found = tables.timing_summary(rows, book.done) if len(rows) else rows
    return found[found["task"] == task] if len(found) else found


def test_images(book: SimpleNamespace, task: str) -> int | None:
    """Images in the test set of a task; None while none of its runs is finished."""
    name = book.planned.loc[book.planned["task"] == task, "data"].iloc[0]
    return next((facts["test_images"] for facts in book.data if facts["name"] == name), None)


def _data(study: str, names) -> list[dict]:
    found = [runs.facts(study, name).get("data") for name in names]
    return list({facts["fingerprint"]: facts for facts in found if facts}.values())
