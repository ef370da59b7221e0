"""VGG for small images: Simonyan and Zisserman 2015 (arXiv 1409.1556), configurations A, B, D and E.

Two forms of the code of Tanaka et al. 2020 (arXiv 2006.05467), whose parameter names are kept. The lottery-ticket
form (as in open_lth) ends in one linear layer: for 3x32x32 and 10 classes VGG-16 has 14,719,818 parameters, of which
14,715,584 prunable, and 313,201,664 prunable MACs; with batch norm it has 14,728,266 parameters. The Tiny-ImageNet
form ends in three linear layers with dropout. Convolutions have biases in both, also before a batch norm. The form
for ImageNet is torchvision's (`lib.models.imagenet`).
"""

import torch
from torch import Tensor, nn

from lib.models import initial

POOL = None  # in a plan, between numbers of channels
PLANS = {
    11: (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512),
    13: (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512),
    16: (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512),
    19: (64, 64, POOL, 128, 128, POOL, *(256,) * 4, POOL, *(512,) * 4, POOL, *(512,) * 4),
}
HIDDEN = 1024  # units of the two hidden linear layers of the Tiny-ImageNet form


class Convolution(nn.Module):
    """`conv` (3x3, with bias), `bn` if there is to be one, ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class VGG(nn.Module):
    """`layers.0`, ... (convolutions, and max-pools without weights), mean over what is left of the image, `fc`.

    The original averages 2x2 positions, all that four max-pools leave of 32x32. The mean over the whole image is the
    same there, and for 64x64, where the original does not run, it leaves one linear layer of 512 inputs too.
    """

    def __init__(self, plan: tuple, norm: bool, channels: int, classes: int):
        super().__init__()
        layers, inputs = [], channels
        for outputs in plan:
            layers.append(nn.MaxPool2d(2) if outputs is POOL else Convolution(inputs, outputs, norm))
            inputs = outputs or inputs
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, classes)
        initial.fan_in_(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        return self.fc(self.layers(x).mean((2, 3)))


class TinyImageNetVGG(nn.Module):
    """`features.0`, ... with a fifth max-pool, `classifier.0`, `.3` and `.6`; dropout of one half before the last two.

    The original is for 64x64, of which 2x2 positions are left (2,048 inputs of `classifier.0`); other sizes of the
    image change that number only. Linear weights are normal with standard deviation 0.01.
    """

    def __init__(self, plan: tuple, norm: bool, shape: tuple[int, int, int], classes: int):
        super().__init__()
        layers, (inputs, height, width) = [], shape
        for outputs in (*plan, POOL):
            if outputs is POOL:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            else:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *[nn.BatchNorm2d(outputs)] * norm, nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Linear(inputs * height * width, HIDDEN), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout()),
            nn.Linear(HIDDEN, classes),
        )
        initial.fan_out_(self)
        for layer in self.classifier[::3]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        return self.classifier(self.features(x).flatten(1))


def vgg(shape: tuple[int, int, int], classes: int, *, depth: int, norm: bool) -> VGG:
    """The lottery-ticket form, for images of 16x16 and more; ValueError for smaller ones."""
    check_size(shape, 16)
    return VGG(PLANS[depth], norm, shape[0], classes)


def tinyimagenet_vgg(shape: tuple[int, int, int], classes: int, *, depth: int, norm: bool) -> TinyImageNetVGG:
    """The Tiny-ImageNet form, for images of 32x32 and more; ValueError for smaller ones."""
    check_size(shape, 32)
    return TinyImageNetVGG(PLANS[depth], norm, shape, classes)


def check_size(shape: tuple[int, int, int], least: int) -> None:
    """ValueError where the image is too small: every max-pool halves it, and one position has to be left."""
    if min(shape[1:]) < least:
        raise ValueError(f"images for this VGG are {shape[1]}x{shape[2]}: {least}x{least} or more is allowed")
