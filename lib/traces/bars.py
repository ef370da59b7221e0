"""What the picture of a step shows, as a table of bars; lib.plots_trace draws it."""

import pandas as pd

from .attribute import _nest
from .read import short_name

COLUMNS = ["side", "row", "lane", "start_ms", "dur_ms", "kind", "label"]


def bars(analysis: dict) -> pd.DataFrame:
    """A row a bar: side (Host, GPU), row (thread or stream), lane (depth from 0; overlapping GPU work of one stream
    goes to further lanes), start_ms (from the step's start), dur_ms, kind, label.

    Host rows hold annotations and operators nested in each other, and the host's waits; GPU rows hold kernels, copies
    and memsets. The kind of an annotation is "scope" or, for data loading, "data loading"; of a wait, "waiting".
    """
    table = pd.concat([_host(analysis), _gpu(analysis)], ignore_index=True)
    origin = analysis["step"]["start_us"]
    table["start_ms"], table["dur_ms"] = (table.start_us - origin) / 1e3, table.dur_us / 1e3
    return table[COLUMNS]


def _host(analysis: dict) -> pd.DataFrame:
    step = analysis["step"]
    columns = ["name", "pid", "tid", "start_us", "end_us", "dur_us", "kind"]
    main = _main_thread(analysis)
    own = pd.DataFrame([{**step, **main, "dur_us": step["end_us"] - step["start_us"], "kind": "scope"}])
    loading = set(analysis["loading"].index)
    scopes = analysis["scopes"]
    scopes = scopes.assign(kind=["data loading" if row in loading else "scope" for row in scopes.index])
    waits = analysis["syncs"]
    waits = waits[waits.category != "cuda_sync"].assign(kind="waiting")
    parts = [f[columns] for f in (own, scopes, analysis["operators"], waits) if len(f)]
    host = pd.concat(parts, ignore_index=True)
    host = host.sort_values(["start_us", "dur_us"], ascending=[True, False], ignore_index=True, kind="stable")
    host["lane"] = _depth(_nest(host))
    several = host[["pid", "tid"]].drop_duplicates().shape[0] > 1
    host["row"] = [f"thread {tid}" if several else "host" for tid in host.tid]
    host["label"] = host.name.str.replace(r"^(?:aten::|enumerate\()", "", regex=True).str.replace(
        r"\)#_.*", "", regex=True
    )
    return host.assign(side="Host")


def _main_thread(analysis: dict) -> dict:
    """The thread with the most operators (or launches): the step's own bar is drawn there."""
    where = analysis["operators"] if len(analysis["operators"]) else analysis["scopes"]
    if where.empty:
        return {"pid": "", "tid": ""}
    pid, tid = where.groupby(["pid", "tid"]).size().idxmax()
    return {"pid": pid, "tid": tid}


def _depth(parent) -> list[int]:
    depth: list[int] = []
    for above in parent:
        depth.append(depth[above] + 1 if above >= 0 else 0)
    return depth


def _gpu(analysis: dict) -> pd.DataFrame:
    work = analysis["work"].sort_values("start_us", ignore_index=True)
    devices = work.device.nunique()
    work["row"] = [
        f"GPU {device} stream {stream}" if devices > 1 else f"stream {stream}"
        for device, stream in zip(work.device, work.stream, strict=True)
    ]
    work["lane"] = 0
    for rows in work.groupby("row").indices.values():
        ends: list[float] = []  # of the last bar in each lane
        for row in rows:
            start = work.start_us.iat[row]
            lane = next((at for at, end in enumerate(ends) if end <= start + 0.01), len(ends))
            ends[lane : lane + 1] = [work.end_us.iat[row]]
            work.loc[row, "lane"] = lane
    work["label"] = work.name.map(short_name)
    return work.assign(side="GPU")
