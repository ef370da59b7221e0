"""What a person moves sliders over: scores computed once, masks and their statistics in milliseconds."""

from functools import partial

import torch
from torch import nn

from lib import catalog, masks, pruners


def scores(network: nn.Module, batches: pruners.Batches, seed: int) -> dict[str, masks.Scores]:
    """The scores of every pruner of the catalogue, one round, for the same network and scoring batches."""
    generator = partial(torch.Generator().manual_seed, seed)
    names = [name for name in catalog.PRUNERS if name != "dense"]
    return {name: catalog.load("pruner", name)(network, batches, generator=generator()) for name in names}


def view(network: nn.Module, scored: dict, shape: tuple, pruner: str, density: float) -> tuple[list, list]:
    """Layer rows and histogram rows of `network` pruned once by the scores of `pruner` to `density`."""
    kept = masks.keep_top(scored[pruner], density)
    return masks.layer_rows(network, kept, shape), masks.histogram_rows(network, kept)
