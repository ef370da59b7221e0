"""What the symbols of a network's weights take in the codes of several coders, each decoded and compared.

entropy  the bound of any code that takes symbols one by one: Shannon 1948. Without a table
huffman  ours, with its table and the lengths of its blocks
ans      asymmetric numeral systems (Duda 2013, arXiv 1311.2540), of the package constriction, with a table of counts
zstd     a dictionary coder, which also sees repetitions, at the level of `lib.formats`; what is coded are bytes, or
         pairs of bytes where symbols need more than 8 bits
"""

import math
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import zstandard
from constriction import stream  # its parts are attributes, not modules that could be imported from

from lib import formats
from lib.pipeline import huffman, positions, stored, symbols
from lib.pipeline.network import Network

COLUMNS = ["group", "coder", "bytes", "encode_s", "decode_s"]
CODES = ["tensor", "symbol", "value", "count", "length"]

Sequence = tuple[np.ndarray, int]  # unsigned symbols, and how many bits each needs without a code


def compared(net: Network, gaps: bool = False) -> pd.DataFrame:
    """Bytes and seconds of each coder: COLUMNS. Groups are the kept weights of `convolution` and `linear` layers.

    With `gaps` also `gaps`, those between kept weights. Each tensor has a table of its own. Seconds are those of one
    process, and NaN for the bound. Float32 weights have no symbols, and no rows.
    """
    rows = []
    for group, sequences in _groups(net, gaps).items():
        for coder, function in CODERS.items():
            parts = [function(*sequence) for sequence in sequences]
            rows.append((group, coder, *(sum(part[at] for part in parts) for at in range(3))))
    return pd.DataFrame(rows, columns=COLUMNS)


def codes(net: Network) -> pd.DataFrame:
    """The Huffman code of each layer's kept weights: CODES, a row for each distinct symbol; lengths are in bits.

    `value` is the weight that a symbol stands for, with int8 in steps of the channel's scale. No rows for float32.
    """
    rows = []
    for name, found in _symbols(net).items():
        code = huffman.code_of(found.numbers)
        values = symbols.meanings(code.symbols.astype(found.numbers.dtype), found, net.grid)
        counts = dict(zip(*(part.tolist() for part in huffman.histogram(found.numbers)), strict=True))
        lengths = huffman.lengths_of(code)
        for symbol, value, length in zip(code.symbols.tolist(), values.tolist(), lengths.tolist(), strict=True):
            rows.append((name, symbol, value, counts[symbol], length))
    return pd.DataFrame(rows, columns=CODES)


def _symbols(net: Network) -> dict[str, symbols.Symbols]:
    """Of each masked tensor the kept weights, where they are on a grid."""
    found = {}
    for name, kept in net.masks.items() if net.grid else ():
        weight = net.model.get_parameter(name).detach().cpu().contiguous()
        found[name] = symbols.of(weight, kept.cpu().contiguous(), False, net.grid)
    return found


def _groups(net: Network, gaps: bool) -> dict[str, list[Sequence]]:
    held, groups = stored.holders(net.model), {}
    for name, found in _symbols(net).items():
        groups.setdefault(held[name], []).append((found.numbers, found.width))
    if gaps:
        flat = [kept.cpu().contiguous().numpy().ravel() for kept in net.masks.values()]
        widths = [(kept, positions.best_width(kept, coded=True)) for kept in flat if not kept.all()]
        groups["gaps"] = [(positions.relative(kept, width), width) for kept, width in widths]
    return groups


def _timed(encode: Callable, decode: Callable, numbers: np.ndarray) -> tuple[object, float, float]:
    """What `encode` makes of the numbers, and the seconds of it and of `decode`; ValueError if they do not agree."""
    start = time.perf_counter()
    made = encode(numbers)
    between = time.perf_counter()
    back = decode(made)
    end = time.perf_counter()
    if not np.array_equal(back, numbers):
        raise ValueError("a coder gave other symbols back: the same ones are needed")
    return made, between - start, end - between


def entropy_bits(numbers: np.ndarray) -> float:
    """Bits of all these symbols together at their entropy, by their own frequencies."""
    counts = huffman.histogram(numbers)[1]
    return float((counts * np.log2(len(numbers) / counts)).sum())


def _entropy(numbers: np.ndarray, width: int) -> tuple[int, float, float]:
    return math.ceil(entropy_bits(numbers) / 8), math.nan, math.nan


def _huffman(numbers: np.ndarray, width: int) -> tuple[int, float, float]:
    def encode(numbers):
        code = huffman.code_of(numbers)
        return huffman.encode(numbers, code), code

    (coded, code), *seconds = _timed(encode, lambda made: huffman.decode(*made), numbers)
    return len(stored.coded_table(code, width)) + coded.blocks.nbytes + len(coded.data), *seconds


def _ans(numbers: np.ndarray, width: int) -> tuple[int, float, float]:
    found, counts = huffman.histogram(numbers)
    if len(numbers) == 0:
        return 0, 0.0, 0.0
    # one more symbol that never comes, as the package wants two; no better approximation, which takes long, is sought
    model = stream.model.Categorical(np.append(counts, 0).astype(np.float64), perfect=False)
    ranks = np.zeros(1 << width, np.int32)
    ranks[found] = np.arange(len(found))

    def encode(numbers):
        coder = stream.stack.AnsCoder()
        coder.encode_reverse(ranks[numbers], model)
        return coder.get_compressed()

    made, *seconds = _timed(
        encode, lambda made: found[stream.stack.AnsCoder(made).decode(model, len(numbers))], numbers
    )
    types = [np.min_scalar_type(most) for most in (2**width - 1, int(counts.max()))]
    return made.nbytes + len(found) * sum(kind.itemsize for kind in types), *seconds


def _zstd(numbers: np.ndarray, width: int) -> tuple[int, float, float]:
    made, *seconds = _timed(
        lambda numbers: zstandard.compress(numbers.tobytes(), formats.LEVEL),
        lambda made: np.frombuffer(zstandard.decompress(made), numbers.dtype),
        numbers,
    )
    return len(made), *seconds


CODERS: dict[str, Callable[[np.ndarray, int], tuple[int, float, float]]] = {
    "entropy": _entropy, "huffman": _huffman, "ans": _ans, "zstd": _zstd,
}  # fmt: skip
