"""Training images that are set aside, so that what is chosen by accuracy is not chosen on the test images."""

from dataclasses import replace

import torch

from lib.data.batches import centre
from lib.data.dataset import Dataset
from lib.data.sampling import balanced, most_balanced


def hold_out(data: Dataset, images: int, seed: int) -> tuple[Dataset, Dataset]:
    """`data` without some of its training images, and the same with these as its test images: (training, validation).

    They are drawn by `seed`, as many of each class as of any other (one more for the first classes where `images` does
    not divide); the order of neither part changes. Images larger than the test images are cropped to their centre.
    `info` says what was done; fingerprint, mean and standard deviation stay those of the whole data set. ValueError
    for an impossible number: at least one image of each class is set aside, and at least one stays.
    """
    labels = data.train_y.cpu()
    most = most_balanced([max(count - 1, 0) for count in labels.bincount(minlength=data.classes).tolist()])
    if not data.classes <= images <= most:
        allowed = f"{data.classes} to {most} of {len(labels)}" if most >= data.classes else "none"
        raise ValueError(f"{images} training images of {data.name} to hold out: {allowed} is allowed")
    share, rest = divmod(images, data.classes)
    quotas = [share + (label < rest) for label in range(data.classes)]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[balanced(labels, quotas, torch.Generator().manual_seed(seed))] = True
    held = held.to(data.device)
    sentence = f" A class-balanced {images:,} of the {len(labels):,} training images are held out (seed {seed})"
    info = data.info | {"train_images": len(labels) - images}
    said = info | {"source": f"{info['source']}{sentence}."}
    kept = replace(data, train_x=data.train_x[~held], train_y=data.train_y[~held], info=said)
    said = info | {"source": f"{info['source']}{sentence} and stand for the test images.", "test_images": images}
    aside = data.train_x[held] if data.words else centre(data.train_x[held], *data.shape[1:])
    return kept, replace(kept, test_x=aside.contiguous(), test_y=data.train_y[held], info=said)
