"""What the pruners share: the weights as earlier rounds left them, gradients, and the mode of the network."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib.masks import Masks, in_mode, taking_part

Batches = list[tuple[Tensor, Tensor]]


def effective(model: nn.Module, masks: Masks | None, grad: bool = False) -> dict[str, Tensor]:
    """Detached copies of what takes part, masked; leaves of a graph of their own with `grad`."""
    weights = {name: weight.detach().clone() for name, weight in taking_part(model, masks).items()}
    if masks is not None:
        weights = {name: weight.mul_(masks[name]) for name, weight in weights.items()}
    return {name: weight.requires_grad_(grad) for name, weight in weights.items()}


def gradients(value: Tensor, weights: dict[str, Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """d value / d weights; zeros for a weight that the value does not depend on."""
    return torch.autograd.grad(value, list(weights.values()), create_graph=create_graph, materialize_grads=True)


@contextmanager
def running(model: nn.Module, training: bool):
    """Yield a function (weights, x) -> logits in evaluation or training mode, the latter on copies of the buffers."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()} if training else {}

    def logits(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, buffers | weights, (x,))

    with in_mode(model, training):
        yield logits


def checked(batches: Batches) -> Batches:
    """`batches` if there is one; ValueError otherwise."""
    if not batches:
        raise ValueError("no scoring batches: at least one is needed")
    return batches
