"""One step of a trace, analysed."""

from pathlib import Path

import pandas as pd

from . import convolutions, tables
from .attribute import gpu_work, operators
from .intervals import union
from .multiplies import multiplies
from .read import hardware, read
from .savings import savings
from .steps import choose, loading, of_step, steps, work_of_step
from .windows import windows


def prepare(trace) -> dict:
    """Read (a path) or take (what `read` returned) a trace and add what no step changes: operators nested, GPU work
    attributed, steps found. Pass the result to `analyse` to look at several steps without reading again."""
    trace = read(trace) if isinstance(trace, str | Path) else trace
    if "operators" in trace:
        return trace
    ops = operators(trace["events"])
    work = gpu_work(trace, ops)
    return trace | {"operators": ops, "work": work, "steps": steps(trace, ops, work)}


def analyse(trace, step: int | None = None, layers=None, gap_us: float = convolutions.GAP_US) -> dict:
    """Everything the report says about one step, as plain tables.

    trace: a path, or what `read` or `prepare` returned. step: index (None: the last complete one). layers: names of
    the convolutions in the order they are called (None: those the trace carries). gap_us: largest gap within a layer
    for which its first-to-last time is given.

    Returns a dict: `file`; `hardware`; `steps`; `step`; `gpu` (True where times are GPU kernels', False where they are
    CPU operators'); `clock` (which of the two, in words); `operators`, `calls` (outermost ones), `work` (kernels,
    copies, memsets), `syncs`, `loading` (host scopes), `layers`, `convolution` (totals), `windows`, `by_kind`,
    `by_operator`, `by_kernel`, `multiplies`, `masks` (totals), `attribution` (counts), `savings`, `notes` (sentences
    on what was chosen, missing or left out). ValueError for a step that is not there or a file that is no trace.
    """
    if gap_us < 0:
        raise ValueError(f"gap_us is {gap_us}: a gap is 0 us or longer")
    trace = prepare(trace)
    chosen, notes = choose(trace["steps"], step)
    ops, work = of_step(trace["operators"], chosen), work_of_step(trace["work"], chosen)
    scopes = loading(trace, chosen)
    ops, work, loaded = _without_loading(ops, work, scopes)
    gpu = bool((work.what == "kernel").any())
    notes = [*trace["notes"], *notes, *loaded, *([] if gpu else [no_kernels(trace, chosen)])]
    if not gpu and ops.empty:
        raise ValueError(f"{trace['file']}, {chosen['name']}: neither GPU kernels nor operators to analyse")
    found = multiplies(ops, work)
    ops, work = _mark_masks(ops, work, found)
    calls = ops[ops.parent < 0]
    names = trace["header"].get("layers") or [] if layers is None else layers
    convs, said = convolutions.layers(ops, work, names, gap_us)
    busy, conv = _busy(ops, calls, work, gpu)
    table, left_out = windows(chosen, scopes, busy, conv, gpu)
    analysis = {
        "file": trace["file"],
        "hardware": hardware(trace),
        "steps": trace["steps"],
        "step": chosen,
        "gpu": gpu,
        "clock": "GPU kernels" if gpu else "CPU operators",
        "threads": trace["threads"],
        "gap_us": gap_us,
        "operators": ops,
        "calls": calls,
        "work": work,
        "syncs": _syncs(trace, chosen),
        "loading": scopes,
        "scopes": _scopes(trace, chosen),
        "layers": convs,
        "convolution": _totals(conv, convs),
        "windows": table,
        "by_kind": tables.gpu_by_kind(work) if gpu else tables.cpu_by_kind(ops),
        "by_operator": tables.gpu_by_operator(work, ops) if gpu else tables.cpu_by_operator(ops),
        "by_kernel": tables.gpu_by_kernel(work),
        "multiplies": found,
        "masks": _masks(found, ops, work),
        "attribution": _attribution(work),
        "notes": [*notes, *said, *left_out],
    }
    analysis["notes"] += _unattributed(analysis["attribution"])
    return analysis | {"savings": savings(analysis)}


def no_kernels(trace: dict, step: dict) -> str:
    """Why there may be no GPU kernels, from what else the trace holds."""
    elsewhere = int((trace["work"].what == "kernel").sum())
    if elsewhere:
        return f"No GPU kernels in {step['name']}, though the trace has {elsewhere}: the step launched none."
    launches = int(trace["events"].name.str.contains("LaunchKernel").sum())
    if launches:
        cause = (
            f"its {launches} kernel launches were recorded without their kernels: the profiler was not allowed to "
            "read the GPU's counters (CUPTI), or stopped before the GPU had finished"
        )
    elif trace["header"].get("deviceProperties"):
        cause = (
            "a GPU was there but nothing was launched on it: model and data stayed on the CPU, or only CPU "
            "activity was recorded"
        )
    else:
        cause = "it names no GPU, so it was recorded on a machine without one, or with CPU activity only"
    return f"No GPU kernels in the trace: {cause}. Times are those of operators on the CPU."


def _without_loading(ops, work, scopes):
    """Operators and GPU work of the step less what its data loading does itself."""

    def inside(times: pd.Series) -> pd.Series:
        hit = pd.Series(False, index=times.index)
        for scope in scopes.itertuples():
            hit |= (times >= scope.start_us) & (times < scope.end_us)
        return hit

    loaded = work[inside(work.launch_us.fillna(work.start_us))]
    notes = [f"{len(loaded)} pieces of GPU work launched by data loading are left out."] if len(loaded) else []
    return ops[~inside(ops.start_us)], work.drop(loaded.index), notes


def _mark_masks(ops, work, found):
    rows = set(found[found.role == "mask"].operator_row)
    ops, work = ops.copy(), work.copy()
    ops.loc[ops.outer.isin(rows), "kind"] = "mask multiply"
    work.loc[work.outer.isin(rows) & (work.what == "kernel"), "kind"] = "mask multiply"
    return ops, work


def _busy(ops, calls, work, gpu: bool):
    """What runs, and the convolutions among it, with the time at which the host asked for it."""
    if gpu:
        busy = work.assign(host_us=work.launch_us.fillna(work.start_us))
        return busy, busy[(busy.kind == "convolution") & (busy.what == "kernel")]
    conv = convolutions.calls(ops)
    return calls.assign(host_us=calls.start_us), conv.assign(host_us=conv.start_us)


def _syncs(trace: dict, step: dict) -> pd.DataFrame:
    """Synchronisation events of the step: the host's waits, and the GPU's own (category cuda_sync)."""
    events = of_step(trace["events"], step)
    return events[events.name.str.contains("Synchronize") | (events.category == "cuda_sync")]


def _scopes(trace: dict, step: dict) -> pd.DataFrame:
    """The annotations on the host within the step, the step itself left out."""
    events = of_step(trace["events"], step)
    return events[(events.category == "user_annotation") & ~events.name.str.startswith("ProfilerStep")]


def _totals(conv: pd.DataFrame, layers: pd.DataFrame) -> dict:
    return {
        "layers": len(layers),
        "events": len(conv),
        "union_ms": union(conv.start_us, conv.end_us) / 1e3,
        "sum_ms": float(conv.dur_us.sum()) / 1e3,
    }


def _masks(found, ops, work) -> dict:
    mine = found[found.role == "mask"]
    kernels = work[work.kind == "mask multiply"]
    host = ops.loc[mine.operator_row]
    return {
        "multiplies": len(found),
        "masks": len(mine),
        "evidence": mine.evidence.value_counts().to_dict(),
        "kernels": len(kernels),
        "gpu_union_ms": union(kernels.start_us, kernels.end_us) / 1e3,
        "gpu_sum_ms": float(kernels.dur_us.sum()) / 1e3,
        "host_union_ms": union(host.start_us, host.end_us) / 1e3,
        "host_sum_ms": float(host.dur_us.sum()) / 1e3,
    }


def _attribution(work) -> dict:
    kernels = work[work.what == "kernel"]
    return {
        "kernels": len(kernels),
        "streams": int(work.groupby(["device", "stream"]).ngroups) if len(work) else 0,
        "copies": int((work.what == "copy").sum()),
        "memsets": int((work.what == "memset").sum()),
        "by_correlation": int((kernels.link == "correlation").sum()),
        "by_flow": int((kernels.link == "flow").sum()),
        "without_launch": int((kernels.link == "none").sum()),
        "unattributed": int((kernels.operator_row < 0).sum()),
        "unattributed_ms": union(*kernels[kernels.operator_row < 0][["start_us", "end_us"]].to_numpy(float).T) / 1e3,
    }


def _unattributed(counts: dict) -> list[str]:
    if not counts["unattributed"]:
        return []
    return [
        f"{counts['unattributed']} of {counts['kernels']} kernels ({counts['unattributed_ms']:.3f} ms) could not be "
        "attributed to an operator and count for none."
    ]
