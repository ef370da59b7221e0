"""Granularity: which weights go together. The scores of a unit's weights become one score, and units are ranked.

    element   a weight
    kernel    the k x k weights that connect an input channel with an output channel: one weight in a 1x1 convolution
              and in a linear layer, where this is the same as `element`
    channel   the weights that make an output channel, or an output of a linear layer: a row; the classifier's too
    multi     an output channel or neuron with what reads it, the matching input slice of the next layers. Its score is
              half that of its row and half that of the slice, and when it goes, both go. Layers that meet in a sum
              share their outputs: their rows are one unit. Which layer follows which is read off the network's graph
              (`lib.structured.coupled`). Outputs that nothing else can do without (the classes, what carries the sums
              of a transformer, grouped convolutions) stay, and lose at most inputs.

The score of a unit is the sum of its weights' scores (`l1`), or the root of the sum of their squares (`l2`). Scores of
magnitude are never negative, so these are the norms of Li et al. 2017 (arXiv 1608.08710). Of pruners whose scores have
a sign the sign is kept (of a square too, and of the root), so that one weight's score is that of the pruner.
"""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib import catalog
from lib.ranking import Masks, Scores, finite, keep_top
from lib.structured import coupled
from lib.structured.coupled import INPUTS, OUTPUTS, Group

NORMS, SCOPES = ("l1", "l2"), ("local", "global")


class Units(NamedTuple):
    """Units that compete within a layer, or within layers that share their outputs."""

    scores: Tensor  # one a unit
    left: Tensor  # bool: whether it has a weight that was not removed earlier
    size: int  # weights of a unit, of `multi` those of its rows


@torch.no_grad()
def keep_units(
    scores: Scores,
    density: float | dict[str, float],
    *,
    granularity: str = "element",
    norm: str = "l1",
    scope: str = "local",
    within: Masks,
    groups: Collection[Group] = (),
) -> Masks:
    """Masks that keep the units with the highest scores; of equal ones the first.

    Scope `local`: of the n units of every layer exactly n - floor((1 - density) n) are kept; `density` in [0, 1] may be
    a dict by parameter. Scope `global`: all units compete. Where all have one size, again so many of all n; else units
    are ranked by their mean score (of `l2` the root mean square), since a sum would rank by size, and the highest
    are kept until the weights in kept units come nearest to as many of all weights: they miss it by half a unit
    at most, and one unit is kept at least. Density 0 keeps nothing.

    A unit counts whole, whatever earlier stages removed of it, and one of which nothing is left is gone: where
    fewer are left than asked for, these are kept, and no weight outside `within` comes back. `groups` are those of
    `successors`, for `multi`; the layers of a group need one density.

    ValueError for scores that are not finite, unknown words, and densities that cannot be.
    """
    _check(scores, density, granularity, norm, scope)
    mean = scope == "global"
    if granularity != "multi":
        units = {name: _units(score, granularity, norm, mean, within[name]) for name, score in scores.items()}
        kept = _chosen(units, density, scope)
        return {name: _widened(kept[name], mask) for name, mask in within.items()}
    if isinstance(density, dict):
        _check_staying(density, groups)
    units = {group.layers[0]: _coupled_units(group, scores, norm, mean, within) for group in groups}
    if isinstance(density, dict):
        density = {group.layers[0]: _common(group, density) for group in groups}
    kept = _chosen(units, density, scope)
    return _without([(group, (~kept[group.layers[0]]).nonzero().flatten()) for group in groups], within)


def successors(model: nn.Module, shape: tuple[int, ...]) -> list[Group]:
    """The groups of outputs that can go, channels and neurons, each with the inputs that go with them.

    ValueError where a network, for inputs of `shape`, has none.
    """
    found: dict[str, Group] = {}
    for structure in ("channels", "neurons"):
        for group in coupled.groups(model, shape, structure):
            if not set(group.layers) & {layer for known in found.values() for layer in known.layers}:
                found[group.layers[0]] = group
    if not found:
        raise ValueError("granularity multi: no outputs of this network can go; element, kernel or channel is allowed")
    return list(found.values())


def weight_of(layer: str) -> str:
    """The parameter that holds the weights of a layer, whose name is empty where it is the whole network."""
    return f"{layer}.weight".removeprefix(".")


def _check(scores: Scores, density: float | dict[str, float], granularity: str, norm: str, scope: str) -> None:
    words = {"granularity": (granularity, catalog.GRANULARITIES), "norm": (norm, NORMS), "scope": (scope, SCOPES)}
    for what, (word, allowed) in words.items():
        if word not in allowed:
            raise ValueError(f"{what} is {word!r}: one of {', '.join(allowed)} is allowed")
    if isinstance(density, dict) and scope != "local":
        raise ValueError(f"densities of layers with scope {scope}: scope local is allowed with these")
    for share in density.values() if isinstance(density, dict) else [density]:
        if not 0 <= share <= 1:
            raise ValueError(f"density is {share}: 0 to 1 is allowed")
    for name, score in scores.items():
        if not finite(score):
            raise ValueError(f"scores of {name} are not all finite: weights cannot be ranked")


# Scores of units


def _units(score: Tensor, granularity: str, norm: str, mean: bool, within: Tensor) -> Units:
    values, left = _by_unit(score, granularity), _by_unit(within, granularity)
    size = values.shape[-1]
    if size == 1:
        return Units(score.view(left.shape[:-1]), left.squeeze(-1), 1)
    return Units(_norm(_powers(values, norm).sum(-1), size, norm, mean), left.any(-1), size)


def _by_unit(tensor: Tensor, granularity: str) -> Tensor:
    """With the weights of a unit in the last dimension."""
    first = {"element": tensor.ndim, "kernel": 2, "channel": 1}[granularity]
    return tensor.flatten(first) if tensor.ndim > first else tensor.unsqueeze(-1)


def _powers(values: Tensor, norm: str) -> Tensor:
    values = values.double()
    return values if norm == "l1" else values * values.abs()


def _norm(sums: Tensor, size: Tensor | int, norm: str, mean: bool) -> Tensor:
    sums = sums / size if mean else sums
    return sums if norm == "l1" else sums.sign() * sums.abs().sqrt()


def _coupled_units(group: Group, scores: Scores, norm: str, mean: bool, within: Masks) -> Units:
    powers = {name: _powers(score, norm) for name, score in scores.items() if name in _names(group)}
    own, size = _side(group, OUTPUTS, powers)
    following, read = _side(group, INPUTS, powers)
    left, _ = _side(group, OUTPUTS, {name: within[name].double() for name in powers})
    mixed = _norm(own, size, norm, mean)
    if read:  # by a layer of which single inputs can be taken
        mixed = (mixed + _norm(following, read, norm, mean)) / 2
    return Units(mixed, left > 0, size)


def _names(group: Group) -> set[str]:
    return {weight_of(part.layer) for part in group.parts}


def _side(group: Group, side: str, values: dict[str, Tensor]) -> tuple[Tensor, int]:
    """The sum over each unit's rows (OUTPUTS) or input slices (INPUTS), on the CPU, and the number of its weights."""
    sums, size = torch.zeros(len(group.scores), dtype=torch.float64), 0
    for part in group.parts:
        name = weight_of(part.layer)
        if part.side == side and name in values:  # batch norms have no scores
            slices = values[name].transpose(0, 1) if side == INPUTS else values[name]
            sums.index_add_(0, part.units, slices.flatten(1).sum(1).cpu()[part.positions])
            size += slices[0].numel() * len(part.positions) // len(group.scores)
    return sums, size


# Which units are kept


def _chosen(units: dict[str, Units], density: float | dict[str, float], scope: str) -> Masks:
    """A mask of each entry's units, of the shape of its scores."""
    if scope == "local":
        shares = density if isinstance(density, dict) else dict.fromkeys(units, density)
        return {name: _highest({name: entry}, shares[name])[name] for name, entry in units.items()}
    if len({entry.size for entry in units.values()}) == 1:
        return _highest(units, density)
    return _nearest(units, density)


def _highest(units: dict[str, Units], density: float) -> Masks:
    left = {name: entry.left for name, entry in units.items()}
    count = min(_count(sum(mask.numel() for mask in left.values()), density), sum(int(m.sum()) for m in left.values()))
    if not count:
        return {name: torch.zeros_like(mask) for name, mask in left.items()}
    return keep_top({name: entry.scores for name, entry in units.items()}, keep=count, within=left)


def _nearest(units: dict[str, Units], density: float) -> Masks:
    """The highest of units of several sizes, until their weights come nearest to the share of all."""
    scores = torch.cat([entry.scores.flatten() for entry in units.values()])
    left = torch.cat([entry.left.flatten() for entry in units.values()])
    sizes = torch.cat([torch.full((entry.left.numel(),), entry.size) for entry in units.values()]).to(left.device)
    kept = torch.zeros_like(left)
    target = _count(int(sizes.sum()), density)
    if target and left.any():
        order = scores.masked_fill(~left, -torch.inf).argsort(descending=True, stable=True)[: int(left.sum())]
        kept[order[: 1 + int((sizes[order].cumsum(0) - target).abs().argmin())]] = True
    parts = kept.split([entry.left.numel() for entry in units.values()])
    return {name: part.view(entry.left.shape) for (name, entry), part in zip(units.items(), parts, strict=True)}


def _count(n: int, density: float) -> int:
    """`kept_count`, where (1 - 0.9) * 10 is 1: a tenth of few units must not be none of them for a rounding error."""
    return max(n - int((1 - density) * n + 1e-6), int(density > 0))


def _check_staying(density: dict[str, float], groups: Collection[Group]) -> None:
    """Layers of no group keep their outputs: one that was given a share of its own must have been given all."""
    going = {weight_of(layer) for group in groups for layer in group.layers}
    common = {share for name, share in density.items() if name in going}
    for name, share in density.items():
        if name not in going and share != 1 and share not in common:
            raise ValueError(f"density of {name} is {share:g} with multi, where its outputs stay: 1 is allowed")


def _common(group: Group, density: dict[str, float]) -> float:
    shares = {layer: density[weight_of(layer)] for layer in group.layers}
    if len(set(shares.values())) > 1:
        said = ", ".join(f"{layer} {share:g}" for layer, share in shares.items())
        raise ValueError(f"densities of layers that share their channels differ ({said}): one density is allowed")
    return shares[group.layers[0]]


# Masks of weights


def _widened(kept: Tensor, within: Tensor) -> Tensor:
    """What is kept of the units, for each weight that was left."""
    return within.clone().logical_and_(kept.view(*kept.shape, *[1] * (within.ndim - kept.ndim)))


def _without(gone: list[tuple[Group, Tensor]], within: Masks) -> Masks:
    found = {name: mask.clone() for name, mask in within.items()}
    for (layer, side), positions in coupled.taken(gone).items():
        name = weight_of(layer)
        if name not in found:
            continue  # a batch norm
        if side == INPUTS:
            found[name][:, positions] = False
        else:
            found[name][positions] = False
    return found
