"""The fully connected networks of the pruning papers: six linear layers of width 100 with ReLU, and LeNet-300-100.

The first as `fc` in the code of Tanaka et al. 2020 (arXiv 2006.05467), with torch's own initial weights as there.
Prunable weights: 119,400 for 1x28x28, 10 classes; 348,710 parameters in all for 3x32x32. The second is of LeCun et al.
1998, with ReLU as in Han et al. 2016 (arXiv 1510.00149): 266,610 parameters for 1x28x28.
"""

from math import prod

import torch
from torch import Tensor, nn

DEPTH = 6
WIDTH = 100


class FC(nn.Module):
    """Linear layers `layers.0`, `layers.1`, ... with ReLU between them; any (C, H, W) is flattened."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def fc(shape: tuple[int, int, int], classes: int) -> FC:
    """Six linear layers, the five hidden ones of width 100."""
    return FC([prod(shape), *[WIDTH] * (DEPTH - 1), classes])


def lenet(shape: tuple[int, int, int], classes: int) -> FC:
    """Three linear layers, the hidden ones of width 300 and 100."""
    return FC([prod(shape), 300, 100, classes])
