"""From image files to tensors, by Pillow in threads."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib.data import cached
from lib.data.dataset import Dataset, assemble
from lib.data.listing import Files
from lib.data.places import damaged

SLOW_S = 5.0  # decoding that took longer is kept on disk
CHUNK = 64  # images that a thread decodes at a time


def decode(files: Files) -> Dataset:
    """The images of `files` as a data set on the CPU. 4 ms for a photograph of 500 x 375 pixels, on one core.

    Where decoding takes longer than SLOW_S seconds, `lib.data.cached` keeps the result and finds it the next time,
    as long as names, sizes and times of the same files are the same; a damaged one is made again.
    """
    place = cached.place(files)
    found = cached.kept(place)
    if found is None:
        start = time.perf_counter()
        sizes = {"train_x": files.train_size, "test_x": files.test_size}
        found = {split: _decoded(getattr(files, split), files, size) for split, size in sizes.items()}
        if time.perf_counter() - start > SLOW_S:
            cached.keep(place, found)
    return assemble(
        files.name,
        *(found["train_x"], files.train_y, found["test_x"], files.test_y),
        source=files.info["source"],
        classes=files.classes,
        statistics=files.statistics,
        augment=files.channels == 3,
        facts=files.info,
    )


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
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _central(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
