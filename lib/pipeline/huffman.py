"""Canonical Huffman codes of integers: Huffman 1952; the canonical form of Schwartz and Kallick 1964.

Codes are given by the symbols in the order of their codes, and how many codes there are of each length, as in JPEG:
two arrays, from which the codes follow by counting. A lone symbol has a code of no bits.

Nothing loops over symbols in Python. A stream is cut into blocks of 1,024 symbols whose lengths in bits are stored with
it, 2 bytes each (1/64 bit a symbol); all blocks are decoded in step, a symbol of each at a time.
"""

import heapq
from typing import NamedTuple

import numpy as np

from lib.pipeline import bits

BLOCK = 1024  # symbols: with codes of up to 63 bits the length of a block fits in 16 bits
LONGEST = 63  # bits; to need more takes 10**13 symbols, as the counts must grow like Fibonacci's numbers
SPAN = 1 << 24  # largest minus smallest symbol; tables of 8 bytes a value are made


class Code(NamedTuple):
    """Symbols in the order of their codes, and how many codes have 0, 1, 2, ... bits."""

    symbols: np.ndarray
    counts: np.ndarray


class Stream(NamedTuple):
    """Coded symbols: bytes (uint8), the length of each block in bits (uint16), how many symbols they are."""

    data: np.ndarray
    blocks: np.ndarray
    count: int


def histogram(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct symbols, ascending, and how often each is there; ValueError unless they are integers in SPAN."""
    if symbols.dtype.kind not in "iu" or symbols.ndim != 1:
        raise ValueError(f"symbols are {symbols.dtype} of shape {symbols.shape}: one dimension of integers is allowed")
    if not len(symbols):
        return symbols[:0].astype(np.int64), np.zeros(0, np.int64)
    low, high = int(symbols.min()), int(symbols.max())
    if high - low >= SPAN:
        raise ValueError(f"symbols go from {low} to {high}: a distance below {SPAN} is allowed")
    counts = np.bincount(_above(symbols, low))
    found = np.flatnonzero(counts)
    return found + low, counts[found]


def code_of(symbols: np.ndarray) -> Code:
    """The code that needs the fewest bits for these symbols (integers, one dimension)."""
    found, frequencies = histogram(symbols)
    lengths = _lengths(frequencies.tolist())
    return Code(found[np.lexsort((found, lengths))], np.bincount(lengths))


def lengths_of(code: Code) -> np.ndarray:
    """Bits of the code of each of its symbols (uint8), ascending."""
    return np.repeat(np.arange(len(code.counts), dtype=np.uint8), code.counts.astype(np.int64))


def encode(symbols: np.ndarray, code: Code) -> Stream:
    """`symbols` (integers, one dimension) in `code`; ValueError where one has none, or the code is no code."""
    check(code)
    if not len(symbols):
        return Stream(np.zeros(0, np.uint8), np.zeros(0, np.uint16), 0)
    low, high = (int(code.symbols.min()), int(code.symbols.max())) if len(code.symbols) else (0, -1)
    known = np.zeros(max(high - low + 1, 0), bool)
    own = _above(code.symbols, low)
    known[own] = True
    if symbols.min() < low or symbols.max() > high or not known[_above(symbols, low)].all():
        missing = sorted(set(np.unique(symbols).tolist()) - set(code.symbols.tolist()))
        raise ValueError(f"symbol {missing[0]} has no code: one of {len(code.symbols)} others is allowed")
    lengths, codes = np.zeros(len(known), np.uint8), np.zeros(len(known), np.uint64)
    lengths[own], codes[own] = lengths_of(code), _firsts(code)
    places = _above(symbols, low)
    blocks = np.add.reduceat(lengths[places], np.arange(0, len(places), BLOCK), dtype=np.int64)
    return Stream(bits.packed(places, codes, lengths), blocks.astype(np.uint16), len(symbols))


def decode(stream: Stream, code: Code) -> np.ndarray:
    """The symbols (int64) of what `encode` made; ValueError where the stream is not one of this code."""
    check(code)
    count, ends = stream.count, np.cumsum(stream.blocks, dtype=np.int64)
    needed = -(-count // BLOCK)
    if len(ends) != needed:
        raise ValueError(f"the stream has {len(ends)} blocks: {needed} are needed for {count} symbols")
    if len(stream.data) != -(-int(ends[-1] if needed else 0) // 8):
        raise ValueError(
            f"the stream has {len(stream.data)} bytes: its blocks have {int(ends[-1] if needed else 0)} bits"
        )
    if count and not len(code.symbols):
        raise ValueError(f"the code has no symbols: some are needed for a stream of {count}")
    if len(code.symbols) < 2:
        if needed and ends[-1]:
            raise ValueError(f"the stream has {int(ends[-1])} bits: a code of one symbol has none")
        return np.repeat(code.symbols.astype(np.int64), count)
    return code.symbols.astype(np.int64)[_ranks(stream, ends, code)]


def check(code: Code) -> None:
    """ValueError unless every string of bits begins with exactly one code, or there is one symbol, or none."""
    counts, symbols = [int(count) for count in code.counts], len(code.symbols)
    if sum(counts) != symbols or min(counts, default=0) < 0 or len(np.unique(code.symbols)) != symbols:
        raise ValueError(f"the code table has {sum(counts)} codes for {symbols} symbols: one for each is allowed")
    if len(counts) > LONGEST + 1:
        raise ValueError(f"the code table has codes of {len(counts) - 1} bits: up to {LONGEST} are allowed")
    share = sum(count << (LONGEST - length) for length, count in enumerate(counts)) / (1 << LONGEST)
    if symbols and sum(count << (LONGEST - length) for length, count in enumerate(counts)) != 1 << LONGEST:
        raise ValueError(f"the code table does not decode: its Kraft sum is {share:.6g}, 1 is allowed")


def _ranks(stream: Stream, ends: np.ndarray, code: Code) -> np.ndarray:
    """The place in the code of each symbol: of all blocks the first, then of all blocks the second, and so on.

    Codes left-aligned in 64 bits are numbers that ascend, and what begins with a code lies between it and the next.
    """
    firsts, lengths = _firsts(code), lengths_of(code).astype(np.int64)
    words, at = bits.words(stream.data), ends - stream.blocks
    last = stream.count - (len(ends) - 1) * BLOCK  # symbols of the last block, which then reads on into the padding
    found = np.empty((min(stream.count, BLOCK), len(ends)), np.min_scalar_type(len(firsts)))
    for step in range(len(found)):
        rank = np.searchsorted(firsts, bits.windows(words, at), side="right") - 1
        found[step] = rank
        at += lengths[rank]
        if step == last - 1:
            end = at[-1]
    if end != ends[-1] or (at[:-1] != ends[:-1]).any():
        raise ValueError("the stream does not decode: symbols end elsewhere than their blocks")
    return found.T.reshape(-1)[: stream.count]


def _firsts(code: Code) -> np.ndarray:
    """The code of each symbol at the most significant bits of a word (uint64): each follows the one before."""
    steps = np.uint64(1) << (64 - lengths_of(code).astype(np.uint64)) % 64  # a lone symbol's code is 0 in any case
    return np.cumsum(steps, dtype=np.uint64) - steps


def _above(symbols: np.ndarray, low: int) -> np.ndarray:
    """How far symbols lie above the lowest one, as indices."""
    return symbols.astype(np.int64) - low


def _lengths(frequencies: list[int]) -> np.ndarray:
    """Bits of an optimal prefix code (int64): the two rarest nodes become one until a single one is left."""
    leaves = len(frequencies)
    heap = [(frequency, node) for node, frequency in enumerate(frequencies)]
    heapq.heapify(heap)
    parents = [0] * max(2 * leaves - 1, 0)
    for node in range(leaves, 2 * leaves - 1):
        rarest, next_rarest = heapq.heappop(heap), heap[0]
        parents[rarest[1]] = parents[next_rarest[1]] = node
        heapq.heapreplace(heap, (rarest[0] + next_rarest[0], node))
    depths = np.zeros(len(parents), np.int64)
    for node in reversed(range(len(parents) - 1)):
        depths[node] = depths[parents[node]] + 1
    return depths[:leaves]
