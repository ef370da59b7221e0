"""How far a training is: a line in the open notebook, and a file that the study's driver shows in the terminal."""

from collections.abc import Callable
from pathlib import Path

from lib import markup
from lib.files import read_json, write_json
from lib.runs import PROGRESS, Run

SKIP = {"report": {"skip": True}}  # the report has curves instead


def follow(run: Run, epochs: int, what: str = "training") -> Callable[[dict], None]:
    """A function for `train(on_epoch=...)`; `what` names the training where a run has several."""
    from IPython.display import Markdown, display  # the driver reads progress without it

    shown = display(Markdown(f"{what}: {epochs} epochs"), metadata=SKIP, display_id=True) if epochs else None
    seconds = []

    def on_epoch(row: dict) -> None:
        seconds.append(row["train_s"] + row["test_s"])
        state = {
            "what": what,
            "epoch": row["epoch"],
            "epochs": epochs,
            "train_loss": row["train_loss"],
            "test_top1_pct": row["test_top1_pct"],
            "left_s": sum(seconds) / len(seconds) * (epochs - row["epoch"]),
        }
        write_json(run.directory / PROGRESS, state)
        if shown:  # None outside a notebook
            shown.update(Markdown(line(state)), metadata=SKIP)

    return on_epoch


def line(state: dict) -> str:
    """`training: epoch 3 of 10, loss 1.234, test top-1 56.30 %, 4 min left`."""
    text = f"{state['what']}: epoch {state['epoch']} of {state['epochs']}, loss {state['train_loss']:.3f}, "
    text += f"test top-1 {state['test_top1_pct']:.2f} %"
    return text + (f", {duration(state['left_s'])} left" if state["epoch"] < state["epochs"] else "")


def of(directory: Path) -> str | None:
    """The line of the run that writes into `directory`; None before its first epoch has ended."""
    try:
        return markup.line(line(read_json(directory / PROGRESS)))
    except (OSError, ValueError, KeyError, TypeError):  # not there, replaced just now by another host, or not ours
        return None


def duration(seconds: float) -> str:
    """Seconds as a person would say them: `45 s`, `4 min`, `1.6 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
