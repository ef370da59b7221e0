"""Every name a study or a notebook may use, and the function behind it.

Torch-free on purpose: a study of a hundred runs is checked against these tables before anything heavy is
imported. To add a pruner, a model, a data set or an optimizer, write one function and add its line here;
the tests run over these tables.
"""

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module

PRUNERS = {name: f"lib.pruners:{name}" for name in ("dense", "rand", "mag", "snip", "grasp", "synflow")}
PRUNERS |= {"mag-init": "lib.pruners:mag_init"} | {name: f"lib.pruners:{name}" for name in ("lamp", "uniform", "erk")}
PRUNERS |= {name: f"lib.pruners:{name}" for name in ("obd", "woodfisher", "wanda", "movement")}
# Those that score a training, such as that of a level, and not batches.
TRAINED = ("movement",)
# Those that take the gradients of single images, and so score in evaluation mode only.
PER_IMAGE = ("obd", "woodfisher")

# An entry with options is (function, options). The name of a CIFAR ResNet of any depth and width is a pattern, and
# those here are the common ones; the names in this table come first: `resnet50` and `resnet152`, though 6n + 2, are
# networks of bottlenecks, and the CIFAR ResNet of depth 50 is `resnet50-w16`.
_VGGS = {f"vgg{depth}{bn}": {"depth": depth, "norm": bool(bn)} for depth in (11, 13, 16, 19) for bn in ("", "-bn")}
_RESNETS = {f"resnet{depth}": {"depth": depth} for depth in (18, 34, 50, 101, 152)}
_WIDE = {f"wide-resnet{depth}": {"depth": depth, "widening": 2} for depth in (50, 101, 152)}
_IMAGENET = (*_RESNETS, "wide-resnet50", "wide-resnet101", *_VGGS)
MODELS = (
    {"fc": "lib.models.fc:fc", "conv": "lib.models.conv:conv"}
    | {"lenet-300-100": "lib.models.fc:lenet", "vgg7": "lib.models.vgg7:vgg7"}
    | {name: ("lib.models.vgg:vgg", options) for name, options in _VGGS.items()}
    | {f"{name}-tinyimagenet": ("lib.models.vgg:tinyimagenet_vgg", options) for name, options in _VGGS.items()}
    | {f"resnet{depth}": ("lib.models.resnet:resnet", {"depth": depth}) for depth in (8, 14, 20, 32, 44, 56, 110, 1202)}
    | {"resnet20-w32": ("lib.models.resnet:resnet", {"depth": 20, "width": 32})}
    | {name: ("lib.models.resnet50:resnet", options) for name, options in (_RESNETS | _WIDE).items()}
    | {f"{name}-imagenet": ("lib.models.imagenet:network", {"name": name}) for name in _IMAGENET}
)
# those whose weights torchvision has trained on ImageNet
PRETRAINED = tuple(f"{name}-imagenet" for name in _IMAGENET)
# Functions whose networks take images of 28 x 28 and of any number of channels, in training also one by one. A network
# that is not of these is tried out before a study starts.
SMALL_IMAGES = ("lib.models.fc:fc", "lib.models.conv:conv", "lib.models.resnet:resnet", "lib.models.resnet50:resnet")
SMALL_IMAGES += ("lib.models.fc:lenet", "lib.models.vgg7:vgg7")
MODELS |= {"transformer": "lib.models.transformer:transformer"}
# `mlp-2x1024` has two hidden layers of width 1024
MLP = re.compile(r"mlp-(?P<hidden>[1-9][0-9]?)x(?P<width>[1-9][0-9]{0,4})")
# `resnet20`, `resnet20-w32`, or as the code of Tanaka et al. 2020 calls that, `wide-resnet20`
CIFAR_RESNET = re.compile(r"(?P<wide>wide-)?resnet(?P<depth>0|[1-9][0-9]*)(-w(?P<width>0|[1-9][0-9]*))?")

DATA = {name: f"lib.data:{name}" for name in ("digits", "mnist", "cifar10", "cifar100", "tinyimagenet", "imagenet")}
DATA |= {"sst2": "lib.data.texts:sst2", "sst2-glue": "lib.data.texts:sst2_glue"}
DATA |= {f"{of}-20x20": ("lib.data.handwritten:cropped", {"of": of, "size": 20}) for of in ("digits", "mnist")}
DATA |= {f"{of}-colour": ("lib.data.coloured:coloured", {"of": of}) for of in ("digits", "mnist")}
# `mnist-colour` has a colour drawn for each image; in `mnist-colour-95-64x64`, of 64 x 64 pixels, the correlation of
# colour and class is 0.95
COLOURED = re.compile(r"(?P<of>digits|mnist)-colour(-(?P<percent>[1-9][0-9]?|100))?(-(?P<size>32|64)x(?P=size))?")
# `folder-flowers` is the folder `flowers` of the data folder; no name leads out of that
FOLDER = re.compile(r"folder-(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*)")

OPTIMIZERS = {name: f"lib.optimizers:{name}" for name in ("adam", "sgd", "momentum", "rms")}

# What may be destroyed of a mask, to see what it is worth (see `lib.ablations`).
ABLATIONS = ("none", "shuffle", "reinitialise", "invert")

# What structured pruning removes (see `lib.structured`).
STRUCTURES = ("channels", "neurons", "blocks", "heads")
UNPRUNED = "unpruned"  # the network beside them that keeps everything

# Methods of the stage that prunes weights: (granularity, pruner, norm over the weights of a unit), see
# `lib.granularity`. Those with `mag` have names of their own, and a pruner's bare name removes single weights.
GRANULARITIES = ("element", "kernel", "channel", "multi")
WEIGHT_METHODS = {"element-rand": ("element", "rand", "l1")}
WEIGHT_METHODS |= {f"{unit}-{norm}": (unit, "mag", norm) for unit in GRANULARITIES for norm in ("l1", "l2")}
_SCORED = [name for name in PRUNERS if name not in ("dense", "rand", "mag", "mag-init", *TRAINED)]
WEIGHT_METHODS |= {name: ("element", name, "l1") for name in _SCORED}
WEIGHT_METHODS |= {f"{unit}-{name}": (unit, name, "l1") for unit in GRANULARITIES[1:] for name in ("rand", *_SCORED)}

# Pruning and quantisation, one after the other (see `lib.quantised_pruning`).
PRUNED_FIRST, QUANTISED_FIRST = "prune, then quantise", "quantise, then prune"

# How what enters layers is pruned (see `lib.pipeline.activations`). The first two are the same.
ACTIVATION_METHODS = ("element-l1", "element-l2", "map-l1", "map-l2", "map-similarity")

# What runs a network (see `lib.runtimes`): as it is, exported, and with 8-bit weights and activations.
RUNTIMES = ("PyTorch", "ONNX Runtime", "ONNX Runtime int8")

TABLES = {"pruner": PRUNERS, "model": MODELS, "data": DATA, "optimizer": OPTIMIZERS}

# Names as papers write them, for tables and figures.
LABELS = {
    "rand": "Rand",
    "mag": "Mag",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "mag-init": "Mag-init",
    "lamp": "LAMP",
    "uniform": "Uniform",
    "erk": "ERK",
    "obd": "OBD",
    "woodfisher": "WoodFisher",
    "wanda": "Wanda",
    "movement": "Movement",
    "dense": "Dense",
    "fc": "FC",
    "lenet-300-100": "LeNet-300-100",
    "conv": "Conv",
    "digits": "Digits",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tinyimagenet": "Tiny-ImageNet",
    "imagenet": "ImageNet",
    "digits-20x20": "Digits-20x20",
    "mnist-20x20": "MNIST-20x20",
    "sst2": "SST-2",
    "sst2-glue": "SST-2-GLUE",
    "transformer": "Transformer",
}


# Names that are patterns, in words.
_MORE = {
    "model": ", mlp-HxW for H hidden layers of width W, and resnetD-wW for any depth D = 6n + 2 and width W",
    "data": ", mnist-colour-P-SxS (or digits-, either option alone) for colours that follow the class in P % (1 to 100)"
    " of the images and S 32 or 64, and folder-NAME for the folder NAME of images (letters, digits, - and _)",
}

# Parts of the names of models.
_PARTS = {"mlp": "MLP", "bn": "BN", "wide": "Wide", "imagenet": "ImageNet", "tinyimagenet": "TinyImageNet"}


def check(kind: str, name: str) -> str:
    """Return `name` if it is known in `kind` (a key of TABLES); ValueError names what is allowed."""
    _entry(kind, name)
    return name


def load(kind: str, name: str) -> Callable:
    """Import and return the function registered as `name`, its options filled in; ValueError for an unknown name."""
    entry = _entry(kind, name)
    target, options = (entry, {}) if isinstance(entry, str) else entry
    module, function = target.split(":")
    found = getattr(import_module(module), function)
    return partial(found, **options) if options else found


def takes_small_images(model: str) -> bool:
    """Whether it is known, without building the network, that it takes images of 28 x 28 of any number of channels.

    Of CIFAR ResNets only those in the table: another width may be too much for the memory.
    """
    entry = MODELS.get(model)
    return (entry if isinstance(entry, str) or not entry else entry[0]) in SMALL_IMAGES


def takes_texts(model: str) -> bool:
    """Whether the network has embeddings for the words of texts; all but `transformer` take images."""
    return model == "transformer" or bool(MLP.fullmatch(str(model)))


def holds_texts(data: str) -> bool:
    """Whether the inputs of a data set are texts; all others hold images."""
    return str(DATA.get(data)).startswith("lib.data.texts:")


def comes_with_a_package(data: str) -> bool:
    """Whether the data set lies in a package that is among the dependencies, so that it is there."""
    return DATA.get(data) == "lib.data:digits"


def check_cifar_resnet(depth: int, width: int) -> None:
    """ValueError unless there is a CIFAR ResNet of this depth, with so many channels in its first stage."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth of a CIFAR ResNet is {depth}: 6n + 2 is allowed (8, 14, 20, ...)")
    if width < 1:
        raise ValueError(f"width of a CIFAR ResNet is {width}: 1 or more is allowed (16 is that of the paper)")


def label(name: str) -> str:
    """The name as it stands in tables and figures: `resnet20` is `ResNet-20`, `vgg16-bn` is `VGG-16-BN`."""
    folder = FOLDER.fullmatch(name)
    if folder:
        return folder["name"]
    coloured = COLOURED.fullmatch(name)
    if coloured:
        return name.replace(coloured["of"], LABELS[coloured["of"]])
    if name in LABELS or not re.match(r"(wide-)?resnet[0-9]|vgg[0-9]|mlp-", name):
        return LABELS.get(name, name)
    spelled = re.sub(r"(resnet|vgg)(?=[0-9])", lambda found: {"resnet": "ResNet-", "vgg": "VGG-"}[found[0]], name)
    return "-".join(_PARTS.get(part, part) for part in spelled.split("-"))


def _entry(kind: str, name: str) -> str | tuple[str, dict]:
    table = TABLES[kind]
    if name in table:
        return table[name]
    found = CIFAR_RESNET.fullmatch(str(name)) if kind == "model" else None
    if found and not (found["wide"] and found["width"]):
        width = int(found["width"] or (32 if found["wide"] else 16))
        check_cifar_resnet(int(found["depth"]), width)
        return "lib.models.resnet:resnet", {"depth": int(found["depth"]), "width": width}
    found = MLP.fullmatch(str(name)) if kind == "model" else None
    if found:
        return "lib.models.mlp:mlp", {"hidden": int(found["hidden"]), "width": int(found["width"])}
    found = FOLDER.fullmatch(str(name)) if kind == "data" else None
    if found:
        return "lib.data:folder", {"name": found["name"]}
    found = COLOURED.fullmatch(str(name)) if kind == "data" else None
    if found:
        return "lib.data.coloured:coloured", {
            "of": found["of"], "percent": int(found["percent"] or 0), "size": int(found["size"] or 28)
        }  # fmt: skip
    raise ValueError(f"unknown {kind} {name!r}: one of {', '.join(table)}{_MORE.get(kind, '')}")
