"""A network between two stages as one file, with what is removed, its grid and its inputs, and what each part weighs.

Weights that a mask names are stored as float32 where the grid is empty, and otherwise as integers: 8 or 16 bits of a
fixed point, 8 bits and a scale a channel, or places in the layer's codebook of float32. Fixed-point biases are integers
too. Everything else is stored as it is. Which weights are kept is said

none      not at all, and removed weights are stored as zeros. Where kept ones are zero too, a bit a weight tells them
          apart, as a stage that trains on has to know
bitmask   by a bit a weight, and only kept ones are stored
relative  by the gaps between kept ones, in 3 to 8 bits, whichever take least (see `lib.pipeline.positions`), and only
          kept ones are stored

and for a layer of which nothing is removed in no way. With coding `huffman` integers and gaps are Huffman coded with
a table for each tensor, those apart that would grow by it; float32 and bit masks never are.

The file is a safetensors container, one entry a tensor, with a JSON header. A SHA-256 of the whole file, in which its
own digits count as zeros, stands in the header: whatever is cut off or changed, it is noticed.
"""

import hashlib
import io
import re
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib import formats
from lib.files import replacing
from lib.pipeline import bits, huffman, symbols
from lib.pipeline import positions as places
from lib.pipeline.network import Network

POSITIONS = ("none", "bitmask", "relative")
CODINGS = ("none", "huffman")
COLUMNS = ["tensor", "holder", "part", "bytes"]
ALL, NONZERO, BITMASK, RELATIVE = range(4)  # how a tensor says what is kept: the first byte of its entry
PACKED, CODED = range(2)  # how a sequence of symbols is stored
SETS = "sets::"
UNSIGNED = "0" * 64
DIGEST = re.compile(rb'sha256\\": \\"([0-9a-f]{64})\\"')

Pieces = list[tuple[str, bytes]]  # (part, contents)


def save(path: Path | str, net: Network, *, positions: str = "bitmask", coding: str = "none") -> pd.DataFrame:
    """Write `net` to `path`; return COLUMNS, a row for each part of each tensor, whose bytes sum to those of the file.

    holder  convolution or linear (weights), bias (theirs), norm (all of a normalisation), other
    part    values; indices (what is kept, and the sets of pruned inputs); table (scales, codebooks, codes, lengths);
            header (of the file, of no tensor)

    ValueError where weights are not on the grid, removed ones are not zero, or masks fit no parameter.
    """
    _check(net, positions, coding)
    tensors, rows, held = {}, [], holders(net.model)
    for name, tensor in net.model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name in net.masks:
            pieces = _pieces(name, tensor, net.masks[name].cpu().contiguous(), net.grid, positions, coding)
            tensors[name] = torch.frombuffer(bytearray(b"".join(piece for _, piece in pieces)), dtype=torch.uint8)
            rows += _rows(name, held[name], pieces)
        else:
            tensors[name] = (
                _named(name, symbols.fixed_integers, tensor, net.grid) if _rounds(net.grid, held[name]) else tensor
            )
            rows.append((name, held[name], "values", tensors[name].nbytes))
    sets = net.inputs.get("prune", {}).get("sets", {})
    for layer, kept in sets.items():
        tensors[SETS + layer] = torch.from_numpy(places.bitmask(kept.cpu().contiguous().numpy().ravel()))
        rows.append((SETS + layer, "other", "indices", tensors[SETS + layer].nbytes))
    size = _write(Path(path), tensors, _header(net, positions, sets))
    rows.append(("", "other", "header", size - sum(row[-1] for row in rows)))
    return pd.DataFrame(rows, columns=COLUMNS)


def load(path: Path | str, model: nn.Module) -> Network:
    """What `save` wrote, with `model`, a fresh network of the same architecture, which is filled: bit for bit the same.

    It stays on its device, where masks go too, and is put into evaluation mode. ValueError, before anything is changed,
    where the file is damaged or another network's, FileNotFoundError where there is none.
    """
    content = Path(path).read_bytes()
    _check_digest(path, content)
    try:
        tensors, header = formats.unpacked(content)
        expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: list(tensor.shape) for name, tensor in tensors.items() if not name.startswith(SETS)}
        if found | header["shapes"] != expected:
            found |= header["shapes"]
            name = next(n for n in expected | found if expected.get(n) != found.get(n))
            raise ValueError(f"it is of another network: {name} is {found.get(name)}, not {expected.get(name)}")
        return _network(tensors, header, model)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} holds no such network ({error}): a file of the same one is allowed") from error


def holders(model: nn.Module) -> dict[str, str]:
    """Tensor of the model's state -> what it belongs to: convolution, linear, bias, norm or other."""
    found = {}
    for name in model.state_dict():
        prefix, _, own = name.rpartition(".")
        module = model.get_submodule(prefix)
        if isinstance(module, nn.Conv2d | nn.Linear):
            found[name] = own if own == "bias" else "convolution" if isinstance(module, nn.Conv2d) else "linear"
        else:
            found[name] = "norm" if isinstance(module, _BatchNorm | nn.LayerNorm) else "other"
    return found


def _check(net: Network, positions: str, coding: str) -> None:
    for what, value, allowed in (("positions", positions, POSITIONS), ("coding", coding, CODINGS)):
        if value not in allowed:
            raise ValueError(f"{what} is {value!r}: one of {', '.join(allowed)} is allowed")
    symbols.check_grid(net.grid)
    state = net.model.state_dict()
    for name, mask in net.masks.items():
        if name not in state or state[name].shape != mask.shape:
            raise ValueError(f"mask {name} fits no parameter: one of {', '.join(state)} is allowed, of its shape")
        if count := int(state[name][~mask].count_nonzero()):
            raise ValueError(f"{count} removed weights of {name} are not 0: those that a mask removes are to be 0")


def _rounds(grid: dict, holder: str) -> bool:
    return grid.get("kind") == "fixed" and holder == "bias"


def _named(name: str, function, *values):
    """What `function` makes of the values; a ValueError says of what tensor it is."""
    try:
        return function(*values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _header(net: Network, positions: str, sets: dict[str, Tensor]) -> dict:
    inputs = dict(net.inputs)
    if "sets" in inputs.get("prune", {}):
        inputs["prune"] = {name: value for name, value in inputs["prune"].items() if name != "sets"}
        inputs["prune"]["sets"] = {layer: list(kept.shape) for layer, kept in sets.items()}
    shapes = {name: list(mask.shape) for name, mask in net.masks.items()}
    return {"sha256": UNSIGNED, "positions": positions, "grid": net.grid, "inputs": inputs, "shapes": shapes}


def _write(path: Path, tensors: dict[str, Tensor], header: dict) -> int:
    """Bytes of the file."""
    content = formats.packed(tensors, header)
    content = formats.packed(tensors, header | {"sha256": hashlib.sha256(content).hexdigest()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def _check_digest(path: Path | str, content: bytes) -> None:
    stored = DIGEST.search(content, 0, 200)  # it stands first
    if not stored:
        raise ValueError(f"{path} is damaged, or no file of a stage: its checksum is missing")
    signed = content[: stored.start(1)] + UNSIGNED.encode() + content[stored.end(1) :]
    if hashlib.sha256(signed).hexdigest().encode() != stored[1]:
        raise ValueError(f"{path} is damaged: its checksum is another; run the stage that made it again")


def _rows(name: str, holder: str, pieces: Pieces) -> list[tuple[str, str, str, int]]:
    sizes = dict.fromkeys(("values", "indices", "table"), 0)
    for part, piece in pieces:
        sizes[part] += len(piece)
    return [(name, holder, part, size) for part, size in sizes.items()]


def _pieces(name: str, weight: Tensor, kept: Tensor, grid: dict, positions: str, coding: str) -> Pieces:
    """How what is kept is said, then that, then the table of the values, then these."""
    flat = kept.numpy().ravel()
    pieces = _positions(flat, weight, positions, coding)
    chosen = torch.ones_like(kept) if positions == "none" else kept
    if not grid:
        return [*pieces, ("values", (weight[chosen].numpy() + 0.0).astype("<f4").tobytes())]  # no -0
    removed = positions == "none" and not flat.all()
    found = _named(name, symbols.of, weight, chosen, removed, grid)
    if len(found.table):
        pieces += [("table", _bytes(len(found.table))), ("table", found.table.astype("<f4").tobytes())]
    return pieces + _stream("values", found.numbers, found.width, coding)


def _positions(kept: np.ndarray, weight: Tensor, positions: str, coding: str) -> Pieces:
    if kept.all():
        return [("table", bytes([ALL]))]
    if positions == "relative":
        width = places.best_width(kept, coding == "huffman")
        gaps = places.relative(kept, width)
        stream = _stream("indices", gaps, width, coding)
        return [("table", bytes([RELATIVE, width])), ("table", _bytes(len(gaps))), *stream]
    if positions == "none" and np.array_equal(kept, weight.numpy().ravel() != 0):
        return [("table", bytes([NONZERO]))]
    return [("table", bytes([BITMASK])), ("indices", places.bitmask(kept).tobytes())]


def _stream(part: str, numbers: np.ndarray, width: int, coding: str) -> Pieces:
    """Symbols below 2**width, Huffman coded if so wished and smaller."""
    size = -(-len(numbers) * width // 8)
    if coding == "huffman":
        code = huffman.code_of(numbers)
        stream, table = huffman.encode(numbers, code), coded_table(code, width)
        table += stream.blocks.astype("<u2").tobytes()
        if len(table) + len(stream.data) < size:
            return [("table", bytes([CODED]) + table), (part, stream.data.tobytes())]
    return [("table", bytes([PACKED])), (part, bits.packed_fixed(numbers, width).tobytes())]


def coded_table(code: huffman.Code, width: int) -> bytes:
    """The table of a code as it lies in a file: how many symbols and lengths, the symbols, the counts of lengths."""
    kinds = _table_types(width, len(code.symbols))
    arrays = [values.astype(kind).tobytes() for values, kind in zip(code, kinds, strict=True)]
    return _bytes(len(code.symbols)) + bytes([len(code.counts)]) + b"".join(arrays)


def _table_types(width: int, count: int) -> tuple[np.dtype, np.dtype]:
    """Types of symbols and of counts of lengths, which are at most as many as there are symbols."""
    return tuple(np.min_scalar_type(most).newbyteorder("<") for most in (2**width - 1, count))


def _bytes(count: int) -> bytes:
    return count.to_bytes(4, "little")


def _network(tensors: dict[str, Tensor], header: dict, model: nn.Module) -> Network:
    grid, inputs, held = header["grid"], header["inputs"], holders(model)
    state, masks, device = {}, {}, next(model.parameters()).device
    for name, shape in header["shapes"].items():
        state[name], kept = _unpacked(tensors.pop(name), shape, grid, header["positions"])
        masks[name] = torch.from_numpy(kept).view(shape).to(device)
    if "sets" in inputs.get("prune", {}):
        shapes = inputs["prune"]["sets"]
        sets = {layer: places.from_bitmask(tensors.pop(SETS + layer).numpy(), prod(shapes[layer])) for layer in shapes}
        inputs["prune"]["sets"] = {
            layer: torch.from_numpy(kept).view(shapes[layer]).to(device) for layer, kept in sets.items()
        }
    for name, tensor in tensors.items():
        state[name] = symbols.from_fixed(tensor, grid) if _rounds(grid, held[name]) else tensor
    model.load_state_dict(state)
    return Network(model.eval(), masks, grid, inputs)


def _unpacked(entry: Tensor, shape: list[int], grid: dict, positions: str) -> tuple[Tensor, np.ndarray]:
    """A weight, and which are kept (bool, flat), from the pieces of its entry."""
    file, count = io.BytesIO(entry.numpy().tobytes()), prod(shape)
    how, kept = int(_take(file, np.uint8, 1)[0]), np.ones(count, bool)
    if how == BITMASK:
        kept = places.from_bitmask(_take(file, np.uint8, -(-count // 8)), count)
    elif how == RELATIVE:
        width = int(_take(file, np.uint8, 1)[0])
        gaps = _symbols(file, int(_take(file, "<u4", 1)[0]), width)
        kept = places.from_relative(gaps, count, width)
    chosen = np.ones(count, bool) if positions == "none" else kept
    weight = _weight(file, chosen, shape, grid)
    if file.read(1):
        raise ValueError("an entry is too long")
    return weight, weight.numpy().ravel() != 0 if how == NONZERO else kept


def _weight(file: io.BytesIO, chosen: np.ndarray, shape: list[int], grid: dict) -> Tensor:
    stored = np.count_nonzero(chosen)
    if not grid:
        found = np.zeros(len(chosen), np.float32)
        found[chosen] = _take(file, "<f4", stored)
        return torch.from_numpy(found).view(shape)
    table, width = np.zeros(0, np.float32), 8
    if grid["kind"] == "fixed":
        width = 8 if grid["bits"] <= 8 else 16
    elif grid["kind"] == "int8" or stored:  # a codebook of nothing is not stored
        table = _take(file, "<f4", int(_take(file, "<u4", 1)[0])).astype(np.float32)
    if grid["kind"] == "shared":
        width = symbols.shared_width(len(table), grid["bits"])
    numbers = _symbols(file, stored, width).astype(np.uint8 if width <= 8 else np.uint16)
    return symbols.weights(symbols.Symbols(numbers, width, table), chosen, shape, grid)


def _symbols(file: io.BytesIO, count: int, width: int) -> np.ndarray:
    if _take(file, np.uint8, 1)[0] == PACKED:
        return bits.unpacked_fixed(_take(file, np.uint8, -(-count * width // 8)), width, count)
    many, lengths = int(_take(file, "<u4", 1)[0]), int(_take(file, np.uint8, 1)[0])
    kinds = _table_types(width, many)
    code = huffman.Code(_take(file, kinds[0], many), _take(file, kinds[1], lengths))
    blocks = _take(file, "<u2", -(-count // huffman.BLOCK))
    data = _take(file, np.uint8, -(-int(blocks.sum(dtype=np.int64)) // 8))
    return huffman.decode(huffman.Stream(data, blocks, count), code)


def _take(file: io.BytesIO, kind, count: int) -> np.ndarray:
    """The next `count` numbers of this type."""
    data = file.read(count * np.dtype(kind).itemsize)
    if len(data) != count * np.dtype(kind).itemsize:
        raise ValueError("an entry is too short")
    return np.frombuffer(data, kind)
