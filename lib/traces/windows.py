"""How long a step takes, by stated windows, and the share of convolution and of idle time in each."""

import numpy as np
import pandas as pd

from .intervals import union


def windows(step: dict, scopes: pd.DataFrame, busy: pd.DataFrame, convolution: pd.DataFrame, gpu: bool):
    """A row a window, and what must be said.

    `scopes`: the data-loading scopes. `busy`: what runs (start_us, end_us, host_us = when the host asked for it): GPU
    work, or on a CPU the outermost operators, without what data loading itself does; `convolution`: the convolutions
    among it. Columns: window, definition, start_ms and end_ms (from the step's start), duration_ms,
    convolution_ms (union), convolution_pct, busy_ms (union), idle_ms, idle_pct. What lies outside a window is cut off.
    """
    origin, bounds, notes = step["start_us"], _bounds(busy, gpu), []
    device, work = ("GPU", "GPU activity") if gpu else ("CPU", "operator")
    rows = [("host step", f"{step['name']} on the host", origin, step["end_us"])]
    before = scopes[scopes.end_us <= busy.host_us.min() + 1]  # loading after the first work is the next step's
    if len(before):
        rows.append(
            (f"after data loading to last {work}", f"end of data loading to the end of the last {work}",
             before.end_us.max(), busy.end_us.max())
        )  # fmt: skip
    else:
        notes.append("The step has no data-loading scope before its work: the window from there on is left out.")
    if gpu:
        rows.append(("GPU span", "start of the first kernel to the end of the last", *bounds))
    else:
        rows.append(("operator span", "start of the first operator to the end of the last", *bounds))
    table = [_row(name, text, low, high, origin, busy, convolution) for name, text, low, high in rows]
    table.append(_busy_row(device, step, busy, convolution))
    return pd.DataFrame(table), notes


def _bounds(busy: pd.DataFrame, gpu: bool) -> tuple[float, float]:
    kernels = busy[busy.what == "kernel"] if gpu else busy
    return float(kernels.start_us.min()), float(kernels.end_us.max())


def _row(name, definition, low, high, origin, busy, convolution) -> dict:
    duration = (high - low) / 1e3
    inside = union(busy.start_us, busy.end_us, low, high) / 1e3
    conv = union(convolution.start_us, convolution.end_us, low, high) / 1e3
    return {
        "window": name,
        "definition": definition,
        "start_ms": (low - origin) / 1e3,
        "end_ms": (high - origin) / 1e3,
        "duration_ms": duration,
        "convolution_ms": conv,
        "convolution_pct": _percent(conv, duration),
        "busy_ms": inside,
        "idle_ms": duration - inside,
        "idle_pct": _percent(duration - inside, duration),
    }


def _busy_row(device, step, busy, convolution) -> dict:
    """The union of everything that runs, wherever it lies: no interval, so no idle time."""
    row = _row(f"{device} busy", "", -np.inf, np.inf, 0, busy, convolution)
    what = "kernels, copies and memsets" if device == "GPU" else "operators"
    row["definition"] = f"union of the step's {what}"
    row["duration_ms"], row["convolution_pct"] = row["busy_ms"], _percent(row["convolution_ms"], row["busy_ms"])
    return row | dict.fromkeys(["start_ms", "end_ms", "idle_ms", "idle_pct"], np.nan)


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole > 0 else np.nan
