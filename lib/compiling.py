"""One training step as one graph: compiled on a CPU, a CUDA graph on a GPU, or eager where that is no gain.

What was measured is in lib/bench/notes.md. Which of the three a training uses follows from the work ahead alone,
never from what a cache happens to hold, so that the same settings give the same numbers.
"""

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import flops

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "inductor"

# A first compile of ResNet-20 takes 30 s on two cores and saves 6 % of each later step in mixed precision. This is
# about 800 steps of ResNet-20 with 256 images; the other runs of a study then start from the cache, in 3 s.
CPU_WORK = 5e13  # floating-point operations of a training
# What a graph gains is the work between the convolutions, little where each value is a sum of many products: ResNet-20
# has 203 of them, ResNet-50 378, and VGG-16 1,133, whose compiled step takes 1.15 times the eager one (1.00 with batch
# norm; two cores with AMX).
CPU_PRODUCTS = 600
# Capturing takes about as long as ten steps.
CUDA_STEPS = 100


class Loss(nn.Module):
    """The loss of a batch, and its logits cut off from the gradient."""

    def __init__(self, model: nn.Module, precision: str):
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # a CUDA graph may not rely on autocast's cache of casted weights
        with autocast(x.device, self.precision, cache_enabled=False):
            logits = self.model(x)
            loss = F.cross_entropy(logits, labels)
        return loss, logits.detach()


def autocast(device: torch.device, precision: str, cache_enabled: bool = True) -> torch.autocast:
    """Mixed precision for `amp`, nothing for `float32`: float16 on a GPU, bfloat16 on a CPU."""
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision == "amp", cache_enabled=cache_enabled)


def pays(model: nn.Module, shape: tuple[int, int, int], steps: int, batch: int, precision: str) -> bool:
    """Whether a training of `steps` steps of `batch` images gains by a graph.

    Never where hooks change what enters layers: how much they remove of an image they read on the way.
    """
    if any(module._forward_pre_hooks for module in model.modules()):
        return False
    if next(model.parameters()).is_cuda:
        return steps >= CUDA_STEPS
    if precision != "amp":
        return False  # the compiled step is no faster: the time is in the convolutions, which stay the library's
    used = flops.positions(model, shape)
    weights = {name: model.get_parameter(name) for name in used}
    values = sum(positions * len(weights[name]) for name, positions in used.items())
    macs = sum(positions * weights[name].numel() for name, positions in used.items())
    return macs <= CPU_PRODUCTS * values and 6 * macs * batch * steps >= CPU_WORK


def prepare(loss: Loss, x: Tensor, labels: Tensor) -> tuple[Callable, str]:
    """`loss` as one graph for batches like (x, labels), and how: `compiled`, `CUDA graph` or `eager`.

    The graph is tried, forward and backward; parameters, buffers and gradients are afterwards as before. Where it
    cannot be had, a warning says why in one line, and `loss` itself comes back.
    """
    buffers = [buffer.clone() for buffer in loss.buffers()]
    try:
        step, how = (_captured(loss, x, labels), "CUDA graph") if x.is_cuda else (compiled(loss), "compiled")
        step(x, labels)[0].backward()
    except Exception as error:  # compilers fail in many ways, and none of them should stop a training
        said = f"training goes on without a graph, only slower: {first_line(error)}"
        warnings.warn(said, RuntimeWarning, stacklevel=3)
        step, how = loss, "eager"
    finally:
        for buffer, before in zip(loss.buffers(), buffers, strict=True):
            buffer.copy_(before)
        loss.zero_grad(set_to_none=True)
    return step, how


def compiled(function: Callable) -> Callable:
    """torch.compile for a CPU and fixed shapes; RuntimeError where it cannot be done."""
    inductor_config("cpu").cpp.threads = torch.get_num_threads()  # part of the key in the cache; the default is not
    torch.compiler.reset()  # each training has a network of its own, and dynamo gives up after eight
    return torch.compile(function, dynamic=False)


def inductor_config(device_type: str):
    """The configuration of torch's compiler, which from here on keeps its results in CACHE for the next process.

    RuntimeError in one line where nothing can be compiled for such a device.
    """
    missing = compiler_missing() if device_type == "cpu" else None
    if missing:
        raise RuntimeError(missing)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a missing GPU
    import torch._inductor.config as inductor  # 2 s, only where it is needed

    return inductor


def first_line(error: Exception) -> str:
    """What an error says in its first line, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def compiler_missing() -> str | None:
    """Why nothing can be compiled for the CPU here, in one line; None where it can."""
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted) or shutil.which("clang++")
    return None if found else f"no C++ compiler ({wanted}) was found"


def _captured(loss: Loss, x: Tensor, labels: Tensor) -> Callable:
    """Forward and backward of `loss` as CUDA graphs, replayed for each batch of this size."""
    # a module of its own around the same model: capturing replaces its forward, which then takes one size only
    return torch.cuda.make_graphed_callables(Loss(loss.model, loss.precision), (x.clone(), labels.clone()))
