"""Everything that the summary notebook shows of a study, read from its run directories."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from lib import paths, runs, tables
from lib.study import reference, state

# Whose runs the summary reads; by default own ones, and the reference's until there are any.
RESULTS = ("", "own", "reference")
COLLAPSE = 2  # from this compression on a report asks which methods lose whole layers


def load(study: str, results: str = "") -> SimpleNamespace:
    """The study as frames.

    `results` says whose: `own` runs, the `reference` runs that come with the workbench, or, where it is empty, own
    ones if one is finished and the reference's if not; these are shown only, and `folder` is None.

    `study` (its place below `paths.RUNS`), `name`, `title`, `question`, `word` (how it says how much is kept, see
    `lib.shares`); `reference`, whether these are the reference runs; `beside`, the reference runs to compare own ones
    with, or None; `folder` for its figures; `planned` and `done` (accuracy runs, described, a row each); `ablations`,
    its `planned` and `done` with the runs that an ablation changed, which the others leave out; `looked` (planned runs
    of the notebook layers, described); `everything` (finished runs of all notebooks); `gaps` (run -> why it is
    missing); `histories`, `layers` (tables of all finished accuracy runs); `data` (the facts of each set of images).
    ValueError for a study never started, or without reference runs when these are asked for.
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
    planned = tables.planned(plan)
    done = tables.named_as(tables.described(accuracy, plan.get("word", "compression")), planned)
    return SimpleNamespace(
        study=study,
        name=name,
        reference=study != name,
        beside=beside,
        parts=parts(plan),
        title=plan["title"],
        question=" ".join(plan["question"].split()),
        word=plan.get("word", "compression"),
        folder=folder,
        planned=planned[planned["ablation"] == tables.NO_ABLATION],
        done=done[done["ablation"] == tables.NO_ABLATION],
        ablations=SimpleNamespace(planned=planned, done=done),
        looked=tables.planned(plan, "layers"),
        everything=everything,
        gaps=state.gaps(plan),
        histories=runs.table(study, accuracy["run"], "history"),
        layers=runs.table(study, accuracy["run"], "layers"),
        data=_data(study, everything["run"]),
        facts={run: runs.facts(study, run) for run in everything["run"]},
    )


def looks(book: SimpleNamespace, notebook: str) -> list[SimpleNamespace]:
    """The finished runs of a notebook that looks closely: `run`, `row`, `directory`, in the plan's order."""
    found = book.everything[book.everything["notebook"] == notebook]
    return [
        SimpleNamespace(run=row["run"], row=row, directory=paths.RUNS / book.study / row["run"])
        for _, row in found.iterrows()
    ]


def parts(plan: dict) -> set[str]:
    """What the report of a plan has something to say about: its notebooks, `ablations`, `collapse`."""
    found = {run["notebook"] for run in plan["runs"]}
    planned = tables.planned(plan)
    if (planned["ablation"] != tables.NO_ABLATION).any():
        found.add("ablations")
    if planned["compression"].nunique() > 3 and planned["compression"].max() >= COLLAPSE:
        found.add("collapse")
    return found


def closer(book: SimpleNamespace, notebook: str) -> SimpleNamespace | None:
    """The first of `looks`; None if there is none."""
    return next(iter(looks(book, notebook)), None)


def by_layer(book: SimpleNamespace, compression: float) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Task -> (layers.csv of its runs, their plan): where its methods keep their weights.

    Of the runs of the notebook `layers`, for each task of which it looked at several methods; otherwise of the
    accuracy runs of the swept tasks at `compression`, as they are after training.
    """
    found = {}
    for task in tables.tasks(book.looked):
        chosen = book.looked[book.looked["task"] == task]
        if chosen["method"].nunique() > 1:
            finished = [one.run for one in looks(book, "layers") if one.run in set(chosen["run"])]
            found[task] = runs.table(book.study, finished, "layers"), chosen
    for task in tables.swept_tasks(book.planned) if not found else []:
        chosen = tables.at(book.planned, task, compression)
        found[task] = book.layers[book.layers["run"].isin(chosen["run"])], chosen
    return {task: (rows, chosen) for task, (rows, chosen) in found.items() if len(rows)}


def missing(book: SimpleNamespace, notebook: str) -> str | None:
    """What to say in place of a section whose run is not finished."""
    if closer(book, notebook):
        return None
    if notebook not in book.parts:
        return f"This study does not include this part (notebook `{notebook}`)."
    return f"**Missing:** the study has no finished run of the notebook `{notebook}`, which this section reports."


def read(one: SimpleNamespace, file: str) -> pd.DataFrame:
    """One table of a finished run that `looks` found."""
    return pd.read_csv(one.directory / f"{file}.csv")


def table(book: SimpleNamespace, notebook: str, file: str) -> pd.DataFrame:
    """One table of the first finished run of `notebook`; empty if there is none."""
    one = closer(book, notebook)
    return read(one, file) if one else pd.DataFrame()


def timings(book: SimpleNamespace, task: str) -> tuple[pd.DataFrame, pd.Series | None]:
    """The passes of one task, a row a network and form, with its pruning, and the run that timed them.

    Empty and None while no timing run of that task is finished.
    """
    for one in looks(book, "timing"):
        found = tables.timing_summary(read(one, "timings"), book.done)
        found = found[found["task"] == task]
        if len(found):
            return found, one.row
    return pd.DataFrame(), None


def test_set(book: SimpleNamespace, task: str) -> dict:
    """`images` and `classes` of the test set of a task, as `accuracy.at_compression` takes them.

    `images` is None while none of its runs is finished; ten classes where a run did not record them.
    """
    name = book.planned.loc[book.planned["task"] == task, "data"].iloc[0]
    facts = next((facts for facts in book.data if facts["name"] == name), {})
    return {"images": facts.get("test_images"), "classes": facts.get("classes", 10)}


def _data(study: str, names) -> list[dict]:
    found = [runs.facts(study, name).get("data") for name in names]
    return list({facts["fingerprint"]: facts for facts in found if facts}.values())
