"""Multiply-accumulates (MACs) of one image over the weights of convolution and linear layers: exact integers.

A weight is used once at every output position of its layer, so a layer costs weights x positions, and under a
mask kept weights x positions. The latter is *theoretical*: dense kernels multiply the zeros too. One MAC is two
floating-point operations. Biases, batch norm and activations are not counted.
"""

import copy

import torch
from torch import Tensor, nn

from lib.data.dataset import blank


def positions(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Parameter name -> number of output positions at which each of its weights is used, for one input of `shape`.

    Height x width of the output for a convolution, 1 for a linear layer, or as many as there are words where it is
    used on each. Found by sending one black image, or the longest text, through a copy of the model, which itself is
    not touched. (Not on the meta device: the first batch norm there imports for 6 s.)
    """
    tensors = [*model.parameters(), *model.buffers()]  # shared with the copy: evaluation writes to none
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
    found: dict[str, int] = {}

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        width = layer.weight.shape[0]  # output channels or features
        found[name] = found.get(name, 0) + output.numel() // width

    for name, layer in copied.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, _, output, name=name: count(f"{name}.weight", layer, output))
            found[f"{name}.weight"] = 0
    with torch.no_grad():
        first = next(model.parameters())
        image = blank(shape, device=first.device)
        copied(image.to(first.dtype) if image.is_floating_point() else image)
    return found


def macs(model: nn.Module, shape: tuple[int, ...], masks: dict[str, Tensor] | None = None) -> dict[str, int]:
    """`{"macs_dense": ..., "macs_kept": ...}` of one input of `shape`: the whole network.

    A layer without a mask counts as dense, so without masks both are equal. (The sums over `layer_rows` are those of
    the masked layers alone.)
    """
    used = positions(model, shape)
    dense = {name: model.get_parameter(name).numel() for name in used}
    kept = dense | {name: int(mask.count_nonzero()) for name, mask in (masks or {}).items()}
    return {
        "macs_dense": sum(dense[name] * used[name] for name in used),
        "macs_kept": sum(kept[name] * used[name] for name in used),
    }
