"""How long a study would take on so many slots, on paper: from the times of its runs and their dependencies."""

from lib.study import execute, state


def wall_s(planned: list[dict], seconds: dict[str, float], slots: int, fixed_s: float = 0.0) -> float:
    """Seconds from the start of the first run to the end of the last, in the order of the local engine.

    `planned` are runs of a plan, `seconds` what each takes by itself, to which `fixed_s` is added; runs beside each
    other do not slow each other down, as on hosts or GPUs of their own. An `exclusive` run is alone.
    """
    waiting, ends, now = list(planned), {}, 0.0
    known = {run["id"]: run for run in planned}
    while waiting or ends:
        for run in execute.startable(waiting, [known[name] for name in ends], set(), slots):
            waiting.remove(run)
            ends[run["id"]] = now + fixed_s + seconds[run["id"]]
        now = min(ends.values())
        ends = {name: end for name, end in ends.items() if end > now}
    return now


def longest_s(planned: list[dict], seconds: dict[str, float], fixed_s: float = 0.0) -> float:
    """Seconds of the longest chain of runs that build on each other: what no number of slots goes below."""
    ends: dict[str, float] = {}
    for run in planned:  # sources come before the runs that need them
        ends[run["id"]] = max((ends[s] for s in run["sources"]), default=0.0) + fixed_s + seconds[run["id"]]
    return max(ends.values(), default=0.0)


def taken_s(planned: dict) -> dict[str, float]:
    """Run -> seconds that it took, of the finished runs of the plan that say so."""
    done = [run["id"] for run in planned["runs"] if state.of(planned, run) == "done"]
    found = {name: state.took_s(state.folder(planned) / name) for name in done}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def among(planned: dict, names: set[str]) -> list[dict]:
    """The runs of the plan called so; of their sources those that are among them."""
    return [
        run | {"sources": [s for s in run["sources"] if s in names]} for run in planned["runs"] if run["id"] in names
    ]
