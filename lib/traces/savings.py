"""Upper bounds on what a change could save in the step, read off the trace.

Each bound is the time of what the change would remove, never a prediction. On a GPU, work that is no longer launched
also frees the host; that helps only where the GPU waits, so the bound adds the host time of the removed operators up
to the GPU's idle time.
"""

import re

import pandas as pd

from .intervals import union

LAYOUT = re.compile(r"(?i)n(?:chw|hwc)_?(?:to|2)_?n(?:chw|hwc)")
COLUMNS = ["change", "proposal", "saves_ms", "of_step_pct", "bound"]


def savings(analysis: dict) -> pd.DataFrame:
    """A row a change that would save something, by its bound, largest first: change (a key), proposal, saves_ms,
    of_step_pct (of the host step), bound (what was added up)."""
    rows = [*_loading(analysis), *(_gpu(analysis) if analysis["gpu"] else _cpu(analysis))]
    frame = pd.DataFrame(rows, columns=["change", "proposal", "saves_ms", "bound"])
    frame = frame[frame.saves_ms > 0].sort_values("saves_ms", ascending=False, ignore_index=True)
    frame.insert(3, "of_step_pct", 100 * frame.saves_ms / analysis["step"]["host_ms"])
    return frame


def _ms(frame: pd.DataFrame) -> float:
    return union(frame.start_us, frame.end_us) / 1e3


def _loading(analysis: dict) -> list:
    wait = _ms(analysis["loading"])
    text = "load data ahead of the step, or keep the data set on the device"
    return [("data loading", text, wait, "the host time of data loading")]


def _gpu(analysis: dict) -> list:
    work, ops, table = analysis["work"], analysis["operators"], analysis["windows"].set_index("window")
    idle = float(table.idle_ms["GPU span"])

    def removed(kernels: pd.DataFrame, rows) -> float:
        host = _ms(ops.loc[sorted({row for row in rows if row >= 0})])
        return _ms(kernels) + min(host, idle)

    kernels = work[work.what == "kernel"]
    masks = kernels[kernels.kind == "mask multiply"]
    fused = kernels[kernels.kind.isin(["normalisation", "activation", "elementwise"])]
    layout = kernels[(kernels.kind == "convolution") & kernels.name.str.contains(LAYOUT)]
    mask_rows = analysis["multiplies"].query("role == 'mask'").operator_row
    gpu_and_host = "their GPU time, and the host's time for launching them as far as the GPU waits"
    return [
        ("idle GPU", "launch the step without gaps, as one CUDA graph or compiled", idle,
         "the idle time between the first and the last kernel"),
        ("mask multiplies", "make the masks permanent before inference", removed(masks, mask_rows), gpu_and_host),
        ("fusion", "fold batch norm into the convolutions and fuse the elementwise kernels into them",
         removed(fused, fused.outer), gpu_and_host),
        ("layout", "keep activations and weights in channels-last order, so that convolutions need not convert them",
         removed(layout, []), "the GPU time of the conversions between NCHW and NHWC"),
    ]  # fmt: skip


def _cpu(analysis: dict) -> list:
    top = analysis["calls"]
    table = analysis["windows"].set_index("window")
    kind = {name: top[top.kind == name] for name in ("mask multiply", "normalisation", "activation", "elementwise")}
    fused = pd.concat([kind["activation"], kind["elementwise"]])
    text = "their time on the CPU"
    return [
        ("overhead", "compile the forward pass, so that Python and the dispatcher stand aside",
         float(table.idle_ms["operator span"]), "the time between the first and the last operator in which none runs"),
        ("mask multiplies", "make the masks permanent before inference", _ms(kind["mask multiply"]), text),
        ("batch norm", "fold batch norm into the convolutions", _ms(kind["normalisation"]), text),
        ("fusion", "fuse the activations and elementwise operators into the convolutions, by compiling", _ms(fused),
         text),
    ]  # fmt: skip
