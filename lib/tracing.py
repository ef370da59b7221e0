"""Record one inference step with torch.profiler, as a file that Chrome and Perfetto open and lib.traces analyses."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch: no log lines of the profiler on a machine without GPU

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from lib.device import synchronise
from lib.files import replacing
from lib.hooks import hooked


def record(
    forward: Callable,
    batches: Iterable,
    path: Path | str,
    *,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    model: nn.Module | None = None,
    about: dict | None = None,
) -> Path:
    """Run `warmup` steps and one more, and write the trace of that last one to `path` (.json.gz or .json).

    forward: x -> anything, called in inference mode. batches: an iterable of x or (x, ...), x of shape (N, C, H, W);
    `warmup` + 1 of them are taken. model: the network behind `forward`; the names of its convolutions, in the order in
    which the first warm-up step calls them, go into the file, and the analysis uses them. about: plain JSON that goes
    into the file's header; `processor` is what the analysis calls the CPU.

    A step loads a batch (scope `data loading`), moves it to the device (scope `copy to device`), runs `forward` (scope
    `forward`) and waits for the device, so that its kernels lie within it. Recorded are CPU activity, CUDA activity
    where the device is one, and the shapes of the inputs, by which mask multiplies are told from others. Recording
    slows the host by some microseconds an operator.

    Returns the path. ValueError for fewer than one warm-up step, too few batches, or another suffix.
    """
    path, device = Path(path), torch.device(device)
    if warmup < 1:
        raise ValueError(f"warmup is {warmup}: 1 or more is allowed, the profiler needs it")
    if not path.name.endswith((".json", ".json.gz")):
        raise ValueError(f"{path} is no name for a trace: .json or .json.gz at its end is allowed")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    source, names = iter(batches), []
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "trace.json"
        with (
            torch.inference_mode(),
            profile(
                activities=activities,
                schedule=schedule(wait=0, warmup=warmup, active=1, repeat=1),  # without repeat the file is overwritten
                on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(raw)),
                record_shapes=True,
                acc_events=True,  # without it the profiler warns that it clears its events
            ) as profiler,
        ):
            for step in range(warmup + 1):
                with _convolution_names(model if step == 0 else None, names):
                    _step(forward, source, device, step, warmup)
                if step == 0:
                    _header(profiler, {"layers": names, "torch_version": torch.__version__, **(about or {})})
                profiler.step()
        _write(raw, path)
    return path


def _step(forward, source, device, step: int, warmup: int) -> None:
    with record_function("data loading"):
        batch = next(source, None)
    if batch is None:
        raise ValueError(f"the batches ended after {step}: {warmup + 1} are needed, {warmup} of them for warming up")
    with record_function("copy to device"):
        x = (batch if torch.is_tensor(batch) else batch[0]).to(device)
    with record_function("forward"):
        forward(x)
    synchronise(device)


def _convolution_names(model: nn.Module | None, names: list) -> AbstractContextManager[None]:
    """Inside the `with`, each call of a convolution appends its module's name to `names`."""
    return hooked(
        module.register_forward_pre_hook(lambda *_, name=name: names.append(name))
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, nn.modules.conv._ConvNd)
    )


def _header(profiler, entries: dict) -> None:
    for key, value in entries.items():
        profiler.add_metadata_json(key, json.dumps(value))


def _write(raw: Path, path: Path) -> None:
    """Put the trace in its place, packed if the name says so, whole or not at all."""
    opened = gzip.open if path.suffix == ".gz" else open
    with replacing(path) as temporary, raw.open("rb") as source, opened(temporary, "wb") as target:
        shutil.copyfileobj(source, target)
