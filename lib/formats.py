"""What a pruned network weighs on disk: every form in which its weights may be stored, as real files.

dense     every weight, the removed ones as zeros
masked    as torch.nn.utils.prune leaves a network: every weight, and a mask of as many float32
coo       of each pruned parameter the positions, 8 bytes a dimension, and values of what is kept
csr       the same with one position a value, the column, and one a row: for matrices, so convolutions are reshaped
          to (outputs, the rest)
bitmask   one bit a weight, and the values of what is kept

What no mask names, biases and batch norm, is stored whole in every form. Files are safetensors; with `zstd` they are
compressed as a whole. The sparse forms keep what is kept, also where a kept weight is zero.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch
import zstandard
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lib.files import replacing
from lib.masks import Masks

SUFFIX = ".zst"
HEADER = "header"
LEVEL = 10  # of zstd: 0.1 s for 6 MB of weights on one core; level 19 takes 1 to 4 s and gains 6 % at most


def save_as(form: str, path: Path | str, model: nn.Module, masks: Masks) -> int:
    """Write `model`, pruned by `masks`, in `form` to `path`, compressed if that ends in .zst; return bytes on disk.

    Weights that the masks remove are stored as zeros or not at all, whatever they are in `model`. ValueError for an
    unknown form or a mask that fits no parameter.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}: one of {', '.join(FORMS)}")
    tensors = {}
    state = model.state_dict()
    for name, mask in masks.items():
        if name not in state or state[name].shape != mask.shape:
            raise ValueError(f"mask {name} fits no parameter: one of {', '.join(state)} is allowed, of its shape")
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        kept = masks[name].cpu().contiguous() if name in masks else None
        tensors |= {name: tensor} if kept is None else _named(name, FORMS[form][0](tensor, kept))
    return write(path, tensors, {"form": form, "shapes": {name: list(mask.shape) for name, mask in masks.items()}})


def write(path: Path | str, tensors: dict[str, Tensor], header: dict) -> int:
    """Tensors and what is said of them (JSON) as one file, compressed if `path` ends in .zst; return bytes on disk.

    The same contents give the same bytes.
    """
    content, path = packed(tensors, header), Path(path)
    with replacing(path) as temporary:
        temporary.write_bytes(zstandard.compress(content, LEVEL) if path.suffix == SUFFIX else content)
    return path.stat().st_size


def packed(tensors: dict[str, Tensor], header: dict) -> bytes:
    """Tensors and what is said of them (JSON) as the contents of a file."""
    return save(tensors, {HEADER: json.dumps(header)})  # several entries would come in another order each time


def read(path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """What `write` wrote; ValueError where the file is damaged or another's, FileNotFoundError where there is none."""
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == SUFFIX:
            content = zstandard.decompress(content)
        return unpacked(content)
    except (zstandard.ZstdError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no network ({type(error).__name__}): a file of save_as is allowed") from error


def unpacked(content: bytes) -> tuple[dict[str, Tensor], dict]:
    """What `packed` made; SafetensorError, ValueError, KeyError or TypeError where it is something else."""
    found = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return load(content), json.loads(found[HEADER])


def load_from(path: Path | str, model: nn.Module) -> None:
    """Read what `save_as` wrote, in whatever form, into `model`, in place: removed weights become zeros.

    ValueError where the file is damaged or another network's, FileNotFoundError where there is none.
    """
    tensors, header = read(path)
    if header.get("form") not in FORMS or "shapes" not in header:
        raise ValueError(f"{path} holds no network in one of these forms ({', '.join(FORMS)}): a file of save_as does")
    shapes, back = header["shapes"], FORMS[header["form"]][1]
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items() if "::" not in name} | shapes
    if found != expected:
        name = next(n for n in expected | found if expected.get(n) != found.get(n))
        raise ValueError(f"{path} is of another network: {name} is {found.get(name)}, not {expected.get(name)}")
    state = {name: tensors[name] for name in expected if name not in shapes}
    for name, shape in shapes.items():
        try:
            state[name] = back({part: tensors[f"{name}::{part}"] for part in PARTS[header["form"]]}, shape)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:  # positions outside, too few values
            raise ValueError(f"{path} is damaged at {name} ({type(error).__name__}): make it again") from error
    model.load_state_dict(state)


def _named(name: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}::{part}": tensor for part, tensor in parts.items()}


def _dense(tensor: Tensor, kept: Tensor) -> dict[str, Tensor]:
    return {"values": torch.where(kept, tensor, 0)}  # a product would leave -0, whose sign does not compress


def _masked(tensor: Tensor, kept: Tensor) -> dict[str, Tensor]:
    return {"orig": tensor, "mask": kept.to(tensor.dtype)}


def _coo(tensor: Tensor, kept: Tensor) -> dict[str, Tensor]:
    return {"indices": kept.nonzero().t().contiguous(), "values": tensor[kept]}


def _csr(tensor: Tensor, kept: Tensor) -> dict[str, Tensor]:
    rows = kept.reshape(len(kept), -1)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), rows.sum(1).cumsum(0)])
    return {"rows": starts, "columns": rows.nonzero()[:, 1].contiguous(), "values": tensor[kept]}


def _bitmask(tensor: Tensor, kept: Tensor) -> dict[str, Tensor]:
    return {"bits": torch.from_numpy(np.packbits(kept.numpy().ravel())), "values": tensor[kept]}


def _filled(shape: list[int], positions: Tensor, values: Tensor) -> Tensor:
    """Zeros of `shape`, and the values at these positions of the flat tensor."""
    whole = torch.zeros(prod(shape), dtype=values.dtype)
    whole[positions] = values
    return whole.view(shape)


def _from_coo(parts: dict[str, Tensor], shape: list[int]) -> Tensor:
    strides = torch.tensor([prod(shape[d + 1 :]) for d in range(len(shape))])
    return _filled(shape, (parts["indices"] * strides[:, None]).sum(0), parts["values"])


def _from_csr(parts: dict[str, Tensor], shape: list[int]) -> Tensor:
    rows = torch.arange(shape[0]).repeat_interleave(parts["rows"].diff())
    return _filled(shape, rows * prod(shape[1:]) + parts["columns"], parts["values"])


def _from_bitmask(parts: dict[str, Tensor], shape: list[int]) -> Tensor:
    kept = np.unpackbits(parts["bits"].numpy(), count=prod(shape))
    return _filled(shape, torch.from_numpy(kept.nonzero()[0]), parts["values"])


# form -> (tensor and mask to the tensors that are stored, and back), and their names
FORMS: dict[str, tuple[Callable[[Tensor, Tensor], dict], Callable[[dict, list[int]], Tensor]]] = {
    "dense": (_dense, lambda parts, shape: parts["values"]),
    "masked": (_masked, lambda parts, shape: parts["orig"] * parts["mask"]),
    "coo": (_coo, _from_coo),
    "csr": (_csr, _from_csr),
    "bitmask": (_bitmask, _from_bitmask),
}
PARTS = {
    "dense": ("values",), "masked": ("orig", "mask"), "coo": ("indices", "values"),
    "csr": ("rows", "columns", "values"), "bitmask": ("bits", "values"),
}  # fmt: skip
