"""MNIST in colour: the strokes of each digit have one of ten colours, on black."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.data.dataset import Dataset, assemble
from lib.data.handwritten import digits, mnist

# Red, green and blue. One of them is always 255, so that the brightest channel of an image is the grey one.
COLOURS = {
    "red": (255, 0, 0), "orange": (255, 128, 0), "yellow": (255, 255, 0), "green": (0, 255, 0), "cyan": (0, 255, 255),
    "azure": (0, 128, 255), "blue": (0, 0, 255), "violet": (128, 0, 255), "magenta": (255, 0, 255),
    "white": (255, 255, 255),
}  # fmt: skip
CHUNK = 4096  # images that are coloured at a time


def coloured(*, of: str, percent: int = 0, size: int = 28, seed: int = 0) -> Dataset:
    """The data set `of` (`digits` or `mnist`) with three channels, resized to `size` x `size` pixels.

    In `percent` of the images, chosen at random, the colour is that of the class, the first colour of class 0; in all
    others it is any of the ten with equal chances. So `percent` / 100 is the correlation of colour and class (Cramer's
    V, for classes of equal size), and 0 draws a colour for each image. Training and test images follow the same rule,
    each by draws of their own of `seed`. Not augmented.
    """
    data = {"digits": digits, "mnist": mnist}[of]()
    generator = torch.Generator().manual_seed(seed)
    images = {
        split: painted(resized(x, size), drawn(y, percent / 100, generator))
        for split, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y))
    }
    name = f"{of}-colour" + (f"-{percent}" if percent else "") + (f"-{size}x{size}" if size != 28 else "")
    rule = f"that of its class in {percent} % of the images and else " if percent else ""
    said = f" Resized to {size} x {size} pixels." if size != 28 else ""
    return assemble(
        name,
        *(images["train"], data.train_y, images["test"], data.test_y),
        source=f"{data.info['source']}{said} The strokes of a digit have a colour, {rule}one of ten at random "
        f"(correlation of colour and class {percent / 100:g}, seed {seed}).",
        classes=data.classes,
        facts={key: data.info[key] for key in ("altered_train", "altered_test", "original")},
    )


def drawn(labels: Tensor, correlation: float, generator: torch.Generator) -> Tensor:
    """A colour (N,), 0 to 9, for each of these classes: with probability `correlation` the class, else any."""
    any_colour = torch.randint(len(COLOURS), labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < correlation, labels, any_colour)


def painted(images: Tensor, colours: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) and colours (N,) to uint8 (N, 3, H, W), the brightest channel that of the grey image."""
    palette = torch.tensor(list(COLOURS.values()), dtype=torch.int32)
    found = images.new_empty(len(images), 3, *images.shape[2:])
    for part, some, chosen in zip(found.split(CHUNK), images.split(CHUNK), colours.split(CHUNK), strict=True):
        part.copy_((some * palette[chosen][:, :, None, None] + 127) // 255)
    return found


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 (N, 1, H, W) to `size` x `size` pixels, bilinear."""
    if images.shape[-2:] == (size, size):
        return images
    resize = partial(F.interpolate, size=(size, size), mode="bilinear", antialias=True)
    return torch.cat([resize(some.float()).round_().clamp_(0, 255).byte() for some in images.split(CHUNK)])
