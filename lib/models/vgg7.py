"""The VGG of seven convolutions and linear layers that the MASE tool-flow compresses (arXiv 2307.15517).

For 3x32x32 and 10 classes 14,029,450 parameters, 14,022,016 of them prunable, two thirds of these in the linear layers.
torch's own initial weights.
"""

import torch
from torch import Tensor, nn

from lib.models.vgg import POOL, Convolution, check_size

PLAN = (128, 128, POOL, 256, 256, POOL, 512, 512, POOL)
HIDDEN = 1024  # units of each of the two hidden linear layers


class VGG7(nn.Module):
    """`layers.0`, ... (3x3 convolutions with bias and batch norm, ReLU; max-pools), then `linear.0` to `linear.2`."""

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        layers, (inputs, height, width) = [], shape
        for outputs in PLAN:
            layers.append(nn.MaxPool2d(2) if outputs is POOL else Convolution(inputs, outputs, norm=True))
            inputs = outputs or inputs
        halved = PLAN.count(POOL)
        sizes = [inputs * (height >> halved) * (width >> halved), HIDDEN, HIDDEN, classes]
        self.layers = nn.Sequential(*layers)
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = self.layers(x).flatten(1)
        for layer in self.linear[:-1]:
            x = torch.relu(layer(x))
        return self.linear[-1](x)


def vgg7(shape: tuple[int, int, int], classes: int) -> VGG7:
    """For images of 8x8 and more, whose size decides the inputs of the first linear layer (8,192 for 32x32).

    ValueError for smaller ones.
    """
    check_size(shape, 8)
    return VGG7(shape, classes)
