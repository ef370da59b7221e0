"""Where the files of a data set are, and how they get there."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lib.data.dataset import Dataset

DOWNLOADS = Path(__file__).resolve().parents[2] / "data"


def root() -> Path:
    """The folder that holds the data sets: WORKBENCH_DATA, or DOWNLOADS where that is not set."""
    named = os.environ.get("WORKBENCH_DATA")
    return Path(named).expanduser() if named else DOWNLOADS


def find_or_download(
    title: str, read: Callable[[Path], Dataset], fetch: Callable[[Path], None] | None = None
) -> Dataset:
    """`read` the folder WORKBENCH_DATA, or else DOWNLOADS, filled on first use: by `fetch`, or by torchvision.

    torchvision takes 7 s to import, so it is only asked when the files are not there or not the original.
    The lock keeps two processes from downloading into the same file.
    """
    if os.environ.get("WORKBENCH_DATA"):
        return read(root())
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with FileLock(DOWNLOADS / f"{title}.lock"):
        try:
            data = read(DOWNLOADS)
        except (FileNotFoundError, ValueError):
            data = None
        if data is None or not data.info["original"]:
            download(title, fetch)
            data = read(DOWNLOADS)
    return data


def download(title: str, fetch: Callable[[Path], None] | None = None) -> None:
    """Let `fetch`, or torchvision's data set `title`, fill DOWNLOADS; FileNotFoundError in one line when it cannot."""
    try:
        if fetch:
            fetch(DOWNLOADS)
        else:
            import torchvision

            getattr(torchvision.datasets, title)(DOWNLOADS, download=True)
    except Exception as error:  # urllib, sockets, zip files, checksums: all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{title} could not be downloaded to {DOWNLOADS} ({reason}): "
            f"set WORKBENCH_DATA to a folder that already holds it"
        ) from error


def first_existing(candidates: list[Path]) -> Path:
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"no data file {' or '.join(map(str, candidates))}: set WORKBENCH_DATA to the folder that holds it"
    )


def damaged(path: Path | str, reason: str) -> ValueError:
    return ValueError(f"{path} is damaged ({reason}): delete it and fetch it again")
