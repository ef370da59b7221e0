"""The weights of a layer as small integers, by the grid they are on, and back bit for bit."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.quantise import LARGEST, integers

BITS = {"fixed": range(1, 17), "shared": range(1, 17)}  # allowed widths
KINDS = ("fixed", "int8", "shared")


class Symbols(NamedTuple):
    """Unsigned numbers (uint8 or uint16) below 2**width, and what they need to become weights again (float32).

    fixed   the number is a signed integer of `width` bits, 8 or 16, in two's complement; no table
    int8    the same in 8 bits; the table holds a scale for each output channel
    shared  the number is a place in the table, which is the codebook; `width` is the grid's `bits`, and one more only
            where zeros of removed weights come on top of a full codebook
    """

    numbers: np.ndarray
    width: int
    table: np.ndarray


def check_grid(grid: dict) -> None:
    """ValueError unless weights on this grid can be stored."""
    kind = grid.get("kind")
    if grid and kind not in KINDS:
        raise ValueError(f"the grid is of kind {kind!r}: one of {', '.join(KINDS)} is allowed, or an empty grid")
    if kind in BITS and grid["bits"] not in BITS[kind]:
        raise ValueError(f"a grid of kind {kind} has {grid['bits']} bits: 1 to {BITS[kind][-1]} are allowed")


def of(weight: Tensor, chosen: Tensor, removed: bool, grid: dict) -> Symbols:
    """The symbols of the weights in `chosen` (bool, of the shape of `weight`), in their order in memory.

    `removed`: whether zeros of removed weights are among them. ValueError where a weight is not on its grid.
    """
    if grid["kind"] == "shared":
        return _shared(weight[chosen].numpy() + 0.0, removed, grid["bits"])
    signed, table = _fixed(weight, grid) if grid["kind"] == "fixed" else _scaled(weight)
    numbers = signed[chosen].numpy()
    return Symbols(numbers.view(f"u{numbers.itemsize}"), 8 * numbers.itemsize, table)


def weights(symbols: Symbols, chosen: np.ndarray, shape: list[int], grid: dict) -> Tensor:
    """The weight (float32) of this shape whose weights in `chosen` (bool, flat) have these symbols; 0 elsewhere."""
    found = np.zeros(len(chosen), np.float32)
    found[chosen] = meanings(symbols.numbers, symbols, grid)
    weight = torch.from_numpy(found).view(shape)
    if grid["kind"] == "int8":
        weight *= torch.from_numpy(symbols.table).view(-1, *[1] * (len(shape) - 1))
    return weight


def meanings(numbers: np.ndarray, symbols: Symbols, grid: dict) -> np.ndarray:
    """What numbers stand for (float32): weights, with int8 in steps of the channel's scale."""
    if grid["kind"] == "shared":
        return symbols.table[numbers]
    signed = numbers.view(f"i{numbers.itemsize}").astype(np.float32)
    return signed / np.float32(2.0 ** grid["fraction"]) if grid["kind"] == "fixed" else signed


def fixed_integers(tensor: Tensor, grid: dict) -> Tensor:
    """Weights or biases as int8, or where they have more than 8 bits int16; ValueError where one is not on the grid."""
    steps, most = tensor * 2.0 ** grid["fraction"], 2 ** (grid["bits"] - 1)
    off = (steps != steps.round()) | (steps < -most) | (steps > most - 1)
    if off.any():
        raise ValueError(
            f"{float(tensor[off][0]):g} is not on its grid: multiples of 1/{2.0 ** grid['fraction']:g} from "
            f"{-most} to {most - 1} of them are allowed"
        )
    return steps.to(torch.int8 if grid["bits"] <= 8 else torch.int16)


def from_fixed(whole: Tensor, grid: dict) -> Tensor:
    """What `fixed_integers` took, as float32."""
    return whole.float() / 2.0 ** grid["fraction"]


def _fixed(weight: Tensor, grid: dict) -> tuple[Tensor, np.ndarray]:
    return fixed_integers(weight, grid), np.zeros(0, np.float32)


def _scaled(weight: Tensor) -> tuple[Tensor, np.ndarray]:
    """Integers from -127 to 127 and the scales of the channels whose products are the weights, exactly.

    Where pruning took the largest weight of a channel that was rounded before, the scale is no longer that of
    `lib.quantise`: the largest that is left is some smaller multiple of it.
    """
    whole, scale = integers(weight)
    rows, whole = weight.flatten(1), whole.flatten(1)
    off = (whole * scale[:, None] != rows).any(1).nonzero()[:, 0]
    for multiple in range(LARGEST - 1, 0, -1):
        if not len(off):
            break
        tried = rows[off]
        smaller = tried.abs().amax(1, keepdim=True) / multiple
        found = (tried / smaller).round()
        fits = (found * smaller == tried).all(1)
        whole[off[fits]], scale[off[fits]] = found[fits].to(torch.int8), smaller[fits, 0]
        off = off[~fits]
    if len(off):
        raise ValueError(f"channel {int(off[0])} is not on its grid: integers to 127 times one scale are allowed")
    return whole.view(weight.shape), scale.numpy()


def _shared(values: np.ndarray, removed: bool, bits: int) -> Symbols:
    table = np.unique(values)
    if len(table) > 2**bits + removed or not np.isfinite(table).all():
        raise ValueError(f"{len(table)} values are not on its grid: up to {2**bits} are shared in {bits} bits")
    width = shared_width(len(table), bits)
    return Symbols(np.searchsorted(table, values).astype(np.uint8 if width <= 8 else np.uint16), width, table)


def shared_width(values: int, bits: int) -> int:
    """Bits of a place among so many values of a codebook of 2**bits, to which zero may have been added."""
    return bits + (values > 2**bits)
