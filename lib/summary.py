"""Everything that the summary notebook shows of a study, read from its run directories."""

import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from lib import frames, networks, paths, runs, shares, tables
from lib.markup import code
from lib.study import reference, state

# Whose runs the summary reads; by default own ones, and the reference's until there are any.
RESULTS = ("", "own", "reference")
COLLAPSE = 2  # from this compression on a report asks which methods lose whole layers
# The notebooks whose runs the report has something to say about.
REPORTED = {"accuracy", "layers", "timing", "runtime", "trace", "amp", "multishot", "checkpoint"}
# The same for the report of the pruning lab.
LAB = {"accuracy", "repeated", "multishot", "structured", "sensitivity", "runtime", "quantized"}
# The same for the report of the compression pipeline: its stages.
PIPELINE = {"pretrained", "prune_weights", "prune_activations", "quantise", "fine_tune", "coded"}
DEEP_COMPRESSION = {"model": "lenet-300-100", "data": "mnist"}  # whose row of Han et al. 2016 it compares with
STAGED = ["run", "notebook", "chain", "stage", "source", "seed", "data", "model", "task"]


def load(study: str, results: str = "") -> SimpleNamespace:
    """The study as frames.

    `results` says whose: `own` runs, the `reference` runs that come with the workbench, or, where it is empty, own
    ones if one is finished and the reference's if not; these are shown only, and `folder` is None.

    `study` (its place below `paths.RUNS`), `name`, `title`, `question`, `word` (how it says how much is kept, see
    `lib.shares`); `reference`, whether these are the reference runs; `beside`, the reference runs to compare own ones
    with, or None; `folder` for its figures; `planned` and `done` (accuracy runs, described, a row each); `ablations`,
    its `planned` and `done` with the runs that an ablation changed, which the others leave out; `looked` (planned runs
    of the notebook layers, described); `involved`, `stored` (planned runs that have a network and finished ones that
    stored it, of any notebook, see `lib.networks`); `staged` (planned stages of compression pipelines, see `staged`);
    `everything` (finished runs of all notebooks); `gaps` (run -> why it is missing); `histories`, `layers` (tables of
    all finished accuracy runs); `data` (the facts of each set of images); `facts` (run -> its run.json); `parts`. Any
    of the frames but `everything` may be empty.
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
    everything = frames.load(study, [run["id"] for run in plan["runs"]])
    if everything.empty:
        raise ValueError(f"study {name!r} has no finished run: python -m lib.study run {name}")
    accuracy = everything[everything["notebook"] == "accuracy"]
    word = plan.get("word", "compression")
    planned = tables.planned(plan)
    done = tables.named_as(tables.described(accuracy, word), planned)
    return SimpleNamespace(
        study=study,
        name=name,
        reference=study != name,
        beside=beside,
        parts=parts(plan),
        title=plan["title"],
        question=" ".join(plan["question"].split()),
        word=word,
        folder=folder,
        planned=planned[planned["ablation"] == tables.NO_ABLATION],
        done=done[done["ablation"] == tables.NO_ABLATION],
        ablations=SimpleNamespace(planned=planned, done=done),
        looked=tables.planned(plan, "layers"),
        involved=networks.involved(plan),
        stored=networks.stored(everything, done, word),
        staged=staged(plan),
        everything=everything,
        gaps=state.gaps(plan),
        histories=frames.table(study, accuracy["run"], "history"),
        layers=frames.table(study, accuracy["run"], "layers"),
        data=_data(study, everything["run"]),
        facts={run: runs.facts(study, run) for run in everything["run"]},
    )


def staged(plan: dict) -> pd.DataFrame:
    """One row a planned run of the notebooks PIPELINE: STAGED, `chain` empty and `stage` 0 for one of no chain.

    `source` is the run whose network it takes, empty where it has none; what of a network a run does not name, such as
    its data, is that of its source.
    """
    known: dict[str, dict] = {}
    rows = []
    for run in plan["runs"]:
        if run["notebook"] in PIPELINE:
            source = next(iter(run["sources"]), "")
            values = known[run["id"]] = {"seed": 0} | known.get(source, {}) | run["parameters"]
            shown = {name: values[name] for name in ("seed", "data", "model")} | {"task": tables.task(values)}
            place = {"chain": run.get("chain", ""), "stage": run.get("stage", 0), "source": source}
            rows.append({"run": run["id"], "notebook": run["notebook"]} | place | shown)
    return pd.DataFrame(rows, columns=STAGED)


def looks(book: SimpleNamespace, notebook: str) -> list[SimpleNamespace]:
    """The finished runs of a notebook, in the plan's order: `run`, `row`, `directory`.

    `suffix` goes to the labels of its figures and tables, "" for the first and "-2" for the second, and `seed` to what
    a caption calls it: ", seed 2" where there are several seeds.
    """
    found = book.everything[book.everything["notebook"] == notebook]
    several = "seed" in found and found["seed"].nunique() > 1
    return [
        SimpleNamespace(
            run=row["run"],
            row=row,
            directory=paths.RUNS / book.study / row["run"],
            suffix=f"-{number}" if number > 1 else "",
            seed=f", seed {row['seed']:.0f}" if several else "",
        )
        for number, (_, row) in enumerate(found.iterrows(), 1)
    ]


def looked_at(book: SimpleNamespace) -> dict[str, str]:
    """Run of the notebook layers -> what network it looks at, such as `Digits / FC, SNIP at ratio 10`."""
    looked = book.looked
    names = looked["task"] + ", " + looked["method"] + " at " + looked["at"]
    return dict(zip(looked["run"], tables.told_apart(names, looked["run"]), strict=True))


def explained(book: SimpleNamespace, density: float) -> str:
    """How much of a network is left, in the words of the study, with the others in brackets: see `lib.shares`."""
    return shares.explain(0.0 - math.log10(density), book.word)


def parts(plan: dict) -> set[str]:
    """What the report of a plan has something to say about.

    The names of its notebooks (`accuracy` only for runs that no ablation changed); `ablations`; `collapse`;
    `methods-by-layer`, where methods can be compared layer by layer; and of compression pipelines `chains`,
    `deep-compression` (one on that paper's network and data), `weight-methods` and `input-methods` (beside the chains).
    """
    found = {run["notebook"] for run in plan["runs"]} - {"accuracy"}
    planned = tables.planned(plan)
    compared = planned[planned["ablation"] == tables.NO_ABLATION]
    if len(compared):
        found |= {"accuracy", "methods-by-layer"}
    if len(compared) < len(planned):
        found.add("ablations")
    if compared["compression"].nunique() > 3 and compared["compression"].max() >= COLLAPSE:
        found.add("collapse")
    found |= _staged_parts(staged(plan))
    if _compared(tables.planned(plan, "layers")):
        found.add("methods-by-layer")
    return found


def _staged_parts(planned: pd.DataFrame) -> set[str]:
    """What the report of compression pipelines has beside the names of notebooks."""
    alone = set(planned.loc[planned["chain"] == "", "notebook"])
    chained = planned[planned["chain"] != ""]
    there = {
        "chains": len(chained) > 0,
        "deep-compression": (chained[list(DEEP_COMPRESSION)] == pd.Series(DEEP_COMPRESSION)).all(axis=1).any(),
        "weight-methods": "prune_weights" in alone,
        "input-methods": "prune_activations" in alone,
    }
    return {name for name, found in there.items() if found}


def unreported(book: SimpleNamespace, reported: set[str] = REPORTED) -> str | None:
    """Which finished runs this report has no section for; `reported` are the notebooks that have one."""
    names = sorted(set(book.everything["notebook"]) - reported)
    if not names:
        return None
    many = f"notebook{'s' if len(names) > 1 else ''} {', '.join(code(name) for name in names)}"
    return f"This report has no section for the runs of the {many}."


def closer(book: SimpleNamespace, notebook: str) -> SimpleNamespace | None:
    """The first of `looks`; None if there is none."""
    return next(iter(looks(book, notebook)), None)


def by_layer(book: SimpleNamespace, compression: float) -> dict[tuple[str, float], tuple[pd.DataFrame, pd.DataFrame]]:
    """(task, compression) -> (layers.csv of its runs, their plan): where its methods keep their weights.

    Of the runs of the notebook `layers`, wherever they looked at several methods; otherwise of the accuracy runs of
    the swept tasks, as they are after training: at `compression`, or at the task's highest where it has not that one.
    """
    found = _compared(book.looked)
    finished = {one.run for one in looks(book, "layers")}
    shown = {at: (_layers(book, chosen[chosen["run"].isin(finished)]), chosen) for at, chosen in found.items()}
    for task in tables.swept_tasks(book.planned) if not shown else []:
        pruned = book.planned[(book.planned["task"] == task) & (book.planned["pruner"] != "dense")]
        tried = set(pruned["compression"])
        at = compression if compression in tried else max(tried, default=compression)
        chosen = tables.at(book.planned, task, at)
        if book.layers["run"].isin(pruned["run"]).any():
            shown[task, at] = book.layers[book.layers["run"].isin(chosen["run"])], chosen
    return {at: (rows, chosen) for at, (rows, chosen) in shown.items() if len(rows)}


def _compared(looked: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
    """(task, compression) -> the planned runs of `layers` there, wherever they are of several methods."""
    places = {
        (task, compression): looked[(looked["task"] == task) & (looked["compression"] == compression)]
        for task in tables.tasks(looked)
        for compression in sorted(looked.loc[looked["task"] == task, "compression"].unique())
    }
    return {place: chosen for place, chosen in places.items() if chosen["method"].nunique() > 1}


def _layers(book: SimpleNamespace, chosen: pd.DataFrame) -> pd.DataFrame:
    return frames.table(book.study, chosen["run"], "layers")


def checkpoints(book: SimpleNamespace) -> pd.DataFrame:
    """The finished runs of the notebook checkpoint, as `findings.checkpoints` takes them."""
    found = book.everything[book.everything["notebook"] == "checkpoint"]
    measured = ["run", "checkpoint", "weights_kept", "top1_pct", "top5_pct", "connected"]
    return book.stored.merge(found.reindex(columns=measured), on="run")


def missing(book: SimpleNamespace, notebook: str) -> str | None:
    """What to say in place of a section whose run is not finished."""
    if closer(book, notebook):
        return None
    if notebook not in book.parts:
        return f"This study does not include this part (notebook {code(notebook)})."
    return f"**Missing:** the study has no finished run of the notebook {code(notebook)}, which this section reports."


def read(one: SimpleNamespace, file: str) -> pd.DataFrame:
    """One table of a finished run that `looks` found; empty where that run had nothing for it."""
    try:
        return pd.read_csv(one.directory / f"{file}.csv")
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def timings(book: SimpleNamespace) -> list[SimpleNamespace]:
    """What each finished timing run measured: `task`, `rows` (see `tables.timing_summary`) and `row`, the run."""
    found = []
    for one in looks(book, "timing"):
        passes = read(one, "timings")
        made = networks.examples(one.row, list(dict.fromkeys(passes["network"])), book.word)
        rows = tables.timing_summary(passes, book.stored if one.row["sources"] else made)
        rows = rows.sort_values("form", ascending=False, kind="stable")  # permanent weights first
        found += [
            SimpleNamespace(task=task, rows=rows[rows["task"] == task], row=one.row) for task in tables.tasks(rows)
        ]
    return found


def untold(book: SimpleNamespace) -> str | None:
    """Networks that were timed as runs of the study and are no finished ones any more, so that nothing names them."""
    known, names = set(book.stored["run"]), []
    for one in looks(book, "timing"):
        names += [source for source in one.row["sources"] if source.split("/")[1] not in known]
    if not names:
        return None
    listed = ", ".join(code(name) for name in dict.fromkeys(names))
    return f"Timed but not shown, since the study has no such finished run: {listed}."


def runtimes(book: SimpleNamespace) -> list[SimpleNamespace]:
    """What each finished run of the notebook runtime measured, as `looks` finds it, with its `rows` and `timed`.

    Networks have the names of the report, as in `timings`; those of runs that are not finished any more keep their own.
    """
    found = looks(book, "runtime")
    for one in found:
        rows, timed = read(one, "runtimes"), read(one, "latencies")
        order = list(dict.fromkeys(rows["network"]))  # passes come in turns, and so begin anywhere
        names = networks.names(book.stored, one.row["sources"]) | _smaller(order)
        timed = timed.sort_values("network", key=lambda column, order=order: column.map(order.index), kind="stable")
        one.rows, one.timed = (
            table.assign(network=table["network"].map(lambda name, names=names: names.get(name, name)))
            for table in (rows, timed)
        )
    return found


def _smaller(names: list[str]) -> dict[str, str]:
    """What a report calls networks that a run made smaller, `study/run NAME`: NAME, where that tells them apart."""
    short = {name: name.partition(" ")[2].replace("-", " ") for name in names if " " in name and "/" in name}
    return short if len(set(short.values())) == len(short) else {}


def test_set(book: SimpleNamespace, task: str) -> dict:
    """`images` and `classes` of the test set of a task, as `accuracy.at_compression` takes them.

    `images` is None while none of its runs is finished; ten classes where a run did not record them.
    """
    names = set(book.involved.loc[book.involved["task"] == task, "data"])
    facts = next((facts for facts in book.data if facts["name"] in names), {})
    return {"images": facts.get("test_images"), "classes": facts.get("classes", 10)}


def _data(study: str, names) -> list[dict]:
    found = [runs.facts(study, name).get("data") for name in names]
    return list({facts["fingerprint"]: facts for facts in found if facts}.values())
