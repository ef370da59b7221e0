"""Optimizers by name. `fused` is one kernel over all parameters, `foreach` a few: less overhead, also on a CPU."""

from collections.abc import Iterable

import torch
from torch import Tensor


def adam(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam, Kingma and Ba 2015 (arXiv 1412.6980), betas 0.9 and 0.999; decay as an L2 term of the gradient."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def sgd(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def momentum(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9, as `momentum` in the code of Tanaka et al. 2020.

    Not fused: that kernel leaves the momentum uninitialised where loss scaling skips the first step.
    """
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay, foreach=True)


def rms(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """RMSprop, Tieleman and Hinton 2012 (lecture 6.5 of their course), smoothing 0.99, no momentum, not centred.

    These are torch's defaults, which the code of Tanaka et al. 2020 takes for its `rms`.
    """
    return torch.optim.RMSprop(parameters, lr=lr, alpha=0.99, eps=1e-8, weight_decay=weight_decay, foreach=True)
