"""The convolution layers of a step in order, with their kernels and times."""

import numpy as np
import pandas as pd

from .intervals import merge, union
from .read import short_name

GAP_US = 10.0  # first-to-last time is given only where the GPU never idles longer than this within the layer


def calls(ops: pd.DataFrame) -> pd.DataFrame:
    """The top-level convolution operators: convolutions that no other convolution calls, in order of start."""
    convolution = ops.kind == "convolution"
    above = ops.parent.map(convolution).fillna(False).astype(bool)
    return ops[convolution & ~above].sort_values("start_us")


def root(ops: pd.DataFrame) -> pd.Series:
    """For each operator the row of the top-level convolution around it, -1 for none."""
    rows = {}
    top = set(calls(ops).index)
    for row, above in ops.parent.items():  # parents come before children
        rows[row] = row if row in top else rows.get(above, -1)
    return pd.Series(rows, dtype=int)


def layers(ops: pd.DataFrame, work: pd.DataFrame, names=(), gap_us: float = GAP_US) -> tuple[pd.DataFrame, list[str]]:
    """A row a top-level convolution call, in order, and what must be said about the names.

    layer (given name, or `convolution 1`...), operator, shape of the weight if recorded, start_us, operator_us (on
    the host), kernels, kernel_us (union), kernel_sum_us, first_to_last_us (NaN where a gap exceeds `gap_us`, or
    without kernels), largest_gap_us, main_kernel (the one with the most time).
    """
    found, around = calls(ops), root(ops)
    forward = [row for row, name in found.name.items() if "backward" not in name.lower()]
    labels, notes = _labels(forward, list(names))
    kernels = work[(work.what == "kernel") & (work.operator_row >= 0)]
    owner = kernels.operator_row.map(around) if len(kernels) else pd.Series(dtype=int)
    rows = [
        {
            "layer": labels.get(call.Index, f"{call.name} {position}"),
            "operator": call.name,
            "weight_shape": _weight_shape(call.shapes),
            "start_us": call.start_us,
            "operator_us": call.dur_us,
            **_times(kernels[owner == call.Index], gap_us),
        }
        for position, call in enumerate(found.itertuples(), 1)
    ]
    return pd.DataFrame(rows, columns=None if rows else _EMPTY), notes


_EMPTY = [
    "layer", "operator", "weight_shape", "start_us", "operator_us", "kernels", "kernel_us", "kernel_sum_us",
    "first_to_last_us", "largest_gap_us", "main_kernel",
]  # fmt: skip


def _labels(forward: list[int], names: list[str]) -> tuple[dict, list[str]]:
    if names and len(names) == len(forward):
        return dict(zip(forward, names, strict=True)), []
    numbered = {row: f"convolution {position}" for position, row in enumerate(forward, 1)}
    if names:
        return numbered, [
            f"The trace holds {len(forward)} convolution calls and {len(names)} layer names: the names are not used."
        ]
    return numbered, []


def _weight_shape(shapes) -> str:
    weight = shapes[1] if isinstance(shapes, list) and len(shapes) > 1 else []
    return "x".join(map(str, weight)) if isinstance(weight, list) else ""


def _times(kernels: pd.DataFrame, gap_us: float) -> dict:
    if kernels.empty:
        nothing = {"kernel_us": np.nan, "kernel_sum_us": np.nan, "first_to_last_us": np.nan, "largest_gap_us": np.nan}
        return {"kernels": 0, **nothing, "main_kernel": ""}
    starts, ends = merge(kernels.start_us, kernels.end_us)
    gap = float(np.max(starts[1:] - ends[:-1], initial=0))
    by_name = kernels.groupby("name").dur_us.sum()
    return {
        "kernels": len(kernels),
        "kernel_us": union(kernels.start_us, kernels.end_us),
        "kernel_sum_us": float(kernels.dur_us.sum()),
        "first_to_last_us": float(ends[-1] - starts[0]) if gap <= gap_us else np.nan,
        "largest_gap_us": gap,
        "main_kernel": short_name(by_name.idxmax()),
    }
