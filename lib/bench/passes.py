"""Inference of a pruned network against the baseline: passes over the test images in turns, predictions compared."""

from pathlib import Path

from lib.bench.training import DENSITY, prepare, source, spread, title
from lib.bench.turns import Program, take_turns

# How many times faster than the baseline a form of ours should be; set as those of training.
RATIOS = {"fast float32": 1.5, "fast bfloat16": 2.4}
# Logits may differ from the baseline's by this share of its largest logit, in absolute value. Rounding to bfloat16
# (8 bits) once is a difference of up to 0.4 %, and ResNet-20 does it in every layer.
TOLERANCES = {"fast bfloat16": 0.05}
TOLERANCE = 1e-4


def measure(task: tuple[str, str], baseline: Program, ours: Program, folder: Path, size: dict) -> tuple[list, list]:
    """Rows of the table for the inference of a task (data, model), and notes.

    `size`: `repeats`; `test_images`, the most of the test set that are used; `train_steps` before all.
    """
    facts, _ = prepare(task, baseline, ours, folder)
    made = ours.ask("forms", steps=size["train_steps"])["forms"]
    images = min(size["test_images"], facts["test_images"])
    baseline.ask("load", name="trained")
    turns = {"baseline": lambda: baseline.ask("infer", images=images)}
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

    By form: the answers of all rounds, the facts from making it, and the agreement of its logits.
    """
    passes = {form: spread([answer["seconds"] for answer in answers]) for form, answers in taken.items()}
    found_rows = []
    for form, found in passes.items():
        row = {"section": "inference", "task": title(task), "form": _label(form, made), "of": "pass", **found}
        row |= {"images_per_s": images / found["seconds"]}
        if form != "baseline":
            agreement = agreements[form]
            difference = agreement["max_abs_logit_difference"] / agreement["max_abs_logit"]
            row |= {"ratio": passes["baseline"]["seconds"] / found["seconds"], "target_ratio": RATIOS.get(form)}
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
    for form in RATIOS:
        facts = made[form]
        how = f"it was not possible: {facts['why']}" if facts["why"] else f"{facts['compile_s']:.1f} s, not counted"
        sentences.append(f"Compiling for {facts['precision']}: {how}.")
    return sentences


def _label(form: str, made: dict[str, dict]) -> str:
    if form in RATIOS:
        how = "compiled" if made[form]["compiled"] else "eager"
        return f"ours, folded, channels-last, {how}, {made[form]['precision']}"
    return {
        "baseline": "baseline, masked forward",
        "permanent": "ours, permanent weights",
        "compact": "ours, folded, dead channels removed",
    }[form]
