"""Everything that the summary notebook shows of a study, read from its run directories."""

from types import SimpleNamespace

import pandas as pd

from lib import paths, runs, tables
from lib.study import state


def load(study: str) -> SimpleNamespace:
    """The study as frames.

    `study`, `title`, `question`; `folder` for its figures; `planned` and `done` (accuracy runs, described, a row
    each); `everything` (finished runs of all notebooks); `gaps` (run -> why it is missing); `histories`, `layers`
    (tables of all finished accuracy runs); `data` (data set -> its facts). ValueError for a study never started.
    """
    plan = state.load_plan(study)
    ids = [run["id"] for run in plan["runs"]]
    everything = runs.load(study, ids)
    if everything.empty:
        raise ValueError(f"study {study!r} has no finished run: python -m lib.study run {study}")
    accuracy = everything[everything["notebook"] == "accuracy"]
    return SimpleNamespace(
        study=study,
        title=plan["title"],
        question=" ".join(plan["question"].split()),
        folder=paths.FIGURES / study,
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
    return f"**Missing:** the study has no finished run of the notebook `{notebook}`, which this section reports."


def table(book: SimpleNamespace, notebook: str, file: str) -> pd.DataFrame:
    """One table of the first finished run of `notebook`; empty if there is none."""
    one = closer(book, notebook)
    return pd.read_csv(one.directory / f"{file}.csv") if one else pd.DataFrame()


def timings(book: SimpleNamespace) -> pd.DataFrame:
    """The timing run's passes, a row a network and form, with the pruning of each; empty if it is missing."""
    rows = table(book, "timing", "timings")
    return tables.timing_summary(rows, book.done) if len(rows) else rows


def _data(study: str, names) -> dict[str, dict]:
    found = {}
    for name in names:
        facts = runs.facts(study, name).get("data")
        if facts:
            found.setdefault(facts["name"], facts)
    return found
