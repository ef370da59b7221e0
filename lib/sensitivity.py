"""How much of one layer a trained network can lose, the others left whole: layer by layer, weights or whole units."""

import copy
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import nn

from lib import pruners
from lib.data import Dataset
from lib.masks import apply_masks_, full, kept_count
from lib.ranking import keep_top
from lib.structured import groups, remove, structures
from lib.train import evaluate

UNSTRUCTURED = "weights"
UNITS = ("channels", "neurons")  # what a single layer has


def sensitivity(
    model: nn.Module,
    data: Dataset,
    pruner: str,
    batches: pruners.Batches,
    sparsities: Collection[float],
    *,
    also: Collection[str] = (),
    batch: int = 256,
    seed: int = 0,
) -> list[dict]:
    """Accuracy with a single layer pruned to each of `sparsities` (in [0, 1)), without retraining; `model` untouched.

    `weights`: the lowest scores of the layer by `pruner` go. `channels` and `neurons`: its units with the least L1
    norm, masked with all that goes with them (see `lib.structured`; layers that meet in a sum lose the same). Rows
    `layer`, `kind`, `sparsity_pct` (asked for), `removed_pct` (of the weights or units of that layer, as counted),
    `top1_pct`, `loss`; the first row, `layer` empty, is the whole network. ValueError for a sparsity outside [0, 1).
    """
    if not sparsities or not all(0 <= s < 1 for s in sparsities):
        raise ValueError(f"sparsities are {list(sparsities)}: one or more from 0 to below 1 are allowed")
    rows = [_row("", UNSTRUCTURED, 0.0, 0.0, evaluate(model, data, batch=batch))]
    everything = full(model, also)
    scores = pruners.scored(model, pruner, batches, everything, torch.Generator().manual_seed(seed))
    for name, score in scores.items():
        for sparsity in sparsities:
            one = copy.deepcopy(model)
            keep = kept_count(score.numel(), 1 - sparsity)
            apply_masks_(one, keep_top({name: score}, keep=keep))
            gone, layer = 100 * (1 - keep / score.numel()), name.removesuffix(".weight")
            rows.append(_row(layer, UNSTRUCTURED, sparsity, gone, evaluate(one, data, batch=batch)))
    for structure in [s for s in UNITS if s in structures(model, data.shape)]:
        for group in groups(model, data.shape, structure):
            rows += _structured(model, data, structure, group.layers, len(group.scores), sparsities, batch)
    return rows


def _structured(
    model: nn.Module,
    data: Dataset,
    structure: str,
    layers: list[str],
    units: int,
    sparsities: Collection[float],
    batch: int,
) -> list[dict]:
    """The rows of one group of layers of so many units, under the name of its first and how many more there are."""
    name = layers[0] + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")
    rows = []
    for sparsity in sparsities:
        rate = min(sparsity, 1 - 1 / units)  # one unit stays, however narrow the layer
        masked, _, counts = remove(model, data.shape, structure, rate, only=layers[:1])
        gone = 100 * (1 - counts[0]["after"] / counts[0]["before"])
        rows.append(_row(name, structure, sparsity, gone, evaluate(masked, data, batch=batch)))
    return rows


def _row(layer: str, kind: str, sparsity: float, gone: float, score: dict) -> dict:
    counted = {"sparsity_pct": 100 * sparsity, "removed_pct": gone}
    return {"layer": layer, "kind": kind, **counted, "top1_pct": score["top1_pct"], "loss": score["loss"]}


def fewer_tests(data: Dataset, count: int) -> Dataset:
    """`data` with `count` test inputs, evenly spaced over all; 0 keeps all. ValueError for more than there are."""
    if not 0 <= count <= len(data.test_x):
        raise ValueError(f"test_images is {count}: 0 (all) to {len(data.test_x)} is allowed for {data.name}")
    if not count:
        return data
    # the first ones would be of one class where the data come class after class, as the digits do
    index = torch.arange(count, device=data.test_y.device) * len(data.test_y) // count
    return replace(data, test_x=data.test_x[index], test_y=data.test_y[index])
