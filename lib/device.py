"""Which device a notebook computes on."""

import torch

from lib.memory import keep_freed_memory


def choose(name: str = "auto") -> torch.device:
    """`auto` is the first GPU if torch sees one, else the CPU; `cpu` and `cuda` mean what they say.

    ValueError for another name, or for `cuda` where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda and torch sees no GPU: cpu or auto is allowed here")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def synchronise(device: torch.device | str) -> None:
    """Wait for the GPU's queue to empty, so that a clock read next is honest; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def settle(device: torch.device) -> None:
    """Make this process ready to compute for long: memory that stays, and on a GPU the fastest convolutions."""
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True  # tries the algorithms at the first batch of each size
