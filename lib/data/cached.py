"""Decoded images on disk, for the next run."""

import hashlib
import os
import warnings
import zlib
from pathlib import Path

import PIL
import psutil
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.data.listing import Files
from lib.files import replacing

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "images"


def place(files: Files) -> Path:
    """Where the decoded images of these files are kept, or would be."""
    return CACHE / f"{files.name}-{_key(files)}.safetensors"


def _key(files: Files) -> str:
    """16 hexadecimal digits that change with the choice of files, a file's size or time, the form, or Pillow."""
    digest = hashlib.sha256(f"{files.channels} {files.shorter} Pillow {PIL.__version__}\n".encode())
    for paths, size in ((files.train_x, files.train_size), (files.test_x, files.test_size)):
        digest.update(f"{size}\n".encode())
        for path in paths:
            found = os.stat(path)
            digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def kept(path: Path) -> dict[str, Tensor] | None:
    """The tensors that `keep` has written to `path`; None where there are none, or damaged ones."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {split: file.get_tensor(split) for split in ("train_x", "test_x")}
            return tensors if file.metadata() == _checksums(tensors) else None
    except (OSError, SafetensorError):
        return None


def keep(path: Path, tensors: dict[str, Tensor]) -> None:
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
