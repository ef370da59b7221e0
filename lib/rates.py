"""Learning-rate schedules: the rate of every optimizer step, from the step's number alone.

So a training that was interrupted goes on at the right rate without any state of the schedule's own. Torch-free:
the same checks serve a study before it starts and a training.
"""

from collections.abc import Callable, Sequence
from math import cos, pi

SCHEDULES = ("constant", "steps", "cosine")
DROP_FACTOR = 0.1


def rates(
    lr: float,
    *,
    epochs: int,
    steps: int,
    lr_schedule: str = "constant",
    lr_drops: Sequence[int] = (),
    lr_drop_factor: float = DROP_FACTOR,
    lr_warmup: int = 0,
) -> Callable[[int], float]:
    """The learning rate of an optimizer step, numbered from 0 over a training of `epochs` epochs of `steps` steps.

    `constant` is `lr`. `steps` multiplies it by `lr_drop_factor` after each epoch in `lr_drops`. `cosine` is
    lr / 2 (1 + cos(pi t / T)) at step t of the T after the warm-up: it begins with `lr` and would be zero one step
    after the last (Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, without restarts). In the first
    `lr_warmup` epochs of W steps the rate of step s is lr (s + 1) / W, as Goyal et al. 2017 (arXiv 1706.02677,
    section 2.2) raise it at every step. ValueError as for `check`.
    """
    check(lr_schedule, lr_drops, lr_drop_factor, lr_warmup, epochs)
    rising, whole = lr_warmup * steps, epochs * steps

    def rate(step: int) -> float:
        if step < rising:
            return lr * (step + 1) / rising
        if lr_schedule == "cosine":
            return lr / 2 * (1 + cos(pi * (step - rising) / (whole - rising)))
        return lr * lr_drop_factor ** sum(drop * steps <= step for drop in lr_drops)

    return rate


def check(
    lr_schedule: str,
    lr_drops: Sequence[int],
    lr_drop_factor: float,
    lr_warmup: int,
    epochs: int,
    name: str = "epochs",
) -> None:
    """ValueError in one line for settings that are impossible, contradict each other, or would have no effect.

    `epochs` is the length of the training, called `name` in messages; a training of none is not held to it.
    """
    if lr_schedule not in SCHEDULES:
        raise ValueError(f"unknown lr_schedule {lr_schedule!r}: one of {', '.join(SCHEDULES)}")
    drops = list(lr_drops)
    if lr_schedule == "steps":
        _check_drops(drops, lr_drop_factor, lr_warmup, epochs, name)
    elif drops or lr_drop_factor != DROP_FACTOR:
        given = f"lr_drops is {drops}" if drops else f"lr_drop_factor is {lr_drop_factor}"
        raise ValueError(f"{given} with lr_schedule {lr_schedule}: lr_schedule steps is allowed there")
    longest = epochs - 1 if lr_schedule == "cosine" else epochs
    if lr_warmup < 0 or epochs and lr_warmup > longest:
        limit = f" with {name} {epochs} and lr_schedule {lr_schedule}: 0 to {longest} epochs are allowed"
        raise ValueError(f"lr_warmup is {lr_warmup}{limit if epochs else ': 0 or more epochs are allowed'}")


def _check_drops(drops: list[int], factor: float, warmup: int, epochs: int, name: str) -> None:
    if not drops:
        raise ValueError("lr_drops is [] with lr_schedule steps: one epoch or more is allowed")
    if not 0 < factor < 1:
        raise ValueError(f"lr_drop_factor is {factor}: more than 0 and less than 1 is allowed")
    first = max(1, warmup)
    if drops != sorted(set(drops)) or drops[0] < first:
        raise ValueError(f"lr_drops is {drops} with lr_warmup {warmup}: rising epochs from {first} on are allowed")
    if epochs and drops[-1] >= epochs:
        raise ValueError(f"lr_drops is {drops} with {name} {epochs}: epochs before {epochs} are allowed")
