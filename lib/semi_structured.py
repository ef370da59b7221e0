"""The semi-structured pattern n:m: of each m consecutive inputs of an output at most n weights.

Mishra et al. 2021 (arXiv 2104.08378). Any score gives such masks, by `scope="fours"`: magnitude to 2:4 is
`pruners.prune(model, "mag", 0.5, [], scope="fours")`, and three rounds of schedule `linear` to density 0.25 go by 3:4
and 2:4 to 1:4.
"""

from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.ranking import in_rows
from lib.timing import latencies


def follows(mask: Tensor, n: int = 2, m: int = 4) -> bool:
    """Whether of each `m` consecutive inputs of an output at most `n` are kept (bool, or weights that are not zero).

    The groups are those of scope `fours` (see `lib.ranking.keep_top`); what is missing of the last one counts as zeros.
    """
    rows = in_rows(mask != 0)
    groups = F.pad(rows, (0, -rows.shape[1] % m)).view(-1, m)
    return int(groups.sum(1).max()) <= n


def has_sparse_kernel(device: torch.device | str) -> bool:
    """Whether torch multiplies by 2:4 matrices faster there: on GPUs of compute capability 8 (Ampere) and above.

    For matrices, in half precision or int8 (`torch.sparse.to_sparse_semi_structured`). CPUs have no such kernel, and
    multiply the zeros.
    """
    device = torch.device(device)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def facts(network: nn.Module, masks: dict[str, Tensor]) -> dict:
    """What to store of a network pruned by scope `fours`: `most_of_four`, `device`, `sparse_kernel_speedup`.

    `most_of_four` is the largest number that is kept of four, in any parameter. The speed-up is None without a kernel
    on the network's device; otherwise see `speedup`.
    """
    most = next(n for n in range(5) if all(follows(mask, n) for mask in masks.values()))
    device = next(network.parameters()).device
    faster = speedup(network, masks) if most <= 2 and has_sparse_kernel(device) else None
    return {"most_of_four": most, "device": str(device), "sparse_kernel_speedup": faster}


def speedup(network: nn.Module, masks: dict[str, Tensor], batch: int = 4096, repeats: int = 30) -> float | None:
    """How many times as fast torch's 2:4 kernel multiplies by the linear layers as the dense one, in half precision.

    The median over `repeats` of the summed times of all layers whose sides the kernel takes (multiples of 64), for
    `batch` random inputs each; None without such a layer. Needs a device for which `has_sparse_kernel`.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear) and f"{name}.weight" in masks}
    weights = [(m.weight.detach() * masks[f"{name}.weight"]).half() for name, m in layers.items()]
    weights = [w for w in weights if w.shape[0] % 64 == 0 and w.shape[1] % 64 == 0]
    if not weights:
        return None
    inputs = [torch.randn(batch, w.shape[1], device=w.device, dtype=w.dtype) for w in weights]
    sparse = [torch.sparse.to_sparse_semi_structured(w) for w in weights]
    times = latencies(
        {
            "dense": lambda _: [F.linear(x, w) for x, w in zip(inputs, weights, strict=True)],
            "sparse": lambda _: [F.linear(x, w) for x, w in zip(inputs, sparse, strict=True)],
        },
        {batch: inputs[0]},
        repeats=repeats,
    )
    medians = {form: median(row["seconds"] for row in times if row["network"] == form) for form in ("dense", "sparse")}
    return medians["dense"] / medians["sparse"]
