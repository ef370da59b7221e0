"""The steps of a trace, and what belongs to one of them."""

import re
from types import SimpleNamespace

import pandas as pd

STEP = re.compile(r"^ProfilerStep#?\d*")
LOADING = re.compile(r"(?i)^(?:enumerate\(dataloader\)|data[ _]?load(?:ing|er)?\b)")
WHOLE = "whole trace"


def steps(trace: dict, ops: pd.DataFrame, work: pd.DataFrame) -> pd.DataFrame:
    """A row a step: step (index from 0), name, start_us, end_us, until_us (the next step's start), host_ms, operators,
    kernels, complete.

    Without a ProfilerStep the whole trace is one step, from its first host event to its last. A step is complete
    when it holds operators and its last kernel launch has its kernel: a trace that was cut off lacks the last ones.
    """
    events = trace["events"]
    host = ~events.category.str.startswith("gpu_") & (events.category != "kernel")
    named = events[host & events.name.str.match(STEP)].drop_duplicates("name")
    if named.empty:
        mine = events[events.category.isin(["cpu_op", "user_annotation"]) | _is_runtime(events)]
        mine = mine if len(mine) else events
        named = pd.DataFrame({"name": [WHOLE], "start_us": mine.start_us.min(), "end_us": mine.end_us.max()})
    named = named[["name", "start_us", "end_us"]].sort_values("start_us")
    named["until_us"] = named.start_us.shift(-1, fill_value=float("inf"))
    rows = []
    for index, step in enumerate(named.itertuples()):
        operators = ops.start_us.between(step.start_us, step.end_us).sum()
        rows.append(
            {
                "step": index, "name": step.name, "start_us": step.start_us, "end_us": step.end_us,
                "until_us": step.until_us, "host_ms": (step.end_us - step.start_us) / 1e3, "operators": int(operators),
                "kernels": int((_inside(work, step) & (work.what == "kernel")).sum()),
                "complete": bool(operators) and _last_launch_found(events, work, step),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _is_runtime(events: pd.DataFrame) -> pd.Series:
    return events.category.str.contains(r"_(?:runtime|driver)$")


def _inside(work: pd.DataFrame, step) -> pd.Series:
    """GPU work launched while the step ran on the host; where the launch is unknown, work that starts before the next
    step does. The whole trace holds all work."""
    if step.name == WHOLE:
        return pd.Series(True, index=work.index)
    launched = (work.launch_us >= step.start_us) & (work.launch_us < step.end_us)
    return launched | (work.launch_us.isna() & (work.start_us >= step.start_us) & (work.start_us < step.until_us))


def _last_launch_found(events: pd.DataFrame, work: pd.DataFrame, step) -> bool:
    kernels = work[work.what == "kernel"]
    if kernels.empty:  # a trace without kernels is not a cut-off one
        return True
    launches = events[_is_runtime(events) & events.name.str.contains("LaunchKernel")]
    launches = launches[launches.start_us.between(step.start_us, step.end_us)]
    return launches.empty or launches.correlation.iloc[-1] in set(kernels.correlation)


def choose(table: pd.DataFrame, index: int | None) -> tuple[dict, list[str]]:
    """The step of that index (negative counts from the end; None: the last complete one), and what must be said.

    ValueError names the indices there are.
    """
    notes = []
    if index is None:
        complete = table[table.complete]
        index = int((complete if len(complete) else table).step.iloc[-1])
        if len(table) > 1:
            notes.append(f"The trace holds {len(table)} steps; this is step {index}, the last complete one.")
        if complete.empty:
            notes[:] = [f"No step of the trace is complete; this is step {index}, the last."]
    if not -len(table) <= index < len(table):
        raise ValueError(f"no step {index}: the trace has steps 0 to {len(table) - 1}")
    step = table.iloc[index].to_dict()
    if step["name"] == WHOLE:
        notes.append("The trace has no ProfilerStep: the whole trace is taken as one step.")
    return step, notes


def of_step(frame: pd.DataFrame, step: dict) -> pd.DataFrame:
    """Host events that start within the step."""
    return frame[(frame.start_us >= step["start_us"]) & (frame.start_us <= step["end_us"])]


def work_of_step(work: pd.DataFrame, step: dict) -> pd.DataFrame:
    """GPU work that the step launched."""
    return work[_inside(work, SimpleNamespace(**step))]


def loading(trace: dict, step: dict) -> pd.DataFrame:
    """The step's data-loading scopes: torch's own DataLoader scope, or an annotation called `data loading`."""
    events = of_step(trace["events"], step)
    host = events.category.isin(["user_annotation", "cpu_op"])
    return events[host & events.name.str.match(LOADING)]
