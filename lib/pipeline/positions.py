"""Where the kept weights of a flat tensor are: a bit a weight, or the gaps between them in a few bits each.

Gaps are those of Deep Compression (Han et al. 2016, arXiv 1510.00149, section 2). There a gap that is too wide is
bridged by a filler, a zero that is stored as if it were kept. Here the widest gap that `bits` can say is the filler,
and no value belongs to it: a kept weight that was rounded to zero is never taken for one, and zero needs no place in a
codebook.
"""

import numpy as np

GAP_BITS = 5  # as in that paper for linear layers
WIDTHS = range(3, 9)  # that `best_width` tries


def bitmask(kept: np.ndarray) -> np.ndarray:
    """One bit for each of `kept` (bool, one dimension), as bytes (uint8)."""
    return np.packbits(kept)


def from_bitmask(data: np.ndarray, count: int) -> np.ndarray:
    """`count` bools from what `bitmask` made; ValueError where `data` is too short or too long."""
    if len(data) != -(-count // 8):
        raise ValueError(f"{len(data)} bytes for a mask of {count} weights: {-(-count // 8)} are needed")
    return np.unpackbits(data, count=count).astype(bool)


def relative(kept: np.ndarray, bits: int = GAP_BITS) -> np.ndarray:
    """Numbers (uint8, below 2**bits, `bits` from 1 to 8), one for each of `kept` (bool, one dimension) and the fillers.

    A number below 2**bits - 1 says that after so many removed weights one is kept, and 2**bits - 1 that so many are
    removed. Behind the last kept one nothing is said.
    """
    filler = _filler(bits)
    fillers, rest = np.divmod(np.diff(np.flatnonzero(kept), prepend=-1) - 1, filler)
    ends = np.cumsum(fillers + 1)
    gaps = np.full(ends[-1] if len(ends) else 0, filler, np.uint8)
    gaps[ends - 1] = rest
    return gaps


def best_width(kept: np.ndarray, coded: bool) -> int:
    """The bits of WIDTHS with which the gaps take least: as they are, or `coded` at their entropy, without tables.

    Few bits need many fillers, many bits are wasted on short gaps; in a code the latter cost nothing.
    """
    return min(WIDTHS, key=lambda bits: _size(relative(kept, bits), bits, coded))


def _size(gaps: np.ndarray, bits: int, coded: bool) -> float:
    if not coded:
        return len(gaps) * bits
    counts = np.bincount(gaps, minlength=1)
    counts = counts[counts > 0]
    # a table has a symbol of a byte and, roughly, a length of as much
    return float((counts * np.log2(len(gaps) / counts)).sum()) + 16 * len(counts)


def from_relative(gaps: np.ndarray, count: int, bits: int = GAP_BITS) -> np.ndarray:
    """`count` bools from what `relative` made; ValueError where they lie outside or a number is too large."""
    filler = _filler(bits)
    if len(gaps) and int(gaps.max()) > filler:
        raise ValueError(f"a gap is {gaps.max()}: up to {filler} is allowed in {bits} bits")
    keeps = gaps != filler
    ends = np.cumsum(gaps + keeps.astype(np.int64))
    if len(ends) and ends[-1] > count:
        raise ValueError(f"the gaps reach to weight {ends[-1]}: there are {count}")
    kept = np.zeros(count, bool)
    kept[ends[keeps] - 1] = True
    return kept


def _filler(bits: int) -> int:
    if not 1 <= bits <= 8:
        raise ValueError(f"gaps of {bits} bits: 1 to 8 are allowed")
    return (1 << bits) - 1
