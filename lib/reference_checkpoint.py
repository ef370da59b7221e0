"""Checkpoints of the original program, the code of Tanaka et al. 2020 (arXiv 2006.05467), as our weights and masks.

Its `model.pt` is a state dict of float tensors. Every layer multiplies a parameter `a.weight` by a buffer
`a.weight_mask` of zeros and ones at each forward, biases and batch norms too, so that a removed weight may hold any
value. Shortcuts that change nothing have a weight as well, (C, 1, 1) of ones. Some networks' layers have other names
than ours. Nothing in the file is executed: it is read as tensors only.
"""

import re
from collections.abc import Callable
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib import models
from lib.masks import ALSO, Masks, apply_masks_, full, prunable
from lib.models import conv, resnet50
from lib.models.vgg import PLANS, POOL

Shape = tuple[int, int, int]
IMAGES = {784: (1, 28, 28), 3_072: (3, 32, 32), 12_288: (3, 64, 64), 150_528: (3, 224, 224)}  # the original's images
SIDE = 32  # pixels, where a network takes images of any size


def load_reference_checkpoint(
    path: Path | str, model_name: str | None = None, shape: Shape | None = None, classes: int | None = None
) -> tuple[nn.Module, Masks]:
    """The network in a `model.pt` of the original program, removed weights set to zero, and its masks.

    What is not given is found out, see `describe`. The network is on the CPU, and computes what the original did.
    The masks (True is kept) are those of convolution and linear weights; they name biases, scales or shifts of batch
    norms too where the file has removed any of that kind, and do not name a layer that has no mask there (its
    option `dense_classifier`). A file without any masks is a dense network.

    FileNotFoundError when there is no such file. ValueError in one line for a damaged file, one with anything but
    tensors in it (pickled code, say, which is not run), masks of other values than 0 and 1, shortcuts that are no
    identity any more (pruned or trained: our networks have no weights there), and for weights that do not fit.
    """
    tensors, kept = _parted(path, _read(path))
    _drop_identities(path, tensors, kept)
    found = _recognised(tensors)
    name = model_name or found["name"]
    if name is None:
        first = next(iter(tensors), "nothing")
        raise ValueError(f"{path} fits no model: its first tensor is {first}, {_size(tensors, first)}")
    model = models.build(name, shape or found["shape"] or (3, SIDE, SIDE), classes or found["classes"] or 10)
    ours = _our_names(list(tensors), name)
    weights, kept = ({ours[key]: value for key, value in named.items()} for named in (tensors, kept))
    _check_fit(path, name, weights, model.state_dict())
    model.load_state_dict(weights)
    if not kept:
        return model, full(model)
    apply_masks_(model, kept)
    return model, _taking_part(model, kept)


def describe(path: Path | str) -> dict:
    """`{"name", "shape", "classes"}` of the network in a `model.pt` of the original program.

    `name` is one that `models.build` knows, or None where nothing fits. `shape` is (C, H, W) of its images: exact
    where a layer depends on it (for fc, if it is of a data set of the original), else the number of channels beside
    32x32; None if nothing says so. `classes` is the number of outputs of the last linear layer. Errors as for
    `load_reference_checkpoint`.
    """
    return _recognised(_parted(path, _read(path))[0])


def _recognised(tensors: dict[str, Tensor]) -> dict:
    sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    linear = [size for size in sizes.values() if len(size) == 2]
    convolutions = [size for size in sizes.values() if len(size) == 4]
    channels = convolutions[0][1] if convolutions else None
    shape = (channels, SIDE, SIDE) if channels else None
    finders = (_cifar_resnet, _small_image_resnet, _lottery_vgg, _features_vgg, _imagenet_resnet)
    name = next(filter(None, (_found(find, sizes) for find in finders)), None)
    if set(sizes) <= {f"{n}.{part}" for n in range(12) for part in ("weight", "bias")} and linear:
        name = "conv" if convolutions else "fc"
        positions = linear[0][1] // conv.WIDTH
        shape = (channels, isqrt(positions), isqrt(positions)) if convolutions else IMAGES.get(linear[0][1])
    elif name and name.endswith("-tinyimagenet"):
        side = 32 * isqrt(sizes["classifier.0.weight"][1] // 512)  # five max-pools
        shape = (channels, side, side)
    return {"name": name, "shape": shape, "classes": linear[-1][0] if linear else None}


def _found(find: Callable[[dict[str, tuple]], str | None], sizes: dict[str, tuple]) -> str | None:
    try:
        return find(sizes)
    except IndexError:  # a tensor has fewer dimensions than its name promises
        return None


# Which network it is, from names and sizes; each returns None for another kind


def _cifar_resnet(sizes: dict[str, tuple]) -> str | None:
    count = _count(sizes, r"blocks\.\d+\.conv1\.weight")
    if not count or "conv.weight" not in sizes or count % 3:
        return None
    depth, width = 2 * count + 2, sizes["conv.weight"][0]
    plain = width == 16 and depth not in resnet50.BLOCKS  # there, the plain name is a network of bottlenecks
    return f"resnet{depth}" if plain else f"resnet{depth}-w{width}"


def _small_image_resnet(sizes: dict[str, tuple]) -> str | None:
    first = sizes.get("conv2_x.0.residual_function.0.weight", ())
    stages = [_count(sizes, rf"conv{n}_x\.\d+\.residual_function\.0\.weight") for n in (2, 3, 4, 5)]
    return _resnet_of(stages, first, bottlenecks=first[2:] == (1, 1))


def _imagenet_resnet(sizes: dict[str, tuple]) -> str | None:
    first = sizes.get("layer1.0.conv1.weight", ())
    stages = [_count(sizes, rf"layer{n}\.\d+\.conv1\.weight") for n in (1, 2, 3, 4)]
    name = _resnet_of(stages, first, bottlenecks=first[2:] == (1, 1))
    return name and f"{name}-imagenet"


def _resnet_of(stages: list[int], first: tuple, bottlenecks: bool) -> str | None:
    """The name by the blocks in each stage; `first` is the size of the first block's first convolution."""
    for depth, blocks in resnet50.BLOCKS.items():
        if blocks == tuple(stages) and bottlenecks == (depth >= 50):
            return f"wide-resnet{depth}" if first[0] == 2 * resnet50.STEM else f"resnet{depth}"
    return None


def _lottery_vgg(sizes: dict[str, tuple]) -> str | None:
    name = _vgg_of([size[0] for key, size in sizes.items() if re.fullmatch(r"layers\.\d+\.conv\.weight", key)])
    return name and name + "-bn" * ("layers.0.bn.weight" in sizes)


def _features_vgg(sizes: dict[str, tuple]) -> str | None:
    widths = [size[0] for key, size in sizes.items() if key.startswith("features.") and len(size) == 4]
    name, classifier = _vgg_of(widths), sizes.get("classifier.0.weight")
    if name is None or classifier is None:
        return None
    form = "-imagenet" if classifier[1] == 512 * 7 * 7 else "-tinyimagenet"
    return name + "-bn" * ("features.1.running_var" in sizes) + form


def _vgg_of(widths: list[int]) -> str | None:
    plans = {depth: [width for width in plan if width is not POOL] for depth, plan in PLANS.items()}
    return next((f"vgg{depth}" for depth, plan in plans.items() if plan == widths), None)


def _count(sizes: dict[str, tuple], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in sizes)


# Reading


def _read(path: Path | str) -> dict[str, Tensor]:
    """The tensors in the file by name, without the prefix that DataParallel gives to all of them."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what is damaged fails in many ways
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(f"{path} holds pickled code ({code[1]}), which is not run: tensors are allowed") from error
        raise ValueError(f"{path} is damaged, or no checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict) or not state:
        what = "nothing" if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} holds {what}: a state dict of tensors is allowed")
    for name, value in state.items():
        kind = type(value).__name__ if not isinstance(value, Tensor) else str(value.layout)
        if not isinstance(name, str) or kind != "torch.strided":
            raise ValueError(f"{path} holds {name!r}, {kind}: a state dict of tensors is allowed")
    parallel = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if parallel else name: value for name, value in state.items()}


def _parted(path: Path | str, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Masks]:
    """Everything but the masks, and the masks as bools by the name of their parameter."""
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith("_mask")}
    kept = {}
    for name, mask in state.items():
        if name in tensors:
            continue
        parameter = name.removesuffix("_mask")
        if parameter not in tensors or mask.shape != tensors[parameter].shape:
            raise ValueError(f"{path}: mask {name} is {_size(state, name)}: {_size(tensors, parameter)} is allowed")
        strange = mask[(mask != 0) & (mask != 1)]
        if len(strange):
            raise ValueError(f"{path}: mask {name} holds {strange[0].item():g}: 0 and 1 are allowed")
        kept[parameter] = mask.bool()
    return tensors, kept


def _drop_identities(path: Path | str, tensors: dict[str, Tensor], kept: Masks) -> None:
    """Remove the weights of identity shortcuts, which ours do not have: constant ones, none of them pruned."""
    for name in [name for name in tensors if name.endswith("shortcut.weight")]:
        ones = tensors.pop(name)
        mask = kept.pop(name, torch.ones_like(ones, dtype=torch.bool))
        wrong = "pruned" if not mask.all() else "trained" if not (ones == 1).all() else None
        if wrong:
            raise ValueError(f"{path}: identity shortcut {name} is {wrong}: all ones are allowed, ours has no weights")


def _our_names(names: list[str], model: str) -> dict[str, str]:
    """Theirs to ours: the original's fc and conv are sequences, in which layers without weights count too."""
    if model not in ("fc", "conv"):
        return {name: name for name in names}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    ours = {layer: f"layers.{position}" for position, layer in enumerate(layers)}
    if model == "conv" and layers:
        ours[layers[-1]] = "fc"
    return {name: f"{ours[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in names}


def _check_fit(path: Path | str, name: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for key in wanted | found:
        there, ours = _size(found, key), _size(wanted, key)
        if there != ours:
            raise ValueError(f"{path} fits no {name}: {key} is {there} there, {ours} is allowed")


def _size(tensors: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, tensors[name].shape)) or "a number" if name in tensors else "missing"


def _taking_part(model: nn.Module, kept: Masks) -> Masks:
    """The masks of what was pruned: convolution and linear weights, and every other kind that has lost something."""
    candidates = {name: _kind(model, name) for name in prunable(model, ALSO) if name in kept}
    pruned = {kind for name, kind in candidates.items() if not kept[name].all()} | {(False, "weight")}
    return {name: kept[name] for name, kind in candidates.items() if kind in pruned}


def _kind(model: nn.Module, name: str) -> tuple[bool, str]:
    layer, _, part = name.rpartition(".")
    return isinstance(model.get_submodule(layer), _BatchNorm), part
