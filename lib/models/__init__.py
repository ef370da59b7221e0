"""Networks as plain `nn.Module`s: a constructor takes (shape, classes), where shape is (C, H, W).

To add one, write such a constructor and its line in `lib.catalog.MODELS`; the tests run over that table.
"""

import torch
from torch import nn

from lib import catalog
from lib.models import imagenet


def build(
    name: str, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10, seed: int = 0, *, pretrained: bool = False
) -> nn.Module:
    """The network called `name` for inputs of `shape`, its initial weights decided by `seed` alone.

    Images are (C, H, W), texts (length, words). On the CPU, so that the same seed gives the same weights on every
    device; torch's global generator is left as it was. Convolution weights lie channels-last in memory: a training
    step of ResNet-20 (batch 256, float32) then takes 0.8 of the time on a CPU. With `pretrained` the weights are those
    that torchvision has trained on ImageNet; only a last layer of another number of classes is drawn by the seed.

    ValueError for an unknown name, a shape that the network is not for, or `pretrained` without such weights;
    FileNotFoundError where they cannot be downloaded.
    """
    constructor = catalog.load("model", name)
    if len(shape) == 2 and not catalog.takes_texts(name):
        raise ValueError(f"model {name} with texts: transformer and mlp-HxW are allowed, the others take images")
    weights = imagenet.pretrained(name) if pretrained else None
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model = constructor(tuple(shape), classes)
    if weights is not None:
        imagenet.load_(model, weights)
    return model.to(memory_format=torch.channels_last)
