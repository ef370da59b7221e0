"""What passes from stage to stage: a network, what of it is removed, and how its numbers are rounded."""

from typing import NamedTuple

from torch import nn

from lib.masks import Masks


class Network(NamedTuple):
    """A network between two stages. Its weights are those it computes with: 0 where removed, on their grid otherwise.

    `masks` names every weight of convolutions and linear layers. `grid` says how weights are rounded:

        {}                                          float32
        {"kind": "fixed", "bits": 8, "fraction": 4} fixed point, biases too
        {"kind": "int8"}                            an integer times a scale of the output channel (see `lib.quantise`)
        {"kind": "shared", "bits": 6}               one of 2**bits values of the layer, and 0 for the removed ones

    `inputs` says what the forward pass does with what enters layers, `prune` before `round`, either of which may lack:

        prune   {"method": "element-l1", "share": 0.1, "fixed": False}; fixed ones have "sets" too, of each layer
        round   {"kind": "fixed", "bits": 8, "fraction": 4} or {"kind": "int8", "ranges": {layer: [low, high]}}
    """

    model: nn.Module
    masks: Masks
    grid: dict = {}
    inputs: dict = {}
