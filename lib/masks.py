"""Masks: plain dicts of bool tensors keyed by parameter name, True where a weight is kept.

The names in a dict of masks say what takes part in pruning: by default the weights of convolution and linear layers,
see `prunable`. What they do not name is dense: scoring, ranking, applying, counting and tables leave it alone.
"""

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from lib.data.dataset import blank
from lib.hooks import hooked
from lib.layer_tables import histogram_rows as histogram_rows
from lib.layer_tables import layer_rows as layer_rows
from lib.ranking import Masks as Masks
from lib.ranking import Scores as Scores
from lib.ranking import check_density as check_density
from lib.ranking import keep_top as keep_top
from lib.ranking import kept_count as kept_count

ALSO = ("biases", "norms", "embeddings")
SPARE = ("shortcuts", "last")
SHORTCUT = re.compile(r"(^|\.)(shortcut|downsample)\.")  # the name in our networks, and in torchvision's


def prunable(model: nn.Module, also: Collection[str] = (), spare: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """The parameters that may be pruned, by name, in the model's order: weights of convolution and linear layers.

    `also` adds `biases`, those of convolution and linear layers, `norms`, scale and shift of batch norms (the
    original prunes the shifts only where both are asked for), and `embeddings`, the weights of those. `spare` leaves
    out `shortcuts`, whatever lies on the projection of a residual block, and `last`, the last convolution or linear
    layer: the classifier. A word for something that the model does not have changes nothing. ValueError for an unknown
    word.
    """
    _check_words("also", also, ALSO)
    _check_words("spare", spare, SPARE)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    spared = {f"{name}." for name in layers[-1:]} if "last" in spare else set()
    found = {}
    for name, module in model.named_modules():
        for part in _parts(module, also):
            parameter, value = f"{name}.{part}".removeprefix("."), getattr(module, part)  # a model may be one layer
            out = f"{name}." in spared or ("shortcuts" in spare and SHORTCUT.search(parameter))
            if value is not None and not out:
                found[parameter] = value
    return found


def _parts(module: nn.Module, also: Collection[str]) -> tuple[str, ...]:
    if isinstance(module, nn.Conv2d | nn.Linear):
        return ("weight", "bias") if "biases" in also else ("weight",)
    if isinstance(module, nn.Embedding) and "embeddings" in also:
        return ("weight",)
    return ("weight", "bias") if isinstance(module, _BatchNorm) and "norms" in also else ()


def _check_words(what: str, words: Collection[str], allowed: tuple[str, ...]) -> None:
    if isinstance(words, str) or not set(words) <= set(allowed):
        raise ValueError(f"{what} is {words!r}: a list of some of {', '.join(allowed)} is allowed, or an empty one")


def taking_part(model: nn.Module, masks: Masks | None = None) -> dict[str, nn.Parameter]:
    """The parameters that `masks` name, in their order; without masks those of `prunable(model)`."""
    return prunable(model) if masks is None else {name: model.get_parameter(name) for name in masks}


def full(model: nn.Module, also: Collection[str] = (), spare: Collection[str] = ()) -> Masks:
    """Masks that keep everything that is prunable."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model, also, spare).items()}


def density_of(masks: Masks) -> float:
    """Share of the weights that take part which is kept, in [0, 1]."""
    return sum(int(mask.count_nonzero()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def check_kept(masks: Masks, density: float, tolerance: float = 0.01) -> None:
    """ValueError if masks made elsewhere keep another share than `density`, by more than `tolerance` of it."""
    found = density_of(masks)
    if abs(found - density) > tolerance * density:
        raise ValueError(f"density is {density:g} and the masks keep {found:.4g}: the same share is needed")


def multipliers(model: nn.Module, masks: Masks) -> tuple[list[nn.Parameter], list[Tensor]]:
    """The masked weights and, of the same type, device and memory layout, their masks as 0 and 1.

    ValueError when a mask fits nothing that could be pruned.
    """
    weights = prunable(model, ALSO)
    for name, mask in masks.items():
        if name not in weights or mask.shape != weights[name].shape or mask.dtype != torch.bool:
            allowed = tuple(weights[name].shape) if name in weights else f"one of {', '.join(weights)}"
            raise ValueError(f"mask {name} is {tuple(mask.shape)} {mask.dtype}: bool, {allowed} is allowed")
    masked = [weights[name] for name in masks]
    with torch.no_grad():
        return masked, [torch.empty_like(w).copy_(masks[name]) for name, w in zip(masks, masked, strict=True)]


@torch.no_grad()
def apply_masks_(model: nn.Module, masks: Masks) -> None:
    """Set the removed weights to zero in place; no masks remove nothing.

    Training prepares `multipliers` once and repeats the product.
    """
    weights, factors = multipliers(model, masks)
    if weights:  # torch refuses empty lists
        torch._foreach_mul_(weights, factors)
        torch._foreach_add_(weights, 0.0)  # -0 becomes 0: a random bit for each zero would cost a file its compression


def masked_forward(model: nn.Module, masks: Masks) -> Callable[[Tensor], Tensor]:
    """A function x -> logits that multiplies weights by masks at every call, the model's weights staying dense.

    This is how the reference applies masks; here it serves timing and tests. Gradients reach the weights.
    """
    weights, factors = multipliers(model, masks)
    masked = list(zip(masks, weights, factors, strict=True))

    def forward(x: Tensor) -> Tensor:
        return functional_call(model, {name: weight * factor for name, weight, factor in masked}, (x,))

    return forward


def collapsed(model: nn.Module, masks: Masks, shape: tuple[int, ...]) -> dict:
    """`{"layers": names without a kept weight, "connected": whether any input still reaches an output}`.

    A collapse is a result to be reported, not an error. Connection is a matter of the masks alone: a copy of
    the model in which each unit is the mean of its kept inputs, without biases and with neutral normalisation,
    maps an image of ones to something above zero exactly when a path is left. (Float64: a path through 100
    layers that keeps one weight of 1,000 in each still gives 1e-300.) Layers without a mask are dense; a batch norm's
    removed scale cuts its channel, and one without any is among the layers; biases carry no input and do not count. A
    text enters by what is left of the embedding of any word.
    """
    weights = {name: mask for name, mask in masks.items() if name.endswith(".weight")}
    empty = [name.removesuffix(".weight") for name, mask in weights.items() if not mask.any()]
    state = {name: _neutral(name, tensor) for name, tensor in model.state_dict().items()}
    state |= {name: mask.to(torch.float64) for name, mask in weights.items()}
    for name in prunable(model):
        kept = state[name]
        inputs = kept.flatten(1).sum(1).clamp(min=1).view(-1, *[1] * (kept.ndim - 1))
        state[name] = kept / inputs
    for name in set(prunable(model, ["embeddings"])) - set(prunable(model)):
        state[name] = state[name].any(0).double().expand(state[name].shape)
    device = next(model.parameters()).device
    ones = torch.ones(1, *shape, dtype=torch.float64, device=device) if len(shape) == 3 else blank(shape, device=device)
    with torch.no_grad(), evaluating(model), _layer_norms_left_out(model):
        output = functional_call(model, state, (ones,))
    return {"layers": empty, "connected": bool((output > 0).any())}


def _neutral(name: str, tensor: Tensor) -> Tensor:
    """What a parameter or buffer is replaced by when only the masks are to matter (those of weights come later)."""
    if not tensor.is_floating_point():
        return tensor
    zero = name.rsplit(".", 1)[-1] in ("bias", "running_mean", "positions")
    return torch.full_like(tensor, 0 if zero else 1, dtype=torch.float64)


def _layer_norms_left_out(model: nn.Module) -> AbstractContextManager[None]:
    """Inside the `with` they return what they get: of equal numbers they would make zeros."""
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    return hooked(norm.register_forward_hook(lambda norm, inputs, output: inputs[0]) for norm in norms)


@contextmanager
def in_mode(model: nn.Module, training: bool):
    """Training or evaluation mode inside the `with`; the mode of every single module is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, before in modes:
            module.training = before


def evaluating(model: nn.Module):
    """Evaluation mode inside the `with`; the mode of every single module is restored after it."""
    return in_mode(model, training=False)
