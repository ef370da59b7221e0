"""Inference times that can be compared: the networks take turns, so a busy moment hits all of them alike."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.data import Dataset, normalise
from lib.device import synchronise


@torch.inference_mode()
def inference(
    networks: dict[str, Callable[[Tensor], Tensor]],
    data: Dataset,
    *,
    batch: int = 256,
    repeats: int = 5,
    warmup: int = 1,
    test_images: int = 0,
) -> list[dict]:
    """Time passes over the test set: rows `network`, `repeat` (from 1), `seconds`.

    A pass sends the first `test_images` (0: all) test images through the network in batches of `batch` (the
    last one may be smaller) and ends when the device is synchronised. The batches are on the device and
    normalised before the clock starts: what is timed is the forward passes alone. In each of `warmup`
    untimed and `repeats` timed rounds every network has one turn, in an order that shifts by one from round
    to round. A network is a model, put in evaluation mode and left there, or any function of a batch.
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
    rows = []
    for turn in range(warmup + repeats):
        for label in _rotated(list(networks), turn):
            seconds = _pass_s(networks[label], batches, data.device)
            if turn >= warmup:
                rows.append({"network": label, "repeat": turn - warmup + 1, "seconds": seconds})
    return rows


def _pass_s(network: Callable[[Tensor], Tensor], batches: list[Tensor], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    for x in batches:
        network(x)
    synchronise(device)
    return time.perf_counter() - start


def _rotated(labels: list[str], turn: int) -> list[str]:
    first = turn % len(labels)
    return labels[first:] + labels[:first]
