"""The networks that are put into runtimes: those of finished runs, also smaller ones, or examples."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib import models, pruners
from lib.catalog import UNPRUNED
from lib.data import Dataset
from lib.masks import Masks, full
from lib.storage import load_pruned, load_weights, save_weights
from lib.structured import remove, structures

Networks = dict[str, tuple[nn.Module, Masks]]
FOLDER = "networks"  # of a run that stores smaller networks
# The sizes of a layer, in the order of its weight's dimensions.
SIZES = {
    nn.Conv2d: ("out_channels", "in_channels"), nn.Linear: ("out_features", "in_features"),
    _BatchNorm: ("num_features",), nn.Embedding: ("num_embeddings", "embedding_dim"),
}  # fmt: skip


def load(sources: dict[str, tuple[Path, dict]], wanted: dict, data: Dataset) -> Networks:
    """The networks of finished runs and their masks, on the CPU: one a run, or all that it saved with `save`.

    `sources` has, by `study/run`, the folder of the run and its parameters; `wanted` the `data` and the `model` that
    all must be of. A network is named as its source, one of several `study/run NAME`. ValueError for another one's.
    """
    found: Networks = {}
    for source, (folder, theirs) in sources.items():
        for key in ("data", "model"):
            if theirs.get(key) != wanted[key]:
                raise ValueError(f"source {source} has {key} {theirs.get(key)!r}: only {wanted[key]!r} is allowed here")
        smaller = sorted((folder / FOLDER).glob("*.safetensors"))
        for path in smaller:
            found[f"{source} {path.stem}"] = (_smaller(path, _fresh(wanted["model"], data)), {})
        if not smaller:
            found[source] = load_pruned(folder, _fresh(wanted["model"], data))
    return found


def save(folder: Path, networks: dict[str, nn.Module]) -> None:
    """Store networks that were made smaller in the run's `folder`, for `load`: their weights, by their names.

    The unpruned one beside them is left out.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, network in networks.items():
        if name != UNPRUNED:
            save_weights(folder / FOLDER / f"{name.replace(' ', '-')}.safetensors", network)


def examples(model: str, data: Dataset, density: float, structured_rate: float, seed: int) -> Networks:
    """Networks with initial weights, when there are no finished runs: unpruned, unstructured-pruned, and smaller.

    Magnitude keeps `density` of the weights; the smaller one has lost `structured_rate` of the first structure that it
    has (channels or neurons), and is left out where that is 0. They can be timed and weighed; their accuracy says
    nothing.
    """
    whole, pruned = (_fresh(model, data, seed) for _ in range(2))
    masks = pruners.prune(pruned, "mag", density, [])
    found: Networks = {UNPRUNED: (whole, full(whole)), f"unstructured {density:g}": (pruned, masks)}
    if structured_rate:
        first = structures(whole, data.shape)[0]
        found[f"{first} {structured_rate:g}"] = (remove(whole, data.shape, first, structured_rate)[1], {})
    return found


def _fresh(model: str, data: Dataset, seed: int = 0) -> nn.Module:
    return models.build(model, data.shape, data.classes, seed)


def _smaller(path: Path, model: nn.Module) -> nn.Module:
    """`model`, a fresh one, with the layers and the weights of the smaller network in the file."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): make it again") from error
    for name, module in list(model.named_modules()):
        _shape_(module, {key.rpartition(".")[2]: t for key, t in tensors.items() if key.rpartition(".")[0] == name})
    for name in _gone(model, tensors):
        model.set_submodule(name, nn.Identity())
    load_weights(path, model)
    return model.to(memory_format=torch.channels_last)  # as `models.build` leaves it


def _gone(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """The outermost parts of `model` of whose parameters none is left."""
    found: list[str] = []
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_parameters(name)]
        if own and not any(key in tensors for key in own) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def _shape_(layer: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a layer's own parameters and buffers the shapes of `tensors`."""
    sizes = next((sizes for kind, sizes in SIZES.items() if isinstance(layer, kind)), ())
    for key, tensor in tensors.items():
        if key in layer._parameters and layer._parameters[key] is not None:
            setattr(layer, key, nn.Parameter(torch.empty_like(tensor)))
        elif key in layer._buffers:
            setattr(layer, key, torch.empty_like(tensor))
    if "weight" in tensors:
        for size, count in zip(sizes, tensors["weight"].shape, strict=False):
            setattr(layer, size, count)
