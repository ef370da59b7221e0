"""Read a Chrome-format trace of torch.profiler (.json or .json.gz) into tables.

The format is Chrome's "Trace Event Format": complete events (`ph` X) with `ts` and `dur` in microseconds, flow
arrows (`ph` s and f), metadata. Categories as Kineto writes them; those of torch before 1.12 are translated.
"""

import gzip
import json
import re
from pathlib import Path

import pandas as pd

from lib.files import replacing

CATEGORIES = {"operator": "cpu_op", "runtime": "cuda_runtime", "memcpy": "gpu_memcpy", "memset": "gpu_memset"}
GPU_WORK = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "memset"}
FLOWS = {"ac2g", "async_cpu_to_gpu"}  # arrows from a launch to what it launched

COLUMNS = [
    "name", "category", "pid", "tid", "start_us", "end_us", "dur_us",
    "correlation", "device", "stream", "bytes", "shapes",
]  # fmt: skip


def read(path) -> dict:
    """Read a trace file into a dict.

    `events`: a row an event with a duration; `start_us` and `end_us` count from the first event of the file.
    `flows`: a row an end of a flow arrow (ph, id, pid, tid, start_us). `threads`: names by (pid, tid).
    `header`: what else stands at the top of the file (deviceProperties, versions, ...). `notes`: sentences about
    what was left out. FileNotFoundError or ValueError, in one line, for a file that is missing, no JSON, no trace,
    or without events.
    """
    content = _load(Path(path))
    raw = content.get("traceEvents")
    if not isinstance(raw, list):
        raise ValueError(f"{path} is no Chrome trace: it has no list `traceEvents`")
    raw = [event for event in raw if isinstance(event, dict)]
    complete = [e for e in raw if e.get("ph") == "X" and _number(e.get("ts")) and _number(e.get("dur"))]
    complete = [e for e in complete if e.get("cat") not in ("Trace", "overhead")]  # the profiler's own spans
    if not complete:
        raise ValueError(f"{path} holds no events with a duration: nothing was recorded")
    origin = min(e["ts"] for e in complete)
    return {
        "file": Path(path).name,
        "events": _events(complete, origin),
        "flows": _flows(raw, origin),
        "threads": _threads(raw),
        "header": {key: value for key, value in content.items() if key != "traceEvents"},
        "notes": _notes(raw),
    }


def store(path, target) -> Path:
    """Copy a trace to `target` (.json.gz), packed, whole or not at all; errors as for `read`."""
    content, target = _load(Path(path)), Path(target)
    with replacing(target) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(content).encode(), compresslevel=6))
    return target


def _load(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no trace file {path}")
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        content = json.loads(data.decode("utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error.msg} at character {error.pos}") from None
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from None
    if isinstance(content, list):  # Chrome also takes the bare list
        content = {"traceEvents": content}
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no Chrome trace: its JSON is a {type(content).__name__}")
    return content


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _category(event: dict) -> str:
    """Kineto's category; a scope without `::` among the `Operator`s of old traces is the user's annotation."""
    category = str(event.get("cat", "")).lower()
    if category == "operator" and "::" not in str(event.get("name", "")):
        return "user_annotation"
    return CATEGORIES.get(category, category)


def _events(complete: list[dict], origin: float) -> pd.DataFrame:
    rows = []
    for event in complete:
        args = event.get("args") or {}
        start = float(event["ts"] - origin)
        rows.append(
            (
                str(event.get("name", "")), _category(event), str(event.get("pid")), str(event.get("tid")),
                start, start + event["dur"], float(event["dur"]),
                args.get("correlation", 0), args.get("device", -1), str(args.get("stream", event.get("tid"))),
                args.get("bytes", args.get("Bytes")), args.get("Input Dims", args.get("Input dims")),
            )
        )  # fmt: skip
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.sort_values(["start_us", "dur_us"], ascending=[True, False], ignore_index=True, kind="stable")


def _flows(raw: list[dict], origin: float) -> pd.DataFrame:
    rows = [
        (e["ph"], str(e.get("id")), str(e.get("pid")), str(e.get("tid")), e["ts"] - origin)
        for e in raw
        if e.get("ph") in ("s", "f") and e.get("cat") in FLOWS and _number(e.get("ts"))
    ]
    return pd.DataFrame(rows, columns=["ph", "id", "pid", "tid", "start_us"])


def _threads(raw: list[dict]) -> dict:
    named = [e for e in raw if e.get("ph") == "M" and e.get("name") == "thread_name"]
    return {(str(e.get("pid")), str(e.get("tid"))): str((e.get("args") or {}).get("name")).strip() for e in named}


def _notes(raw: list[dict]) -> list[str]:
    open_ended = sum(e.get("ph") in ("B", "E") for e in raw)
    unmeasured = sum(e.get("ph") == "X" and not (_number(e.get("ts")) and _number(e.get("dur"))) for e in raw)
    notes = []
    if open_ended:
        notes.append(f"{open_ended} begin and end events without a duration were left out.")
    if unmeasured:
        notes.append(f"{unmeasured} events lack a time or a duration and were left out.")
    return notes


def hardware(trace: dict) -> dict:
    """The hardware and versions that the file itself names; nothing is read from the machine this runs on.

    `devices`: one dict a GPU (name, memory_gib, sms, compute_capability), empty when the file names none.
    `processor`: only in traces whose recorder wrote it. `versions`: CUDA runtime and driver, CUPTI, torch.
    """
    header = trace["header"]
    devices = [
        {
            "name": device.get("name", "unnamed GPU"),
            "memory_gib": device.get("totalGlobalMem", 0) / 2**30,
            "sms": device.get("numSms"),
            "compute_capability": f"{device.get('computeMajor')}.{device.get('computeMinor')}",
        }
        for device in header.get("deviceProperties") or []
    ]
    versions = {
        "CUDA runtime": _cuda_version(header.get("cuda_runtime_version")),
        "CUDA driver": _cuda_version(header.get("cuda_driver_version")),
        "CUPTI": header.get("cupti_version"),
        "torch": header.get("torch_version"),
    }
    return {
        "devices": devices,
        "processor": header.get("processor"),
        "versions": {name: str(version) for name, version in versions.items() if version},
    }


def _cuda_version(number) -> str | None:
    """12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}" if isinstance(number, int) and number > 0 else None


def short_name(kernel: str) -> str:
    """A kernel's name without return type, namespaces and template arguments; what a functor does is kept.

    `void at::native::vectorized_elementwise_kernel<4, at::native::...::MulFunctor<float> >(...)` becomes
    `vectorized_elementwise_kernel (mul)`.
    """
    plain = kernel.removeprefix("void ").replace("(anonymous namespace)::", "")
    parts = re.split(r"[<(>),]", plain)
    name = parts[0].split("::")[-1].strip() or kernel
    if name in ("Kernel", "Kernel2") and len(parts) > 1:  # CUTLASS keeps the name in the template's argument
        name = parts[1].split("::")[-1].strip()
    functors = [before or after for before, after in re.findall(r"(\w*)Functor_?(\w*)", plain)]
    does = [f for f in functors if f not in ("Binary", "BUnary", "AUnary", "Unary")]
    does = re.findall(r"CUDAFunctor_(\w+)", plain) or does
    return f"{name} ({does[-1].lower()})" if does else name
