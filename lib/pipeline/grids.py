"""The values that weights may have after quantisation: fixed point, 8 bits with a scale a channel, a codebook a layer.

Every function gives a new network and leaves the one it got. 0 stays 0 and a removed weight removed; a kept weight may
become 0 too, and the masks alone say which weights are kept.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import widths
from lib.masks import prunable
from lib.pipeline.inputs import attach
from lib.pipeline.network import Network
from lib.quantise import ranges_of, rounded, straight

ITERATIONS = 10_000  # at most, of k-means; one costs 0.1 ms, for any number of weights


def fixed(values: Tensor, bits: int, fraction: int) -> Tensor:
    """`values` at the nearest multiples of 2**-`fraction` in the range of `bits`, the sign among them; halves to even.

    8 bits of which 4 lie behind the point: multiples of 1/16 from -8 to 7.9375. The gradient passes unchanged.
    """
    least, most = _limits(bits)
    with torch.no_grad():
        on_grid = (values * 2.0**fraction).round_().clamp_(least, most).mul_(2.0**-fraction).add_(0.0)  # no -0
    return straight(on_grid, values)


def quantise_fixed(net: Network, bits: int, fraction: int) -> Network:
    """Weights and biases of convolutions and linear layers in fixed point, see `fixed`; `effects` says what it cost.

    ValueError for what `lib.widths.check` refuses, and for a fraction that is still to be chosen: by `best_fraction`.
    """
    _check_fixed(bits, fraction)
    made = copy.deepcopy(net.model)
    with torch.no_grad():
        for value in _weights_and_biases(made).values():
            value.copy_(fixed(value, bits, fraction))
    return net._replace(model=made, grid={"kind": "fixed", "bits": bits, "fraction": fraction})


def best_fraction(net: Network, bits: int, score: Callable[[Network], float] | None = None) -> int:
    """How many of `bits` are best behind the point: those of the highest `score`, and of equal ones the fewest.

    `score` is called with each candidate of `quantise_fixed`, such as its accuracy on a validation split. Without it
    the least sum of squared errors of weights and biases decides.
    """
    widths.check("fixed", bits)
    tried = range(bits)
    found = {at: score(quantise_fixed(net, bits, at)) if score else -_error(net, bits, at) for at in tried}
    return max(found, key=found.get)


def quantise_int8(net: Network) -> Network:
    """Weights of convolutions and linear layers as integers from -127 to 127 times a scale of their output channel.

    See `lib.quantise`; biases stay as they are.
    """
    made = copy.deepcopy(net.model)
    with torch.no_grad():
        for weight in prunable(made).values():
            weight.copy_(rounded(weight)).add_(0.0)  # no -0
    return net._replace(model=made, grid={"kind": "int8"})


def share(net: Network, bits: int) -> Network:
    """The kept weights of each convolution and linear layer at no more than 2**`bits` values, found by `k_means`.

    Han et al. 2016 (arXiv 1510.00149), section 3. The removed weights take no part, and stay 0. Biases stay as they
    are. ValueError for bits that are not from 1 to 8.
    """
    widths.check("shared", bits)
    made = copy.deepcopy(net.model)
    with torch.no_grad():
        for name, weight in prunable(made).items():
            kept = net.masks[name].to(weight.device)
            found = k_means(weight[kept], 2**bits)
            weight[kept] = found.values[found.codes]
    return net._replace(model=made, grid={"kind": "shared", "bits": bits})


class Clusters(NamedTuple):
    values: Tensor  # centroids that have values, ascending (at most as many as asked for), float32
    codes: Tensor  # of each value its centroid's position (int64)
    iterations: int
    settled: bool  # whether no value would change its centroid any more


@torch.no_grad()
def k_means(values: Tensor, count: int) -> Clusters:
    """Lloyd's k-means of `values` (n,) with `count` centroids that start evenly spaced from the least to the largest.

    Of the starts in section 3.2 of Han et al. 2016 that one was best, as few large weights matter. A centroid without
    values stays where it is, and is left out in the end. Where there are no more distinct values than `count`, each
    is its own centroid. Stops when nothing changes or after ITERATIONS. Sums are float64; of two centroids equally far
    away a value takes the lower one. The cost is that of sorting, 1 s for 10 million values.
    """
    points, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    if len(points) <= count:
        return Clusters(points, inverse, 0, True)
    exact = points.double()
    sums, sizes = (F.pad(part.cumsum(0), (1, 0)) for part in (exact * counts, counts))  # of all below a position
    centres = torch.linspace(exact[0].item(), exact[-1].item(), count, dtype=exact.dtype, device=exact.device)
    edges, settled, iteration = None, False, 0
    while not settled and iteration < ITERATIONS:
        inner = torch.searchsorted(exact, (centres[1:] + centres[:-1]) / 2, right=True)
        found = F.pad(F.pad(inner, (1, 0)), (0, 1), value=len(points))
        settled = edges is not None and torch.equal(found, edges)
        edges, size = found, sizes[found].diff()
        centres = torch.where(size > 0, sums[found].diff() / size, centres)
        iteration += 1
    used = edges.diff() > 0
    codes = torch.repeat_interleave(edges.diff()[used])
    return Clusters(centres[used].to(values.dtype), codes[inverse], iteration, settled)


def round_inputs_fixed(net: Network, bits: int, fraction: int) -> Network:
    """What enters convolutions and linear layers in fixed point, see `fixed`. ValueError as for `quantise_fixed`."""
    _check_fixed(bits, fraction)
    return _rounding(net, {"kind": "fixed", "bits": bits, "fraction": fraction})


def round_inputs_int8(net: Network, batches: list[tuple[Tensor, Tensor]]) -> Network:
    """What enters convolutions and linear layers at 256 values from the least to the largest seen on `batches`.

    See `lib.quantise`. Seen is what enters the network as it is, with its rounded weights and pruned inputs, but with
    inputs that are not rounded.
    """
    with attach(net.model, {name: value for name, value in net.inputs.items() if name != "round"}):
        ranges = ranges_of(net.model, batches)
    return _rounding(net, {"kind": "int8", "ranges": {name: list(ends) for name, ends in ranges.items()}})


@torch.no_grad()
def effects(before: Network, after: Network) -> list[dict]:
    """What quantisation did to `before`, one row a layer; `after` is what came of it.

    Rows: layer; kept, how many weights are; values, how many distinct ones they have now; zeroed, how many of them
    were not 0 and are now; clipped, how many weights and biases lay beyond the range of fixed point, so that the
    nearest multiple does not exist (0 on other grids); rms_error of the kept weights.
    """
    old, new, rows = before.model, prunable(after.model), []
    for name, weight in prunable(old).items():
        kept, layer = before.masks[name].to(weight.device), name.rpartition(".")[0]
        was, now = weight[kept], new[name][kept]
        clipped = sum(_clipped(value, after.grid) for value in old.get_submodule(layer).parameters(recurse=False))
        row = {"layer": layer, "kept": len(was), "values": len(now.unique())}
        row |= {"zeroed": int(((was != 0) & (now == 0)).sum()), "clipped": clipped}
        rows.append(row | {"rms_error": (now - was).double().square().mean().sqrt().item() if len(was) else 0.0})
    return rows


def _clipped(value: Tensor, grid: dict) -> int:
    if grid.get("kind") != "fixed":
        return 0
    least, most = _limits(grid["bits"])
    multiples = (value * 2.0 ** grid["fraction"]).round()
    return int(((multiples < least) | (multiples > most)).sum())


def _limits(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _check_fixed(bits: int, fraction: int) -> None:
    widths.check("fixed", bits, fraction)
    if fraction == widths.CHOSEN:
        raise ValueError(f"fraction_bits is {fraction}, still to be chosen: 0 to {bits - 1} is allowed here")


def _weights_and_biases(model: nn.Module) -> dict[str, nn.Parameter]:
    return prunable(model, ["biases"])


@torch.no_grad()
def _error(net: Network, bits: int, fraction: int) -> float:
    values = _weights_and_biases(net.model).values()
    return sum((fixed(value, bits, fraction) - value).double().square().sum().item() for value in values)


def _rounding(net: Network, how: dict) -> Network:
    return net._replace(inputs={name: value for name, value in net.inputs.items() if name != "round"} | {"round": how})
