"""A pruned network layer by layer: sizes, densities, MACs, statistics and histograms, as rows for tables.

There are rows for what the masks name, in their order. Layers without a mask (spared, and so dense) have none;
they count in the totals of `flops.macs`.
"""

import numpy as np
import torch
from torch import Tensor, nn

from lib import flops
from lib.ranking import in_memory_order


@torch.no_grad()
def layer_rows(model: nn.Module, masks: dict[str, Tensor], shape: tuple[int, int, int]) -> list[dict]:
    """One row a mask, in order: size, density, MACs of one input of `shape`, statistics.

    `layer` is the layer's name, or, for what is not a weight, the parameter's (`conv.bias`); `kind` is conv, linear,
    embedding, norm (scale or shift) or bias, the last three of which cost no MACs. `mean`, `std` (population), `min`
    and `max` are those of the kept weights' present values; None where no weight is kept.
    """
    used = flops.positions(model, shape)
    return [_layer_row(model, name, mask, used.get(name, 0)) for name, mask in masks.items()]


def _layer_row(model: nn.Module, name: str, mask: Tensor, positions: int) -> dict:
    weight = model.get_parameter(name)
    stored, kept_there = (in_memory_order(tensor, weight) for tensor in (weight, mask))
    values = stored.index_select(0, kept_there.nonzero().flatten()).double()
    kept = len(values)
    statistics = dict.fromkeys(("mean", "std", "min", "max"))
    if kept:
        low, high = values.aminmax()
        std, mean = torch.std_mean(values, correction=0)
        statistics = {"mean": mean.item(), "std": std.item(), "min": low.item(), "max": high.item()}
    return {
        "layer": _layer_name(name),
        "kind": _kind(model, name),
        "shape": "x".join(map(str, weight.shape)),
        "weights": weight.numel(),
        "kept": kept,
        "density": kept / weight.numel(),
        "macs_dense": weight.numel() * positions,
        "macs_kept": kept * positions,
        **statistics,
    }


@torch.no_grad()
def histogram_rows(
    model: nn.Module, masks: dict[str, Tensor], bins: int = 60, reference: dict[str, Tensor] | None = None
) -> list[dict]:
    """Counts of kept and removed weights in `bins` equal intervals [left, right) of each layer's own range.

    The last interval includes its right end. Kept weights stand at their present values, removed ones at their
    values in `reference` (weights before pruning, by parameter name); without it at their present ones, which are
    zero once the masks are applied.
    """
    rows = []
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        shown = weight if reference is None else torch.where(mask, weight, reference[name])
        edges, kept, removed = _histogram(shown, mask, bins)
        for left, right, inside, outside in zip(edges[:-1], edges[1:], kept, removed, strict=True):
            rows.append({"layer": _layer_name(name), "left": left, "right": right, "kept": inside, "removed": outside})
    return rows


def _histogram(values: Tensor, mask: Tensor, bins: int) -> tuple[list[float], list[int], list[int]]:
    """Edges, and the counts between them of the values inside and outside the mask."""
    ends = np.array([end.item() for end in values.aminmax()], dtype=str(values.dtype).removeprefix("torch."))
    edges = np.histogram_bin_edges(ends, bins)
    inner = torch.from_numpy(edges[1:-1]).to(values.device)
    place = torch.bucketize(in_memory_order(values, values), inner, right=True, out_int32=True)
    counts = torch.bincount(place.mul_(2).add_(in_memory_order(mask, values)), minlength=2 * bins).tolist()
    return edges.tolist(), counts[1::2], counts[::2]


def _kind(model: nn.Module, name: str) -> str:
    owner, _, part = name.rpartition(".")
    layer = model.get_submodule(owner)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return "bias" if part == "bias" else "conv" if isinstance(layer, nn.Conv2d) else "linear"
    return "embedding" if isinstance(layer, nn.Embedding) else "norm"


def _layer_name(parameter: str) -> str:
    return parameter.removesuffix(".weight")
