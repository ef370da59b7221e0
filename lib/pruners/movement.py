"""Movement pruning: which weights a training moves away from zero, and which towards it."""

import torch
from torch import Tensor, nn

from lib.masks import Masks, Scores, taking_part
from lib.pruners.common import Batches


class Movement:
    """-w dL/dw, summed over the steps of a training: Sanh et al. 2020 (arXiv 2005.07683), section 4.

    Positive where the descent along the gradient moves a weight away from zero. The paper changes the mask at every
    step and lets the gradient pass it; here the mask is fixed while a level trains, and the sum is that of the level.
    A step of the optimizer is not in it, only the gradient: no weight decay, no learning rate.

    Given to `lib.train.train` as `watch`. Made for the same masks as the training, of the network on its device; costs
    one tensor a weight and 1 ms a step for a million weights on one core.
    """

    def __init__(self, model: nn.Module, masks: Masks | None = None):
        self.weights = taking_part(model, masks)
        self.totals = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Add a step, when the gradients are there and the optimizer has not used them."""
        for name, weight in self.weights.items():
            if weight.grad is not None:
                # loss scaling may have gone beyond float16; such a step is not taken
                self.totals[name].sub_((weight * weight.grad).nan_to_num_(0, 0, 0))

    def scores(self) -> Scores:
        return {name: total.clone() for name, total in self.totals.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return self.totals

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, total in self.totals.items():
            total.copy_(state[name])


def movement(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """ValueError: the score is one of a training, which `lib.multishot` has and batches have not; see `Movement`."""
    raise ValueError("pruner movement scores a training, not batches: it is allowed for levels (notebook multishot)")
