"""ResNet-18 to ResNet-152 for small images: He et al. 2016 (arXiv 1512.03385), table 1, with another stem.

As `tinyimagenet_resnet` in the code of Tanaka et al. 2020 (arXiv 2006.05467), whose parameter names are kept: the
first convolution is 3x3 with stride 1 and no max-pool follows, so that 32x32 and 64x64 images enter the four stages
whole. A bottleneck has its stride in the 3x3 convolution, as torchvision's; the wide ones (Zagoruyko and Komodakis
2016, arXiv 1605.07146) have twice the channels there. Kaiming-normal convolutions (fan-out), torch's own linear
layer. ResNet-50 for 3x32x32 and 10 classes: 23,520,842 parameters, of which 23,467,712 prunable, and 1,297,829,888
prunable MACs. (The original counts 23,532,106 parameters: 11,264 of them are constant ones in its identity
shortcuts, which carry no weights here. Its wide ResNet-18 and 34 are no wider than the plain ones.)
"""

import torch
from torch import Tensor, nn

from lib.models import initial

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STEM = 64  # channels of the first convolution, and of the first stage before expansion
EXPANSION = 4  # of the channels at the end of a bottleneck


class Residual(nn.Module):
    """`residual_function` beside `shortcut`, which is a 1x1 convolution with batch norm where the shape changes."""

    def __init__(self, layers: list[nn.Module], inputs: int, outputs: int, stride: int):
        super().__init__()
        self.residual_function = nn.Sequential(*layers)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*_convolution(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual_function(x) + self.shortcut(x))


class SmallImageResNet(nn.Module):
    """`conv1`, `conv2_x` to `conv5_x`, mean over the image, `fc`."""

    def __init__(self, depth: int, channels: int, classes: int, widening: int = 1):
        super().__init__()
        self.conv1 = nn.Sequential(*_convolution(channels, STEM, 3), nn.ReLU())
        inputs = STEM
        for stage, count in enumerate(BLOCKS[depth]):
            base, blocks = STEM * 2**stage, []
            for position in range(count):
                stride = 2 if stage and not position else 1
                blocks.append(basic(inputs, base, stride) if depth < 50 else bottleneck(inputs, base, stride, widening))
                inputs = base if depth < 50 else EXPANSION * base
            self.add_module(f"conv{stage + 2}_x", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)
        initial.fan_out_(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = self.conv3_x(self.conv2_x(self.conv1(x)))
        return self.fc(self.conv5_x(self.conv4_x(x)).mean((2, 3)))


def resnet(shape: tuple[int, int, int], classes: int, *, depth: int, widening: int = 1) -> SmallImageResNet:
    """The network of this depth, a key of BLOCKS; `widening` multiplies the inner channels of its bottlenecks."""
    return SmallImageResNet(depth, shape[0], classes, widening)


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the image's size but for its stride, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def basic(inputs: int, outputs: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    layers = [*_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs, 3)]
    return Residual(layers, inputs, outputs, stride)


def bottleneck(inputs: int, base: int, stride: int, widening: int) -> Residual:
    """1x1, 3x3 and 1x1 convolutions with `widening` x `base` channels inside and EXPANSION x `base` after."""
    inner, outputs = widening * base, EXPANSION * base
    layers = [
        *(*_convolution(inputs, inner, 1), nn.ReLU()),
        *(*_convolution(inner, inner, 3, stride), nn.ReLU()),
        *_convolution(inner, outputs, 1),
    ]
    return Residual(layers, inputs, outputs, stride)
