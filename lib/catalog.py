"""Every name a study or a notebook may use, and the function behind it.

Torch-free on purpose: a study of a hundred runs is checked against these tables before anything heavy is
imported. To add a pruner, a model, a data set or an optimizer, write one function and add its line here;
the tests run over these tables.
"""

from collections.abc import Callable
from importlib import import_module

PRUNERS = {name: f"lib.pruners:{name}" for name in ("dense", "rand", "mag", "snip", "grasp", "synflow")}

MODELS = {"fc": "lib.models.fc:fc"} | {
    f"resnet{depth}": f"lib.models.resnet:resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)
}

DATA = {name: f"lib.data:{name}" for name in ("digits", "mnist", "cifar10")}

OPTIMIZERS = {name: f"lib.optimizers:{name}" for name in ("adam", "sgd", "momentum")}

TABLES = {"pruner": PRUNERS, "model": MODELS, "data": DATA, "optimizer": OPTIMIZERS}

# Names as papers write them, for tables and figures.
LABELS = {
    "rand": "Rand",
    "mag": "Mag",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "dense": "Dense",
    "fc": "FC",
    "digits": "Digits",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
}


def check(kind: str, name: str) -> str:
    """Return `name` if the table of `kind` (a key of TABLES) holds it; ValueError names what is allowed."""
    table = TABLES[kind]
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}: one of {', '.join(table)}")
    return name


def load(kind: str, name: str) -> Callable:
    """Import and return the function registered as `name`; ValueError for an unknown name."""
    module, function = TABLES[kind][check(kind, name)].split(":")
    return getattr(import_module(module), function)


def label(name: str) -> str:
    """The name as it stands in tables and figures: `resnet20` is `ResNet-20`."""
    if name.startswith("resnet"):
        return f"ResNet-{name.removeprefix('resnet')}"
    return LABELS.get(name, name)
