"""A data set by its name."""

from dataclasses import replace

from lib import catalog
from lib.data.dataset import Dataset
from lib.data.listing import Files
from lib.data.sampling import subset


def load(name: str, *, train_images: int = 0, seed: int = 0, device="cpu") -> Dataset:
    """The data set called `name` on `device`.

    `train_images` is 0 for all of them; otherwise that many are drawn by `seed`, as many of each class as of
    any other (one more for the first classes where the number does not divide), and `info` says so. The
    fingerprint is always the whole data set's. Of image files only those that are used are decoded, and with
    `train_images` at most 10,000 test images, as `info` then says too. ValueError for an unknown name, an
    impossible number, a damaged file or too little memory, FileNotFoundError for a missing one.
    """
    data = catalog.load("data", name)()
    encoded = isinstance(data, Files)
    if encoded:
        from lib.data import decoding, room  # here, since Pillow takes 0.2 s to import

        room.check_memory(data, train_images, device)
    if train_images:
        data = subset(data, train_images, seed)
    if encoded:
        data = decoding.decode(data)
    tensors = {key: getattr(data, key).to(device) for key in ("train_x", "train_y", "test_x", "test_y")}
    return replace(data, **tensors)
