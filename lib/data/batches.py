"""From stored images to what a network sees: normalised, augmented, drawn for scoring."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.data.dataset import Dataset
from lib.data.sampling import balanced

PAD = 4  # pixels of zero padding around an image before it is cropped at random


def normalise(data: Dataset, images: Tensor) -> Tensor:
    """uint8 images (N x C x H x W) to float32 with the data set's mean and standard deviation per channel.

    Of images larger than `data.shape`, the centre of that size. The word numbers of texts (N x L) become int64.
    """
    if data.words:
        return images.long()
    scale, shift = _normalisation(data.mean, data.std, images.device)
    return centre(images, *data.shape[1:]).to(torch.float32).mul_(scale).sub_(shift)


def centre(images: Tensor, height: int, width: int) -> Tensor:
    """The middle (N x C x `height` x `width`) of images, which themselves come back if they are no larger."""
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    if top <= 0 and left <= 0:
        return images
    return images[:, :, top : top + height, left : left + width]


@cache  # a copy to a GPU in every step would make the host wait for it
def _normalisation(mean: tuple, std: tuple, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and subtrahend per channel (C x 1 x 1) for pixels from 0 to 255."""
    mean = torch.tensor(mean, device=device).view(-1, 1, 1)
    std = torch.tensor(std, device=device).view(-1, 1, 1)
    return 1 / (255 * std), mean / std


def augment(images: Tensor, generator: torch.Generator, size: tuple[int, int] | None = None) -> Tensor:
    """A random crop of `size` (height, width), and a flip left to right of every second image on average.

    Without `size`, or with the images' own, they are padded by 4 black pixels on each side first, as in the code
    of Tanaka et al. 2020 for 32 and 64 pixels. Larger images are cropped as they are: 224 of 256 pixels, as in
    Krizhevsky et al. 2012, where that code resizes a random part and changes colours too.

    uint8 (N x C x H x W) in, uint8 (N x C x `size`) out. `generator` must be on the images' device. One gather
    for the batch; its result lies channels-last in memory, which convolutions like.
    """
    count, _, *whole = images.shape
    height, width = size or whole
    pad = PAD if [height, width] == whole else 0
    draw = {"generator": generator, "device": images.device}
    top = torch.randint(0, whole[0] + 2 * pad - height + 1, (count, 1), **draw)
    left = torch.randint(0, whole[1] + 2 * pad - width + 1, (count, 1), **draw)
    flip = torch.randint(0, 2, (count, 1), **draw)
    rows = top + torch.arange(height, device=images.device)  # (N, H)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(flip == 1, width - 1 - columns, columns)  # (N, W)
    padded = F.pad(images, (pad,) * 4).permute(0, 2, 3, 1)  # (N, H + 8, W + 8, C)
    image = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def scoring_batches(data: Dataset, per_class: int = 10, seed: int = 0, batch: int = 256) -> list[tuple[Tensor, Tensor]]:
    """Class-balanced training images for scoring weights: [(x float32 normalised, y), ...], not augmented.

    `per_class` images of each class, drawn and shuffled by `seed`, in batches of at most `batch`. 4 bytes a value:
    12 MB for CIFAR-100, 6 GB for the thousand classes of ImageNet.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: 1 or more is allowed")
    generator = torch.Generator().manual_seed(seed)
    index = balanced(data.train_y.cpu(), [per_class] * data.classes, generator)
    index = index[torch.randperm(len(index), generator=generator)].to(data.device)
    return [(normalise(data, data.train_x[part]), data.train_y[part]) for part in index.split(batch)]
