"""Pruners: one function each, from a model and scoring batches to one score a prunable weight.

All share one signature, `pruner(model, batches, *, masks=None, generator=None) -> Scores`: `batches` is a list
of (x float32 normalised (N, C, H, W), y int64 (N,)) on the model's device, `masks` those of earlier rounds
(weights outside them count as zero), `generator` the source of random numbers (only Rand draws any). Higher
scores are kept. Scoring is done in evaluation mode and leaves the model as it was: values, gradients, buffers,
mode, hooks. To add a pruner, write such a function and its line in `lib.catalog.PRUNERS`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lib import catalog
from lib.masks import Masks, Scores, check_density, evaluating, full, keep_top, prunable

Batches = list[tuple[Tensor, Tensor]]
SCHEDULES = ("exponential", "linear")


def dense(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """Equal scores, for density 1: the network that nothing was removed from, to compare with."""
    return {name: torch.ones_like(weight) for name, weight in _effective(model, masks).items()}


def rand(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """Standard normal scores: the baseline every method has to beat.

    Drawn on the CPU, so that one seed gives the same masks on every device. Without a generator, torch's own.
    """
    return {
        name: torch.randn(weight.shape, generator=generator).to(weight.device)
        for name, weight in prunable(model).items()
    }


def mag(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """|w|: Han et al. 2015 (arXiv 1506.02626). Meant for trained weights."""
    return {name: weight.abs() for name, weight in _effective(model, masks).items()}


@torch.enable_grad()
def snip(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """|w dL/dw|: SNIP, Lee et al. 2019 (arXiv 1810.02340), equation 4.

    The derivative of the mean cross-entropy with respect to a mask multiplier of each weight, signed, is summed
    over the batches before its absolute value is taken. The paper's division by the sum of all scores is
    cosmetic: it does not change the ranking.
    """
    weights = _effective(model, masks, grad=True)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with evaluating(model):
        for x, y in _checked(batches):
            loss = F.cross_entropy(functional_call(model, weights, (x,)), y)
            for name, gradient in zip(weights, _gradients(loss, weights), strict=True):
                total[name] += gradient
    return {name: (weight.detach() * total[name]).abs() for name, weight in weights.items()}


@torch.enable_grad()
def grasp(
    model: nn.Module,
    batches: Batches,
    *,
    masks: Masks | None = None,
    generator=None,
    temperature: float = 200.0,
) -> Scores:
    """w (Hg), signed: GraSP, Wang et al. 2020 (arXiv 2002.07376), equation 8 and algorithm 2.

    g is the gradient and H the Hessian of the mean cross-entropy of logits / `temperature` over the prunable
    weights. The paper's score -w (Hg) says how much gradient flow removing a weight gains, and the highest are
    removed; the negative here keeps the highest, as in the code of Tanaka et al. 2020. As there, g is the sum
    over the batches and so is its product with each batch's H. Cosmetic in both codes: division by the
    absolute sum of all scores. Not cosmetic: the temperature, which changes the softmax. Scores are of both signs.
    """
    weights = _effective(model, masks, grad=True)
    names = list(weights)

    def gradients(x, y, create_graph):
        loss = F.cross_entropy(functional_call(model, weights, (x,)) / temperature, y)
        return _gradients(loss, weights, create_graph)

    with evaluating(model):
        per_batch = [gradients(x, y, create_graph=False) for x, y in _checked(batches)]
        stopped = [torch.stack(parts).sum(0) for parts in zip(*per_batch, strict=True)]
        product = [torch.zeros_like(g) for g in stopped]  # Hg
        for x, y in batches:
            flow = sum((g * s).sum() for g, s in zip(gradients(x, y, True), stopped, strict=True))
            product = [p + h for p, h in zip(product, _gradients(flow, weights), strict=True)]
    return {name: weights[name].detach() * product[i] for i, name in enumerate(names)}


@torch.enable_grad()
def synflow(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """|w dR/dw|: SynFlow, Tanaka et al. 2020 (arXiv 2006.05467), equation 4 and algorithm 1. No data is used.

    R is the summed output for one image of ones (the batches lend only their shape) with all parameters and
    normalisation statistics replaced by their absolute values, in float64, as products over many layers leave
    the range of float32. Running means are set to zero: the original subtracts their absolute value, which on a
    trained network breaks the conservation of flow; on a fresh network they are zero anyway. Layer sums are
    equal only in feed-forward networks without biases and with fresh statistics. Meant for about 100 rounds.
    """
    weights = _effective(model, masks)
    state = {name: _absolute(name, tensor) for name, tensor in model.state_dict().items()}
    linear = {name: weight.abs().double().requires_grad_() for name, weight in weights.items()}
    x, _ = _checked(batches)[0]
    with evaluating(model):
        output = functional_call(model, state | linear, (torch.ones_like(x[:1], dtype=torch.float64),))
    gradients = _gradients(output.sum(), linear)
    return {name: (linear[name].detach() * g).abs() for name, g in zip(linear, gradients, strict=True)}


def prune(
    model: nn.Module,
    pruner: str,
    density: float,
    batches: Batches,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    scope: str = "global",
    seed: int = 0,
) -> Masks:
    """Masks that keep `density` of the prunable weights, by `rounds` of scoring and keeping; model untouched.

    After round r of n the density is density ** (r / n) with schedule `exponential` and
    1 - (1 - density) r / n with `linear`; each round scores the network that the one before left, and what is
    removed stays removed. `scope` is `global` (one ranking) or `layer` (one a layer). `seed` decides Rand's
    draws. Density 1 keeps everything, and pruner `dense` allows no other. ValueError for an unknown name or an
    impossible number.
    """
    score = catalog.load("pruner", pruner)
    check_density(density)
    if pruner == "dense" and density != 1:
        raise ValueError(f"density is {density} with pruner dense: 1 is allowed there")
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}: one of {', '.join(SCHEDULES)}")
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is {rounds}: an integer of 1 or more is allowed")
    generator = torch.Generator().manual_seed(seed)
    masks = full(model)
    for step in densities(density, rounds, schedule):
        scores = score(model, batches, masks=masks, generator=generator)
        masks = keep_top(scores, step, scope=scope, within=masks)
    return masks


def densities(density: float, rounds: int, schedule: str) -> list[float]:
    """The density after each round; the last is exactly `density`."""
    shares = [r / rounds for r in range(1, rounds)]
    if schedule == "exponential":
        return [density**share for share in shares] + [density]
    return [1 - (1 - density) * share for share in shares] + [density]


def _effective(model: nn.Module, masks: Masks | None, grad: bool = False) -> dict[str, Tensor]:
    """Detached copies of the prunable weights, masked; leaves of a graph of their own with `grad`."""
    weights = {name: weight.detach().clone() for name, weight in prunable(model).items()}
    if masks is not None:
        weights = {name: weight.mul_(masks[name]) for name, weight in weights.items()}
    return {name: weight.requires_grad_(grad) for name, weight in weights.items()}


def _gradients(value: Tensor, weights: dict[str, Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """d value / d weights; zeros for a weight that the value does not depend on."""
    return torch.autograd.grad(value, list(weights.values()), create_graph=create_graph, materialize_grads=True)


def _absolute(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor  # the number of batches seen
    if name.endswith("running_mean"):
        return torch.zeros_like(tensor, dtype=torch.float64)
    return tensor.detach().abs().double()


def _checked(batches: Batches) -> Batches:
    if not batches:
        raise ValueError("no scoring batches: at least one is needed")
    return batches
