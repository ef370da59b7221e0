"""What the pruners share: the weights as earlier rounds left them, gradients, and the mode of the network."""

from contextlib import contextmanager
from math import ceil

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from lib.masks import Masks, in_mode, taking_part

Batches = list[tuple[Tensor, Tensor]]

# Bytes of activations that the graph of one forward pass may keep; GraSP takes between three and four times as much.
GRAPH_BYTES = 2**29


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

    # other kernels of attention have no second derivatives, and none of single images
    with in_mode(model, training), sdpa_kernel(SDPBackend.MATH):
        yield logits


def portions(
    model: nn.Module, weights: dict[str, Tensor], batches: Batches, training: bool
) -> list[tuple[Tensor, Tensor, float]]:
    """(x, y, share of its batch's images): the batches in equal parts whose activations fit into GRAPH_BYTES.

    A batch's mean loss is the sum of share times mean loss over its parts, and so are its derivatives, as long as no
    image's output depends on the others. Where batch norm takes the statistics of the batch, batches stay whole.
    """
    if training or any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        return [(x, y, 1.0) for x, y in checked(batches)]
    image = checked(batches)[0][0][:1].clone()  # a view keeps its whole batch
    most = max(1, GRAPH_BYTES // max(1, _image_bytes(model, weights, image)))
    found = []
    for x, y in batches:
        count = ceil(len(x) / most)
        parts = zip(x.chunk(count), y.chunk(count), strict=True)
        found += [(some, labels, len(some) / len(x)) for some, labels in parts]
    return found


def _image_bytes(model: nn.Module, weights: dict[str, Tensor], image: Tensor) -> int:
    """Bytes of what the graph of a forward pass keeps for each image (1, C, H, W), weights apart."""
    constant = {_storage(tensor) for tensor in (*weights.values(), *model.parameters(), *model.buffers())}
    kept: list[Tensor] = []  # alive until all are counted, so that no address is given away twice
    with running(model, training=False) as logits, torch.autograd.graph.saved_tensors_hooks(kept.append, _never):
        logits(weights, image)
    sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for storage, size in sizes.items() if storage not in constant)


def _never(packed):
    raise RuntimeError("a graph that was only measured cannot be differentiated")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def checked(batches: Batches) -> Batches:
    """`batches` if there is one; ValueError otherwise."""
    if not batches:
        raise ValueError("no scoring batches: at least one is needed")
    return batches
