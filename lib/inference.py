"""Fast inference of a network whose weights stay: batch norm folded, channels-last, half precision, compiled.

Masks play no part any more: the weights that come in are permanent, as after `masks.apply_masks_`.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm

from lib import compiling


def folded(model: nn.Module) -> fx.GraphModule:
    """A copy of `model` in evaluation mode, each batch norm folded into the convolution or linear layer before it.

    Layers keep their names. A batch norm that does not directly follow such a layer stays, and so do all of them
    when a layer is called more than once. Raises what `torch.fx.symbolic_trace` raises for a forward it cannot trace.
    """
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    layers = dict(traced.named_modules())
    if any(n > 1 and isinstance(layers[name], nn.Conv2d | nn.Linear | _BatchNorm) for name, n in calls.items()):
        return traced  # `fuse` would fold into the shared layer once for every call
    for layer in layers.values():
        if isinstance(layer, _BatchNorm) and layer.weight is None and layer.running_var is not None:
            layer.weight = nn.Parameter(torch.ones_like(layer.running_var))  # `fuse` needs both behind a linear layer
            layer.bias = nn.Parameter(torch.zeros_like(layer.running_var))
    return fuse(traced, inplace=True, no_trace=True)


def fast(model: nn.Module, *, precision: str = "float32", sample: Tensor) -> tuple[Callable[[Tensor], Tensor], dict]:
    """A function from float32 batches (N, C, H, W) to float32 logits, as fast as torch makes it, and facts about it.

    `model` is copied, the copy compiled for batches of the shape of `sample`, which lies on the model's device, with
    weights as constants, and on a GPU run as a CUDA graph. Batches of another size, such as the last one, run eagerly
    in the same precision: nothing is ever compiled again (also not after `torch.compiler.reset`, from which on every
    batch runs eagerly). `precision` is that of weights and activations: `float32`, `bfloat16`, or `float16` on a GPU;
    ValueError for another one. Images are channels-last in memory, which a forward with `view` may refuse (`flatten`
    takes both). On a CPU, bfloat16 gains where the processor has instructions for it (avx512_bf16, AMX).

    Facts: `precision`, `folded` (number of batch norms folded away), `compiled`, `why` (one line where it was not
    compiled, and the function runs eagerly then; else None), `compile_s` (seconds, first calls included).
    """
    allowed = ("float32", "bfloat16", "float16") if sample.is_cuda else ("float32", "bfloat16")
    if precision not in allowed:
        raise ValueError(f"unknown precision {precision!r} on {sample.device.type}: one of {', '.join(allowed)}")
    dtype = getattr(torch, precision)
    network = _folded_or_copied(model).requires_grad_(False).to(dtype=dtype, memory_format=torch.channels_last)
    facts = {"precision": precision, "folded": _norms(model) - _norms(network), "compiled": False, "why": None}

    @torch.inference_mode()
    def eager(x: Tensor) -> Tensor:
        return network(_prepared(x, dtype)).float()

    start = time.perf_counter()
    try:
        graph = _compiled(network, _prepared(sample, dtype))
    except Exception as error:  # compilers fail in many ways, and each of them leaves the eager network
        return eager, facts | {"why": compiling.first_line(error), "compile_s": time.perf_counter() - start}

    shape = sample.shape

    @torch.inference_mode()
    def compiled(x: Tensor) -> Tensor:
        if x.shape != shape:
            return eager(x)
        with torch.compiler.set_stance("eager_on_recompile"):
            # a copy, since a CUDA graph writes its next output over this one
            return graph(_prepared(x, dtype)).to(torch.float32, copy=True)

    return compiled, facts | {"compiled": True, "compile_s": time.perf_counter() - start}


def agreement(reference_logits: Tensor, logits: Tensor) -> dict:
    """How far `logits` (N, classes) are from the reference.

    `max_abs_logit_difference`, `max_abs_logit` (the largest of the reference, to compare it with), and
    `equal_predictions`, the share of images in [0, 1] whose largest logit is of the same class.
    """
    reference, other = reference_logits.double(), logits.to(reference_logits.device).double()
    return {
        "max_abs_logit_difference": (reference - other).abs().max().item(),
        "max_abs_logit": reference.abs().max().item(),
        "equal_predictions": (reference.argmax(1) == other.argmax(1)).double().mean().item(),
    }


def _folded_or_copied(model: nn.Module) -> nn.Module:
    try:
        return folded(model)
    except Exception:  # forward cannot be traced (its control flow depends on data, say), yet it can be run
        return copy.deepcopy(model).eval()


def _prepared(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype=dtype, memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format)


def _norms(model: nn.Module) -> int:
    return sum(isinstance(layer, _BatchNorm) for layer in model.modules())


@torch.inference_mode()
def _compiled(network: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """`network` compiled for inputs like `x`; raises where that is impossible.

    Not with `compiling.compiled`, which starts torch.compile afresh: a network compiled before would be lost.
    """
    inductor = compiling.inductor_config(x.device.type)
    # freezing: weights are constants, laid out at compile time as the kernels want them; the number of threads is
    # part of the key in the cache, its default is not
    with inductor.patch({"freezing": True, "cpp.threads": torch.get_num_threads()}):
        graph = torch.compile(network, dynamic=False, mode="reduce-overhead" if x.is_cuda else None)
        for _ in range(3 if x.is_cuda else 1):  # a CUDA graph is warmed up in the first call, recorded in the second
            graph(x)
    return graph
