"""What a quantised network weighs on disk: int8 weights, one float32 scale an output channel, and the rest as it is.

dense     a byte a weight, the removed ones as zeros
bitmask   one bit a weight, and a byte for each of those that are kept

The rest are biases, batch norm and, where activations are quantised, the least and the largest value of each layer's
inputs, in float32; what masks name of it is stored in the same form. A weight that no mask names, such as that of an
embedding, is dense in either form. Files are safetensors, compressed by zstd where the name ends in .zst, as those of
`lib.formats`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from lib.formats import FORMS, PARTS, read, write
from lib.masks import Masks
from lib.quantise import integers, layers, quantised

INT8_FORMS = ("dense", "bitmask")


def save_int8(form: str, path: Path | str, model: nn.Module, masks: Masks) -> int:
    """Write `model`, quantised (see `lib.quantise.quantised`) and pruned by `masks`; return bytes on disk.

    Weights that the masks remove are stored as zeros or not at all. ValueError for an unknown form or a mask that
    fits no parameter.
    """
    if form not in INT8_FORMS:
        raise ValueError(f"unknown form {form!r}: one of {', '.join(INT8_FORMS)}")
    weights = {f"{name}.weight": layer.weight for name, layer in layers(model).items()}
    pruned = {name: parameter for name, parameter in model.named_parameters() if name in masks}
    if strange := [name for name in masks if name not in pruned or masks[name].shape != pruned[name].shape]:
        raise ValueError(f"mask {strange[0]} fits no parameter: one of {', '.join(weights)} is allowed, of its shape")
    parts = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    activations = any(name.endswith(".inputs.low") for name in parts)
    header = {"form": form, "shapes": {}, "forms": {}, "activations": activations}
    for name, parameter in (weights | pruned).items():
        del parts[name]
        parameter = parameter.detach()
        kept = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        values, scale = integers(parameter * kept) if name in weights else (parameter, None)
        header["forms"][name] = form if name in masks else "dense"
        header["shapes"][name] = list(parameter.shape)
        stored = FORMS[header["forms"][name]][0](values.cpu().contiguous(), kept.cpu().contiguous())
        stored |= {} if scale is None else {"scale": scale.cpu()}
        parts |= {f"{name}::{part}": tensor for part, tensor in stored.items()}
    return write(path, parts, header)


def load_int8(path: Path | str, model: nn.Module) -> nn.Module:
    """What `save_int8` wrote, as a quantised copy of `model`, a fresh network: with the same logits, bit for bit.

    ValueError where the file is damaged or another network's, FileNotFoundError where there is none.
    """
    tensors, header = read(path)
    try:
        state = {name: tensor for name, tensor in tensors.items() if "::" not in name}
        for name, shape in header["shapes"].items():
            state[name] = _weight(tensors, name, header["forms"][name], shape)
        ranges = dict.fromkeys(layers(model), (0.0, 0.0)) if header["activations"] else None
    except (KeyError, IndexError, RuntimeError, ValueError, TypeError) as error:  # too few values, another file
        raise ValueError(f"{path} holds no quantised network ({type(error).__name__}): make it by save_int8") from error
    made = quantised(model, ranges)
    expected = {name: list(tensor.shape) for name, tensor in made.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in state.items()}
    if found != expected:
        name = next(n for n in expected | found if expected.get(n) != found.get(n))
        raise ValueError(f"{path} is of another network: {name} is {found.get(name)}, not {expected.get(name)}")
    made.load_state_dict(state)
    return made


def _weight(tensors: dict[str, Tensor], name: str, form: str, shape: list[int]) -> Tensor:
    values = FORMS[form][1]({part: tensors[f"{name}::{part}"] for part in PARTS[form]}, shape)
    if values.dtype != torch.int8:
        return values
    return values.float() * tensors[f"{name}::scale"].view(-1, *[1] * (len(shape) - 1))
