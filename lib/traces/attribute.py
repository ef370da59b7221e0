"""Who launched what: operators nested in operators, and each piece of GPU work with the operator behind it.

A kernel is linked to its launch (cudaLaunchKernel, cuLaunchKernel, cudaMemcpyAsync ...) by the correlation id, and
failing that by a flow arrow; the launch to the innermost operator that contains it on the same thread. `External
id` is never used: it may repeat the correlation id, and then links nothing.
"""

import re
from bisect import bisect_left

import numpy as np
import pandas as pd

from .read import GPU_WORK

ROUNDING_US = 0.01  # time stamps of 10^12 us carry errors of about a nanosecond

KINDS = {  # the first match, from the outermost operator inwards, is the kind
    "convolution": r"::.*conv(?:olution|\d|_|$)",
    "matrix product": r"::(?:linear|addmm|addmv|mm|bmm|baddbmm|matmul|mv|dot|einsum|_?scaled_dot_product.*)$",
    "normalisation": r"::.*(?:batch|layer|group|instance|rms)_norm",
    "activation": r"::.*(?:relu|gelu|silu|elu|mish|sigmoid|tanh|softmax|softplus|hardswish|clamp_min)",
    "pooling": r"::.*pool",
    "copy": r"::(?:to|_to_copy|copy_|clone|contiguous|cat|stack|pin_memory|_local_scalar_dense|item)$",
    "elementwise": r"::_?(?:foreach_)?(?:add|sub|mul|div|pow|sqrt|rsqrt|exp|log|neg|abs|where|fill|zero)_?$",
}
ALL_KINDS = [
    *list(KINDS)[:3], "activation", "elementwise", "mask multiply", "pooling", "copy", "memset", "other",
    "unattributed",
]  # fmt: skip


def operators(events: pd.DataFrame) -> pd.DataFrame:
    """The operators (category cpu_op) with their nesting on their own thread, in order of start.

    Adds `parent` (row number, -1 outermost), `outer` (row number of the outermost), `depth`, `self_us` (duration
    less that of the direct children) and `kind` (a key of KINDS or "other", inherited from outside).
    """
    ops = events[events.category == "cpu_op"].reset_index(drop=True)
    parent = _nest(ops)
    outer, depth, kinds = np.arange(len(ops)), np.zeros(len(ops), int), []
    own = {name: kind_of(name) for name in ops.name.unique()}
    for row, (above, name) in enumerate(zip(parent, ops.name, strict=True)):
        if above >= 0:
            outer[row], depth[row] = outer[above], depth[above] + 1
        inherited = kinds[above] if above >= 0 else "other"
        kinds.append(inherited if inherited != "other" else own[name])
    inside = np.zeros(len(ops))
    np.add.at(inside, parent[parent >= 0], ops.dur_us.to_numpy(float)[parent >= 0])
    return ops.assign(parent=parent, outer=outer, depth=depth, self_us=ops.dur_us - inside, kind=kinds)


def kind_of(operator: str) -> str:
    """The kind of an operator by its own name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator)), "other")


def _nest(frame: pd.DataFrame) -> np.ndarray:
    """Row number of the event directly around each one on its thread, -1 for none; rows come sorted by start."""
    parent = np.full(len(frame), -1)
    for rows in frame.groupby(["pid", "tid"], sort=False).indices.values():
        starts, ends, stack = frame.start_us.to_numpy(float), frame.end_us.to_numpy(float), []
        for row in rows:
            while stack and not (
                starts[row] < ends[stack[-1]] - ROUNDING_US and ends[row] <= ends[stack[-1]] + ROUNDING_US
            ):
                stack.pop()
            parent[row] = stack[-1] if stack else -1
            stack.append(row)
    return parent


def innermost(ops: pd.DataFrame, points: pd.DataFrame) -> np.ndarray:
    """Row number of the innermost operator that is running at each point (pid, tid, start_us), -1 for none."""
    found = np.full(len(points), -1)
    by_thread = ops.groupby(["pid", "tid"], sort=False).indices
    times, parents = points.start_us.to_numpy(float), ops.parent.to_numpy()
    starts, ends = ops.start_us.to_numpy(float), ops.end_us.to_numpy(float)
    for key, rows in points.groupby(["pid", "tid"], sort=False).indices.items():
        here = by_thread.get(key)
        if here is None:
            continue
        before = np.searchsorted(starts[here], times[rows] + ROUNDING_US, side="right") - 1
        for row, last in zip(rows, before, strict=True):
            op = here[last] if last >= 0 else -1
            while op >= 0 and ends[op] < times[row]:  # climb out of operators that have ended
                op = parents[op]
            found[row] = op
    return found


def gpu_work(trace: dict, ops: pd.DataFrame) -> pd.DataFrame:
    """Kernels, copies and memsets in order of start (synchronisation events are none of these).

    Adds `what` (kernel, copy, memset), `launch_us` (start of its launch on the host, NaN if unknown), `launch_dur_us`,
    `link` ("correlation", "flow" or "none"), `operator_row` (into `ops`, -1 = unattributed), `operator`, `outer`
    (the outermost operator's row) and `kind`.
    """
    events = trace["events"]
    work = events[events.category.isin(GPU_WORK)].reset_index(drop=True)
    work["what"] = work.category.map(GPU_WORK)
    launches = events[events.category.str.contains(r"_(?:runtime|driver)$")]
    points = _launch_points(work, launches, trace["flows"])
    work["launch_us"], work["launch_dur_us"], work["link"] = points.start_us, points.dur_us, points.link
    row = innermost(ops, points)
    work["operator_row"] = row
    known = row >= 0
    for column, empty in (("name", None), ("outer", -1), ("kind", "unattributed")):
        values = np.full(len(work), empty, dtype=object)
        values[known] = ops[column].to_numpy(object)[row[known]]
        work["operator" if column == "name" else column] = values
    work.loc[work.what == "copy", "kind"] = "copy"
    work.loc[work.what == "memset", "kind"] = "memset"
    return work


def _launch_points(work: pd.DataFrame, launches: pd.DataFrame, flows: pd.DataFrame) -> pd.DataFrame:
    """Where on the host each piece of GPU work was launched: pid, tid, start_us, dur_us, link."""
    by_id: dict = {}
    for launch in launches.itertuples():
        if launch.correlation:
            by_id.setdefault(launch.correlation, []).append(launch)
    arrows = _arrows(flows)
    rows = []
    for item in work.itertuples():
        same = by_id.get(item.correlation, [])
        launch = next((c for c in reversed(same) if c.start_us <= item.start_us), same[0] if same else None)
        arrow = None if launch is not None else _arrow_into(item, arrows)
        if launch is not None:
            rows.append((launch.pid, launch.tid, launch.start_us, launch.dur_us, "correlation"))
        elif arrow is not None:
            rows.append((*arrow, np.nan, "flow"))
        else:
            rows.append(("", "", np.nan, np.nan, "none"))
    return pd.DataFrame(rows, columns=["pid", "tid", "start_us", "dur_us", "link"])


def _arrows(flows: pd.DataFrame) -> dict:
    """The heads of the flow arrows on each (pid, tid), sorted by time, each with its tail (pid, tid, time)."""
    tails = {f.id: (f.pid, f.tid, f.start_us) for f in flows.itertuples() if f.ph == "s"}
    heads: dict = {}
    for flow in flows.itertuples():
        if flow.ph == "f" and flow.id in tails:
            heads.setdefault((flow.pid, flow.tid), []).append((flow.start_us, tails[flow.id]))
    return {place: sorted(found) for place, found in heads.items()}


def _arrow_into(item, arrows: dict) -> tuple | None:
    """The tail of the first arrow whose head lies on the event."""
    heads = arrows.get((item.pid, item.tid), [])
    at = bisect_left(heads, (item.start_us - ROUNDING_US,))
    return heads[at][1] if at < len(heads) and heads[at][0] <= item.end_us + ROUNDING_US else None
