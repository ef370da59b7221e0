"""Pruners that run the network: what its output or its loss owes to each weight."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.masks import Masks, Scores, taking_part
from lib.pruners.common import Batches, checked, effective, gradients, running


@torch.enable_grad()
def snip(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w dL/dw|: SNIP, Lee et al. 2019 (arXiv 1810.02340), equation 4.

    The derivative of the mean cross-entropy with respect to a mask multiplier of each weight, signed, is summed
    over the batches before its absolute value is taken. The paper's division by the sum of all scores is
    cosmetic: it does not change the ranking. With several rounds this is iterative SNIP of de Jorge et al. 2021
    (arXiv 2006.09081), and their FORCE too, which differs only where a removed weight may come back: here none does.
    """
    weights = effective(model, masks, grad=True)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with running(model, training) as logits:
        for x, y in checked(batches):
            loss = F.cross_entropy(logits(weights, x), y)
            for name, gradient in zip(weights, gradients(loss, weights), strict=True):
                total[name] += gradient
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
    """
    weights = effective(model, masks, grad=True)
    with running(model, training) as logits:

        def of_loss(x, y, create_graph):
            return gradients(F.cross_entropy(logits(weights, x) / temperature, y), weights, create_graph)

        per_batch = [of_loss(x, y, create_graph=False) for x, y in checked(batches)]
        stopped = [torch.stack(parts).sum(0) for parts in zip(*per_batch, strict=True)]
        product = [torch.zeros_like(g) for g in stopped]  # Hg
        for x, y in batches:
            flow = sum((g * s).sum() for g, s in zip(of_loss(x, y, True), stopped, strict=True))
            product = [p + h for p, h in zip(product, gradients(flow, weights), strict=True)]
    return {name: weight.detach() * product[i] for i, (name, weight) in enumerate(weights.items())}


@torch.enable_grad()
def synflow(
    model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None, training: bool = False
) -> Scores:
    """|w dR/dw|: SynFlow, Tanaka et al. 2020 (arXiv 2006.05467), equation 4 and algorithm 1. No data is used.

    R is the summed output for one image of ones (the batches lend only their shape) with all parameters and
    normalisation statistics replaced by their absolute values, in float64, as products over many layers leave
    the range of float32. Running means are set to zero: the original subtracts their absolute value, which on a
    trained network breaks the conservation of flow; on a fresh network they are zero anyway. Layer sums are
    equal only in feed-forward networks without biases and with fresh statistics. Meant for about 100 rounds.
    Biases, scales and shifts are part of R in any case, and scored like weights where they take part. In training
    mode batch norm subtracts the mean of that one image, and nothing is conserved: an experiment, as in the original.
    """
    chosen = taking_part(model, masks)
    state = {name: _absolute(name, tensor) for name, tensor in model.state_dict().items() if name not in chosen}
    linear = {name: weight.detach().to(torch.float64, copy=True).abs_() for name, weight in chosen.items()}
    if masks is not None:
        linear = {name: weight.mul_(masks[name]) for name, weight in linear.items()}
    linear = {name: weight.requires_grad_() for name, weight in linear.items()}
    x, _ = checked(batches)[0]
    with running(model, training) as output:
        total = output(state | linear, torch.ones_like(x[:1], dtype=torch.float64)).sum()
    flow = gradients(total, linear)
    return {name: torch.mul(linear[name].detach(), g).abs_() for name, g in zip(linear, flow, strict=True)}


def _absolute(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()  # the number of batches seen
    if name.endswith("running_mean"):
        return torch.zeros_like(tensor, dtype=torch.float64)
    return tensor.detach().abs().double()
