"""Inference of a pruned network against the baseline: passes over the test images in turns, predictions compared."""

from pathlib import Path

from lib.bench.training import DENSITY, FIRST_STEPS, NAMES, prepare, source, spread, title
from lib.bench.turns import Program, take_turns

BASELINES = {
    "baseline": "baseline, masked forward, after training",
    "fresh": "baseline, masked forward, fresh process",
}
# How many times faster than the baseline a form of ours should be; set as those of training.
RATIOS = {"compact float32": 1.5, "compact bfloat16": 2.4}
COMPILED = ("fast float32", "fast bfloat16", *RATIOS)
# Logits may differ from the baseline's by this share of its largest logit, in absolute value. Rounding to bfloat16
# (8 bits) once is a difference of up to 0.4 %, and ResNet-20 does it in every layer.
TOLERANCES = {"fast bfloat16": 0.05, "compact bfloat16": 0.05}
TOLERANCE = 1e-4


def measure(
    task: tuple[str, str], baseline: Program, ours: Program, fresh: Program | None, folder: Path, size: dict
) -> tuple[list, list]:
    """Rows of the table for the inference of a task (data, model), and notes.

    The baseline is measured in two processes: one that has trained, and `fresh`, where given, which has not. glibc
    gives large freed blocks back to the system until it has seen some of them (man 3 mallopt, M_MMAP_THRESHOLD), so
    that the same pass took 1.3 s in a fresh process and 0.6 s after training on two cores of an AMD EPYC.

    `size`: `repeats`; `test_images`, the most of the test set that are used; `train_steps` before all.
    """
    facts, epoch_steps = prepare(task, baseline, ours, folder)
    made = ours.ask("forms", steps=size["train_steps"])["forms"]
    images = min(size["test_images"], facts["test_images"])
    baseline.ask("train", steps=min(FIRST_STEPS, epoch_steps))  # also where the section training is left out
    baseline.ask("load", name="trained")
    turns = {"baseline": lambda: baseline.ask("infer", images=images)}
    if fresh:
        named = NAMES.get(task[1], task[1])
        fresh.ask("prepare", folder=str(folder), model=named, **facts["for_baseline"])
        fresh.ask("load", name="trained")
        turns["fresh"] = lambda: fresh.ask("infer", images=images)
    turns |= {form: lambda form=form: ours.ask("infer", form=form, images=images) for form in made}
    take_turns(turns, 1)  # not counted
    baseline.ask("logits")
    agreements = {form: ours.ask("compare", form=form, images=images) for form in made}
    taken = take_turns(turns, size["repeats"])
    return rows(task, images, taken, made, agreements), notes(task, facts, images, made, size["train_steps"])


def rows(
    task: tuple[str, str],
    images: int,
    taken: dict[str, list[dict]],
    made: dict[str, dict],
    agreements: dict[str, dict],
) -> list[dict]:
    """One row a form; `same` says whether its logits are within the tolerance of the baseline's.

    By form: the answers of all rounds, the facts from making it, and the agreement of its logits. Ratios are against
    the faster of the two processes of the baseline.
    """
    passes = {form: spread([answer["seconds"] for answer in answers]) for form, answers in taken.items()}
    reference_s = min(found["seconds"] for form, found in passes.items() if form in BASELINES)
    found_rows = []
    for form, found in passes.items():
        row = {"section": "inference", "task": title(task), "form": _label(form, made), "of": "pass", **found}
        row |= {"images_per_s": images / found["seconds"]}
        if form not in BASELINES:
            agreement = agreements[form]
            difference = agreement["max_abs_logit_difference"] / agreement["max_abs_logit"]
            row |= {"ratio": reference_s / found["seconds"], "target_ratio": RATIOS.get(form)}
            row |= {"difference_pct": 100 * difference, "same_top1_pct": 100 * agreement["equal_predictions"]}
            row |= {"same": difference <= TOLERANCES.get(form, TOLERANCE)}
        found_rows.append(row)
    return found_rows


def notes(task: tuple[str, str], facts: dict, images: int, made: dict[str, dict], steps: int) -> list[str]:
    """What the rows rest on, in sentences."""
    compact = made["compact"]
    sentences = [
        source(task, facts),
        f"Inference: SNIP at density {DENSITY:g}, {steps} steps of training, {images} test images. Logits may differ "
        f"by {100 * TOLERANCE:g} % of the baseline's largest one, in bfloat16 by "
        f"{100 * TOLERANCES['fast bfloat16']:g} %. Without its {compact['channels_removed']} dead channels (of "
        f"{compact['channels']}) the network has {100 * compact['macs_compact'] / compact['macs_dense']:.0f} % of the "
        "multiply-accumulates.",
    ]
    for form in COMPILED:
        facts = made[form]
        how = f"it was not possible: {facts['why']}" if facts["why"] else f"{facts['compile_s']:.1f} s, not counted"
        sentences.append(f"Compiling {form}: {how}.")
    return sentences


def _label(form: str, made: dict[str, dict]) -> str:
    if form in COMPILED:
        how = "compiled" if made[form]["compiled"] else "eager"
        dead = "dead channels removed, " if form.startswith("compact") else ""
        return f"ours, folded, {dead}channels-last, {how}, {made[form]['precision']}"
    return {
        **BASELINES,
        "permanent": "ours, permanent weights",
        "compact": "ours, folded, dead channels removed",
    }[form]
