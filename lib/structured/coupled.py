"""Channels, neurons and attention heads: outputs of layers that can only go together, and with them what reads them.

A sum couples layers: where a residual block adds its shortcut, all layers that end in the same sum keep the same
channels. Which ones these are is read off the dependency graph of torch-pruning (Fang et al. 2023, arXiv 2301.12900).
"""

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib.data.dataset import blank
from lib.masks import evaluating
from lib.models.transformer import HEAD, Attention

OUTPUTS, INPUTS = "outputs", "inputs"
Removed = dict[tuple[str, str], list[int]]  # (layer, OUTPUTS or INPUTS) -> positions there

# layer -> what removes its outputs, and its inputs (of a batch norm they are the same)
SHRINK = {
    nn.Conv2d: (tp.prune_conv_out_channels, tp.prune_conv_in_channels),
    nn.Linear: (tp.prune_linear_out_channels, tp.prune_linear_in_channels),
    _BatchNorm: (tp.prune_batchnorm_out_channels, tp.prune_batchnorm_in_channels),
}


class Part(NamedTuple):
    """Positions on one side of one layer, and the unit that each of them belongs to."""

    layer: str
    side: str
    positions: Tensor
    units: Tensor


class Group(NamedTuple):
    """Units of which each can be removed: `layers` make them, `parts` are all that goes with them."""

    layers: list[str]
    scores: Tensor  # a number a unit, high for one to keep; float64 on the CPU
    parts: list[Part] = []
    needed: bool = True  # whether one unit at least has to stay


def groups(model: nn.Module, shape: tuple[int, ...], structure: str) -> list[Group]:
    """All groups of `structure` (`channels`, `neurons` or `heads`), in the order of the network.

    The score of a unit is the L1 norm of the weights that make it, in all layers of its group together (Li et al. 2017,
    arXiv 1608.08710). The classes, what carries the sums of a transformer (its layer norms need all of it) and grouped
    convolutions stay.
    """
    traced = copy.deepcopy(model).requires_grad_()
    names = {module: name for name, module in traced.named_modules()}
    first, x = next(traced.parameters()), blank(shape)
    x = x.to(first.device, first.dtype if x.is_floating_point() else x.dtype)
    with evaluating(traced), torch.enable_grad():  # the graph is that of the gradients
        graph = tp.DependencyGraph().build_dependency(traced, (x,), verbose=False)
    found = [_group(graph, members, names, structure) for members in _members(graph, traced, structure)]
    order = list(names.values())
    return sorted(found, key=lambda group: order.index(group.layers[0]))


def _members(graph: tp.DependencyGraph, model: nn.Module, structure: str) -> list:
    """torch-pruning's groups of this structure, with all their units."""
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    if structure == "heads":
        outputs = {attention.value: list(range(attention.value.out_features)) for attention in attentions}
        return [graph.get_pruning_group(v, tp.prune_linear_out_channels, every) for v, every in outputs.items()]
    kind = nn.Conv2d if structure == "channels" else nn.Linear
    stay = [layer for attention in attentions for layer in attention.children()]
    stay += [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1:]
    found = graph.get_all_groups(ignored_layers=stay, root_module_types=(kind,))
    return [members for members in found if all(_can_shrink(item.dep.target.module) for item in members)]


def _can_shrink(part: nn.Module | nn.Parameter) -> bool:
    """Whether single inputs and outputs can be taken from a layer or operation."""
    return not isinstance(part, nn.Parameter) and (_slices(part) or not list(part.parameters()))


def _slices(layer: nn.Module) -> bool:
    return isinstance(layer, tuple(SHRINK)) and getattr(layer, "groups", 1) == 1


def _group(graph: tp.DependencyGraph, members, names: dict, structure: str) -> Group:
    width = HEAD if structure == "heads" else 1
    parts, layers = [], []
    for item in members:
        layer = item.dep.target.module
        if not _slices(layer):
            continue  # an operation without weights
        side = OUTPUTS if graph.is_out_channel_pruning_fn(item.dep.handler) else INPUTS
        units = torch.tensor(item.root_idxs) // width
        parts.append(Part(names[layer], side, torch.tensor(item.idxs), units))
        if side == OUTPUTS and not isinstance(layer, _BatchNorm):
            layers.append(names[layer])
    return Group(sorted(layers, key=list(names.values()).index), _scores(graph.model, parts), parts)


@torch.no_grad()
def _scores(model: nn.Module, parts: list[Part]) -> Tensor:
    scores = torch.zeros(1 + int(parts[0].units.max()), dtype=torch.float64)
    for part in parts:
        layer = model.get_submodule(part.layer)
        if part.side == OUTPUTS and not isinstance(layer, _BatchNorm):
            sizes = layer.weight.flatten(1).abs().double().sum(1).cpu()
            scores.index_add_(0, part.units, sizes[part.positions])
    return scores


def rows(group: Group, units: Tensor) -> list[dict]:
    """A row a layer: how many units it has `before` and `after` the chosen ones have gone."""
    before = len(group.scores)
    return [
        {"layer": layer, "group": group.layers[0], "before": before, "after": before - len(units)}
        for layer in group.layers
    ]


def taken(chosen: Iterable[tuple[Group, Tensor]]) -> Removed:
    """All positions that go with the chosen units of each group."""
    found = defaultdict(list)
    for group, units in chosen:
        for part in group.parts:
            found[part.layer, part.side] += part.positions[torch.isin(part.units, units)].tolist()
    return {key: sorted(positions) for key, positions in found.items() if positions}


@torch.no_grad()
def mask_(model: nn.Module, removed: Removed) -> None:
    """Set to zero whatever `shrink_` removes: weights and biases, and scale and shift of batch norms.

    A channel without weights is still its bias, or after batch norm a constant, and what a convolution makes of a
    constant differs at the border, which is padded with zeros: so both of these have to go too.
    """
    for (name, side), positions in removed.items():
        layer = model.get_submodule(name)
        if side == INPUTS:
            layer.weight[:, positions] = 0
        else:
            for parameter in layer.parameters(recurse=False):
                parameter[positions] = 0


def shrink_(model: nn.Module, removed: Removed) -> None:
    """Remove these positions for real: the layers become smaller."""
    for (name, side), positions in removed.items():
        layer = model.get_submodule(name)
        pair = next(pair for kind, pair in SHRINK.items() if isinstance(layer, kind))
        pair[side == INPUTS](layer, positions)
