"""Pruners that run the network: what its output or its loss owes to each weight."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.masks import Masks, Scores, taking_part
from lib.pruners.common import Batches, checked, effective, gradients, portions, running
from lib.pruners.exponents import plain, scaled
from lib.ranking import finite


@torch.enable_grad()
def snip(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w dL/dw|: SNIP, Lee et al. 2019 (arXiv 1810.02340), equation 4.

    The derivative of the mean cross-entropy with respect to a mask multiplier of each weight, signed, is summed
    over the batches before its absolute value is taken. The paper's division by the sum of all scores is
    cosmetic: it does not change the ranking. With several rounds this is iterative SNIP of de Jorge et al. 2021
    (arXiv 2006.09081), and their FORCE too, which differs only where a removed weight may come back: here none does.
    Large batches go through the network in parts (`lib.pruners.common.portions`).
    """
    weights = effective(model, masks, grad=True)
    parts = portions(model, weights, batches, training)
    with running(model, training) as logits:
        losses = (F.cross_entropy(logits(weights, x), y) * share for x, y, share in parts)
        total = _total(weights, (gradients(loss, weights) for loss in losses))
    return {name: (weight.detach() * total[name]).abs() for name, weight in weights.items()}


@torch.enable_grad()
def grasp(
    model: nn.Module,
    batches: Batches,
    *,
    masks: Masks | None = None,
    generator=None,
    training: bool = False,
    temperature: float = 200.0,
) -> Scores:
    """w (Hg), signed: GraSP, Wang et al. 2020 (arXiv 2002.07376), equation 8 and algorithm 2.

    g is the gradient and H the Hessian of the mean cross-entropy of logits / `temperature` over the prunable
    weights. The paper's score -w (Hg) says how much gradient flow removing a weight gains, and the highest are
    removed; the negative here keeps the highest, as in the code of Tanaka et al. 2020. As there, g is the sum
    over the batches and so is its product with each batch's H. Cosmetic in both codes: division by the
    absolute sum of all scores. Not cosmetic: the temperature, which changes the softmax. Scores are of both signs.
    Large batches go through the network in parts (`lib.pruners.common.portions`), twice: g is that of all of them.
    """
    weights = effective(model, masks, grad=True)
    parts = portions(model, weights, batches, training)
    with running(model, training) as logits:

        def slopes(x, y, share, create_graph=False):
            return gradients(F.cross_entropy(logits(weights, x) / temperature, y) * share, weights, create_graph)

        stopped = _total(weights, (slopes(*part) for part in parts))
        flows = (_along(slopes(*part, create_graph=True), stopped) for part in parts)
        product = _total(weights, (gradients(flow, weights) for flow in flows))  # Hg
    return {name: weight.detach() * product[name] for name, weight in weights.items()}


def _total(weights: dict[str, Tensor], found: Iterable[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """The sums of what is found for each weight: the derivatives of one part of the batches after the other."""
    # one layout whatever the gradients' is: it chooses the kernels that multiply by H, and with them the last digits
    dense = torch.contiguous_format
    sums = {name: torch.zeros_like(weight, memory_format=dense) for name, weight in weights.items()}
    for values in found:
        for name, value in zip(sums, values, strict=True):
            sums[name] += value
    return sums


def _along(slopes: tuple[Tensor, ...], direction: dict[str, Tensor]) -> Tensor:
    return sum((g * s).sum() for g, s in zip(slopes, direction.values(), strict=True))


@torch.enable_grad()
def synflow(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w dR/dw|: SynFlow, Tanaka et al. 2020 (arXiv 2006.05467), equation 4 and algorithm 1. No data is used.

    R is the summed output for one image of ones (the batches lend only their shape) with all parameters and
    normalisation statistics replaced by their absolute values, in float64, as products over many layers leave
    the range of float32. Where they leave that of float64 too, as in a ResNet-302, all scores are divided by one power
    of two (`lib.pruners.exponents`), which changes no ranking; ValueError for a network where that cannot be done.
    Running means are set to zero: the original subtracts their absolute value, which on a trained network breaks the
    conservation of flow; on a fresh network they are zero anyway. Layer sums are equal only in feed-forward networks
    without biases and with fresh statistics. Meant for about 100 rounds. Biases, scales and shifts are part of R in
    any case, and scored like weights where they take part. In training mode batch norm subtracts the mean of that one
    image, and nothing is conserved: an experiment, as in the original.
    """
    chosen = taking_part(model, masks)
    state = {name: _absolute(name, tensor) for name, tensor in model.state_dict().items() if name not in chosen}
    linear = {name: weight.detach().to(torch.float64, copy=True).abs_() for name, weight in chosen.items()}
    if masks is not None:
        linear = {name: weight.mul_(masks[name]) for name, weight in linear.items()}
    linear = {name: weight.requires_grad_() for name, weight in linear.items()}
    x, _ = checked(batches)[0]
    if not x.is_floating_point():
        raise ValueError("pruner synflow with texts, whose words are no numbers to set to one: images are allowed")
    ones = torch.ones_like(x[:1], dtype=torch.float64)

    def through(image: Tensor) -> Scores:
        with running(model, training) as output:
            total = plain(output(state | linear, image).sum())
        flow = gradients(total, linear)
        return {name: torch.mul(linear[name].detach(), g).abs_() for name, g in zip(linear, flow, strict=True)}

    scores = through(ones)
    return scores if all(map(finite, scores.values())) else through(scaled(ones))


def _absolute(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()  # the number of batches seen
    if name.endswith("running_mean"):
        return torch.zeros_like(tensor, dtype=torch.float64)
    return tensor.detach().abs().double()
