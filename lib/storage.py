"""Weights and masks on disk as safetensors: plain tensors, no pickles. Files appear whole or not at all."""

import json
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.files import replacing
from lib.masks import Masks


def save_weights(path: Path | str, model: nn.Module) -> None:
    """Write all parameters and buffers of `model` under their names."""
    _write(path, {name: tensor.contiguous() for name, tensor in model.state_dict().items()})


def load_weights(path: Path | str, model: nn.Module) -> None:
    """Read what `save_weights` wrote into `model`, in place, on whatever device it is.

    FileNotFoundError when there is no such file, ValueError when it is damaged or another network's.
    """
    tensors, _ = _read(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        name = next(n for n in (expected | found) if expected.get(n) != found.get(n))
        raise ValueError(
            f"{path} is of another network: {name} is {found.get(name)} there, {expected.get(name)} is allowed"
        )
    model.load_state_dict(tensors)


def save_masks(path: Path | str, masks: Masks) -> None:
    """Write masks with one bit a weight; their shapes stand in the file's metadata."""
    packed = {
        name: torch.from_numpy(np.packbits(mask.cpu().contiguous().numpy().ravel())) for name, mask in masks.items()
    }
    _write(path, packed, {"shapes": json.dumps({name: list(mask.shape) for name, mask in masks.items()})})


def load_masks(path: Path | str, device="cpu") -> Masks:
    """Read what `save_masks` wrote, in the same order; errors as for `load_weights`."""
    packed, metadata = _read(path)
    try:
        shapes = json.loads(metadata["shapes"])
        return {name: _unpack(packed[name], shape).to(device) for name, shape in shapes.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no masks ({error}): a file of save_masks is allowed") from error


def load_pruned(folder: Path, model: nn.Module) -> tuple[nn.Module, Masks]:
    """`model` with the weights of the run in `folder`, and that run's masks, both on the model's device."""
    load_weights(folder / "weights.safetensors", model)
    return model, load_masks(folder / "masks.safetensors", next(model.parameters()).device)


def _unpack(bits: Tensor, shape: list[int]) -> Tensor:
    if len(bits) != -(-prod(shape) // 8):
        raise ValueError(f"{len(bits)} bytes for a mask of shape {shape}")
    flat = np.unpackbits(bits.numpy(), count=prod(shape))
    return torch.from_numpy(flat.astype(bool)).view(shape)


def _write(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def _read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and make it again") from error
