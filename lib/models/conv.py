"""The small convolutional network of the code of Tanaka et al. 2020 (arXiv 2006.05467): two convolutions, no pooling.

With torch's own initial weights as there. For 3x32x32 and 10 classes: 337,834 parameters, 337,760 of them prunable,
nearly all in the linear layer.
"""

import torch
from torch import Tensor, nn

WIDTH = 32


class Conv(nn.Module):
    """3x3 convolutions `layers.0` and `layers.1` with ReLU, then `fc` over all positions."""

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, height, width = shape
        self.layers = nn.ModuleList(nn.Conv2d(inputs, WIDTH, 3, padding=1) for inputs in (channels, WIDTH))
        self.fc = nn.Linear(WIDTH * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.fc(x.flatten(1))


def conv(shape: tuple[int, int, int], classes: int) -> Conv:
    """Two convolutions of 32 channels and a linear layer."""
    return Conv(shape, classes)
