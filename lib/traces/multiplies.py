"""Which multiplications apply a pruning mask to a parameter.

A mask multiply is an outermost `aten::mul` or `aten::mul_` whose product is a layer's parameter.

- With recorded shapes (`record_shapes=True`), evidence "shape": both factors have the same shape, and it is that of a
  parameter (weight, bias, scale or shift) which a later layer of the step takes; a parameter answers for one multiply.
- Without, evidence "position": the multiply stands in a run of multiplies with nothing but views between it and the
  convolution, matrix product or normalisation that follows, and its kernel is not the broadcasting one.
- Either way, evidence "pair": an equal-shaped multiply directly before a broadcasting one, as in a shortcut that
  multiplies its masked weight into the activation (the broadcasting multiply itself is no mask multiply).

Limits: without shapes, an activation scaled by an equal-shaped tensor right before a layer counts as a mask; on a CPU
without shapes a broadcasting one does too; masks fused by a compiler or multiplied by `_foreach_mul` are not seen.
"""

import re
from math import prod

import pandas as pd

MULTIPLY = {"aten::mul", "aten::mul_"}
LAYERS = {"convolution", "matrix product", "normalisation"}
VIEWS = re.compile(r"::(?:view|reshape|_unsafe_view|_reshape_alias|flatten|t|transpose|permute|expand|detach|squeeze"
                   r"|unsqueeze|alias|as_strided|empty\w*|slice|select|unfold)$")  # fmt: skip
BROADCAST = re.compile(r"(?<![A-Za-z_])elementwise_kernel<")  # equal shapes get a vectorized_ or unrolled_ one
COLUMNS = ["operator_row", "operator", "start_us", "host_us", "role", "evidence", "before"]


def multiplies(ops: pd.DataFrame, work: pd.DataFrame) -> pd.DataFrame:
    """A row a multiplication of the step: its row in `ops`, host time, `role` ("mask" or "other"), evidence, and the
    row of the layer it stands before (-1 where it stands before none)."""
    outer = ops[(ops.parent < 0) & ~ops.name.str.contains(VIEWS)].sort_values("start_us")
    broadcasting = _broadcasting(outer, work)
    wanted = _parameters(outer)
    found = []
    for _, thread in outer.groupby(["pid", "tid"], sort=False):
        found += _roles(list(thread.itertuples()), broadcasting, wanted)
    return pd.DataFrame(found, columns=COLUMNS).sort_values("start_us", ignore_index=True)


def _broadcasting(outer: pd.DataFrame, work: pd.DataFrame) -> set:
    """Rows of the multiplies whose factors differ in shape, by recorded shapes or by the kernel they launched."""
    rows = {op.Index for op in outer.itertuples() if op.name in MULTIPLY and _factors(op) and not _equal(op)}
    kernels = work[(work.what == "kernel") & work.name.str.contains(BROADCAST)]
    return rows | set(kernels.outer) - {op.Index for op in outer.itertuples() if _equal(op)}


def _factors(op) -> list:
    shapes = op.shapes if isinstance(op.shapes, list) else []
    return [tuple(shape) for shape in shapes[:2]] if len(shapes) >= 2 else []


def _equal(op) -> bool:
    factors = _factors(op)
    return bool(factors) and factors[0] == factors[1] and factors[0] != ()


def _feeds(op, follower) -> bool:
    """Whether the product may be the smaller factor of the broadcasting multiply that follows."""
    if not _factors(op) or not _factors(follower):
        return True
    mine, factors = _factors(op)[0], sorted(_factors(follower), key=prod)
    return _equal(op) and mine == factors[0] != factors[1]


def _parameters(outer: pd.DataFrame) -> dict:
    """Shape -> [(start of the layer, its row)] of the parameters that the layers take, in order."""
    wanted: dict = {}
    for op in outer[outer.kind.isin(LAYERS)].itertuples():
        shapes = op.shapes if isinstance(op.shapes, list) else []
        for shape in shapes[1:3]:  # the weight and bias of aten::conv2d, aten::linear, aten::batch_norm
            if isinstance(shape, list) and shape:
                wanted.setdefault(tuple(shape), []).append((op.start_us, op.Index))
    return wanted


def _roles(thread: list, broadcasting: set, wanted: dict) -> list:
    rows = []
    for at, op in enumerate(thread):
        if op.name not in MULTIPLY:
            continue
        evidence, before = _evidence(thread, at, broadcasting, wanted)
        role = "mask" if evidence else "other"
        rows.append((op.Index, op.name, op.start_us, op.dur_us, role, evidence, before))
    return rows


def _evidence(thread: list, at: int, broadcasting: set, wanted: dict) -> tuple[str, int]:
    op = thread[at]
    if op.Index in broadcasting:
        return "", -1
    follower = thread[at + 1] if at + 1 < len(thread) else None
    if follower is not None and follower.Index in broadcasting and _feeds(op, follower):
        return "pair", -1
    if _factors(op):
        claims = wanted.get(_factors(op)[0], []) if _equal(op) else []
        claim = next((c for c in claims if c[0] >= op.start_us), None)
        if claim:
            claims.remove(claim)
        return ("shape", claim[1]) if claim else ("", -1)
    layer = next((later for later in thread[at + 1 :] if later.name not in MULTIPLY), None)
    return ("position", layer.Index) if layer is not None and layer.kind in LAYERS else ("", -1)
