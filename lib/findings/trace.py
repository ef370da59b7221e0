"""Sentences on a profiler trace, written from the numbers of `lib.traces.analyse`: each function returns a sentence,
or a list of them; the opposite numbers give the opposite sentence."""

import pandas as pd


def hardware(analysis: dict) -> str:
    """What the trace was recorded on, as the file itself names it."""
    found, name = analysis["hardware"], analysis["file"]
    versions = ", ".join(f"{part} {version}" for part, version in found["versions"].items())
    versions = f" ({versions})" if versions else ""
    if found["devices"]:
        devices = "; ".join(
            f"{d['name']}, {d['memory_gib']:.1f} GiB, {d['sms']} SMs, compute capability {d['compute_capability']}"
            for d in found["devices"]
        )
        return f"The trace {name} names its device{'s' * (len(found['devices']) > 1)}: {devices}{versions}."
    processor = found["processor"] or "a processor it does not name"
    return f"The trace {name} names 0 GPUs: it was recorded on {processor}{versions}."


def notes(analysis: dict) -> list[str]:
    """What was chosen, missing or left out."""
    return list(analysis["notes"])


def where_time_goes(analysis: dict) -> list[str]:
    """The paragraph on the step: its windows, convolution in each, idle time, and what comes next after convolution."""
    table = analysis["windows"].set_index("window")
    said = [_step(analysis, table), _convolution(analysis, table), *_largest(analysis)]
    return [sentence for sentence in (*said, _idle(analysis, table)) if sentence]


def _step(analysis: dict, table: pd.DataFrame) -> str:
    host = table.duration_ms["host step"]
    loading = (analysis["loading"].dur_us.sum()) / 1e3
    said = f"The step ({analysis['step']['name']}) takes {ms(host)} on the host"
    said += f", {ms(loading)} of it ({pct(loading / host)}) for loading data." if loading else "."
    after = next((name for name in table.index if name.startswith("after data loading")), None)
    if after:
        last = "GPU activity" if analysis["gpu"] else "operator"
        said += f" From the end of data loading to the last {last} it takes {ms(table.duration_ms[after])}."
    return said


def _convolution(analysis: dict, table: pd.DataFrame) -> str:
    total = analysis["convolution"]
    if not total["layers"]:
        kinds = analysis["by_kind"]
        return f"It calls 0 convolutions; {kinds.kind[0]} takes the most time, {pct(kinds.share_pct[0] / 100)}."
    events = _count(total["events"], "kernel" if analysis["gpu"] else "operator call") + (
        "" if analysis["gpu"] else " on the CPU"
    )
    sums = "equal to" if abs(total["sum_ms"] - total["union_ms"]) < 0.0005 else "against"
    verb = "takes" if total["layers"] == 1 else "take"
    shares = ", ".join(f"{pct(share / 100)} of the {_the(name)}" for name, share in table.convolution_pct.items())
    return (
        f"Its {_count(total['layers'], 'convolution')} {verb} {ms(total['union_ms'])} (union of {events}; {sums} a "
        f"plain sum of {ms(total['sum_ms'])}): {shares}."
    )


def _the(window: str) -> str:
    """The window's name within a sentence."""
    if window.startswith("after data loading"):
        return "time after loading"
    return {"GPU busy": "time the GPU works", "CPU busy": "time operators run"}.get(window, window)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _largest(analysis: dict) -> list[str]:
    kinds = analysis["by_kind"]
    if len(kinds) < 2 or not analysis["convolution"]["layers"]:
        return []
    rest = kinds[kinds.kind != "convolution"].iloc[0]
    conv = kinds[kinds.kind == "convolution"]
    if conv.empty:
        return []
    more = conv.sum_us.iloc[0] >= rest.sum_us
    verdict = "Convolution is the largest part" if more else "Convolution is not the largest part"
    other = "next comes" if more else "more goes to"
    return [
        f"{verdict} of the work, {pct(conv.share_pct.iloc[0] / 100)}; {other} {rest.kind} with {ms(rest.sum_us / 1e3)} "
        f"({pct(rest.share_pct / 100)})."
    ]


def _idle(analysis: dict, table: pd.DataFrame) -> str:
    span = "GPU span" if analysis["gpu"] else "operator span"
    idle, share, conv = table.idle_ms[span], table.idle_pct[span], table.convolution_ms[span]
    if not analysis["gpu"]:
        return (
            f"Between the first and the last operator {ms(idle)} ({pct(share / 100)}) pass in none: "
            "that is Python and the dispatcher."
        )
    longer = "longer" if idle > conv else "less long"
    reason = (
        "the host launches the kernels too late"
        if share >= 20  # a fifth of the span: more than the gaps between back-to-back kernels add up to
        else "the kernels are launched in time"
    )
    return (
        f"Between its first and its last kernel the GPU idles {ms(idle)} ({pct(share / 100)}), {longer} than it "
        f"convolves ({ms(conv)}): {reason}."
    )


def layers(analysis: dict) -> str | None:
    """The convolution that takes longest, how few take half of the time, and where first-to-last times are given."""
    frame, column = analysis["layers"], "kernel_us" if analysis["gpu"] else "operator_us"
    frame = frame.dropna(subset=[column])
    if len(frame) < 2:
        return None
    longest, total = frame.loc[frame[column].idxmax()], frame[column].sum()
    ranked = frame[column].sort_values(ascending=False).cumsum()
    half = int((ranked < total / 2).sum()) + 1
    return (
        f"The longest convolution is {longest.layer} with {ms(longest[column] / 1e3)}, {pct(longest[column] / total)} "
        f"of all {len(frame)}; {half} of them take half of the time."
    ) + (_gaps(analysis) if analysis["gpu"] else "")


def _gaps(analysis: dict) -> str:
    given, gap = analysis["layers"].first_to_last_us.notna().sum(), analysis["gap_us"]
    return (
        f" First-to-last times are given where the GPU pauses for {gap:g} µs at most within a layer: {given} of them."
    )


def masks(analysis: dict) -> str:
    """The cost of multiplying masks into the weights."""
    count, found = analysis["masks"], analysis["multiplies"]
    if not count["masks"]:
        return f"None of the step's {count['multiplies']} multiplications applies a mask."
    how = {"shape": "by the shape of a later layer's parameter", "position": "by standing right before a layer",
           "pair": "by feeding a broadcasting multiplication"}  # fmt: skip
    evidence = ", ".join(f"{n} {how[kind]}" for kind, n in count["evidence"].items())
    said = f"{count['masks']} of the step's {count['multiplies']} multiplications apply a mask ({evidence}). "
    if analysis["gpu"]:
        busy = analysis["windows"].set_index("window").duration_ms["GPU busy"]
        said += (
            f"They take {ms(count['gpu_union_ms'])} on the GPU ({pct(count['gpu_union_ms'] / busy)} of the time it "
            f"works) and {ms(count['host_union_ms'])} of the host's time."
        )
    else:
        busy = analysis["windows"].set_index("window").duration_ms["CPU busy"]
        said += (
            f"They take {ms(count['host_union_ms'])}, {pct(count['host_union_ms'] / busy)} of the time operators run."
        )
    other = found[found.role == "other"]
    if len(other):
        said += f" The other {len(other)} stay when the masks are made permanent."
    return said


def proposals(analysis: dict, count: int = 2) -> list[str]:
    """The changes that could save most, each with its upper bound from the trace, largest bound first."""
    table = analysis["savings"].head(count)
    words = ("First", "Second", "Third", "Fourth", "Fifth")
    said = [
        f"{words[rank]}, {row.proposal}: this saves at most {ms(row.saves_ms)} of the step's "
        f"{ms(analysis['step']['host_ms'])} ({pct(row.of_step_pct / 100)}; {row.bound})."
        for rank, row in enumerate(table.itertuples())
    ]
    if said and len(said) < count:
        said.append(f"The trace bounds no further change: it shows {len(said)} that would save anything.")
    return said


def ms(value: float) -> str:
    """Milliseconds with three significant digits."""
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def pct(share: float) -> str:
    """A share as per cent with one decimal; a small one is never 0.0%."""
    return "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
