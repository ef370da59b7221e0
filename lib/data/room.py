"""Whether the images of a data set fit into memory, before any is decoded."""

from bisect import bisect_right
from math import prod

import psutil
import torch

from lib.data.listing import Files
from lib.data.sampling import TEST_IMAGES

MEMORY_SHARE = 0.75  # of the free memory that images may take: a training needs some too


def check_memory(files: Files, train_images: int, device: torch.device | str) -> None:
    """ValueError in one line where `train_images` (0: all) and the test images do not fit into memory.

    Both splits count, a byte a value, against MEMORY_SHARE of what the host and a GPU have free.
    """
    free = _free(torch.device(device))
    needed = _bytes(files, train_images)
    if needed <= MEMORY_SHARE * free:
        return
    fit = bisect_right(range(1, len(files.train_x)), MEMORY_SHARE * free, key=lambda n: _bytes(files, n))
    advice = f"train_images of {files.classes} to {fit} would fit" if fit >= files.classes else "no subset would fit"
    train, tests = _counts(files, train_images)
    raise ValueError(
        f"{files.name}: {train:,} training and {tests:,} test images need {needed / 2**30:.1f} GiB, "
        f"and {MEMORY_SHARE:.0%} of the free {free / 2**30:.1f} GiB are allowed: {advice}"
    )


def _bytes(files: Files, train_images: int) -> int:
    train, tests = _counts(files, train_images)
    return files.channels * (train * prod(files.train_size) + tests * prod(files.test_size))


def _counts(files: Files, train_images: int) -> tuple[int, int]:
    """Training and test images that are decoded for `train_images`, as `sampling.subset` has it."""
    train, tests = len(files.train_x), len(files.test_x)
    return (train, tests) if train_images in (0, train) else (train_images, min(tests, TEST_IMAGES))


def _free(device: torch.device) -> int:
    free = psutil.virtual_memory().available
    return min(free, torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free
