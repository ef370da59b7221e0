"""The CIFAR ResNets: He et al. 2016 (arXiv 1512.03385), section 4.2, depth 6n + 2.

As in the lottery-ticket code (open_lth) and in the code of Tanaka et al. 2020 (arXiv 2006.05467), whose
parameter names are kept: shortcuts that change the shape are a 1x1 convolution of stride 2 with batch norm
(option B), the others carry no weights; Kaiming-normal weights (fan-in), zero biases. ResNet-20 for 3x32x32 and
10 classes: 272,474 parameters, of which 270,896 prunable. The code's wide networks have width 32.
"""

import torch
from torch import Tensor, nn

from lib import catalog
from lib.models import initial


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """`conv`, `bn`, `blocks.0` to `blocks.3n-1`, mean over the image, `fc`.

    The three stages have `width`, 2 `width` and 4 `width` channels; each but the first halves the image.
    """

    def __init__(self, depth: int, channels: int, classes: int, width: int = 16):
        super().__init__()
        catalog.check_cifar_resnet(depth, width)
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks, inputs = [], width
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            for position in range((depth - 2) // 6):
                blocks.append(Block(inputs, outputs, stride=2 if stage and not position else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)
        initial.fan_in_(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(self.blocks(x).mean((2, 3)))


def resnet(shape: tuple[int, int, int], classes: int, *, depth: int, width: int = 16) -> ResNet:
    """The CIFAR ResNet of this depth, its first stage of this width; ValueError for impossible ones."""
    return ResNet(depth, shape[0], classes, width)
