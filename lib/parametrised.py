"""Our masks and the form of `torch.nn.utils.prune`, into each other without loss.

That module keeps a pruned parameter as `NAME_orig` (a parameter) and `NAME_mask` (a buffer of zeros and ones), and
multiplies them before every forward pass.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import prune

from lib.masks import Masks


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` with its tensors in the only layout that torch.nn.utils.prune takes."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)


def to_torch_(model: nn.Module, masks: Masks) -> None:
    """Give `model` these masks as torch.nn.utils.prune does; its weights stay as they are, below `NAME_orig`.

    ValueError for a mask that fits no parameter, or one whose parameter is in that form already.
    """
    for name, mask in masks.items():
        module, part = _owner(model, name)
        parameter = getattr(module, "_parameters", {}).get(part) if module is not None else None
        if parameter is None or parameter.shape != mask.shape:
            allowed = ", ".join(name for name, _ in model.named_parameters())
            raise ValueError(f"mask {name} {tuple(mask.shape)} fits no parameter: one of {allowed} is allowed")
        prune.custom_from_mask(module, part, mask.to(parameter.device))


def from_torch(model: nn.Module) -> Masks:
    """The masks that torch.nn.utils.prune has given to `model`, in the model's order; empty if it has none.

    ValueError where a mask is not of zeros and ones.
    """
    found: Masks = {}
    for name, buffer in model.named_buffers():
        if not name.endswith("_mask") or not _is_pruned(model, name.removesuffix("_mask")):
            continue
        mask = buffer.bool()
        if not torch.equal(mask.to(buffer.dtype), buffer):
            raise ValueError(f"{name} is not of zeros and ones: masks of torch.nn.utils.prune are allowed")
        found[name.removesuffix("_mask")] = mask
    return found


def remove_(model: nn.Module) -> Masks:
    """Make the masks permanent: plain parameters again, removed weights zero, as `prune.remove`; returns the masks."""
    masks = from_torch(model)
    for name in masks:
        prune.remove(*_owner(model, name))
    return masks


def _is_pruned(model: nn.Module, name: str) -> bool:
    module, part = _owner(model, name)
    return module is not None and f"{part}_orig" in module._parameters


def _owner(model: nn.Module, name: str) -> tuple[nn.Module | None, str]:
    path, _, part = name.rpartition(".")
    try:
        return model.get_submodule(path), part
    except AttributeError:
        return None, part
