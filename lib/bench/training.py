"""Training against the baseline: the same network, masks and images, segments of steps in turns."""

from math import ceil
from pathlib import Path
from statistics import median

from lib import tables
from lib.bench.turns import Program, take_turns

BATCH = 256
DENSITY = 0.1
SEED = 1
FIRST_STEPS = 4  # of the baseline, not counted
LEAST_STEPS = 3
FORMS = ("float32", "mixed")
NAMES = {"vgg16-bn": "vgg16"}  # how the baseline calls a model, where it is not as we do; its VGG-16 has batch norm
MATRICES = [2048, 4096]  # rows and columns of the products whose best rate is the machine's

# By (data, model) and form: how many times faster than the baseline an epoch should be, and what share of the
# machine's rate of matrix products it should reach, in percent. Set for two cores of an AMD EPYC (AVX-512).
RATIOS = {
    ("cifar10", "resnet20"): {"float32": 1.6, "mixed": 2.8},
    ("mnist", "fc"): {"float32": 10.0},
}
SHARES = {("cifar10", "resnet20"): {"float32": 70.0, "mixed": 60.0}}


def measure(task: tuple[str, str], baseline: Program, ours: Program, folder: Path, size: dict) -> tuple[list, list]:
    """Rows of the table for a task (data, model), and notes in plain sentences.

    `size`: `rounds`; `segment_s`, about how long the baseline's segment is to take (None: a whole epoch); `graph`,
    whether a CPU may compile the step; `transforms`, of how many images the transforms are timed alone.
    """
    facts, epoch_steps = prepare(task, baseline, ours, folder)
    first = baseline.ask("train", steps=min(FIRST_STEPS, epoch_steps))
    step_s = (first["startup_s"] + sum(first["step_s"])) / len(first["step_s"])
    steps = segment_steps(size["segment_s"], step_s, epoch_steps)
    skip = int(steps < epoch_steps)  # in a part of an epoch the first step runs beside a burst of the workers
    asked = {form: {"steps": steps, "precision": form, "graph": size["graph"]} for form in FORMS}
    called = {form: ours.ask("train", **asked[form]) for form in FORMS}  # not counted: graphs, caches, memory
    for form, answer in called.items():  # a segment of ours takes about as long, and so holds more steps
        own_s = answer["seconds"] / max(1, answer["images"] // BATCH)
        asked[form]["steps"] = segment_steps(size["segment_s"] and size["segment_s"] / 2, own_s, epoch_steps)
    turns = {"baseline": lambda: baseline.ask("train", steps=steps + skip)}
    turns |= {form: lambda form=form: ours.ask("train", **asked[form]) for form in FORMS}
    for form in FORMS:
        turns[f"product {form}"] = lambda form=form: ours.ask("multiply", precision=form, sizes=MATRICES)
    turns["transforms"] = lambda: baseline.ask("transform", images=size["transforms"])
    taken = take_turns(turns, size["rounds"])
    counts = {"the baseline": steps, **{form: asked[form]["steps"] for form in FORMS}}
    return rows(task, facts, taken, skip), notes(task, facts, taken, counts, called, size["transforms"])


def prepare(task: tuple[str, str], baseline: Program, ours: Program, folder: Path) -> tuple[dict, int]:
    """Give both sides images, weights and masks of a task; what ours says of them, and the steps of an epoch."""
    data, model = task
    facts = ours.ask("prepare", folder=str(folder), data=data, model=model, density=DENSITY, seed=SEED)
    started = baseline.ask("prepare", folder=str(folder), model=NAMES.get(model, model), **facts["for_baseline"])
    return facts, started["epoch_steps"]


def segment_steps(seconds: float | None, step_s: float, epoch_steps: int) -> int:
    """How many steps take about `seconds`, at least three and at most an epoch; None is an epoch."""
    return epoch_steps if seconds is None else min(epoch_steps, max(LEAST_STEPS, ceil(seconds / step_s)))


def rows(task: tuple[str, str], facts: dict, taken: dict[str, list[dict]], skip: int) -> list[dict]:
    """One row a form, from the answers of all rounds; `skip` steps of each segment of the baseline do not count.

    A step is 256 images. An epoch is all training images at the pace of the segment, and for the baseline the wait
    for the first batch too, which every epoch has. An image costs 6 x MACs floating-point operations, 2 forward
    and 4 backward; the dense MACs, since masked zeros are multiplied too.
    """
    images = facts["train_images"]
    paces = {"baseline": [_pace(answer, skip) for answer in taken["baseline"]]}
    paces |= {form: [(0.0, answer["seconds"] / answer["images"]) for answer in taken[form]] for form in FORMS}
    epoch_s = {form: median(start + image_s * images for start, image_s in found) for form, found in paces.items()}
    rates = {form: max(answer["rate"] for answer in taken[f"product {form}"]) for form in FORMS}
    made = []
    for form, found in paces.items():
        flops_per_s = 6 * facts["macs"] * images / epoch_s[form]
        row = {"section": "training", "task": title(task), "form": _label(form, facts, taken), "of": "step"}
        row |= spread([image_s * BATCH for _, image_s in found])
        row |= {"epoch_s": epoch_s[form], "images_per_s": images / epoch_s[form], "flops_per_s": flops_per_s}
        row |= {"share_pct": 100 * flops_per_s / rates["float32" if form == "baseline" else form]}
        if form != "baseline":
            row |= {"ratio": epoch_s["baseline"] / epoch_s[form], "target_ratio": RATIOS.get(task, {}).get(form)}
            row |= {"target_share_pct": SHARES.get(task, {}).get(form)}
        made.append(row)
    for form in FORMS:
        row = {"section": "training", "task": title(task), "form": f"matrix product, {_type(form, facts)}"}
        made.append(row | {"of": "best product", "n": len(taken[f"product {form}"]), "flops_per_s": rates[form]})
    return made


def notes(
    task: tuple, facts: dict, taken: dict, counts: dict[str, int], called: dict[str, dict], transformed: int
) -> list[str]:
    """What the rows of a task rest on, in sentences.

    `counts` are the steps in a segment of each, `called` is the first call of each form of ours.
    """
    segments = ", ".join(f"{count} ({form})" for form, count in counts.items())
    startup_ms = 1e3 * median(answer["startup_s"] for answer in taken["baseline"])
    image_us = 1e6 * median(answer["seconds"] / transformed for answer in taken["transforms"])
    ours = ", ".join(f"{form} {answer['whole_s']:.1f} s" for form, answer in called.items())
    return [
        source(task, facts),
        f"{title(task)}: steps of {BATCH} images in a segment: {segments}; the baseline waits {startup_ms:.0f} ms for "
        f"the first batch of an epoch, its transforms take {image_us:.0f} us an image in one process. The first call "
        f"of ours, not counted, with whatever is compiled or captured: {ours}.",
    ]


def skipped(task: tuple[str, str]) -> dict:
    """The row of a task that was not measured."""
    return {"section": "training", "task": title(task), "form": "skipped in the short mode", "of": "step", "n": 0}


def title(task: tuple[str, str]) -> str:
    """`CIFAR-10 / ResNet-20` of (data, model)."""
    data, model = task
    return tables.task({"data": data, "model": model})


def source(task: tuple[str, str], facts: dict) -> str:
    """Where the images are from, in a sentence."""
    return f"{title(task).split(' / ')[0]}: {facts['source'].rstrip('.')}."


def spread(seconds: list[float]) -> dict:
    """`n`, the median `seconds`, and the lowest and highest of them, `low_s` and `high_s`."""
    return {"n": len(seconds), "seconds": median(seconds), "low_s": min(seconds), "high_s": max(seconds)}


def _pace(answer: dict, skip: int) -> tuple[float, float]:
    """Seconds before the first batch, and an image's, of one segment of the baseline."""
    return answer["startup_s"], sum(answer["step_s"][skip:]) / (answer["images"] - skip * BATCH)


def _label(form: str, facts: dict, taken: dict) -> str:
    if form == "baseline":
        return "baseline, float32"
    step = taken[form][-1]["step"]
    kind = "float32" if form == "float32" else f"mixed ({facts['mixed']})"
    return f"ours, {kind}, {step}"


def _type(form: str, facts: dict) -> str:
    return form if form == "float32" else facts["mixed"]
