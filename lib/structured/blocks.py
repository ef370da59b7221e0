"""Whole residual blocks: one whose shortcut is the identity can be replaced by nothing.

What enters such a block comes out of a ReLU. Without its weights and the shift of its last batch norm the block adds
nothing to that, and the ReLU at its own end changes nothing.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lib.models.resnet import Block
from lib.models.resnet50 import Residual
from lib.structured.coupled import Group


def groups(model: nn.Module, shape: tuple[int, ...], structure: str) -> list[Group]:
    """One group of all blocks that can be removed; none where there is no such block.

    The score of a block is the mean magnitude of the weights of its convolutions: their L1 norm, divided by how many
    they are, since a block of a later stage has several times as many.
    """
    kinds = (Block, Residual)
    found = {n: m for n, m in model.named_modules() if isinstance(m, kinds) and isinstance(m.shortcut, nn.Identity)}
    weights = [[p.detach() for p in block.parameters() if p.ndim == 4] for block in found.values()]
    scores = [torch.cat([w.flatten() for w in own]).abs().double().mean().cpu() for own in weights]
    return [Group(list(found), torch.stack(scores), needed=False)] if found else []


def rows(group: Group, units: Tensor) -> list[dict]:
    """A row a block: whether it was there `before` and `after`, 1 or 0."""
    gone = units.tolist()
    return [
        {"layer": name, "group": group.layers[0], "before": 1, "after": int(i not in gone)}
        for i, name in enumerate(group.layers)
    ]


def taken(chosen: Iterable[tuple[Group, Tensor]]) -> list[str]:
    """The names of the chosen blocks."""
    return [group.layers[i] for group, units in chosen for i in units.tolist()]


@torch.no_grad()
def mask_(model: nn.Module, removed: list[str]) -> None:
    """Set all weights and biases of these blocks to zero."""
    for name in removed:
        for parameter in model.get_submodule(name).parameters():
            parameter.zero_()


def shrink_(model: nn.Module, removed: list[str]) -> None:
    """Put nothing in the place of these blocks; the others keep their names."""
    for name in removed:
        model.set_submodule(name, nn.Identity())
