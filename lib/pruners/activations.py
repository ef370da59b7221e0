"""Pruners that look at the inputs which weights meet."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.hooks import hooked
from lib.masks import Masks, Scores
from lib.pruners.common import Batches, checked, effective, running


@torch.no_grad()
def wanda(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w| times the norm of what it is multiplied by: Wanda, Sun et al. 2023 (arXiv 2306.11695), equation 1.

    The norm is over all inputs of the batches and all positions in them. The paper has linear layers, each input
    feature with its norm, and compares the weights of one output: that is scope `output`; global and layer are ours.
    So are the other kinds of weights, by the same rule: those of a convolution go with the norm of their input channel,
    an embedding with the root of how often its word occurs, biases and shifts with that of a constant 1, scales with
    that of the normalised channel. Where a text has ended nothing is counted. Meant for trained weights.

    ValueError for a weight of a layer that the model does not call, and so has no input that could be seen.
    """
    weights = effective(model, masks)
    squares: dict[str, Tensor] = {}
    seen = {"texts": None}  # the batch that is going through, if it is one of texts
    owned: dict[str, list[str]] = {}
    for owner, _, part in (name.rpartition(".") for name in weights):
        if part in ("weight", "bias"):
            owned.setdefault(owner, []).append(part)
    adding = hooked(
        model.get_submodule(owner).register_forward_hook(partial(_add, squares, seen, owner, parts))
        for owner, parts in owned.items()
    )
    with adding, running(model, training) as logits:
        for x, _ in checked(batches):
            seen["texts"] = None if x.is_floating_point() else x
            logits(weights, x)
    unseen = [name for name in weights if name not in squares]
    if unseen:
        raise ValueError(f"pruner wanda sees no input of {unseen[0]}: only layers that the model calls are allowed")
    return {name: weight.abs_().mul_(squares[name].sqrt()) for name, weight in weights.items()}


def _add(squares: dict, seen: dict, owner: str, parts: list[str], layer: nn.Module, inputs: tuple, output: Tensor):
    """Add up the squares that the parameters of a layer meet in one batch."""
    x, texts = inputs[0], seen["texts"]
    there = texts > 0 if texts is not None and texts.shape == x.shape[:2] else None
    for part in parts:
        if part == "bias":
            found = output.new_tensor(output.numel() // len(layer.bias) if there is None else int(there.sum()))
        else:
            found = _squares(layer, x, there)
        name = f"{owner}.{part}"
        squares[name] = squares[name] + found if name in squares else found


def _squares(layer: nn.Module, x: Tensor, there: Tensor | None) -> Tensor:
    """The summed squares of what each weight of the layer meets, in a shape that fits those of the weights."""
    if isinstance(layer, nn.Embedding):
        words = x if there is None else x[there]
        return torch.bincount(words.flatten(), minlength=len(layer.weight)).to(layer.weight.dtype)[:, None]
    if isinstance(layer, nn.Linear):
        if there is not None:
            x = x[there]
        return torch.linalg.vector_norm(x.reshape(-1, x.shape[-1]), dim=0).square()
    if isinstance(layer, nn.Conv2d):
        channels = torch.linalg.vector_norm(x, dim=(0, 2, 3)).square().view(layer.groups, -1)
        return channels.repeat_interleave(len(layer.weight) // layer.groups, dim=0)[:, :, None, None]
    own = layer.training or layer.running_mean is None  # batch norm takes the statistics of the batch
    statistics = (None, None) if own else (layer.running_mean, layer.running_var)
    x = F.batch_norm(x, *statistics, training=own, eps=layer.eps)
    return torch.linalg.vector_norm(x, dim=[d for d in range(x.ndim) if d != 1]).square()
