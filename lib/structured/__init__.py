"""Structured pruning: what a dense kernel can skip, since it is really gone.

channels  outputs of convolutions, those that meet in a sum together
neurons   outputs of linear layers, of a transformer those of its feed-forward part
blocks    residual blocks whose shortcut is the identity
heads     attention heads of a transformer

First what goes is set to zero, then it is removed: the smaller network computes what the masked one does, to rounding.
"""

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from lib import catalog
from lib.compact import layout
from lib.ranking import keep_top
from lib.structured import blocks, coupled
from lib.structured.coupled import Group

SCOPES = ("layer", "global")
PARTS = {structure: blocks if structure == "blocks" else coupled for structure in catalog.STRUCTURES}


def structures(model: nn.Module, shape: tuple[int, ...]) -> tuple[str, ...]:
    """What `model`, for inputs of `shape`, has of `catalog.STRUCTURES`."""
    return tuple(name for name, part in PARTS.items() if part.groups(model, shape, name))


def groups(model: nn.Module, shape: tuple[int, ...], structure: str) -> list[Group]:
    """The groups of units that `structure` has in `model`, in the order of the network: `layers`, `scores` of units.

    The layers of a group lose the same units; of blocks, each of which is a layer here, there is one group. ValueError
    for a structure that the model does not have.
    """
    found = PARTS[structure].groups(model, shape, structure) if structure in PARTS else []
    if not found:
        there = ", ".join(structures(model, shape)) or "nothing"
        raise ValueError(f"structure is {structure!r}: of this network {there} can be removed")
    return found


def remove(
    model: nn.Module,
    shape: tuple[int, ...],
    structure: str,
    rate: float,
    *,
    scope: str = "layer",
    only: Collection[str] | None = None,
) -> tuple[nn.Module, nn.Module, list[dict]]:
    """Two copies of `model` without the share `rate` in [0, 1) of its `structure`, masked and smaller, and the rows.

    The units with the lowest scores go (see `coupled.groups`, `blocks.groups`): of n of them rate * n, rounded to the
    nearest, half upwards; of every group its own with scope `layer`, of all together with `global`, where the best
    unit of each group stays. `only` names layers: the groups that these belong to are pruned, the others left alone.
    All blocks may go, since without them the network is still connected.

    Both copies are on the model's device, in its mode, and can be trained. A row for each layer that was to lose
    units: `structure`, `layer`, `group` (the first of those that lose the same ones), `before`, `after`, in units.

    ValueError for a structure or a layer that the model does not have, or a rate that would leave a group nothing.
    """
    if not 0 <= rate < 1 or scope not in SCOPES:
        raise ValueError(f"rate is {rate} and scope {scope!r}: 0 or more and less than 1, {' or '.join(SCOPES)}")
    found = _only(groups(model, shape, structure), only, structure)
    part = PARTS[structure]
    chosen = [(group, units) for group, units in zip(found, choose(found, rate, scope), strict=True)]
    masked = copy.deepcopy(model)
    part.mask_(masked, gone := part.taken(chosen))
    smaller = copy.deepcopy(masked)
    part.shrink_(smaller, gone)
    rows = [{"structure": structure, **row} for group, units in chosen for row in part.rows(group, units)]
    return masked, smaller.to(memory_format=layout(model)), rows


def choose(found: list[Group], rate: float, scope: str) -> list[Tensor]:
    """The positions of the units that go, of each group; see `remove`."""
    if scope == "layer":
        return [_lowest([group], rate)[0] for group in found]
    return _lowest(found, rate)


def _lowest(found: list[Group], rate: float) -> list[Tensor]:
    """Those with the lowest scores of all units of these groups; the best of each stays where one is needed.

    Groups are of different sizes and scales: scores are compared after division by the mean of their group.
    """
    means = [group.scores.mean().clamp(min=1e-30) for group in found]
    scores = {str(i): group.scores / mean for i, (group, mean) in enumerate(zip(found, means, strict=True))}
    needed = [score for group, score in zip(found, scores.values(), strict=True) if group.needed]
    for score in needed:
        score[score.argmax()] = torch.finfo(torch.float64).max
    total = sum(len(score) for score in scores.values())
    gone = int(rate * total + 0.5)
    if gone > total - len(needed):
        most, where = total - len(needed), found[0].layers[0] if len(found) == 1 else f"{len(found)} groups"
        raise ValueError(f"rate is {rate} for the {total} units of {where}: at most {most} may go, not {gone}")
    if gone == total:
        return [torch.arange(len(group.scores)) for group in found]
    return [(~kept).nonzero().flatten() for kept in keep_top(scores, keep=total - gone).values()]


def _only(found: list[Group], only: Collection[str] | None, structure: str) -> list[Group]:
    known = [layer for group in found for layer in group.layers]
    if only is None:
        return found
    if isinstance(only, str) or not only or not set(only) <= set(known):
        raise ValueError(f"only is {only!r}: a list of some of {', '.join(known)}, which have {structure}, is allowed")
    return [group for group in found if set(only) & set(group.layers)]
