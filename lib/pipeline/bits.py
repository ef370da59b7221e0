"""Codes of different lengths one after the other, the most significant bit first, and back, for whole arrays."""

import numpy as np

CHUNK = 1 << 18  # symbols that are packed at once: their temporaries, 8 bytes each, stay in the cache
PADDING = 1024  # words of zeros behind the data: where a reader may arrive that goes astray for a block of symbols


def packed(symbols: np.ndarray, codes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The bytes (uint8) that hold `codes[symbol]` for each of `symbols`, the last one filled up with zeros.

    `codes` (uint64) lie at the most significant bits of their words, and `lengths` (uint8, 0 to 63) are in bits.
    """
    total = int(lengths[symbols].sum(dtype=np.int64))
    words = np.zeros(total // 64 + 2, np.uint64)
    ends = np.zeros(1, np.uint64)
    for at in range(0, len(symbols) if total else 0, CHUNK):
        some = symbols[at : at + CHUNK]
        code, length = codes[some], lengths[some].astype(np.uint64)
        ends = ends[-1] + np.cumsum(length)
        begins = ends - length
        word, shift = (begins >> 6).astype(np.int64), begins & 63
        first = np.concatenate([[0], np.flatnonzero(word[1:] != word[:-1]) + 1])  # code that starts in each word
        words[word[first]] |= np.bitwise_or.reduceat(code >> shift, first)
        over = np.flatnonzero(shift + length > 64)  # at most one a word: its last
        words[word[over] + 1] |= code[over] << (64 - shift[over])
    return words.astype(">u8").view(np.uint8)[: -(-total // 8)]


def words(data: np.ndarray) -> np.ndarray:
    """Bytes (uint8) as words (uint64) for `windows`, with PADDING behind them."""
    padded = np.zeros((-(-len(data) // 8) + PADDING) * 8, np.uint8)
    padded[: len(data)] = data
    return padded.view(">u8").astype(np.uint64)


def windows(words: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The 64 bits (uint64) that begin at each of these bits (int64, 0 and more)."""
    word, shift = at >> 6, (at & 63).view(np.uint64)
    return (words[word] << shift) | (words[word + 1] >> 1 >> (63 - shift))  # no shift by 64, which is undefined


def packed_fixed(symbols: np.ndarray, width: int) -> np.ndarray:
    """Unsigned symbols below 2**width (1 to 16) in `width` bits each, as bytes (uint8)."""
    codes = np.arange(1 << width, dtype=np.uint64) << (64 - width)
    return packed(symbols, codes, np.full(1 << width, width, np.uint8))


def unpacked_fixed(data: np.ndarray, width: int, count: int) -> np.ndarray:
    """`count` symbols (uint16) from what `packed_fixed` made; ValueError where `data` is too short or too long."""
    if len(data) != -(-count * width // 8):
        raise ValueError(f"{len(data)} bytes for {count} symbols of {width} bits: {-(-count * width // 8)} are needed")
    found, held = np.empty(count, np.uint16), words(data)
    for at in range(0, count, CHUNK):
        begins = np.arange(at, min(at + CHUNK, count), dtype=np.int64) * width
        found[at : at + CHUNK] = windows(held, begins) >> (64 - width)
    return found
