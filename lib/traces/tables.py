"""Time by kind, by operator and by kernel; and the tables of an analysis as a report shows them."""

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


def shown_windows(analysis: dict) -> pd.DataFrame:
    """The windows with the columns that a page has room for."""
    columns = ["window", "duration_ms", "convolution_ms", "convolution_pct", "busy_ms", "idle_ms", "idle_pct"]
    return analysis["windows"][columns]


def shown_layers(analysis: dict) -> pd.DataFrame:
    """The convolution layers in order: kernel times where there are kernels, else operator times on the CPU."""
    frame = analysis["layers"]
    if not analysis["gpu"]:
        return frame[["layer", "weight_shape", "operator_us"]]
    columns = ["layer", "kernels", "kernel_us", "kernel_sum_us", "first_to_last_us", "largest_gap_us", "main_kernel"]
    return frame[columns].assign(main_kernel=frame.main_kernel.map(_shortened))


def shown_operators(analysis: dict, rows: int = 12) -> pd.DataFrame:
    """The operators that take most, the others in a last row."""
    frame = analysis["by_operator"]
    rest = frame[rows:]
    if len(rest) < 2:
        return frame
    sums = {column: rest[column].sum() for column in frame.columns if column not in ("operator", "kind", "union_us")}
    last = pd.DataFrame([{"operator": f"{len(rest)} others", "kind": "", **sums}])
    return pd.concat([frame[:rows], last], ignore_index=True)[frame.columns]


def shown_kernels(analysis: dict, rows: int = 12) -> pd.DataFrame:
    """The kernels that take most, without their full names."""
    frame = analysis["by_kernel"][:rows].drop(columns="name")
    return frame.assign(kernel=frame.kernel.map(_shortened))


def _shortened(name: str, letters: int = 44) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def metrics(analysis: dict) -> dict:
    """The analysis in one flat row, for `metrics.json`; what a CPU trace does not have is None."""
    table = analysis["windows"].set_index("window")
    gpu, masks, conv = analysis["gpu"], analysis["masks"], analysis["convolution"]
    span, busy = ("GPU span", "GPU busy") if gpu else ("operator span", "CPU busy")
    after = [name for name in table.index if name.startswith("after data loading")]
    return {
        "clock": analysis["clock"],
        "trace_device": "; ".join(d["name"] for d in analysis["hardware"]["devices"]) or None,
        "step_ms": table.duration_ms["host step"],
        "after_loading_ms": table.duration_ms[after[0]] if after else None,
        "span_ms": table.duration_ms[span],
        "busy_ms": table.duration_ms[busy],
        "idle_pct": table.idle_pct[span],
        "kernels": analysis["attribution"]["kernels"] if gpu else None,
        "unattributed_kernels": analysis["attribution"]["unattributed"] if gpu else None,
        "convolutions": conv["layers"],
        "convolution_union_ms": conv["union_ms"],
        "convolution_sum_ms": conv["sum_ms"],
        "convolution_of_step_pct": table.convolution_pct["host step"],
        "convolution_of_busy_pct": table.convolution_pct[busy],
        "mask_multiplies": masks["masks"],
        "mask_gpu_ms": masks["gpu_union_ms"] if gpu else None,
        "mask_host_ms": masks["host_union_ms"],
    }
