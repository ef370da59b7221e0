"""Convolutions over maps of a few pixels as matrix products, in mixed precision on a CPU with matrix units (AMX).

There oneDNN's kernels go along the rows of a map, and those of 2 or 4 pixels leave the units idle: forward and backward
of a layer of VGG-16 on 2 x 2 pixels take 0.2 of the time as a matrix product, on 4 x 4 0.5, on 8 x 8 it would be 2.2
times as long (512 and 256 channels, 64 images, one core). Elsewhere nothing is changed.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

PIXELS = 16  # of the largest map
CHANNELS = 64  # of the narrowest input: a product of fewer columns gains nothing


def faster(device: torch.device, precision: str) -> AbstractContextManager:
    """Inside the `with`, `conv2d` is a matrix product where that is faster; for other precisions nothing happens."""
    return Products() if precision == "amp" and device.type == "cpu" and has_matrix_units() else nullcontext()


def has_matrix_units() -> bool:
    """Whether this processor multiplies tiles of bfloat16 matrices."""
    return torch.cpu._is_amx_tile_supported()


class Products(TorchFunctionMode):
    """Calls of `conv2d` with 3 x 3 kernels, stride 1 and padding 1 on small maps go to `product`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d and _small(*args, **kwargs):
            return product(*args[:3])
        return function(*args, **kwargs)


def _small(x=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1, **named) -> bool:
    """Whether these arguments of conv2d are those of a 3 x 3 convolution that leaves a small map as large as it is."""
    if named or x is None or weight is None or x.ndim != 4:
        return False
    shape = (_pair(stride), _pair(padding), _pair(dilation), groups, tuple(weight.shape[2:]))
    fits = shape == ((1, 1), (1, 1), (1, 1), 1, (3, 3))
    return fits and x.shape[1] >= CHANNELS and x.shape[2] * x.shape[3] <= PIXELS


def _pair(value) -> tuple:
    return (value, value) if isinstance(value, int) else tuple(value)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d(x, weight, bias, padding=1)` of 3 x 3 kernels, (N, C, H, W) to (N, O, H, W) in memory channels-last."""
    images, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, H + 2, W + 2, C)
    seen = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    columns = torch.cat(seen, 3).view(images * height * width, 9 * channels)
    kernels = weight.permute(2, 3, 1, 0).reshape(9 * channels, -1)  # (9 C, O)
    found = columns @ kernels if bias is None else torch.addmm(bias, columns, kernels)
    return found.view(images, height, width, -1).permute(0, 3, 1, 2)
