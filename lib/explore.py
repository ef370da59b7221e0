"""What a person moves sliders over: scores computed once, masks and their statistics in milliseconds."""

from collections.abc import Collection

import torch
from torch import nn

from lib import catalog, masks, pruners


def scores(
    network: nn.Module,
    batches: pruners.Batches,
    seed: int,
    also: Collection[str] = (),
    spare: Collection[str] = (),
) -> dict[str, masks.Scores]:
    """The scores of every pruner of the catalogue, one round, for the same network and scoring batches.

    `also` and `spare` choose what takes part, see `lib.masks.prunable`.
    """
    chosen, found = masks.full(network, also, spare), {}
    for name in [name for name in catalog.PRUNERS if name != "dense"]:
        generator = torch.Generator().manual_seed(seed)
        found[name] = catalog.load("pruner", name)(network, batches, masks=chosen, generator=generator)
    return found


def view(network: nn.Module, scored: dict, shape: tuple, pruner: str, density: float) -> tuple[list, list]:
    """Layer rows and histogram rows of `network` pruned once by the scores of `pruner` to `density`."""
    kept = masks.keep_top(scored[pruner], density)
    return masks.layer_rows(network, kept, shape), masks.histogram_rows(network, kept)
