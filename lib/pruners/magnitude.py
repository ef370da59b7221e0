"""Pruners that look at the weights alone."""

import torch
from torch import Tensor, nn

from lib.masks import Masks, Scores
from lib.pruners.common import Batches, effective


def mag(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w|: Han et al. 2015 (arXiv 1506.02626). Meant for trained weights."""
    return {name: weight.abs_() for name, weight in effective(model, masks).items()}


def mag_init(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w| of initial weights: the same score under a name of its own, as in Frankle et al. 2021 (arXiv 2009.08576).

    The name says when it is used: on a network that was not trained, beside `mag` on one that was.
    """
    return mag(model, batches, masks=masks)


def lamp(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """w^2 / sum of all v^2 >= w^2 in the layer: LAMP, Lee et al. 2021 (arXiv 2010.07611). Float64.

    Ranked globally this chooses the layers' densities, and within a layer it is magnitude. Meant for trained
    weights. Of weights of equal magnitude the paper puts one before the other at will; here they score the same.
    A removed weight scores 0 and changes no other score, so several rounds give the masks of one.
    """
    return {name: _share_of_rest(weight.abs_()) for name, weight in effective(model, masks).items()}


def _share_of_rest(magnitudes: Tensor) -> Tensor:
    """m^2 over the sum of the squares that are not smaller."""
    ordered, positions = magnitudes.reshape(-1).sort(descending=True)
    squares = ordered.double().square_()
    sums = squares.cumsum(0)
    # of equal magnitudes all take the sum that includes the last of them
    last = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:-1], ordered[1:], out=last[:-1])
    ends = last.nonzero().flatten()
    sizes = torch.diff(ends, prepend=ends.new_tensor([-1]))
    shares = squares / sums[ends].repeat_interleave(sizes).clamp_(min=torch.finfo(torch.float64).tiny)
    return torch.empty_like(shares).scatter_(0, positions, shares).view(magnitudes.shape)
