"""Which images are used: class-balanced subsets, drawn by a seed."""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from lib.data.dataset import Dataset
from lib.data.listing import Files

TEST_IMAGES = 10_000  # at most, of image files whose training images are not all used: as many as CIFAR-10 has
Data = TypeVar("Data", Dataset, Files)


def subset(data: Data, train_images: int, seed: int) -> Data:
    """`data` with that many training images, drawn by `seed`, as many of each class as of any other.

    One more for the first classes where the number does not divide; `info` says so. Of image files no more
    than TEST_IMAGES test images stay, the same for every seed. ValueError for an impossible number.
    """
    available, counts = len(data.train_x), data.train_y.bincount(minlength=data.classes).tolist()
    if train_images == available:
        return data
    most = most_balanced(counts)
    if not data.classes <= train_images <= most:
        raise ValueError(
            f"train_images is {train_images}: 0 (all) or {data.classes} to {most} is allowed for {data.name}"
        )
    share, rest = divmod(train_images, data.classes)
    quotas = [share + (label < rest) for label in range(data.classes)]
    index = balanced(data.train_y, quotas, torch.Generator().manual_seed(seed)).sort().values
    if isinstance(data, Files):
        data = _fewer_tests(data)
    info = dict(data.info, train_images=train_images)
    info["source"] += f" A class-balanced {train_images:,} of the {available:,} training images are used (seed {seed})."
    return replace(data, train_x=_taken(data.train_x, index), train_y=data.train_y[index], info=info)


def _fewer_tests(data: Files) -> Files:
    available = len(data.test_x)
    if available <= TEST_IMAGES:
        return data
    index = torch.randperm(available, generator=torch.Generator().manual_seed(0))[:TEST_IMAGES].sort().values
    info = dict(data.info, test_images=TEST_IMAGES)
    info["source"] += f" A random {TEST_IMAGES:,} of the {available:,} test images are used, always the same."
    return replace(data, test_x=_taken(data.test_x, index), test_y=data.test_y[index], info=info)


def _taken(values: Tensor | list, index: Tensor) -> Tensor | list:
    return values[index] if isinstance(values, Tensor) else [values[i] for i in index.tolist()]


def most_balanced(counts: list[int]) -> int:
    """How many examples can be drawn from `counts[c]` of each class c, as many of each, one more of the first ones."""
    least = min(counts)
    return len(counts) * least + counts.index(least)  # classes before the smallest may give one more


def balanced(labels: Tensor, quotas: list[int], generator: torch.Generator) -> Tensor:
    """Positions of `quotas[c]` random examples of each class c, class after class."""
    by_class = labels.argsort(stable=True).split(labels.bincount(minlength=len(quotas)).tolist())
    chosen = []
    for label, (positions, quota) in enumerate(zip(by_class, quotas, strict=True)):
        if not 1 <= quota <= len(positions):
            raise ValueError(f"{quota} images of class {label} asked for: 1 to {len(positions)} is allowed")
        chosen.append(positions[torch.randperm(len(positions), generator=generator)[:quota]])
    return torch.cat(chosen)
