"""Data sets as uint8 tensors that live whole on the training device.

No worker processes and no transform stacks: a batch is an index, and crop, flip and normalisation are a few
tensor operations. The folder with the files is named by the environment variable WORKBENCH_DATA; without it
torchvision downloads and verifies MNIST and the CIFARs into `data/` of the repository.

A data set of one's own is a function that returns `assemble(...)`, and its line in `lib.catalog.DATA`.
"""

from lib.data.batches import PAD, augment, normalise, scoring_batches
from lib.data.cifar import CIFAR10_MD5, CIFAR10_STATISTICS, CIFAR100_MD5, CIFAR100_STATISTICS, cifar10, cifar100
from lib.data.dataset import Dataset, assemble, assemble_texts, blank, fingerprint
from lib.data.folders import folder, imagenet, tinyimagenet
from lib.data.handwritten import MNIST_MD5, MNIST_STATISTICS, digits, mnist
from lib.data.loading import load
from lib.data.places import DOWNLOADS

__all__ = [
    "CIFAR100_MD5",
    "CIFAR100_STATISTICS",
    "CIFAR10_MD5",
    "CIFAR10_STATISTICS",
    "DOWNLOADS",
    "MNIST_MD5",
    "MNIST_STATISTICS",
    "PAD",
    "Dataset",
    "assemble",
    "assemble_texts",
    "augment",
    "blank",
    "cifar10",
    "cifar100",
    "digits",
    "fingerprint",
    "folder",
    "imagenet",
    "load",
    "mnist",
    "normalise",
    "scoring_batches",
    "tinyimagenet",
]
