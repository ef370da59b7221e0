"""What pruning VGG-16 costs: scores, ranking, histograms, and the memory that its training takes.

`python -m lib.bench.scoring times N M` prints seconds, `... memory MODEL` mebibytes, each as one line of JSON; a
process of its own for each, so that neither the memory nor the allocator of one is that of another.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from lib import paths
from lib.bench.training import spread

MODEL, SHAPE, CLASSES = "vgg16", (3, 32, 32), 10
BATCH = 256  # of the training whose memory is read, as in the study cos598d
FIVE = ("rand", "mag", "snip", "grasp", "synflow")  # pruners whose histograms are drawn
ROUNDS = 100
TARGETS_S = {"snip": 3.0, "synflow": 3.0, "grasp": 15.0, "ranking": 0.5, "histograms": 10.0}
TARGET_GIB = 8e9 / 2**30  # what a machine of 8 GB has
NAMES = {
    "snip": "SNIP, one score", "synflow": "SynFlow, one score", "grasp": "GraSP, one score",
    "ranking": "ranking of all scores", "rounds": f"SynFlow in {ROUNDS} rounds",
    "histograms": "histogram figures of five pruners",
}  # fmt: skip


def measure(folder: Path, size: dict) -> tuple[list, list]:
    """Rows of the table, and notes. `size`: `score_repeats` of each measurement, `rounds_repeats` of the 100 rounds."""
    taken = _program(folder, "times", size["score_repeats"], size["rounds_repeats"])
    row = {"section": "pruning", "task": "VGG-16"}
    measured = {what: seconds for what, seconds in taken["seconds"].items() if seconds}
    rows = [row | {"form": NAMES[k], **spread(v), "target_s": TARGETS_S.get(k)} for k, v in measured.items()]
    for model, name in (("vgg16", "VGG-16"), ("resnet50", "ResNet-50")):
        peak = _program(folder, "memory", model)["peak_memory_mib"] / 1024
        form = f"two training steps of {BATCH} images in mixed precision"
        rows.append({**row, "task": name, "form": form, "n": 1, "peak_gib": peak, "target_gib": TARGET_GIB})
    return rows, [
        f"Pruning: {taken['weights']:,} weights, 100 random images in one batch. Memory is the largest resident size "
        "of a process that has imported torch and trains; the images of the data set come on top (CIFAR-10: 0.2 GB)."
    ]


def _program(folder: Path, *arguments: str | int) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lib.bench.scoring", *map(str, arguments)]
    ended = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"lib.bench.scoring {arguments[0]} failed: {said[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def times(repeats: int, rounds_repeats: int) -> dict:
    """`{"weights", "seconds": {what: [s, ...]}}`, the first of each not counted."""
    import torch

    from lib import device, masks, models, pruners

    device.settle(torch.device("cpu"))
    network = models.build(MODEL, SHAPE, CLASSES)
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(100, *SHAPE, generator=draw), torch.randint(0, CLASSES, (100,), generator=draw))]
    scored = {name: getattr(pruners, name)(network, batches) for name in FIVE}
    kept = {name: masks.keep_top(scores, 0.1) for name, scores in scored.items()}
    found = {
        name: _seconds(partial(getattr(pruners, name), network, batches), repeats)
        for name in ("snip", "synflow", "grasp")
    }
    found["ranking"] = _seconds(partial(masks.keep_top, scored["snip"], 0.1), repeats)
    found["histograms"] = _seconds(partial(_histograms, network, kept), repeats)
    rounds = partial(pruners.prune, network, "synflow", 0.1, batches, rounds=ROUNDS)
    found["rounds"] = _seconds(rounds, rounds_repeats, warm=0)
    return {"weights": sum(w.numel() for w in masks.prunable(network).values()), "seconds": found}


def _histograms(network, kept: dict) -> None:
    """Count and draw, as a report does, the weights of every layer as each pruner kept them."""
    import matplotlib.pyplot as plt

    from lib import masks, plots

    for found in kept.values():
        figure = plots.histograms(pd.DataFrame(masks.histogram_rows(network, found)))
        figure.draw_without_rendering()
        plt.close(figure)


def memory(model: str) -> dict:
    """`{"peak_memory_mib"}` of this process after two training steps of `model` on random images."""
    import torch

    from lib import data, models
    from lib.train import train

    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * BATCH, *SHAPE), generator=draw, dtype=torch.uint8)
    labels = torch.arange(2 * BATCH) % CLASSES
    made = data.assemble("random", images, labels, images[:BATCH], labels[:BATCH], source="Random images.")
    train(models.build(model, SHAPE, CLASSES), made, epochs=1, batch=BATCH, precision="amp")
    return {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _seconds(work: Callable[[], object], repeats: int, warm: int = 1) -> list[float]:
    taken = []
    for _ in range(warm + repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken[warm:]


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(json.dumps(times(*map(int, rest)) if what == "times" else memory(*rest)))
