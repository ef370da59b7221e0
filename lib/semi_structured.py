"""The semi-structured pattern n:m: of each m consecutive inputs of an output at most n weights.

Mishra et al. 2021 (arXiv 2104.08378). Any score gives such masks, by `scope="fours"`: magnitude to 2:4 is
`pruners.prune(model, "mag", 0.5, [], scope="fours")`, and three rounds of schedule `linear` to density 0.25 go by 3:4
and 2:4 to 1:4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.ranking import in_rows


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
