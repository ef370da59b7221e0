"""Inference times that can be compared: the networks take turns, so a busy moment hits all of them alike."""

import random
import time
from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn

from lib import models, pruners
from lib.data import Dataset, normalise, scoring_batches
from lib.device import settle, synchronise
from lib.masks import Masks, apply_masks_, masked_forward


@torch.inference_mode()
def inference(
    networks: dict[tuple[str, str], Callable[[Tensor], Tensor]],
    data: Dataset,
    *,
    batch: int = 256,
    repeats: int = 5,
    warmup: int = 1,
    test_images: int = 0,
) -> list[dict]:
    """Time passes over the test set: rows `network`, `form`, `repeat` (from 1), `seconds`.

    A pass sends the first `test_images` (0: all) test images through the network in batches of `batch` (the
    last one may be smaller) and ends when the device is synchronised. The batches are on the device and
    normalised before the clock starts: what is timed is the forward passes alone. In each of `warmup`
    untimed and `repeats` timed rounds every network has one turn, in an order that shifts by one from round
    to round. `networks` are keyed by (name, form), as `forms` gives them; a network is a model, put in
    evaluation mode and left there, or any function of a batch.
    """
    available = len(data.test_x)
    if not networks or batch < 1 or repeats < 1 or warmup < 0 or not 0 <= test_images <= available:
        raise ValueError(
            f"{len(networks)} networks, batch {batch}, repeats {repeats}, warmup {warmup}, test_images "
            f"{test_images}: at least 1, 1, 1, 0 and 0 to {available} are allowed"
        )
    images = data.test_x[: test_images or available]
    batches = [normalise(data, part) for part in images.split(batch)]
    for network in networks.values():
        if isinstance(network, nn.Module):
            network.eval()
    settle(data.device)
    rows = []
    for turn in range(warmup + repeats):
        for label in _rotated(list(networks), turn):
            seconds = _pass_s(networks[label], batches, data.device)
            if turn >= warmup:
                name, form = label
                rows.append({"network": name, "form": form, "repeat": turn - warmup + 1, "seconds": seconds})
    return rows


def first_inputs(data: Dataset, batches: Collection[int]) -> dict[int, Tensor]:
    """The first test inputs, normalised, for each batch size; ValueError where there are not as many."""
    if not batches or not all(1 <= batch <= len(data.test_x) for batch in batches):
        most = f"1 to {len(data.test_x)}, all test inputs, are allowed"
        raise ValueError(f"latency_batches are {list(batches)}: {most}")
    return {batch: normalise(data, data.test_x[:batch]) for batch in batches}


@torch.inference_mode()
def latencies(
    networks: dict[str, Callable[[Tensor], object]],
    inputs: dict[int, Tensor],
    *,
    repeats: int = 50,
    warmup: int = 5,
    before: Callable[[Tensor], object] | None = None,
) -> list[dict]:
    """Time single forward passes: rows `network`, `batch`, `repeat` (from 1), `seconds`.

    `inputs` has a batch for each batch size, on the device and normalised. In each of `warmup` untimed and `repeats`
    timed rounds every network has one turn with every batch, in an order that shifts by one from round to round; a
    turn ends when the device is synchronised. Before the first network's turn with a batch `before` (by default
    `any_of` them) has an untimed one, so that each comes after one with this batch: the first would otherwise find the
    caches full of the larger batch, and look slower than the others. A network is a model, put in evaluation mode and
    left there, or any function of a batch. ValueError for an impossible number.
    """
    if not networks or not inputs or repeats < 1 or warmup < 0 or any(len(x) != n for n, x in inputs.items()):
        sizes = {n: len(x) for n, x in inputs.items()}
        raise ValueError(
            f"{len(networks)} networks, batches {sizes}, repeats {repeats}, warmup {warmup}: at least 1, batches of "
            "the sizes that they are called by, 1 and 0 are allowed"
        )
    for network in networks.values():
        if isinstance(network, nn.Module):
            network.eval()
    device = next(iter(inputs.values())).device
    settle(device)
    untimed = object()  # no network's name
    passes = {untimed: before or any_of(networks.values()), **networks}
    turns, rows = [(name, batch) for batch in inputs for name in passes], []
    for turn in range(warmup + repeats):
        for name, batch in _rotated(turns, turn):
            seconds = _pass_s(passes[name], [inputs[batch]], device)
            if turn >= warmup and name is not untimed:
                rows.append({"network": name, "batch": batch, "repeat": turn - warmup + 1, "seconds": seconds})
    return rows


def any_of(networks: Iterable[Callable[[Tensor], object]]) -> Callable[[Tensor], object]:
    """A function that calls one of them, drawn anew each time.

    One and the same, run twice as often as the others, would find its weights in the caches and look faster.
    """
    some, draw = list(networks), random.Random(0)
    return lambda x: draw.choice(some)(x)


def _pass_s(network: Callable[[Tensor], Tensor], batches: list[Tensor], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    for x in batches:
        network(x)
    synchronise(device)
    return time.perf_counter() - start


def _rotated(labels: list, turn: int) -> list:
    first = turn % len(labels)
    return labels[first:] + labels[:first]


def forms(networks: dict[str, tuple[nn.Module, Masks]]) -> dict[tuple[str, str], Callable[[Tensor], Tensor]]:
    """Both ways to run each pruned network, by (name, form): `permanent` weights and `masked forward`.

    Permanent means that removed weights are zero in the weights themselves, which is set here, in place. A
    network that keeps everything has no masks to multiply, and only the first form.
    """
    found: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {}
    for name, (model, masks) in networks.items():
        apply_masks_(model, masks)
        found[name, "permanent"] = model.eval()
        if not all(bool(mask.all()) for mask in masks.values()):
            found[name, "masked forward"] = masked_forward(model, masks)
    return found


def examples(model: str, data: Dataset, density: float, seed: int) -> dict[str, tuple[nn.Module, Masks]]:
    """A dense and a SNIP-pruned network with initial weights, to time when there are no finished runs."""
    networks = {}
    for pruner, share in (("dense", 1.0), ("snip", density)):
        network = models.build(model, data.shape, data.classes, seed).to(data.device)
        kept = pruners.prune(network, pruner, share, scoring_batches(data, seed=seed), seed=seed)
        networks[pruner] = (network, kept)
    return networks
