"""Everything that the summary notebook shows of a study, read from its run directories."""

from types import SimpleNamespace

import pandas as pd

from lib import paths, runs, tables
from lib.study import state


def load(study: str) -> SimpleNamespace:
    """The study as frames.

    Where the study was never started here and reference runs of it come with the workbench, these are read, and
    `reference` is True.

    `study`, `title`, `question`; `folder` for its figures; `planned` and `done` (accuracy runs, described, a row
    each); `everything` (finished runs of all notebooks); `gaps` (run -> why it is missing); `histories`, `layers`
    (tables of all finished accuracy runs); `data` (the facts of each set of images).
    ValueError for a study never started.
    """
    figures, reference = paths.FIGURES / study, f"{paths.REFERENCE}/{study}"
    is_reference = not (paths.RUNS / study / state.PLAN).is_file() and (paths.RUNS / reference / state.PLAN).is_file()
    study = reference if is_reference else study
    plan = state.load_plan(study) | {"study": study}
    ids = [run["id"] for run in plan["runs"]]
    everything = runs.load(study, ids)
    if everything.empty:
        raise ValueError(f"study {study!r} has no finished run: python -m lib.study run {study}")
    accuracy = everything[everything["notebook"] == "accuracy"]
    return SimpleNamespace(
        study=study,
        reference=is_reference,
        planned_notebooks={run["notebook"] for run in plan["runs"]},
        title=plan["title"],
        question=" ".join(plan["question"].split()),
        folder=figures,
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
