"""What a person moves sliders over: scores computed once, masks and their statistics in milliseconds."""

from collections.abc import Callable, Collection
from functools import cache

import torch
from torch import nn

from lib import catalog, masks, pruners


def viewer(
    network: nn.Module,
    batches: pruners.Batches,
    shape: tuple[int, int, int],
    seed: int,
    also: Collection[str] = (),
    spare: Collection[str] = (),
) -> Callable[[str, float], tuple[list, list]]:
    """A function (pruner, density) -> layer rows and histogram rows of `network` pruned in one round.

    A pruner's scores are computed when it is first asked for, and kept. `also` and `spare` choose what takes part, see
    `lib.masks.prunable`.
    """
    chosen = masks.full(network, also, spare)

    @cache
    def scores(pruner: str) -> masks.Scores:
        generator = torch.Generator().manual_seed(seed)
        return catalog.load("pruner", pruner)(network, batches, masks=chosen, generator=generator)

    def view(pruner: str, density: float) -> tuple[list, list]:
        kept = masks.keep_top(scores(pruner), density)
        return masks.layer_rows(network, kept, shape), masks.histogram_rows(network, kept)

    return view
