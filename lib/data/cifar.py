"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 and 10,000 images each, 32 x 32 colour, augmented."""

import hashlib
import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lib.data.dataset import Dataset, assemble
from lib.data.places import damaged, find_or_download, first_existing
from lib.data.unpickling import arrays_only

# Mean and standard deviation per channel, as in the code of Tanaka et al. 2020.
CIFAR10_STATISTICS = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
CIFAR100_STATISTICS = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)

# MD5 of the original files, the test images last.
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR100_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}


def cifar10() -> Dataset:
    """CIFAR-10, ten classes, cropped and flipped in training.

    `info` says whether the files are the original ones; where they are not and `lossy_indices.json` (keys
    `train` and `test`, positions of altered images) lies beside them, it says in how many images they differ.
    """
    read = partial(
        _read, name="cifar10", title="CIFAR-10", folder="cifar-10-batches-py", md5=CIFAR10_MD5,
        key=b"labels", classes=10, statistics=CIFAR10_STATISTICS,
    )  # fmt: skip
    return find_or_download("CIFAR10", read)


def cifar100() -> Dataset:
    """CIFAR-100 with its hundred fine classes, otherwise like CIFAR-10."""
    read = partial(
        _read, name="cifar100", title="CIFAR-100", folder="cifar-100-python", md5=CIFAR100_MD5,
        key=b"fine_labels", classes=100, statistics=CIFAR100_STATISTICS,
    )  # fmt: skip
    return find_or_download("CIFAR100", read)


def _read(
    root: Path, *, name: str, title: str, folder: str, md5: dict, key: bytes, classes: int, statistics: tuple
) -> Dataset:
    place = first_existing([root / name / folder, root / folder])
    images, labels, original = [], [], True
    for file, expected in md5.items():
        path = first_existing([place / file])
        content = path.read_bytes()
        original &= hashlib.md5(content).hexdigest() == expected
        batch = _parse_batch(content, path, key, classes)
        images.append(batch[0])
        labels.append(batch[1])
    return assemble(
        name,
        *(torch.cat(images[:-1]), torch.cat(labels[:-1]), images[-1], labels[-1]),
        classes=classes,
        statistics=statistics,
        augment=True,
        **_provenance(title, place, original),
    )


def _parse_batch(content: bytes, path: Path, key: bytes, classes: int) -> tuple[Tensor, Tensor]:
    try:
        batch = arrays_only(content)
        pixels, labels = torch.from_numpy(batch[b"data"]), torch.tensor(batch[key])
        images = pixels.reshape(-1, 3, 32, 32)  # red plane, green plane, blue plane
    except Exception as error:  # a damaged pickle raises almost anything
        raise damaged(path, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if images.dtype != torch.uint8 or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise damaged(path, f"{tuple(images.shape)} images of {images.dtype} with {labels.numel()} labels")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise damaged(path, f"a label is outside 0 to {classes - 1}")
    return images, labels


def _provenance(title: str, place: Path, original: bool) -> dict:
    altered = {"train": 0, "test": 0} if original else _altered_images(place)
    source = f"{title} (Krizhevsky 2009), "
    if original:
        source += "the original files."
    elif altered["train"] is None:
        source += "but not the original files; in how many images they differ is not known."
    else:
        source += (
            f"rebuilt: {altered['train']} training and {altered['test']} test images "
            "are not the original pixels, the others are."
        )
    counts = {"altered_train": altered["train"], "altered_test": altered["test"]}
    return {"source": source, "facts": counts | {"original": original}}


def _altered_images(place: Path) -> dict:
    """Counts from `lossy_indices.json` in or beside the folder of batches; None where there is no such file."""
    for path in (place / "lossy_indices.json", place.parent / "lossy_indices.json"):
        if path.exists():
            try:
                positions = json.loads(path.read_text())
                return {split: len(positions[split]) for split in ("train", "test")}
            except (ValueError, KeyError, TypeError) as error:
                raise damaged(path, f"lists of positions under train and test expected, {error!r}") from error
    return {"train": None, "test": None}
