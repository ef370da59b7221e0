"""Multiply-accumulates (MACs) of an image that are left: its weight is kept and its input is not zero. Exact.

    macs_dense     all, as `lib.flops` counts them
    macs_kept      those of kept weights
    macs_natural   of these, those whose input is not zero when it reaches the layer, before it is pruned there (earlier
                   layers work with pruned inputs); what padding adds is such a zero
    macs_active    of these, those whose input pruning leaves

So each is at most the one before it. What rounding of inputs makes zero stays among macs_active, and a kept weight
that was rounded to zero too: neither is pruned. As in `lib.flops`, this is what could be skipped; dense kernels do not.

How often an input is used with a kept weight is the same for every image. So it is enough to count, at each position
of a layer's input, the images in which it is not zero; the rest is one small convolution of these whole numbers with
the numbers of kept weights, in float64, which holds them up to 9e15.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import nan

import torch
from torch import Tensor, nn

from lib.hooks import hooked
from lib.masks import evaluating
from lib.pipeline.inputs import attach, layers
from lib.pipeline.network import Network

MACS = ("macs_dense", "macs_kept", "macs_natural", "macs_active")


@torch.no_grad()
def count(net: Network, images: Tensor, batch: int = 256) -> tuple[dict, list[dict]]:
    """Totals, and one row a convolution or linear layer, as means an image over `images`, inputs of the network.

    Totals: the four MACS, zeros_natural_pct and zeros_pruned_pct: the zeros among all values that enter convolutions
    (in a network without, linear layers), before pruning and those that it adds. Rows: layer, kind (`convolution` or
    `linear`), weights, kept, macs, the last three MACS, and the zeros among what enters the layer; NaN where nothing
    does. A layer without a mask counts as kept. ValueError without an image.
    """
    if not len(images):
        raise ValueError("no images to count with: at least one is needed")
    natural, active, places = {}, {}, {}
    prune, rounding = ({name: net.inputs[name]} if name in net.inputs else {} for name in ("prune", "round"))
    with (
        evaluating(net.model),
        _before(net.model, _adding(natural)),
        attach(net.model, prune),
        _before(net.model, _adding(active)),
        attach(net.model, rounding),
        _after(net.model, places),
    ):
        for x in images.split(batch):
            net.model(x)
    found = [
        _layer(name, layer, net.masks.get(f"{name}.weight".removeprefix(".")), natural, active, places)
        for name, layer in layers(net.model).items()
    ]
    return _totals(found, len(images)), [_row(sums, len(images)) for sums in found]


def _before(model: nn.Module, look: Callable[[str, nn.Module, Tensor], None]) -> AbstractContextManager[None]:
    """Inside the `with`, `look` sees what enters each layer; hooks run in the order in which they were registered."""

    def hook(name: str):
        return lambda layer, inputs: look(name, layer, inputs[0])

    return hooked(layer.register_forward_pre_hook(hook(name)) for name, layer in layers(model).items())


def _after(model: nn.Module, places: dict[str, int]) -> AbstractContextManager[None]:
    """Inside the `with`, the output positions of each layer are counted, as in `lib.flops`, over all images."""

    def hook(name: str):
        def look(layer: nn.Module, _, output: Tensor) -> None:
            places[name] = places.get(name, 0) + output.numel() // len(layer.weight)

        return look

    return hooked(layer.register_forward_hook(hook(name)) for name, layer in layers(model).items())


def _adding(counts: dict[str, tuple[Tensor, int]]):
    """Counts, at each position (C, H, W) or feature, the values that are not zero; and all values of the layer."""

    def look(name: str, layer: nn.Module, x: Tensor) -> None:
        own = 3 if isinstance(layer, nn.Conv2d) else 1
        found = x.detach().flatten(0, -own - 1).count_nonzero(0)
        before, values = counts.get(name, (0, 0))
        counts[name] = (before + found, values + x.numel())

    return look


def _layer(name: str, layer: nn.Module, mask: Tensor | None, natural: dict, active: dict, places: dict) -> dict:
    """The whole numbers of one layer, summed over the images."""
    kept = (torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask).cpu()
    weights, left, times = kept.numel(), int(kept.count_nonzero()), places.get(name, 0)
    sums = {"layer": name, "kind": "convolution" if isinstance(layer, nn.Conv2d) else "linear"}
    sums |= {"weights": weights, "kept": left, "macs_dense": weights * times, "macs_kept": left * times}
    sums |= {"values": 0, "macs_natural": 0, "macs_active": 0, "nonzero": 0, "after": 0}
    if name in natural:
        (before, values), (after, _) = natural[name], active[name]
        before, after = before.cpu(), after.cpu()
        sums |= {"values": values, "nonzero": int(before.sum()), "after": int(after.sum())}
        sums |= {"macs_natural": _used(layer, kept, before), "macs_active": _used(layer, kept, after)}
    return sums


def _used(layer: nn.Module, kept: Tensor, inputs: Tensor) -> int:
    """The MACs of kept weights with so many inputs at each position, of a layer's whole input."""
    if isinstance(layer, nn.Linear):
        return int((kept.sum(0) * inputs).sum())
    kernels = kept.unflatten(0, (layer.groups, -1)).sum(1)  # (groups, C / groups, h, w): kept weights over outputs
    # the layer's own convolution, with its stride, padding, dilation and groups; on the CPU it is a matrix product
    return int(layer._conv_forward(inputs[None].double(), kernels.double(), None).sum())


def _totals(found: list[dict], images: int) -> dict:
    totals = {name: sum(sums[name] for sums in found) / images for name in MACS}
    kind = "convolution" if any(sums["kind"] == "convolution" for sums in found) else "linear"
    shown = [sums for sums in found if sums["kind"] == kind]
    return totals | _zeros({name: sum(sums[name] for sums in shown) for name in ("values", "nonzero", "after")})


def _row(sums: dict, images: int) -> dict:
    row = {name: sums[name] for name in ("layer", "kind", "weights", "kept")}
    row |= {name.replace("_dense", ""): sums[name] / images for name in MACS}
    return row | _zeros(sums)


def _zeros(sums: dict) -> dict[str, float]:
    values, nonzero, after = (sums[name] for name in ("values", "nonzero", "after"))
    return {
        "zeros_natural_pct": 100 * (values - nonzero) / values if values else nan,
        "zeros_pruned_pct": 100 * (nonzero - after) / values if values else nan,
    }
