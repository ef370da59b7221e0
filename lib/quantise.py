"""8-bit weights and activations, simulated: values are rounded to what int8 and uint8 can say, and stay float32.

Jacob et al. 2018 (arXiv 1712.05877). A weight is q * scale with an integer q from -127 to 127 and one scale an output
channel, the largest magnitude in it over 127; of an embedding a channel is a word. What enters a convolution or a
linear layer is (q - zero) * scale with q from 0 to 255 and one scale and one integer `zero` a tensor, from the least
and the largest value that calibration saw. Either way 0 is exactly an integer, so a removed weight stays zero.

Gradients pass the rounding as if it were not there, except where an activation was clipped (straight-through; Bengio
et al. 2013, arXiv 1308.3432). Biases, batch norm, logits, position embeddings, and within attention the products of
query, key and value stay in float32; batch norm is not folded into the convolution before it.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data import Dataset, normalise
from lib.data.sampling import balanced
from lib.hooks import hooked
from lib.masks import evaluating

LARGEST, STEPS = 127, 255  # the largest integer of a weight; the steps of an activation
SCALE_BITS = 16  # significant bits of a weight's scale
SMALLEST = 2.0**-100  # scale of a channel of zeros
MOMENTUM = 0.1  # of the ranges in training, as in batch norm: a batch's own has this weight

Ranges = dict[str, tuple[float, float]]


@torch.no_grad()
def scales(weight: Tensor) -> Tensor:
    """The scale of each output channel of a weight (channels, ...): its largest magnitude over 127, rounded up.

    A scale has 16 significant bits, so that its products with integers up to 127 are exact in float32. That makes
    rounding idempotent: what is on the grid has the same scale again, and stays where it is, bit for bit.
    """
    mantissa, exponent = torch.frexp(weight.detach().flatten(1).abs().amax(1) / LARGEST)
    steps = 2.0**SCALE_BITS
    return torch.ldexp((mantissa * steps).ceil() / steps, exponent).clamp(min=SMALLEST)


def rounded(weight: Tensor) -> Tensor:
    """`weight` (channels, ...) on its grid; the gradient passes unchanged."""
    with torch.no_grad():
        scale = scales(weight).view(-1, *[1] * (weight.ndim - 1))
        on_grid = (weight * scale.reciprocal()).round_().mul_(scale)
    return straight(on_grid, weight)


@torch.no_grad()
def integers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` as int8 of its shape, and the float32 scales (channels,): their product is `rounded(weight)` exactly."""
    scale = scales(weight)
    return (weight * scale.reciprocal().view(-1, *[1] * (weight.ndim - 1))).round_().to(torch.int8), scale


def straight(value: Tensor, through: Tensor) -> Tensor:
    """`value`, with the gradient of `through`; what is added is exactly zero. (torch's own fake_quantize: 20 times
    slower for weights on a CPU, 38 ms a million.)"""
    return value + (through - through.detach())


class Inputs(nn.Module):
    """Rounds what enters a layer to 8 bits between `low` and `high`, which in training follow the batches.

    Each training batch moves them towards its own extremes, by MOMENTUM.
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        self.register_buffer("low", torch.tensor(float(low)))
        self.register_buffer("high", torch.tensor(float(high)))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if self.training:
                self.low.lerp_(x.amin(), MOMENTUM)
                self.high.lerp_(x.amax(), MOMENTUM)
            low, high = self.low.clamp(max=0), self.high.clamp(min=0)  # zero must be among the integers
            scale = ((high - low) / STEPS).clamp(min=SMALLEST)
            zero = (-low / scale).round()
            value = (x * scale.reciprocal()).round_().clamp_(-zero, STEPS - zero).mul_(scale)
        return straight(value, x.clamp(-zero * scale, (STEPS - zero) * scale))


class _OnGrid:
    def on_grid(self) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias that a forward pass computes with; other grids than that of 8 bits override it."""
        return rounded(self.weight), self.bias


class QuantisedLinear(_OnGrid, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.inputs(x), *self.on_grid())


class QuantisedConv2d(_OnGrid, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(self.inputs(x), *self.on_grid())


class QuantisedEmbedding(nn.Embedding):
    def forward(self, numbers: Tensor) -> Tensor:
        rows = super().forward(numbers)  # only the words that are there, each with its scale
        return rounded(rows.flatten(0, -2)).view(rows.shape)


LAYERS = {nn.Linear: QuantisedLinear, nn.Conv2d: QuantisedConv2d, nn.Embedding: QuantisedEmbedding}
PLAIN = {quantised: plain for plain, quantised in LAYERS.items()}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weights are quantised, or would be, by name: convolution, linear, embedding."""
    return {name: module for name, module in model.named_modules() if type(module) in LAYERS | PLAIN}


def quantised(model: nn.Module, ranges: Ranges | None = None) -> nn.Module:
    """A copy of `model` that runs with 8-bit weights, and with `ranges` with 8-bit activations too.

    Its parameters keep their names and their float32 values, from which every forward pass makes the rounded ones: it
    can be trained and masked as any model. `ranges` are those of `ranges_of`. ValueError where one is missing.
    """
    made = copy.deepcopy(model)
    for name, layer in layers(made).items():
        layer.__class__ = LAYERS.get(type(layer), type(layer))
        if isinstance(layer, nn.Embedding):
            continue
        if ranges is not None and name not in ranges:
            raise ValueError(f"no range for the inputs of {name}: one is needed, {', '.join(ranges)} have one")
        layer.inputs = nn.Identity() if ranges is None else Inputs(*ranges[name]).to(layer.weight.device)
        layer.inputs.train(layer.training)
    return made


@torch.no_grad()
def plain(model: nn.Module) -> nn.Module:
    """A copy of a quantised model with ordinary layers, its weights on the grid; activations are float32 there."""
    made = copy.deepcopy(model)
    for layer in layers(made).values():
        layer.weight.copy_(rounded(layer.weight))
        layer.__class__ = PLAIN.get(type(layer), type(layer))
        if hasattr(layer, "inputs"):
            del layer.inputs
    return made


@torch.no_grad()
def ranges_of(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Ranges:
    """The least and the largest value that enters each convolution and linear layer on `batches`, 0 among them.

    In evaluation mode; `model` is left as it was. ValueError without a batch.
    """
    if not batches:
        raise ValueError("no batches to calibrate with: at least one is needed")
    found: Ranges = {}

    def watch(name: str):
        def look(_, inputs: tuple[Tensor, ...]) -> None:
            low, high = found.get(name, (0.0, 0.0))
            found[name] = (min(low, inputs[0].min().item()), max(high, inputs[0].max().item()))

        return look

    watched = {name: layer for name, layer in layers(model).items() if not isinstance(layer, nn.Embedding)}
    watching = hooked(layer.register_forward_pre_hook(watch(name)) for name, layer in watched.items())
    with watching, evaluating(model):
        for x, _ in batches:
            model(x)
    return found


def calibrated(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """A copy of `model`, plain or quantised, with 8-bit weights, and 8-bit activations in the ranges of `batches`.

    The ranges are those of the network with 8-bit weights. Parameters keep their float32 values.
    """
    return quantised(model, ranges_of(quantised(model), batches))


def calibration_batches(data: Dataset, images: int, seed: int, batch: int = 256) -> list[tuple[Tensor, Tensor]]:
    """So many training images, normalised, as many of each class as of any other (one more for the first classes)."""
    share, rest = divmod(images, data.classes)
    if share < 1:
        raise ValueError(f"{images} images to calibrate with: at least one of each of {data.classes} classes is needed")
    quotas = [share + (label < rest) for label in range(data.classes)]
    generator = torch.Generator().manual_seed(seed)
    index = balanced(data.train_y.cpu(), quotas, generator).to(data.device)
    return [(normalise(data, data.train_x[part]), data.train_y[part]) for part in index.split(batch)]
