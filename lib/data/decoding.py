"""From image files to tensors: decoded by Pillow in threads, and kept on disk where that took long."""

import hashlib
import os
import time
import warnings
import zlib
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
import PIL
import psutil
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.data.dataset import Dataset, assemble
from lib.data.listing import Files
from lib.data.places import damaged
from lib.data.sampling import TEST_IMAGES
from lib.files import replacing

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "images"
SLOW_S = 5.0  # decoding that took longer is kept in CACHE
CHUNK = 64  # images that a thread decodes at a time
MEMORY_SHARE = 0.75  # of the free memory that images may take: a training needs some too


def decode(files: Files) -> Dataset:
    """The images of `files` as a data set on the CPU. 6 ms for a photograph of 500 x 375 pixels, on one core.

    Where decoding takes longer than SLOW_S seconds, the result is kept in CACHE and found there the next time,
    as long as names, sizes and times of the same files are the same; a damaged one is made again.
    """
    kept = CACHE / f"{files.name}-{_key(files)}.safetensors"
    found = _kept(kept)
    if found is None:
        start = time.perf_counter()
        sizes = {"train_x": files.train_size, "test_x": files.test_size}
        found = {split: _decoded(getattr(files, split), files, size) for split, size in sizes.items()}
        if time.perf_counter() - start > SLOW_S:
            _keep(kept, found)
    return assemble(
        files.name,
        *(found["train_x"], files.train_y, found["test_x"], files.test_y),
        source=files.info["source"],
        classes=files.classes,
        statistics=files.statistics,
        augment=files.channels == 3,
        facts=files.info,
    )


# Memory


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


# Decoding


def header(path: str) -> tuple[str, tuple[int, int]]:
    """Pillow's mode, and height and width of an image, without its pixels."""
    with _opened(path) as image:
        return image.mode, (image.height, image.width)


def _opened(path: str) -> Image.Image:
    try:
        image = Image.open(path)
    except Exception as error:  # Pillow's readers raise almost anything
        raise damaged(path, _reason(error)) from error
    if image.mode.startswith(("I", "F")):
        image.close()
        raise ValueError(f"{path} has pixels of mode {image.mode}: 8 bits a channel are allowed")
    return image


def _decoded(paths: list[str], files: Files, size: tuple[int, int]) -> Tensor:
    """uint8 (N x C x H x W), written in place by as many threads as torch uses."""
    tensor = torch.empty(len(paths), files.channels, *size, dtype=torch.uint8)
    array = tensor.numpy()

    def fill(start: int) -> None:
        for i, path in enumerate(paths[start : start + CHUNK], start):
            array[i] = _pixels(path, files, size)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(0, len(paths), CHUNK)))  # the list is there to raise what a thread has raised
    return tensor


def _pixels(path: str, files: Files, size: tuple[int, int]) -> np.ndarray:
    """One image as C x H x W. Transparency is dropped, and the turns that a camera notes are not made."""
    with _opened(path) as image:
        try:
            if "transparency" in image.info:  # Pillow wants this step, and warns otherwise
                image = image.convert("RGBA")
            image = image.convert("L" if files.channels == 1 else "RGB")
        except Exception as error:
            raise damaged(path, _reason(error)) from error
    if files.shorter:
        image = _central(_resized(image, files.shorter), *size)
    if (image.height, image.width) != size:
        raise ValueError(f"{path} is {image.height} x {image.width} pixels: {size[0]} x {size[1]} is expected here")
    return np.asarray(image).reshape(*size, files.channels).transpose(2, 0, 1)


def _resized(image: Image.Image, shorter: int) -> Image.Image:
    scale = shorter / min(image.size)
    width, height = (shorter if side == min(image.size) else int(scale * side) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _central(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


# The cache


def _key(files: Files) -> str:
    """16 hexadecimal digits that change with the choice of files, a file's size or time, the form, or Pillow."""
    digest = hashlib.sha256(f"{files.channels} {files.shorter} Pillow {PIL.__version__}\n".encode())
    for paths, size in ((files.train_x, files.train_size), (files.test_x, files.test_size)):
        digest.update(f"{size}\n".encode())
        for path in paths:
            found = os.stat(path)
            digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _kept(path: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {split: file.get_tensor(split) for split in ("train_x", "test_x")}
            return tensors if file.metadata() == _checksums(tensors) else None
    except (OSError, SafetensorError):
        return None


def _keep(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` where half of the disk's free space is enough; a warning says why they cannot be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        needed, free = sum(tensor.numel() for tensor in tensors.values()), psutil.disk_usage(str(path.parent)).free
        if 2 * needed > free:
            raise OSError(f"they are {needed / 2**30:.1f} GiB and the disk has {free / 2**30:.1f} GiB left")
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=_checksums(tensors))
    except (OSError, SafetensorError) as error:
        said = f"decoded images are not kept in {path.parent}, the next run decodes them again: {error}"
        warnings.warn(said, RuntimeWarning, stacklevel=2)


def _checksums(tensors: dict[str, Tensor]) -> dict[str, str]:
    """CRC-32 of each tensor, 0.6 s for a GB: enough against accidents of disks."""
    return {split: f"{zlib.crc32(tensor.numpy()):08x}" for split, tensor in tensors.items()}
