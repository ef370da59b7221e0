"""What pruning costs: scores, ranking and histogram figures of VGG-16, the memory of scoring and of training; and what
coding costs: the model file of VGG-7, 8 bits a weight in Huffman codes, written and read by one core.

`python -m lib.bench.scoring seconds WHAT N` prints the seconds of N repeats, `... memory WHAT MODEL` mebibytes, each as
one line of JSON; a process of its own for each, so that neither the memory nor the allocator of one is that of another.
"""

import atexit
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from lib import catalog, paths
from lib.bench.training import spread

MODEL, SHAPE, CLASSES = "vgg16", (3, 32, 32), 10
BATCH = 256  # of the training whose memory is read, as in the study cos598d
SCORED = 100  # images, in one batch: ten of each class of CIFAR-10
FIVE = ("rand", "mag", "snip", "grasp", "synflow")  # pruners whose histograms are drawn
ROUNDS = 100

# what is timed -> how the table calls it, and its target in seconds
SECONDS = {
    "snip": ("SNIP, one score", 3.0),
    "synflow": ("SynFlow, one score", 3.0),
    "grasp": ("GraSP, one score", 15.0),
    "ranking": ("ranking of all scores", 0.5),
    "histograms": ("histogram figures of five pruners, counted, drawn and written", 10.0),
    "rounds": (f"SynFlow in {ROUNDS} rounds", None),
    "encode": ("model file in Huffman codes, written (one core)", 5.0),
    "decode": ("the same file, read (one core)", 5.0),
}
CODED = {"encode": "vgg7", "decode": "vgg7"}  # of what network, where it is not MODEL
MEMORY = {
    "grasp": f"GraSP, one score of {SCORED} images",
    "training": f"two training steps of {BATCH} images in mixed precision",
}
NETWORKS = ("vgg16", "resnet50")  # whose memory is read
TARGET_GIB = 8e9 / 2**30  # what a machine of 8 GB has


def measure(folder: Path, size: dict) -> tuple[list, list]:
    """Rows of the table, and notes. `size`: `score_repeats` of each measurement, `rounds_repeats` of the 100 rounds."""
    repeats = dict.fromkeys(SECONDS, size["score_repeats"]) | {"rounds": size["rounds_repeats"]}
    rows, weights = [], 0
    for what, (form, target) in SECONDS.items():
        if repeats[what]:
            taken = _program(folder, "seconds", what, repeats[what])
            rows.append(_row(CODED.get(what, MODEL), form) | spread(taken["seconds"]) | {"target_s": target})
            weights = weights or taken["weights"]
    for what, form in MEMORY.items():
        for model in NETWORKS:
            peak = _program(folder, "memory", what, model)["peak_memory_mib"] / 1024
            rows.append(_row(model, form) | {"n": 1, "peak_gib": peak, "target_gib": TARGET_GIB})
    return rows, [
        f"Pruning: {weights:,} weights, {SCORED} random images in one batch; a figure is written as the report does, "
        "as PDF, SVG and PNG. Memory is the largest resident size of a process that has imported torch and scores or "
        "trains; in a study a kernel and the images of the data set come on top (CIFAR-10: 0.2 GB)."
    ]


def _row(model: str, form: str) -> dict:
    return {"section": "pruning", "task": catalog.label(model), "form": form}


def _program(folder: Path, *arguments: str | int) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lib.bench.scoring", *map(str, arguments)]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if arguments[1] in CODED else {})
    ended = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, env=environment)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"lib.bench.scoring {' '.join(map(str, arguments))} failed: {said[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def seconds(what: str, repeats: int) -> dict:
    """`{"weights", "seconds": [s, ...]}` of a key of SECONDS; a first one is not counted, but for the 100 rounds."""
    import torch

    from lib import device, masks, models

    device.settle(torch.device("cpu"))
    network = models.build(CODED.get(what, MODEL), SHAPE, CLASSES)
    work = _coding(what, network) if what in CODED else _work(what, network)
    taken = []
    for _ in range((what != "rounds") + repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return {"weights": sum(w.numel() for w in masks.prunable(network).values()), "seconds": taken[-repeats:]}


def _work(what: str, network) -> Callable[[], object]:
    from lib import masks, pruners

    batches = _batches()
    if what == "rounds":
        return partial(pruners.prune, network, "synflow", 0.1, batches, rounds=ROUNDS)
    if what == "ranking":
        return partial(masks.keep_top, pruners.snip(network, batches), 0.1)
    if what == "histograms":
        return partial(_histograms, network, {name: pruners.prune(network, name, 0.1, batches) for name in FIVE})
    return partial(getattr(pruners, what), network, batches)


def _coding(what: str, network) -> Callable[[], object]:
    from lib import masks
    from lib.pipeline import grids, stored
    from lib.pipeline.network import Network

    coded = grids.quantise_int8(Network(network.eval(), masks.full(network)))
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "model.safetensors"
    save = partial(stored.save, path, coded, positions="none", coding="huffman")
    save()
    return save if what == "encode" else partial(stored.load, path, network)


def _batches() -> list:
    import torch

    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(SCORED, *SHAPE, generator=draw), torch.randint(0, CLASSES, (SCORED,), generator=draw))]


def _histograms(network, kept: dict) -> None:
    """Count, draw and write, as a report does, the weights of every layer as each pruner kept them."""
    from lib import masks, plots
    from lib.report import notebook

    notebook.setup()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # no notebook shows them
        for name, found in kept.items():
            figure = plots.histograms(pd.DataFrame(masks.histogram_rows(network, found)))
            notebook.figure(figure, f"fig-{name}", "Weights of every layer.", folder)


def memory(what: str, model: str) -> dict:
    """`{"peak_memory_mib"}` of this process during a key of MEMORY: one score, or training, of `model`."""
    from lib import models, pruners
    from lib.memory import peak

    network = models.build(model, SHAPE, CLASSES)
    # not getrusage: its maximum is that of the process which started this one, where that is larger
    with peak() as used:
        if what == "training":
            _train(network)
        else:
            pruners.prune(network, what, 0.1, _batches())
    return {"peak_memory_mib": used["peak_memory_mib"]}


def _train(network) -> None:
    """Two steps in mixed precision on random images, and an evaluation."""
    import torch

    from lib import data
    from lib.train import train

    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * BATCH, *SHAPE), generator=draw, dtype=torch.uint8)
    labels = torch.arange(2 * BATCH) % CLASSES
    made = data.assemble("random", images, labels, images[:BATCH], labels[:BATCH], source="Random images.")
    train(network, made, epochs=1, batch=BATCH, precision="amp")


if __name__ == "__main__":
    which, what, last = sys.argv[1:]
    print(json.dumps(seconds(what, int(last)) if which == "seconds" else memory(what, last)))
