"""What the forward pass does with what enters layers: values or feature maps are removed, and the rest is rounded.

`prune` acts on the inputs of convolutions, and in a network without any, with the methods for single values, on those
of linear layers, where everything that a layer gets of an image or a text counts as one: in a text also the words
after its end. `lib.pipeline.activations` says what the methods remove. Either each image is looked at as it comes,
or a set that calibration chose once is removed of all: positions (C, H, W) or channels.

`round` acts on the inputs of convolutions and linear layers, after pruning. Fixed point of `bits` bits of which
`fraction` stand after the point rounds to multiples of 2**-fraction, halves to the even multiple, and clips to the
signed range: 8 bits of which 4 fraction go from -8 to 7.9375 by 1/16. 8-bit integers are those of `lib.quantise`.

Gradients pass the rounding as if it were not there, and are zero where a value was removed or clipped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib.catalog import ACTIVATION_METHODS
from lib.data import Dataset
from lib.hooks import hooked
from lib.masks import evaluating
from lib.pipeline import activations
from lib.pipeline.network import Network
from lib.quantise import Inputs
from lib.train import evaluate

Batches = list[tuple[Tensor, Tensor]]
Change = Callable[[Tensor], Tensor]


@contextmanager
def attach(model: nn.Module, inputs: dict) -> Iterator[nn.Module]:
    """Inside the `with`, `model` does what `inputs` of a `Network` say, in training too; {} changes nothing.

    The ranges of 8-bit integers and the sets of fixed pruning stay as they are in training. ValueError for `inputs`
    that say something else than those of a `Network`, lack a layer, or do not fit `model`.
    """
    _known("inputs", inputs, set(), {"prune", "round"})
    changes = [*_prunings(model, inputs.get("prune")), *_roundings(model, inputs.get("round"))]
    with hooked(layer.register_forward_pre_hook(_hook(change)) for layer, change in changes):
        yield model


def _hook(change: Change):
    return lambda _, inputs: (change(inputs[0]), *inputs[1:])


def prune_inputs(net: Network, method: str, share: float, *, batches: Batches | None = None) -> Network:
    """`net` with `share`, in [0, 1], of what enters its convolutions removed in the forward pass.

    Without `batches` of each image what is smallest there. With them a fixed set: what has the lowest mean score over
    their images (of map-similarity: by the mean cosine of two maps and their mean L1 norms), exactly round(share * n)
    of the n positions or channels that are not zero in all of them (those that are stay, whatever later images have
    there). Seen without other pruning of inputs, whose place this takes, and with their rounding. ValueError for an
    unknown method, a share outside [0, 1], maps of a network without convolutions, or no batch.
    """
    prune = {"method": method, "share": float(share), "fixed": batches is not None}
    rest = {name: what for name, what in net.inputs.items() if name != "prune"}
    pruned_layers(net.model, method)
    _check_share(share)
    if batches is not None:
        prune["sets"] = _sets(net._replace(inputs=rest), method, share, batches)
    return net._replace(inputs={"prune": prune, **rest})


def evaluated(net: Network, data: Dataset, **options) -> dict[str, float]:
    """`lib.train.evaluate` of the network as it runs, with what is done to its inputs; `options` are passed on."""
    with attach(net.model, net.inputs) as model:
        return evaluate(model, data, **options)


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose inputs are rounded, by name: convolutions and linear layers."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def pruned_layers(model: nn.Module, method: str) -> dict[str, nn.Module]:
    """The layers whose inputs are pruned, by name: convolutions, or linear layers where there is no convolution.

    ValueError for an unknown method, or one for maps without a convolution.
    """
    if method not in ACTIVATION_METHODS:
        raise ValueError(f"unknown method {method!r} of activation pruning: one of {', '.join(ACTIVATION_METHODS)}")
    found = layers(model)
    convolutions = {name: layer for name, layer in found.items() if isinstance(layer, nn.Conv2d)}
    if not convolutions and method.startswith("map-"):
        allowed = ", ".join(name for name in ACTIVATION_METHODS if name.startswith("element-"))
        raise ValueError(f"method {method} for a network without convolutions, which has no maps: {allowed} is allowed")
    return convolutions or found


# Pruning


def _prunings(model: nn.Module, prune: dict | None) -> list[tuple[nn.Module, Change]]:
    if prune is None:
        return []
    _known("prune", prune, {"method", "share", "fixed"} | ({"sets"} if prune.get("fixed") else set()))
    method, share = prune["method"], prune["share"]
    found = pruned_layers(model, method)
    _check_share(share)
    if not prune["fixed"]:
        return [(layer, _each_image(name, layer, method, share)) for name, layer in found.items()]
    if found.keys() != prune["sets"].keys():
        raise ValueError(f"sets for {', '.join(prune['sets'])}: exactly {', '.join(found)} are needed")
    return [(layer, _same_for_all(name, layer, method, prune["sets"][name])) for name, layer in found.items()]


def _each_image(name: str, layer: nn.Module, method: str, share: float) -> Change:
    def change(x: Tensor) -> Tensor:
        _check_batch(name, layer, x)
        gone = activations.removed(x, method, share)
        return x.masked_fill(gone if gone.ndim == x.ndim else gone[:, :, None, None], 0.0)

    return change


def _same_for_all(name: str, layer: nn.Module, method: str, kept: Tensor) -> Change:
    gone = ~kept.to(layer.weight.device)

    def change(x: Tensor) -> Tensor:
        _check_batch(name, layer, x)
        wanted = x.shape[1:] if method.startswith("element-") else x.shape[1:2]
        if kept.shape != wanted:
            raise ValueError(f"the set of {name} is {tuple(kept.shape)}: {tuple(wanted)} is allowed for such inputs")
        return x.masked_fill(gone if method.startswith("element-") else gone[:, None, None], 0.0)

    return change


@torch.no_grad()
def _sets(net: Network, method: str, share: float, batches: Batches) -> dict[str, Tensor]:
    """True where what enters a layer is kept, of the shape of an input, or (channels,)."""
    if not batches:
        raise ValueError("no batches to calibrate with: at least one is needed")
    found: dict[str, list[Tensor]] = {}

    def watch(name: str):
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            _check_batch(name, layer, inputs[0])
            for part in activations.portions(inputs[0], method):
                sums = [by.sum(0, dtype=torch.float64) for by in activations.described(part, method)]
                found[name] = [a + b for a, b in zip(found[name], sums, strict=True)] if name in found else sums

        return look

    watched = pruned_layers(net.model, method)
    watching = hooked(layer.register_forward_pre_hook(watch(name)) for name, layer in watched.items())
    with watching, evaluating(net.model), attach(net.model, net.inputs):
        for x, _ in batches:
            net.model(x)
    unseen = [name for name in watched if name not in found]
    if unseen:
        raise ValueError(f"calibration sees no input of {unseen[0]}: only layers that the model calls are allowed")
    images = sum(len(x) for x, _ in batches)
    means = {name: tuple(by[None] / images for by in sums) for name, sums in found.items()}
    return {name: ~(activations.chosen(by, share) & (by[-1] > 0))[0] for name, by in means.items()}


def _check_batch(name: str, layer: nn.Module, x: Tensor) -> None:
    if x.ndim < 2 or (isinstance(layer, nn.Conv2d) and x.ndim != 4):
        raise ValueError(f"what enters {name} is {tuple(x.shape)}: a batch, of images (N, C, H, W), is allowed")


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: 0 to 1 is allowed")


# Rounding


def _roundings(model: nn.Module, rounding: dict | None) -> list[tuple[nn.Module, Change]]:
    if rounding is None:
        return []
    kind = rounding.get("kind")
    if kind == "fixed":
        _known("round", rounding, {"kind", "bits", "fraction"})
        change = fixed_point(rounding["bits"], rounding["fraction"])
        return [(layer, change) for layer in layers(model).values()]
    if kind != "int8":
        raise ValueError(f"unknown kind {kind!r} of rounding inputs: one of fixed, int8")
    _known("round", rounding, {"kind", "ranges"})
    found, ranges = layers(model), rounding["ranges"]
    if found.keys() != ranges.keys():
        raise ValueError(f"ranges for {', '.join(ranges)}: exactly {', '.join(found)} are needed")
    return [(layer, Inputs(*ranges[name]).to(layer.weight.device).eval()) for name, layer in found.items()]


def fixed_point(bits: int, fraction: int) -> Change:
    """A function that rounds as the head of this file says. ValueError for widths that float32 does not hold.

    Also in mixed precision what it returns is float32, which the layer then makes smaller.
    """
    if not 1 <= bits <= 24 or abs(fraction) > 64:
        raise ValueError(f"bits is {bits} and fraction {fraction}: 1 to 24 and -64 to 64 are allowed")
    step, low, high = 2.0**-fraction, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1

    def change(x: Tensor) -> Tensor:
        with torch.no_grad():
            value = (x.float() / step).round_().clamp_(low, high).mul_(step)
        through = x.float().clamp(low * step, high * step)
        return value + (through - through.detach())

    return change


def _known(what: str, given: dict, needed: set[str], optional: set[str] = frozenset()) -> None:
    if not needed <= given.keys() <= needed | optional:
        raise ValueError(f"{what} has {', '.join(given)}: {', '.join(sorted(needed | optional))} are allowed")
