"""The results as one table: CSV for programs, Markdown for people, targets beside what was reached."""

from collections.abc import Callable
from math import floor, log10
from pathlib import Path

import pandas as pd

from lib import files

COLUMNS = [
    "section", "task", "form", "of", "n", "seconds", "low_s", "high_s", "epoch_s", "images_per_s", "flops_per_s",
    "peak_gib",
    "share_pct", "ratio", "difference_pct", "same_top1_pct", "same", "epochs", "epochs_alone",
    "target_ratio", "target_share_pct", "target_s", "target_gib", "hit",
]  # fmt: skip

# target -> what is held against it, whether more is better, its unit
TARGETS = {
    "target_ratio": ("ratio", True, "x"),
    "target_share_pct": ("share_pct", True, "%"),
    "target_s": ("seconds", False, "s"),
    "target_gib": ("peak_gib", False, "GiB"),
}


def checks(row: dict) -> list[tuple[str, bool]]:
    """(`1.6 x`, whether it was reached) of each target of a row; without a measurement, or with other predictions
    than the baseline's, no target is reached."""
    found = []
    for target, (value, more, unit) in TARGETS.items():
        if row.get(target) is None:
            continue
        measured = row.get(value)
        reached = measured is not None and (measured >= row[target] if more else measured <= row[target])
        found.append((f"{row[target]:.3g} {unit}", reached and row.get("same") is not False))
    return found


def frame(rows: list[dict], facts: dict) -> pd.DataFrame:
    """All rows with all columns; `hit` says whether all targets of a row were reached; `facts` on every row."""
    complete = [row | {"hit": all(ok for _, ok in found) if (found := checks(row)) else None} for row in rows]
    return pd.DataFrame(complete, columns=COLUMNS).assign(**facts)


def markdown(rows: list[dict], facts: dict, notes: list[str]) -> str:
    """Facts, a table for each section that has rows, and the notes."""
    parts = ["# Benchmark", grid([{"": name.replace("_", " "), " ": str(value)} for name, value in facts.items()])]
    for section, (heading, explanation, columns) in SECTIONS.items():
        own = [row for row in rows if row["section"] == section]
        if own:
            shown = [{name: text(row) for name, text in columns.items()} for row in own]
            parts += [f"## {heading}", explanation, grid(shown)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def grid(rows: list[dict[str, str]]) -> str:
    """A Markdown table of texts, its columns as wide as they need, so that it reads in a terminal too."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in widths}, {name: "-" * width for name, width in widths.items()}, *rows]
    return "\n".join(
        "| " + " | ".join(line[name].ljust(width) for name, width in widths.items()) + " |" for line in lines
    )


def number(value: float | None, digits: int = 3) -> str:
    """To `digits` significant digits, never with an exponent from 0.001 on; empty for None."""
    if value is None:
        return ""
    if value == 0 or abs(value) < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:,.{max(0, digits - 1 - floor(log10(abs(value))))}f}"


def write(folder: Path, rows: list[dict], facts: dict, notes: list[str]) -> str:
    """bench.csv and bench.md in `folder`; the Markdown."""
    text = markdown(rows, facts, notes)
    with files.replacing(folder / "bench.csv") as temporary:
        frame(rows, facts).to_csv(temporary, index=False)
    files.write_text(folder / "bench.md", text)
    return text


def _spread(scale: float) -> Callable[[dict], str]:
    """Median and, of several, lowest and highest, times `scale`."""

    def text(row: dict) -> str:
        if row.get("seconds") is None:
            return ""
        median, low, high = (number(row[name] * scale) for name in ("seconds", "low_s", "high_s"))
        return f"{median} ({low} to {high})" if row["n"] > 1 else median

    return text


def _value(name: str, scale: float = 1.0, unit: str = "") -> Callable[[dict], str]:
    return lambda row: number(row[name] * scale) + unit if row.get(name) is not None else ""


def _plain(name: str) -> Callable[[dict], str]:
    return lambda row: str(row[name]) if row.get(name) is not None else ""


def _target(row: dict) -> str:
    return ", ".join(f"{target}: {'hit' if reached else 'missed'}" for target, reached in _measured(row))


def _measured(row: dict) -> list[tuple[str, bool]]:
    return checks(row) if row["n"] else []


SECTIONS = {
    "training": (
        "Training",
        "Median of n segments (lowest to highest); a step is 256 images; the share is of the machine's best matrix "
        "product of the same type, in this run.",
        {
            "task": _plain("task"),
            "form": _plain("form"),
            "n": _plain("n"),
            "step (ms)": _spread(1e3),
            "epoch (s)": _value("epoch_s"),
            "images/s": _value("images_per_s"),
            "GFLOP/s": _value("flops_per_s", 1e-9),
            "share": _value("share_pct", unit=" %"),
            "against baseline": _value("ratio", unit=" x"),
            "target": _target,
        },
    ),
    "inference": (
        "Inference of a pruned network",
        "Median of n passes over the test images (lowest to highest), batches of 256 already on the device; "
        "ratios are against the faster of the two processes of the baseline.",
        {
            "task": _plain("task"),
            "form": _plain("form"),
            "n": _plain("n"),
            "pass (s)": _spread(1.0),
            "images/s": _value("images_per_s"),
            "against baseline": _value("ratio", unit=" x"),
            "logits differ by": _value("difference_pct", unit=" %"),
            "same class": _value("same_top1_pct", unit=" %"),
            "within tolerance": lambda row: {None: "", True: "yes", False: "no"}[row.get("same")],
            "target": _target,
        },
    ),
    "pruning": (
        "Pruning",
        "Median of n (lowest to highest); memory is the largest resident size of a process.",
        {
            "network": _plain("task"),
            "what": _plain("form"),
            "n": _plain("n"),
            "seconds": _spread(1.0),
            "memory (GiB)": _value("peak_gib"),
            "target": _target,
        },
    ),
    "fixed": (
        "Fixed cost",
        "Median of n (lowest to highest), in seconds.",
        {
            "what": _plain("task"),
            "form": _plain("form"),
            "n": _plain("n"),
            "seconds": _spread(1.0),
            "target": _target,
        },
    ),
    "epochs": (
        "Epochs trained",
        "A study trains each dense network once and prunes it by magnitude to every density; a script that makes "
        "each configuration from nothing trains it again each time.",
        {
            "study": _plain("form"),
            "task": _plain("task"),
            "runs": _plain("n"),
            "epochs": _plain("epochs"),
            "run by run": _plain("epochs_alone"),
            "ratio": _value("ratio", unit=" x"),
        },
    ),
    "scale": (
        "Scale",
        "Seconds, and how many times as quick as on one slot.",
        {
            "what": _plain("task"),
            "form": _plain("form"),
            "seconds": _spread(1.0),
            "against one slot": _value("ratio", unit=" x"),
            "target": _target,
        },
    ),
}
