"""Pruners that choose positions at random, and the one that keeps all of them."""

import torch
from torch import Tensor, nn

from lib.masks import Masks, Scores, taking_part
from lib.pruners.common import Batches


def dense(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """Equal scores, for density 1: the network that nothing was removed from, to compare with."""
    return {name: torch.ones_like(weight) for name, weight in taking_part(model, masks).items()}


def rand(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """Standard normal scores: the baseline every method has to beat.

    Drawn on the CPU, so that one seed gives the same masks on every device. Without a generator, torch's own.
    """
    return {
        name: torch.randn(weight.shape, generator=generator).to(weight.device)
        for name, weight in taking_part(model, masks).items()
    }


def uniform(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """The same density in every layer, random positions: what a layer's size gives, and nothing else.

    A global ranking of n / (rank - 1/2), where rank 1 to n is the weight's place in a random order of its layer's n:
    the rule of Webster, which rounds every layer's share to the nearest count. Float64; drawn as in `rand`.
    """
    chosen = taking_part(model, masks)
    return {name: _quota(weight, weight.numel(), masks, name, generator) for name, weight in chosen.items()}


def erk(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """Layer densities of Erdos-Renyi-Kernel, random positions: Evci et al. 2020 (arXiv 1911.11134), section 3.

    A layer's density is min(1, eps p) where p is the sum of its weights' dimensions (inputs, outputs, height, width)
    over their product n, 1 for a vector, and eps is such that the whole has the wanted density. The score is
    p n / (rank - 1/2) with ranks as in `uniform`: ranked globally, the threshold is 1 / eps, for every density. With a
    ranking within layers only the random positions are left. Float64; drawn as in `rand`.
    """
    chosen = taking_part(model, masks)
    return {name: _quota(weight, sum(weight.shape), masks, name, generator) for name, weight in chosen.items()}


def _quota(weight: Tensor, share: int, masks: Masks | None, name: str, generator) -> Tensor:
    """`share` / (rank - 1/2) with ranks 1, 2, ... in a random order of what is left of the layer; 0 for what is not."""
    kept = torch.ones(weight.shape, dtype=torch.bool) if masks is None else masks[name].cpu()
    ranks = torch.randperm(int(kept.count_nonzero()), generator=generator) + 1
    scores = torch.zeros(weight.shape, dtype=torch.float64)
    return scores.masked_scatter_(kept, share / (ranks.double() - 0.5)).to(weight.device)
