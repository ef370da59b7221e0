"""Sets of time intervals as pairs of arrays (starts, ends), in any one unit.

Kernels of different streams overlap, so times must be added as a union; the plain sum stands beside it wherever
both are of interest.
"""

import numpy as np


def merge(starts, ends) -> tuple[np.ndarray, np.ndarray]:
    """The same set as disjoint intervals in order: overlapping and touching ones become one."""
    starts, ends = np.asarray(starts, float), np.asarray(ends, float)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order]) if len(ends) else ends
    if not len(starts):
        return starts, ends
    first = np.r_[True, starts[1:] > ends[:-1]]  # nothing before reaches this start: a new interval
    return starts[first], ends[np.r_[np.flatnonzero(first)[1:] - 1, len(ends) - 1]]


def clip(starts, ends, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the intervals inside [low, high]."""
    starts, ends = np.clip(np.asarray(starts, float), low, high), np.clip(np.asarray(ends, float), low, high)
    keep = ends > starts
    return starts[keep], ends[keep]


def union(starts, ends, low: float = -np.inf, high: float = np.inf) -> float:
    """Length of the union of the intervals inside [low, high]."""
    starts, ends = merge(*clip(starts, ends, low, high))
    return float((ends - starts).sum())
