"""What was run, with what, where; and how much of the plan is there."""

import math
from types import SimpleNamespace

import pandas as pd

from lib import catalog, parameters, tables
from lib.markup import plain

# Parameters of a notebook that stand elsewhere in the report: with its tables, or as seeds.
TOLD = ("data", "model", "densities", "seed", "source", "run_dir")


def settings(book: SimpleNamespace) -> pd.DataFrame:
    """Two columns, `setting` and `value`, in words: data, networks, training, seeds, software, hardware."""
    parts = (_data, _networks, _training, _other_training, _stages, _software, _hardware)
    rows = [row for part in parts for row in part(book)]
    return pd.DataFrame(rows, columns=["setting", "value"])


def _data(book) -> list:
    rows = []
    for facts in book.data:
        altered = (facts.get("altered_train") or 0) + (facts.get("altered_test") or 0)
        note = f" {altered} images differ from the original." if altered else ""
        # a run on a subset says so in `source`; here the whole set is meant
        source = facts["source"].split(" A class-balanced")[0]
        text = f"{source}{note} Test images: {facts['test_images']:,}. Fingerprint {facts['fingerprint']}."
        rows.append((f"Data: {catalog.label(facts['name'])}", text))
    return rows


def _networks(book) -> list:
    rows = []
    for task in tables.tasks(book.done) if len(book.done) else []:
        one = book.done[book.done["task"] == task].iloc[0]
        size = f"{one['weights']:,.0f} prunable weights, {one['macs_dense']:,.0f} multiply-accumulates (MACs) an image"
        rows.append((f"Network: {task}", size))
    return rows


def _training(book) -> list:
    if book.planned.empty:  # a study without the notebook accuracy
        return []
    rows = []
    for task in tables.tasks(book.planned):
        frame = book.planned[book.planned["task"] == task]
        pruned = frame[frame["pruner"] != "dense"]
        images = [f"{n:,}" if n else "all" for n in sorted(set(frame["train_images"]))]
        names = ("optimizer", "lr", "weight_decay", "batch", "precision")
        said = [f"{name.replace('_', ' ')} {' or '.join(_values(frame[name]))}" for name in names]
        said.append(f"{' or '.join(images)} training images")
        before = {tables.before_pruning(frame, run) for _, run in pruned.iterrows()}
        said.append(
            f"epochs before pruning {' or '.join(sorted(before, key=_by_length)) or 0}, "
            f"after {' or '.join(_values(pruned['epochs'])) or 'none'}, "
            f"dense {' or '.join(_values(frame.loc[frame['pruner'] == 'dense', 'epochs'])) or 'none'}"
        )
        rows.append((f"Training: {task}", ", ".join(said)))
    plan = book.planned
    modes = {False: "evaluation mode", True: "training mode"}
    mode = " or ".join(modes[value] for value in sorted(set(_column(plan, "train_mode", False))))
    scoring = (
        f"10 training images a class, not augmented, {mode}; rounds {' or '.join(_values(plan['rounds']))}, "
        f"schedule {' or '.join(_values(plan['schedule']))}, ranking {' or '.join(_values(plan['scope']))}"
    )
    seeds = f"{', '.join(_values(plan['seed']))}: initial weights, order of the data, augmentation and random scores"
    rates = " or ".join(dict.fromkeys(_rate(run) for run in plan.to_dict("records")))
    rule = f"a new optimizer after pruning; the learning rate is {rates}; the last epoch counts"
    if any(_column(plan, "pretrained", False)):
        rule += "; networks start from torchvision's weights for ImageNet where a run says so"
    return [*rows, ("Training: all", rule), ("Scoring", scoring), *_taking_part(plan), ("Seeds", seeds)]


def _other_training(book) -> list:
    """How networks were trained by notebooks that train ones of their own, from the parameters of these."""
    rows = []
    for notebook in ("multishot", "amp"):
        made = [run for _, run in book.everything[book.everything["notebook"] == notebook].iterrows()]
        for task in dict.fromkeys(map(tables.task, made)):
            said = _used(notebook, [run for run in made if tables.task(run) == task])
            rows.append((f"Training: {task} (notebook {notebook})", said))
    for notebook in ("repeated", "structured", "quantized"):  # of many tasks: a row each would fill a page
        made = [run for _, run in book.everything[book.everything["notebook"] == notebook].iterrows()]
        if made:
            rows.append((f"Training: notebook {notebook}", _used(notebook, made)))
    return rows


def _stages(book) -> list:
    """The networks, the recipe of each kind of stage and the seeds of a compression pipeline."""
    rows, planned = [], book.staged
    done = book.everything[book.everything["run"].isin(planned["run"])]
    for task in tables.tasks(planned) if len(planned) else []:
        own = done[done["run"].isin(planned.loc[planned["task"] == task, "run"])]
        if len(own):
            one = own.iloc[0]
            counts = f"{one['parameters']:,.0f} parameters, {one['prunable']:,.0f} of them prunable weights"
            rows.append((f"Network: {task}", f"{counts}, {one['macs_dense']:,.0f} MACs an image"))
    for notebook, own in done.groupby("notebook", sort=False):
        rows += _stage_rows(notebook, [book.facts[run]["parameters"] for run in own["run"]],
                            list(own["run"].map(planned.set_index("run")["chain"])))  # fmt: skip
    if len(planned):
        rows.append(("Seeds of the stages", ", ".join(_values(planned["seed"]))))
    return rows


def _stage_rows(notebook: str, used: list[dict], chains: list[str]) -> list:
    """The parameters of a kind of stage: in one row what all its runs have in common, then a row a chain."""
    names = [name for name in dict.fromkeys(name for values in used for name in values) if name not in TOLD]
    texts = {name: [_text(name, values, "") if name in values else None for values in used] for name in names}
    common = [name for name in names if len(set(texts[name])) == 1]
    several = len(set(chains)) > 1
    first = common if several else names
    rows = [
        (
            f"Stage: {notebook}",
            _listed({name: texts[name] for name in first})
            or ("none in common" if names else "no parameters of its own"),
        )
    ]
    for chain in dict.fromkeys(chains) if several else []:
        own = {
            n: [text for text, of in zip(texts[n], chains, strict=True) if of == chain]
            for n in names
            if n not in common
        }
        if said := _listed(own):
            rows.append((f"Stage: {notebook}, {f'chain {chain}' if chain else 'beside the chains'}", said))
    return rows


def _listed(texts: dict[str, list[str | None]]) -> str:
    """`lr 0.1, epochs 2 or 3`: parameters in words with all their values; None is that of a run without one."""
    found = {name: [text for text in dict.fromkeys(values) if text is not None] for name, values in texts.items()}
    return ", ".join(f"{name.replace('_', ' ')} {' or '.join(values)}" for name, values in found.items() if values)


def _used(notebook: str, runs: list[pd.Series]) -> str:
    """The parameters of a notebook in words, with all values that its runs had."""
    known = {n: entry["default"] for n, entry in parameters.declared(notebook).items() if n not in TOLD}
    values = {name: list(dict.fromkeys(_text(name, run, known[name]) for run in runs)) for name in known}
    return ", ".join(f"{name.replace('_', ' ')} {' or '.join(texts)}" for name, texts in values.items())


def _text(name: str, run: pd.Series, default) -> str:
    """The value of a parameter in words, its default for runs that were made before it was there."""
    value = run.get(name, default)
    value = default if isinstance(value, float) and math.isnan(value) else value
    if isinstance(value, dict):
        return " and ".join(f"{key} {_text(key, value, '')}" for key in value) or "none"
    if isinstance(value, list | tuple):
        return " and ".join(map(str, value)) or "none"
    if name == "train_images" and not value:
        return "all"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _by_length(number: str) -> tuple[int, str]:
    """The order of whole numbers that are written out, one that is not known before those of several digits."""
    return len(number), number


def _column(plan: pd.DataFrame, name: str, default) -> list:
    """The values of a parameter, its default for runs that were planned before it was there."""
    if name not in plan:
        return [default] * len(plan)
    return [default if isinstance(value, float) else value for value in plan[name]]


def _rate(run: dict) -> str:
    """How the learning rate of one run goes."""
    said = run.get("lr_schedule", "constant")
    if said == "steps":
        drops = ", ".join(map(str, run["lr_drops"]))
        said = f"multiplied by {run['lr_drop_factor']:g} after epochs {drops}"
    return said + (f" after a warm-up of {run['lr_warmup']:.0f} epochs" if run.get("lr_warmup") else "")


def _taking_part(plan: pd.DataFrame) -> list:
    """What else than the weights of convolution and linear layers was pruned, and what of them was not."""
    also, spare = (sorted({", ".join(value) or "nothing" for value in _column(plan, n, [])}) for n in ("also", "spare"))
    if also == spare == ["nothing"]:
        return []
    return [("Taking part", f"pruned besides weights: {' or '.join(also)}; left whole: {' or '.join(spare)}")]


def _values(column: pd.Series) -> list[str]:
    return [f"{value:g}" if isinstance(value, float) else str(value) for value in sorted(set(column))]


def _software(book) -> list:
    return [
        ("Software", " or ".join(_distinct(book, lambda f: ", ".join(f"{k} {v}" for k, v in f["versions"].items())))),
        ("Code", _commits(book)),
    ]


def _commits(book) -> str:
    found = _distinct(book, _commit)
    return found[0] if len(found) == 1 else f"{len(found)} states, from {found[0]} to {found[-1]}"


def _commit(facts: dict) -> str:
    git = facts["git"]
    if git["commit"] is None:
        return "not a git checkout"
    return f"commit {git['commit']}" + (" with uncommitted changes" if git["dirty"] else "")


def _hardware(book) -> list:
    return [("Hardware", "; ".join(machines(book)))]


def machines(book) -> list[str]:
    """Each machine that runs of the study were made on, in words."""
    return _distinct(book, _machine)


def _machine(facts: dict) -> str:
    hardware = facts["hardware"]
    gpus = [f"{g['name']} ({g['memory_mib'] / 1024:.0f} GiB, driver {g['driver']})" for g in hardware["gpus"]]
    return (
        f"{', '.join(gpus) or 'no GPU'}; {hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']:.1f} "
        f"GiB, {hardware['os']}"
    )


def _distinct(book, of) -> list[str]:
    return list(dict.fromkeys(of(facts) for facts in book.facts.values()))


# What each further method keeps, beside the five of the report's equation.
FURTHER = {
    "mag-init": "Mag-init ranks the magnitudes of the initial weights",
    "lamp": "LAMP divides the square of a trained weight by the sum of all squares of its layer that are not smaller "
    "([[9]](#ref-lamp))",
    "uniform": "Uniform keeps the same share of every layer, at random",
    "erk": "ERK keeps a share of each layer in proportion to the sum of its dimensions over their product, at random "
    "([[10]](#ref-erk))",
}


def further_methods(book) -> str | None:
    """What the methods do that the equation of the report does not name, of those in the study."""
    pruners = set(book.involved["pruner"])
    said = [words for pruner, words in FURTHER.items() if pruner in pruners]
    if ((book.involved["pruner"] == "snip") & (book.involved["rounds"] > 1)).any():
        said.append("SNIP in several rounds is iterative SNIP ([[11]](#ref-force))")
    return "; ".join(said) + "." if said else None


def mixed_machines(book) -> str | None:
    """A warning when the runs come from different machines."""
    found = machines(book)
    if len(found) < 2:
        return None
    return (
        f"**The runs come from {len(found)} different machines** ({plain('; '.join(found))}). Accuracies may be "
        "compared, times only within one run."
    )


def mixed_data(book) -> str | None:
    """A warning when one name stands for different images."""
    seen = [facts["name"] for facts in book.data]
    twice = sorted({name for name in seen if seen.count(name) > 1})
    if not twice:
        return None
    return (
        f"**Runs of this study saw different images under one name ({plain(', '.join(twice))}):** do not compare them."
    )


def progress(book) -> str:
    """How many of the planned runs are finished."""
    total = len(book.gaps) + len(book.everything)
    if book.reference:
        return (
            "**These are the reference results that come with the workbench, not yours:** "
            f"{len(book.everything)} of {total} planned runs, made on the hardware named below. "
            f"`make report STUDY={book.name}` computes your own."
        )
    if not book.gaps:
        return f"All {total} planned runs are finished."
    return f"**{len(book.everything)} of {total} planned runs are finished;** the others are gaps, marked as missing."


def gaps(book) -> pd.DataFrame:
    """The missing runs and why."""
    return pd.DataFrame(book.gaps.items(), columns=["run", "why it is missing"])


def timing_conditions(row: pd.Series) -> str:
    """How alone a run that measured times was."""
    return (
        f"When the {row['notebook']} run began, {row['neighbours'] or 'no'} other run of the study was under way and "
        f"{row['cpu_busy_pct']:.0f} % of the processor was busy; it computed with {row['threads']} "
        f"thread{'s' if row['threads'] > 1 else ''} on {row['device']}."
    )
