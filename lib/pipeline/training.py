"""Fine-tuning of a network between two stages: what is removed stays removed, what is rounded stays rounded."""

import copy

import torch
from torch import Tensor, nn

from lib.data import Dataset, fingerprint
from lib.masks import apply_masks_, prunable
from lib.pipeline.grids import fixed, share
from lib.pipeline.inputs import attach
from lib.pipeline.network import Network
from lib.quantise import QuantisedConv2d, QuantisedLinear
from lib.train import train


def fine_tune(
    net: Network,
    data: Dataset,
    *,
    epochs: int = 10,
    optimizer: str = "adam",
    lr: float = 1e-4,
    batch: int = 512,
    lr_schedule: str = "cosine",
    initial: nn.Module | None = None,
    **recipe,
) -> tuple[Network, list[dict]]:
    """Train a copy of `net` with its masks, grid and inputs kept; returns it and one row an epoch (see `lib.train`).

    On a grid of fixed point or 8 bits every forward pass sees the rounded weights, and the gradients go straight
    through to float32 weights behind them, which begin as those of `net` and are rounded again in the end. On a shared
    grid the codes are held and the codebooks are trained: a centroid's gradient is the sum of those of its weights (Han
    et al. 2016, arXiv 1510.00149, section 3.3).

    With `initial`, a network of the same architecture, its weights and all else of it are where training starts: that
    is training from scratch, in which a shared grid takes its codes from them. `recipe` goes to `lib.train.train`:
    seed, precision, checkpoint, on_epoch and others. ValueError for what that or `trainable` refuses.
    """
    made = trainable(net if initial is None else _begun(net, initial))
    settings = {"epochs": epochs, "optimizer": optimizer, "lr": lr, "batch": batch, "lr_schedule": lr_schedule} | recipe
    if net.grid.get("kind") == "shared" and data.device.type == "cpu":
        settings |= {"graph": False}  # a compiled sum over the weights of a code has no fixed order
    facts = {"grid": repr(net.grid), "inputs": _told(net.inputs)}
    with attach(made, net.inputs):
        rows = train(made, data, masks=net.masks, facts=facts, **settings)
    return settled(made, net), rows


def trainable(net: Network) -> nn.Module:
    """A copy of the model whose forward pass puts weights on the grid, to be trained with the masks; see `fine_tune`.

    Parameters keep their names; on a shared grid each layer has one more, `codebook`, and its weight is not trained.
    ValueError for a layer with more values than the codebook has, or one that is no ordinary convolution or linear one.
    """
    made = copy.deepcopy(net.model)
    kind = net.grid.get("kind")
    for name, layer in _layers(made).items() if kind else ():
        if type(layer) not in KINDS[kind]:
            raise ValueError(f"layer {name} is a {type(layer).__name__}: Conv2d and Linear are allowed with a grid")
        if kind == "fixed":
            layer.form = net.grid["bits"], net.grid["fraction"]
        elif kind == "shared":
            _give_codebook(name, layer, net.masks[f"{name}.weight".removeprefix(".")], 2 ** net.grid["bits"])
        layer.inputs = nn.Identity()
        layer.__class__ = KINDS[kind][type(layer)]
    return made


@torch.no_grad()
def settled(trained: nn.Module, net: Network) -> Network:
    """`net` with what `trained`, a model of `trainable`, has learned: ordinary layers, weights on the grid.

    The model is a copy, in evaluation mode. Without a training in between it is that of `net`, bit for bit; only where
    an int8 channel has lost its largest weight since it was rounded, its grid has become finer, and what is left moves
    by less than a step of it.
    """
    made = copy.deepcopy(trained).eval()
    for layer in _layers(made).values() if net.grid else ():
        weight, bias = layer.on_grid()
        layer.weight.copy_(weight).add_(0.0)  # no -0
        if bias is not None:
            layer.bias.copy_(bias)
        layer.weight.requires_grad_(True)
        layer.__class__ = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
        for added in ("inputs", "form", "codebook", "codes"):
            if hasattr(layer, added):
                delattr(layer, added)
    apply_masks_(made, net.masks)
    return net._replace(model=made)


class _Fixed:
    form: tuple[int, int]  # bits, and how many of them lie behind the point

    def on_grid(self) -> tuple[Tensor, Tensor | None]:
        return fixed(self.weight, *self.form), None if self.bias is None else fixed(self.bias, *self.form)


class _Shared:
    codebook: nn.Parameter  # (values,), float32
    codes: Tensor  # of the weight's shape, int64: a position in the codebook, or the one after it for 0

    def on_grid(self) -> tuple[Tensor, Tensor | None]:
        return _Chosen.apply(self.codebook, self.codes), self.bias


class FixedLinear(_Fixed, QuantisedLinear):
    pass


class FixedConv2d(_Fixed, QuantisedConv2d):
    pass


class SharedLinear(_Shared, QuantisedLinear):
    pass


class SharedConv2d(_Shared, QuantisedConv2d):
    pass


KINDS = {
    "fixed": {nn.Linear: FixedLinear, nn.Conv2d: FixedConv2d},
    "int8": {nn.Linear: QuantisedLinear, nn.Conv2d: QuantisedConv2d},
    "shared": {nn.Linear: SharedLinear, nn.Conv2d: SharedConv2d},
}


class _Chosen(torch.autograd.Function):
    """Values of a codebook by codes. (Indexing would do, but the order in which its gradient adds up is not fixed, and
    in float32 the sum over a million weights is not exact either.)"""

    @staticmethod
    def forward(ctx, codebook: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.values = len(codebook)
        return torch.cat([codebook, codebook.new_zeros(1)])[codes]

    @staticmethod
    def backward(ctx, pull: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        sums = torch.zeros(ctx.values + 1, dtype=torch.float64, device=pull.device)
        return sums.scatter_add_(0, codes.flatten(), pull.flatten().double())[:-1].to(pull.dtype), None


@torch.no_grad()
def _give_codebook(name: str, layer: nn.Module, mask: Tensor, most: int) -> None:
    kept = mask.to(layer.weight.device)
    values, codes = layer.weight[kept].unique(return_inverse=True)
    if len(values) > most:
        raise ValueError(f"layer {name} has {len(values)} values on a shared grid: {most} or fewer are allowed")
    if not len(values):
        values = layer.weight.new_zeros(1)  # of nothing: optimizers take no empty parameter
    chosen = torch.full_like(layer.weight, len(values), dtype=torch.int64)
    chosen[kept] = codes
    layer.weight.requires_grad_(False)
    layer.codebook = nn.Parameter(values)
    layer.register_buffer("codes", chosen, persistent=False)  # they follow from the weight and the mask


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name."""
    owners = [name.rpartition(".")[0] for name in prunable(model)]
    return {name: model.get_submodule(name) for name in owners}


def _begun(net: Network, initial: nn.Module) -> Network:
    """`net` with the weights of `initial`, and, on a shared grid only, these on the grid."""
    begun = net._replace(model=copy.deepcopy(initial))
    apply_masks_(begun.model, net.masks)
    return share(begun, net.grid["bits"]) if net.grid.get("kind") == "shared" else begun


def _told(value) -> str:
    """Nested settings in words, tensors among them by their fingerprint."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: ({_told(part)})" for name, part in value.items())
    return fingerprint([value]) if isinstance(value, Tensor) else repr(value)
