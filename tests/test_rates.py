"""The rates of every step, against those of torch's own schedulers, and what is refused."""

import pytest
import torch
from torch.optim import lr_scheduler

from lib.rates import check, rates

EPOCHS, STEPS, LR = 8, 5, 0.3


def ours(**schedule) -> list[float]:
    rate = rates(LR, epochs=EPOCHS, steps=STEPS, **schedule)
    return [rate(step) for step in range(EPOCHS * STEPS)]


def torchs(build) -> list[float]:
    """The rates of torch's scheduler that `build` makes for an optimizer, stepped after every optimizer step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler, found = build(optimizer), []
    for _ in range(EPOCHS * STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def rise(optimizer, steps):
    """From 1 / steps in equal parts to 1."""
    return lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)


def test_constant_is_the_rate_itself():
    assert ours() == [LR] * EPOCHS * STEPS


def test_steps_are_those_of_multi_step():
    milestones = [2 * STEPS, 5 * STEPS]
    expected = torchs(lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma=0.2))
    assert ours(lr_schedule="steps", lr_drops=[2, 5], lr_drop_factor=0.2) == pytest.approx(expected, rel=1e-12)


def test_cosine_is_that_of_cosine_annealing():
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS))
    found = ours(lr_schedule="cosine")
    assert found == pytest.approx(expected, rel=1e-9)
    assert found[0] == LR
    assert 0 < found[-1] < LR / 500
    assert rates(LR, epochs=EPOCHS, steps=STEPS, lr_schedule="cosine")(EPOCHS * STEPS) == pytest.approx(0, abs=1e-17)


@pytest.mark.parametrize("warmup", [1, 3])
def test_warm_up_is_a_linear_rise_and_the_schedule_follows(warmup):
    steps = warmup * STEPS
    assert ours(lr_warmup=warmup) == pytest.approx(torchs(lambda o: rise(o, steps)), rel=1e-12)

    def build(optimizer):
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * STEPS - steps)
        return lr_scheduler.SequentialLR(optimizer, [rise(optimizer, steps), cosine], [steps])

    assert ours(lr_schedule="cosine", lr_warmup=warmup) == pytest.approx(torchs(build), rel=1e-9)


def test_warm_up_then_drops():
    found = ours(lr_schedule="steps", lr_drops=[2, 4], lr_warmup=2)
    assert found[: 2 * STEPS] == pytest.approx([LR * (s + 1) / (2 * STEPS) for s in range(2 * STEPS)])
    assert found[2 * STEPS :: STEPS] == pytest.approx([LR / 10, LR / 10, *[LR / 100] * 4])


def test_warm_up_over_the_whole_training_is_allowed_with_a_constant_rate():
    assert ours(lr_warmup=EPOCHS)[-1] == LR


REFUSED = {
    "unknown lr_schedule 'linear': one of constant, steps, cosine": {"lr_schedule": "linear"},
    "lr_drops is [3] with lr_schedule cosine: lr_schedule steps is": {"lr_schedule": "cosine", "lr_drops": [3]},
    "lr_drop_factor is 0.5 with lr_schedule constant: lr_schedule steps is": {"lr_drop_factor": 0.5},
    "lr_drops is [] with lr_schedule steps: one epoch or more": {"lr_schedule": "steps"},
    "lr_drop_factor is 1: more than 0 and less than 1": {"lr_drops": [3], "lr_drop_factor": 1},
    "lr_drops is [3, 3] with lr_warmup 0: rising epochs from 1": {"lr_drops": [3, 3]},
    "lr_drops is [4, 2] with lr_warmup 0: rising epochs from 1": {"lr_drops": [4, 2]},
    "lr_drops is [0] with lr_warmup 0: rising epochs from 1": {"lr_drops": [0]},
    "lr_drops is [2] with lr_warmup 3: rising epochs from 3": {"lr_drops": [2], "lr_warmup": 3},
    "lr_drops is [8] with epochs 8: epochs before 8": {"lr_drops": [8]},
    "lr_warmup is -1 with epochs 8 and lr_schedule constant: 0 to 8 epochs": {"lr_warmup": -1},
    "lr_warmup is 9 with epochs 8 and lr_schedule constant: 0 to 8 epochs": {"lr_warmup": 9},
    "lr_warmup is 8 with epochs 8 and lr_schedule cosine: 0 to 7": {"lr_schedule": "cosine", "lr_warmup": 8},
}


@pytest.mark.parametrize("message", REFUSED)
def test_contradictions_and_settings_without_effect_are_refused(message):
    schedule = REFUSED[message]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ours(**({"lr_schedule": "steps"} if "lr_drops" in schedule else {}) | schedule)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_no_training_is_held_to_no_length():
    check("steps", [60], 0.1, 5, 0)
    check("cosine", [], 0.1, 5, 0)
    with pytest.raises(ValueError, match="lr_warmup is -1: 0 or more epochs are allowed"):
        check("constant", [], 0.1, -1, 0)


def test_messages_name_the_training():
    with pytest.raises(ValueError, match=r"lr_drops is \[60\] with pre_epochs 10: epochs before 10 are allowed"):
        check("steps", [60], 0.1, 0, 10, "pre_epochs")
