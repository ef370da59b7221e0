"""Second-order pruners: what the loss gains by the removal of each weight, by the curvature at trained weights.

The Hessian H of the mean cross-entropy is replaced by the empirical Fisher matrix, the mean over the images of g g^T
with g the gradient of one image's loss. At a minimum the first derivative vanishes, and what is left of Taylor's
series is (1/2) dw^T H dw. Both score in evaluation mode only: in training mode batch norm would make an image's
gradient depend on the others. Meant for trained weights.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from lib.masks import Masks, Scores
from lib.pruners.common import Batches, effective, portions, running
from lib.ranking import finite

GRADIENT_BYTES = 2**28  # of gradients of single images that are computed at a time
KEPT_BYTES = 2**29  # of those of all images that are kept at a time: 1.3 million weights for 100 images
JITTER = 1e-12
BLOCKS = 2**11  # of WoodFisher that are inverted at a time: 64 MiB of them


@torch.enable_grad()
def obd(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """(1/2) w^2 F_qq, with the diagonal of the Fisher matrix, the mean of g_q^2: optimal brain damage.

    LeCun et al. 1989 with the Fisher matrix in place of the Hessian, as in Theis et al. 2018 (arXiv 1801.05787). The
    weights are taken as if they did not depend on each other.
    """
    weights = effective(model, masks)
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for found in _by_image(model, weights, list(weights), batches):
        for name, slopes in found.items():
            squares[name] += slopes.square_().sum(0)
    images = sum(len(y) for _, y in batches)
    return {name: weight.square_().mul_(squares[name]).mul_(0.5 / images) for name, weight in weights.items()}


@torch.enable_grad()
def woodfisher(
    model: nn.Module,
    batches: Batches,
    *,
    masks: Masks | None = None,
    generator=None,
    block: int = 64,
    damping: float = 1e-5,
) -> Scores:
    """w^2 / (2 [F^-1]_qq): WoodFisher, Singh and Alistarh 2020 (arXiv 2004.14340), in float64.

    What the loss gains when a weight is removed and the others of its block are set anew to make up for it; here they
    are not, as training follows. F is the Fisher matrix of `block` consecutive weights of one parameter, plus `damping`
    on its diagonal: the paper's 1e-5, and JITTER of its trace so that float64 can invert it. Where the gradients'
    squares are far below the damping, the ranking is that of magnitude. Removed weights have no part in F. The blocks
    are inverted directly; the paper's recursion over the images has the same result.

    With n images as many gradients of the largest parameter are held at once, 4 n bytes a weight.
    """
    weights = effective(model, masks)
    images = sum(len(y) for _, y in batches)
    scores = {}
    for names in _groups(weights, KEPT_BYTES // (4 * max(1, images))):
        rows = {name: weights[name].new_empty(images, weights[name].numel()) for name in names}
        done = 0
        for found in _by_image(model, weights, names, batches):
            for name, slopes in found.items():
                rows[name][done : done + len(slopes)] = slopes.flatten(1)
            done += len(slopes)
        for name in names:
            kept = None if masks is None else masks[name].flatten()
            inverse = _inverse_diagonal(rows.pop(name), kept, block, damping).view(weights[name].shape)
            scores[name] = weights[name].double().square() / (2 * inverse)
    return scores


def _inverse_diagonal(rows: Tensor, kept: Tensor | None, block: int, damping: float) -> Tensor:
    """Gradients (images, n) to the diagonal (n,) of the inverse of the damped Fisher matrix in blocks, float64."""
    if not finite(rows):
        raise ValueError("the gradients of single images are not all finite: weights cannot be ranked")
    if kept is not None:
        rows *= kept
    found = []
    for part in rows.split(BLOCKS * block, dim=1):
        n = part.shape[1]
        # what fills the last block has no gradient, and so changes nothing of the others
        slopes = F.pad(part, (0, -n % block)).double().view(len(rows), -1, block).transpose(0, 1)
        fisher = (slopes.mT @ slopes).div_(len(rows))
        diagonal = fisher.diagonal(dim1=1, dim2=2)
        diagonal += damping + JITTER * diagonal.sum(1, keepdim=True)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(fisher))
        found.append(inverse.diagonal(dim1=1, dim2=2).flatten()[:n])
    return torch.cat(found)


def _groups(weights: dict[str, Tensor], most: int) -> list[list[str]]:
    """Names of parameters that together have at most so many weights, in order; a larger one is alone."""
    groups, size = [], 0
    for name, weight in weights.items():
        if not groups or size + weight.numel() > most:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += weight.numel()
    return groups


def _by_image(
    model: nn.Module, weights: dict[str, Tensor], names: list[str], batches: Batches
) -> Iterator[dict[str, Tensor]]:
    """The gradient of each image's loss at `weights` with respect to `names`, as (images, *shape), some at a time.

    In order, as many as fit into GRADIENT_BYTES. ValueError where no image has an output of its own.
    """
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        raise ValueError("batch norm without running statistics: gradients of single images need these")
    chosen = {name: weights[name] for name in names}
    others = {name: weight for name, weight in weights.items() if name not in chosen}
    most = max(1, GRADIENT_BYTES // (4 * sum(weight.numel() for weight in chosen.values())))
    graph = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    parts = portions(model, graph, batches, training=False)
    with running(model, training=False) as logits:

        def loss(some: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(logits(others | some, x[None]), y[None])

        slopes = vmap(grad(loss), in_dims=(None, 0, 0))
        for x, y, _ in parts:
            for images, labels in zip(x.split(most), y.split(most), strict=True):
                # they depend on parameters that take no part, too, and would keep the graph to these
                yield {name: slope.detach() for name, slope in slopes(chosen, images, labels).items()}
