"""Time by kind, by operator and by kernel."""

import pandas as pd

from .intervals import union
from .read import short_name


def _union_us(group: pd.DataFrame) -> float:
    return union(group.start_us, group.end_us)


def _with_share(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    total = frame[column].sum()
    frame = frame.assign(share_pct=100 * frame[column] / total if total else float("nan"))
    return frame.sort_values(column, ascending=False, ignore_index=True)


def gpu_by_kind(work: pd.DataFrame) -> pd.DataFrame:
    """kind, events, sum_us, union_us, share_pct (of the sum) of all GPU work."""
    rows = [
        {"kind": kind, "events": len(g), "sum_us": g.dur_us.sum(), "union_us": _union_us(g)}
        for kind, g in work.groupby("kind")
    ]
    return _with_share(pd.DataFrame(rows, columns=["kind", "events", "sum_us", "union_us"]), "sum_us")


def gpu_by_operator(work: pd.DataFrame, ops: pd.DataFrame) -> pd.DataFrame:
    """operator (the outermost, which the program called), kind, calls, kernels, sum_us, union_us, share_pct.

    `calls` counts the calls that put work on the GPU; `kernels` counts copies and memsets too. Work without a known
    operator is a row of its own, `(unattributed)`.
    """
    names = work.outer.map(lambda row: ops.name.get(row, "(unattributed)"))
    rows = [
        {
            "operator": name,
            "kind": kind,
            "calls": group.outer.nunique(),
            "kernels": len(group),
            "sum_us": group.dur_us.sum(),
            "union_us": _union_us(group),
        }
        for (name, kind), group in work.groupby([names, "kind"])
    ]
    columns = ["operator", "kind", "calls", "kernels", "sum_us", "union_us"]
    return _with_share(pd.DataFrame(rows, columns=columns), "sum_us")


def gpu_by_kernel(work: pd.DataFrame) -> pd.DataFrame:
    """kernel (short name), kind, calls, sum_us, median_us, share_pct, name (in full)."""
    rows = [
        {
            "kernel": short_name(name),
            "kind": kind,
            "calls": len(group),
            "sum_us": group.dur_us.sum(),
            "median_us": group.dur_us.median(),
            "name": name,
        }
        for (name, kind), group in work.groupby(["name", "kind"])
    ]
    columns = ["kernel", "kind", "calls", "sum_us", "median_us", "name"]
    return _with_share(pd.DataFrame(rows, columns=columns), "sum_us")


def cpu_by_kind(ops: pd.DataFrame) -> pd.DataFrame:
    """kind, events (outermost calls), sum_us, union_us, share_pct of the outermost operators on the CPU."""
    rows = [
        {"kind": kind, "events": len(g), "sum_us": g.dur_us.sum(), "union_us": _union_us(g)}
        for kind, g in ops[ops.parent < 0].groupby("kind")
    ]
    return _with_share(pd.DataFrame(rows, columns=["kind", "events", "sum_us", "union_us"]), "sum_us")


def cpu_by_operator(ops: pd.DataFrame) -> pd.DataFrame:
    """operator, kind, calls, self_us (without the operators it calls), total_us, share_pct (of the self time)."""
    rows = [
        {
            "operator": name,
            "kind": kind,
            "calls": len(group),
            "self_us": group.self_us.sum(),
            "total_us": group.dur_us.sum(),
        }
        for (name, kind), group in ops.groupby(["name", "kind"])
    ]
    columns = ["operator", "kind", "calls", "self_us", "total_us"]
    return _with_share(pd.DataFrame(rows, columns=columns), "self_us")
