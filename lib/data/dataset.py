"""What a data set is, and how one is made of tensors or arrays."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

UNKNOWN = {"altered_train": None, "altered_test": None, "original": None}  # nothing to compare the files with
CHUNK = 1024  # images whose pixels are counted at a time


@dataclass(frozen=True)
class Dataset:
    """Images (uint8, N x C x H x W) and labels (int64, N) of both splits, with how to normalise them.

    Training images may be larger than test images. A network then sees a random crop of them in training, and
    their centre wherever nothing is augmented.

    Texts stand in the place of images as numbers of words (int32, N x L, 0 where a text has ended); then `words` says
    how many numbers there are, 0 included.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    mean: tuple  # per channel, of pixels scaled to [0, 1]
    std: tuple
    augment: bool  # random crop and flip while training
    info: dict = field(repr=False)  # plain JSON for the run: counts, classes, fingerprint, source, altered images
    words: int = 0  # of a vocabulary; 0 for images

    @property
    def shape(self) -> tuple[int, ...]:
        """What one input is to a network: (channels, height, width) of an image, (length, words) of a text."""
        return (self.test_x.shape[1], self.words) if self.words else tuple(self.test_x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the images are, and therefore where training happens."""
        return self.train_x.device


def blank(shape: tuple[int, ...], count: int = 1, device="cpu") -> Tensor:
    """`count` inputs of a data set's `shape` that say nothing, as a network takes them: black images (float32), or
    texts as long as they may be, of unknown words.
    """
    if len(shape) == 2:
        return torch.ones(count, shape[0], dtype=torch.int64, device=device)
    return torch.zeros(count, *shape, device=device)


def assemble(
    name: str,
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    source: str,
    classes: int | None = None,
    statistics: tuple[tuple, tuple] | None = None,
    augment: bool = False,
    facts: dict | None = None,
) -> Dataset:
    """A data set of tensors or arrays: uint8 images (N x C x H x W), and labels from 0 on (N, integers).

    `source` is a sentence for reports and ends with a full stop. Without `classes` there are as many as the
    highest label says, and without `statistics` (mean and standard deviation per channel of pixels scaled to
    [0, 1]) the training images are measured. `augment` is for images that may be cropped and flipped. `facts` go
    into `info` as they are. ValueError for images and labels that do not fit together.
    """
    tensors = [torch.as_tensor(values) for values in (train_x, train_y, test_x, test_y)]
    _check_counts(name, tensors, "images")
    _check_images(name, tensors[0], tensors[2])
    classes = classes or int(tensors[1].max()) + 1
    _check_labels(name, tensors, classes)
    tensors = [tensors[0], tensors[1].long(), tensors[2], tensors[3].long()]
    info = _info(name, tensors, classes, source, facts)
    mean, std = statistics or measured(tensors[0])
    return Dataset(name, *tensors, classes=classes, mean=mean, std=std, augment=augment, info=info)


def assemble_texts(
    name: str, train_x, train_y, test_x, test_y, *, words: int, classes: int, source: str, facts: dict | None = None
) -> Dataset:
    """A data set of texts: integers (N, L) from 0, where a text has ended, to `words` - 1; labels as for `assemble`.

    `source` and `facts` as there. ValueError for numbers outside that, or texts of two lengths.
    """
    tensors = [torch.as_tensor(values) for values in (train_x, train_y, test_x, test_y)]
    _check_counts(name, tensors, "texts")
    for texts in tensors[::2]:
        allowed = f"integers (N, L) from 0 to {words - 1}, of one L, with N > 0, are allowed"
        if texts.ndim != 2 or 0 in texts.shape or texts.is_floating_point() or texts.shape[1] != tensors[0].shape[1]:
            raise ValueError(f"{name}: texts are {tuple(texts.shape)} {texts.dtype}: {allowed}")
        if int(texts.min()) < 0 or int(texts.max()) >= words:
            raise ValueError(f"{name}: texts have numbers from {int(texts.min())} to {int(texts.max())}: {allowed}")
    _check_labels(name, tensors, classes)
    tensors = [tensors[0].int(), tensors[1].long(), tensors[2].int(), tensors[3].long()]
    info = _info(name, tensors, classes, source, facts)
    return Dataset(name, *tensors, classes=classes, mean=(), std=(), augment=False, info=info, words=words)


def _check_counts(name: str, tensors: list[Tensor], what: str) -> None:
    if len(tensors[0]) != len(tensors[1]) or len(tensors[2]) != len(tensors[3]):
        raise ValueError(f"{name}: the numbers of {what} and labels differ: {[len(t) for t in tensors]}")


def _info(name: str, tensors: list[Tensor], classes: int, source: str, facts: dict | None) -> dict:
    """What `Dataset.info` says."""
    facts = UNKNOWN | (facts or {})
    counts = {"train_images": len(tensors[0]), "test_images": len(tensors[2]), "classes": classes}
    made = {"fingerprint": facts.get("fingerprint") or fingerprint(tensors), "source": source}
    return {"name": name} | counts | made | facts


def _check_images(name: str, train: Tensor, test: Tensor) -> None:
    for images in (train, test):
        if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape or len(images[0]) != len(train[0]):
            raise ValueError(
                f"{name}: images are {tuple(images.shape)} {images.dtype}: uint8 (N, C, H, W) with N > 0 and the "
                f"same C in both splits is allowed"
            )
    if any(a < b for a, b in zip(train.shape[2:], test.shape[2:], strict=True)):
        raise ValueError(
            f"{name}: training images of {tuple(train.shape[2:])} pixels and test images of "
            f"{tuple(test.shape[2:])}: no smaller ones are allowed in training"
        )


def _check_labels(name: str, tensors: list[Tensor], classes: int) -> None:
    for split, labels in (("training", tensors[1]), ("test", tensors[3])):
        if labels.dtype == torch.bool or labels.is_floating_point() or labels.ndim != 1:
            found = f"{tuple(labels.shape)} {labels.dtype}"
            raise ValueError(f"{name}: {split} labels are {found}: integers (N,) are allowed")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(f"{name}: {split} labels go from {low} to {high}: 0 to {classes - 1} is allowed")


def measured(images: Tensor) -> tuple[tuple, tuple]:
    """Mean and standard deviation (population) per channel of uint8 images scaled to [0, 1], by exact counts.

    2 s for 1e9 pixels. A constant channel counts as one grey level wide, since it has to be divided by.
    """
    channels = images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for part in images.split(CHUNK):
        for channel in range(channels):
            counts[channel] += torch.bincount(part[:, channel].flatten(), minlength=256)
    share = counts.double() / counts.sum(1, keepdim=True)
    levels = torch.arange(256).double() / 255
    mean = share @ levels
    std = ((share * (levels - mean[:, None]) ** 2).sum(1)).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of shapes and values, in this order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return shortened(digest)


def shortened(digest) -> str:
    """How a SHA-256 is written in `info`."""
    return f"sha256:{digest.hexdigest()[:16]}"
