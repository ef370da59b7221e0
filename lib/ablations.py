"""Sanity checks of pruning at initialisation: Frankle et al. 2021 (arXiv 2009.08576).

A method that chooses single weights should lose accuracy when the choice is spoilt. Masks shuffled within their layers
keep only the layers' densities; weights drawn anew keep only the masks; inverted scores (`lib.pruners.prune(...,
invert=True)`) keep what the method thinks least of.
"""

import torch
from torch import nn

from lib import models
from lib.masks import Masks

OTHER_SEED = 1_000_003  # from a run's seed to that of what is drawn here: not the numbers of its weights, nor of Rand


def shuffled(masks: Masks, seed: int) -> Masks:
    """Every mask with its entries in a random order: as many kept in each layer, in other places.

    Drawn on the CPU, so that one seed gives the same masks on every device.
    """
    generator = torch.Generator().manual_seed(seed + OTHER_SEED)
    found = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        found[name] = mask.reshape(-1)[order].view(mask.shape)
    return found


@torch.no_grad()
def redraw_(network: nn.Module, model: str, shape: tuple[int, int, int], classes: int, seed: int) -> None:
    """Give `network`, a `models.build(model, shape, classes, ...)`, new initial weights and statistics, in place.

    They are drawn as those of `seed` are, independently of them. ValueError for a network of another kind.
    """
    fresh = models.build(model, shape, classes, seed + OTHER_SEED).state_dict()
    if {k: v.shape for k, v in fresh.items()} != {k: v.shape for k, v in network.state_dict().items()}:
        raise ValueError(f"weights of {model} for {shape} and {classes} classes do not fit: its own network is allowed")
    network.load_state_dict(fresh)
