"""The same networks in PyTorch, in ONNX Runtime, and in ONNX Runtime with int8: agreement, accuracy, sizes, times."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
import zstandard
from torch import Tensor, nn

from lib import formats, models, timing
from lib.catalog import RUNTIMES, UNPRUNED
from lib.data import Dataset, normalise
from lib.inference import agreement
from lib.masks import Masks, apply_masks_, prunable
from lib.runtimes.exporting import export
from lib.runtimes.int8 import narrow, quantise
from lib.runtimes.session import session

TORCH, FLOAT32, INT8 = RUNTIMES
Networks = dict[str, tuple[nn.Module, Masks]]
Functions = dict[tuple[str, str], Callable[[Tensor], Tensor]]
REST_S = 0.005
NARROW = "7-bit weights, since the processor lacks VNNI"
MEASURED = ("top1_pct", "disk_mb", "compressed_mb", "max_abs_logit_difference", "max_abs_logit")


def measured(
    networks: Networks, model: str, data: Dataset, folder: Path, batches: list[tuple[Tensor, Tensor]]
) -> tuple[list[dict], Functions]:
    """A row for every network and runtime, and the functions to time, by (network, runtime).

    `networks` are of the catalogue's `model`, on the CPU as `data` is; removed weights become zero in place. Files are
    written into `folder`; `batches` calibrate int8. Columns: `network`, `pruning` (unpruned, unstructured or
    structured), `density` (what is kept of the prunable weights of `model`, in (0, 1]), `runtime`, `top1_pct` over the
    test set, `disk_mb` and `compressed_mb` of the file (10^6 bytes; zstd), `max_abs_logit_difference` from PyTorch's
    logits of the test set and `max_abs_logit` of these, `made_s` (seconds of the export, or of the quantisation),
    `note`; PyTorch's row alone has `bitmask_mb`, of its weights as bit mask and values (see `lib.formats`). Where a
    runtime cannot have the network, the note says why and the rest is None.
    """
    fresh = models.build(model, data.shape, data.classes)
    folder.mkdir(exist_ok=True)
    rows, functions = [], {}
    for name, (network, masks) in networks.items():
        apply_masks_(network, masks)
        kept = {"network": name, **kept_of(network, masks, fresh)}
        for runtime, row, function in _in_every_runtime(network.eval(), masks, data, folder / _stem(name), batches):
            rows.append({**kept, "runtime": runtime, **row})
            if function is not None:
                functions[name, runtime] = function
    return rows, functions


def kept_of(network: nn.Module, masks: Masks, fresh: nn.Module) -> dict:
    """`pruning` and `density` of a network, compared with the unpruned one."""
    whole = {name: fresh.get_parameter(name).numel() for name in masks or prunable(fresh)}
    there = {name: p.numel() for name, p in network.named_parameters() if name in whole}
    kept = sum(int(mask.count_nonzero()) for mask in masks.values()) if masks else sum(there.values())
    smaller, total = sum(there.values()) < sum(whole.values()), sum(whole.values())
    return {
        "pruning": "structured" if smaller else "unstructured" if kept < total else UNPRUNED,
        "density": kept / total,
    }


@torch.inference_mode()
def logits(network: Callable[[Tensor], Tensor], data: Dataset, batch: int = 256) -> Tensor:
    """Those of the test set, (N, classes)."""
    return torch.cat([network(normalise(data, part)) for part in data.test_x.split(batch)])


def latencies(
    functions: Functions, data: Dataset, batches: list[int], *, repeats: int = 50, warmup: int = 5
) -> list[dict]:
    """Times of single passes of the first test inputs: rows `network`, `runtime`, `batch`, `repeat`, `seconds`.

    All networks and runtimes take turns, see `lib.timing.latencies`; each comes after another of its runtime, so that
    none bears the change of runtimes alone. ValueError for an impossible number.
    """
    inputs = timing.first_inputs(data, batches)
    torch_s, others = ({k: f for k, f in functions.items() if (k[1] == TORCH) is own} for own in (True, False))
    # torch's threads wait actively for some milliseconds after a pass; these would be in the way of ONNX Runtime's
    rest = {"rest": lambda _: time.sleep(REST_S)} if others else {}
    turns = torch_s | rest | ({"before": timing.any_of(others.values())} if others else {}) | others
    timed = timing.latencies(
        turns, inputs, repeats=repeats, warmup=warmup, before=timing.any_of((torch_s or others).values())
    )
    timed = [row for row in timed if row["network"] in functions]
    return [row | {"network": row["network"][0], "runtime": row["network"][1]} for row in timed]


def _in_every_runtime(network: nn.Module, masks: Masks, data: Dataset, stem: Path, batches: list):
    """Yield (runtime, row, function or None)."""
    reference = logits(network, data)
    path, bitmask = (stem.with_name(f"{stem.name}{end}.safetensors") for end in ("", "-bitmask"))
    formats.save_as("dense", path, network, masks)
    packed = {"bitmask_mb": formats.save_as("bitmask", bitmask, network, masks) / 1e6}
    yield TORCH, _row(path, reference, reference, data) | packed | {"made_s": None, "note": ""}, network
    float32, int8 = (stem.with_name(f"{stem.name}{end}.onnx") for end in ("", "-int8"))
    note = NARROW if narrow() else ""
    yield FLOAT32, *_tried(float32, lambda: export(network, data.shape, float32), "", reference, data)
    yield INT8, *_tried(int8, lambda: _quantised(float32, int8, batches), note, reference, data)


def _quantised(float32: Path, int8: Path, batches: list) -> None:
    if not float32.is_file():
        raise ValueError("cannot be quantised: there is no ONNX file of it")
    quantise(float32, int8, batches)


def _tried(path: Path, make: Callable[[], None], note: str, reference: Tensor, data: Dataset) -> tuple:
    """The row and the function of what `make` writes to `path`, or a row with the reason and None."""
    path.unlink(missing_ok=True)  # an earlier attempt's
    start = time.perf_counter()
    try:
        make()
        made_s = time.perf_counter() - start
        function = session(path)
        row = _row(path, reference, logits(function, data), data)
    except ValueError as error:
        return dict.fromkeys((*MEASURED, "made_s")) | {"note": str(error)}, None
    return row | {"made_s": made_s, "note": note}, function


def _row(path: Path, reference: Tensor, found: Tensor, data: Dataset) -> dict:
    content, distance = path.read_bytes(), agreement(reference, found)
    return {
        "top1_pct": 100 * (found.argmax(1) == data.test_y).double().mean().item(),
        "disk_mb": len(content) / 1e6,
        "compressed_mb": len(zstandard.compress(content, formats.LEVEL)) / 1e6,
        **{name: distance[name] for name in MEASURED if name in distance},
    }


def _stem(name: str) -> str:
    """A file's name for a network's, such as `lab4/accuracy-fc` or `channels 0.5`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2])
