"""Image files in folders of classes, listed and not yet decoded."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lib.data.dataset import UNKNOWN, shortened

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

Classes = dict[str, list[str]]  # class -> paths of its images, both in order of their names


@dataclass(frozen=True)
class Files:
    """Paths of images and labels (int64, N) of both splits, with how to decode them: a data set on disk.

    The same fields as a `Dataset`, so that a subset is drawn from either before anything is decoded.
    """

    name: str
    train_x: list[str]
    train_y: Tensor
    test_x: list[str]
    test_y: Tensor
    classes: int
    channels: int  # 1: grey, 3: colour, which is augmented
    train_size: tuple[int, int]  # height and width that training images are kept in
    test_size: tuple[int, int]  # no larger than `train_size`, and what a network sees
    shorter: int  # pixels that the shorter side is resized to before the centre is cut out; 0: as it is
    statistics: tuple[tuple, tuple] | None  # mean and deviation per channel; None: those of the training images
    info: dict = field(repr=False)


def files(name: str, train: Classes, test: Classes, *, source: str, **form) -> Files:
    """The two splits as one data set; labels count the classes of `train` in order of their names.

    The fingerprint is over split, class, name and size of every file: an image replaced by another of the very
    same size is not noticed, and pixels would take hours to read. ValueError where `test` has a class more.
    """
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise ValueError(
            f"{name}: test images of class {', '.join(unknown[:5])}{' ...' if unknown[5:] else ''}, which training "
            f"does not have: its {len(train)} classes are expected"
        )
    names = sorted(train)
    digest = hashlib.sha256()
    fields = {}
    for split, by_class in (("train", train), ("test", test)):
        fields[f"{split}_x"] = [path for label in names for path in by_class.get(label, [])]
        counts = torch.tensor([len(by_class.get(label, [])) for label in names])
        fields[f"{split}_y"] = torch.arange(len(names)).repeat_interleave(counts)
        for label in names:
            for path in by_class.get(label, []):
                digest.update(f"{split}/{label}/{os.path.basename(path)} {os.stat(path).st_size}\n".encode())
    info = {"name": name, "train_images": len(fields["train_x"]), "test_images": len(fields["test_x"])}
    info |= {"classes": len(names), "fingerprint": shortened(digest), "source": source} | UNKNOWN
    return Files(name, **fields, classes=len(names), **form, info=info)


def by_class(split: Path) -> tuple[Classes, int]:
    """The images below each folder in `split`, a class each, and how many other files lie there.

    What begins with a full stop is left aside. FileNotFoundError for a missing folder, ValueError where it has
    no folders or one of them no images.
    """
    if not split.is_dir():
        raise FileNotFoundError(f"no folder {split}: {split}/<class>/ with images is expected")
    inside = [entry for entry in split.iterdir() if not entry.name.startswith(".")]
    folders = sorted(entry.name for entry in inside if entry.is_dir())
    if not folders:
        raise ValueError(f"{split} holds no folders: {split}/<class>/ with images is expected")
    found, others = {}, len(inside) - len(folders)
    for label in folders:
        found[label], rest = images(split / label)
        others += rest
    return found, others


def images(folder: Path) -> tuple[list[str], int]:
    """Paths of the images at any depth below `folder`, in order, and how many other files there are."""
    found, others = [], 0
    for here, below, names in os.walk(folder, onerror=_refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(os.path.join(here, name))
            else:
                others += not name.startswith(".")
    if not found:
        raise ValueError(f"{folder} holds no images: files ending in {', '.join(SUFFIXES)} are expected")
    return sorted(found), others


def _refuse(error: OSError) -> None:
    raise error
