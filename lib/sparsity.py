"""Sparsity, the share of weights that are zero, asked in three ways: of a parameter, of the pruned ones, of the model.

They answer from the weights themselves, not from masks: a kept weight that happens to be zero counts as zero.
"""

from collections.abc import Iterable

import pandas as pd
from torch import Tensor, nn


def of_parameter(parameter: Tensor) -> float:
    """The share of zeros in one tensor, in [0, 1]."""
    return 1 - int(parameter.count_nonzero()) / parameter.numel()


def of_parameters(model: nn.Module, names: Iterable[str]) -> float:
    """The share of zeros in these parameters together; ValueError without a name, or for one that is not there."""
    return _together(_chosen(model, names))


def of_model(model: nn.Module) -> float:
    """The share of zeros among all parameters, those that nobody pruned included."""
    return _together(model.parameters())


def by_parameter(model: nn.Module, names: Iterable[str]) -> pd.DataFrame:
    """One row a parameter: `parameter`, `shape`, `weights`, `zeros`, `sparsity_pct`; the pruned ones together, and all.

    ValueError as for `of_parameters`.
    """
    names = list(names)
    rows = [_row(name, [p], "x".join(map(str, p.shape))) for name, p in zip(names, _chosen(model, names), strict=True)]
    rows.append(_row("these together", _chosen(model, names)))
    rows.append(_row("whole model", list(model.parameters())))
    return pd.DataFrame(rows)


def _row(name: str, parameters: list[Tensor], shape: str = "") -> dict:
    weights = sum(p.numel() for p in parameters)
    zeros = weights - sum(int(p.count_nonzero()) for p in parameters)
    return {
        "parameter": name,
        "shape": shape,
        "weights": weights,
        "zeros": zeros,
        "sparsity_pct": 100 * zeros / weights,
    }


def _together(parameters: Iterable[Tensor]) -> float:
    parameters = list(parameters)
    return 1 - sum(int(p.count_nonzero()) for p in parameters) / sum(p.numel() for p in parameters)


def _chosen(model: nn.Module, names: Iterable[str]) -> list[nn.Parameter]:
    known = dict(model.named_parameters())
    names = list(names)
    if not names or not set(names) <= set(known):
        raise ValueError(f"parameters {names}: one or more of {', '.join(known)} are allowed")
    return [known[name] for name in names]
