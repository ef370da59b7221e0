"""One trained network without more and more of its structures: each smaller network, trained on and measured."""

import copy
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import nn

from lib import flops, formats
from lib.catalog import UNPRUNED
from lib.data import Dataset, normalise
from lib.inference import agreement
from lib.masks import evaluating
from lib.storage import load_pruned
from lib.structured import remove, structures
from lib.train import evaluate, train

COMPARED = 64  # test inputs on which the masked and the smaller network are compared


def load_unpruned_(folder: Path, model: nn.Module) -> None:
    """Put the weights of the finished run in `folder` into `model`; ValueError where that run has pruned some.

    (Training after the removal would bring them back.)
    """
    _, masks = load_pruned(folder, model)
    if not all(bool(mask.all()) for mask in masks.values()):
        raise ValueError(f"source {folder.name} is pruned already: a run of pruner dense is allowed")


def series(
    model: nn.Module,
    data: Dataset,
    chosen: Collection[str],
    rates: Collection[float],
    *,
    scope: str = "layer",
    epochs: int = 0,
    seed: int = 0,
    checkpoint: Callable[[str], Path] | None = None,
    follow: Callable[[int, str], Callable[[dict], None]] | None = None,
    **recipe,
) -> dict:
    """`model`, and without each of `rates` of each of the `chosen` structures; no structure means all that it has.

    Every network, the unpruned one too, is trained on for `epochs` with `recipe` (see `lib.train.train`; its dropout
    and order of the data follow `seed`). `checkpoint(name)` is the file for the state of a training,
    `follow(epochs, name)` makes its `on_epoch`. The model is left untouched. ValueError as for `remove`, before any
    training, also for a rate or a structure that comes twice.

    Returns `networks` (name -> module, `unpruned` first), `rows` (one a network, see `_row`), `removed` (the rows of
    `remove` with their `network`), `history` (the rows of `train` with their `network`).
    """
    chosen = list(chosen) or list(structures(model, data.shape))
    if len({*chosen}) < len(chosen) or len({*rates}) < len(rates) or not rates:
        raise ValueError(f"structures are {chosen} and rates {list(rates)}: each once, and one rate at least")
    networks, rows, removed, history = {UNPRUNED: copy.deepcopy(model)}, {UNPRUNED: {}}, [], []
    for structure in chosen:
        for rate in rates:
            name = f"{structure} {rate:g}"
            masked, networks[name], gone = remove(model, data.shape, structure, rate, scope=scope)
            rows[name] = {"structure": structure, "rate": rate, **_removal(masked, networks[name], data, gone)}
            removed += [{"network": name, **row} for row in gone]
    for name, network in networks.items():
        before = evaluate(network, data)["top1_pct"]
        own = {"checkpoint": checkpoint(name.replace(" ", "-"))} if checkpoint else {}
        own |= {"on_epoch": follow(epochs, name)} if follow else {}
        trained = train(network, data, epochs=epochs, seed=seed, **recipe, **own) if epochs else []
        history += [{"network": name, **row} for row in trained]
        after = trained[-1]["test_top1_pct"] if trained else before
        rows[name] |= {"top1_before_pct": before, "top1_pct": after}
    found = [_row(name, networks[name], data, known) for name, known in rows.items()]
    return {"networks": networks, "rows": found, "removed": removed, "history": history}


def _removal(masked: nn.Module, smaller: nn.Module, data: Dataset, gone: list[dict]) -> dict:
    """How much is gone, and how far the smaller network's logits are from the masked one's."""
    units = {row["group"] if row["structure"] != "blocks" else row["layer"]: row for row in gone}.values()
    x = normalise(data, data.test_x[:COMPARED])
    with torch.no_grad(), evaluating(masked), evaluating(smaller):
        found = agreement(masked(x), smaller(x))
    return {
        "units": sum(row["before"] for row in units),
        "units_removed": sum(row["before"] - row["after"] for row in units),
        "max_abs_logit_difference": found["max_abs_logit_difference"],
        "max_abs_logit": found["max_abs_logit"],
    }


def _row(name: str, network: nn.Module, data: Dataset, known: dict) -> dict:
    """`network` (its name), `structure`, `rate`, `units` (all that there were) and `units_removed`, `parameters`,
    `macs` (of one input), `disk_mb` (of the state dict, in 10^6 bytes), `top1_before_pct` and `top1_pct` (before and
    after training on), `max_abs_logit_difference` between the masked and the smaller network, and `max_abs_logit`.
    """
    empty = {"structure": UNPRUNED, "rate": 0.0, "units": 0, "units_removed": 0}
    size = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "macs": flops.macs(network, data.shape)["macs_dense"],
        "disk_mb": _disk_mb(network),
    }
    return {"network": name} | empty | known | size


def _disk_mb(network: nn.Module) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return formats.save_as("dense", Path(folder) / "network.safetensors", network, {}) / 1e6
