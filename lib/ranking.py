"""Ranking: which weights have the highest scores. Exact counts, however many scores are equal.

Nothing is sorted: the lowest score that is kept is found by selection. 14.7 M scores of VGG-16 take 0.06 s of one core,
where a stable sort takes 2.4 s, and SynFlow needs it a hundred times.
"""

from math import isfinite, sqrt

import torch
from torch import Tensor

from lib.rounds import check_scope, quarters

Scores = dict[str, Tensor]
Masks = dict[str, Tensor]

SMALL = 2**17  # scores up to which kthvalue alone is as fast as anything
STRIDE = 127  # of the sample of larger ones; a prime, so that it meets all channels of a layer


def check_density(density: float) -> float:
    """Return `density` if it is in (0, 1]; ValueError otherwise, also for NaN."""
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}: more than 0 and at most 1 is allowed")
    return density


def kept_count(n: int, density: float) -> int:
    """How many of n weights are kept: n - int((1 - density) * n), as in the code of Tanaka et al. 2020."""
    return n - int((1 - check_density(density)) * n)


def finite(score: Tensor) -> bool:
    """Whether all of them are. A sum costs a tenth of the test of each; it may be infinite because it is too large."""
    return isfinite(score.sum().item()) or bool(torch.isfinite(score).all())


@torch.no_grad()
def keep_top(
    scores: Scores,
    density: float | None = None,
    *,
    keep: int | None = None,
    scope: str = "global",
    within: Masks | None = None,
) -> Masks:
    """Masks that keep the highest scores, an exact number of them.

    Give either `density`, which keeps `kept_count(n, density)` of the n weights that compete, or the number `keep`
    (global scope only). With scope `global` all compete; with `layer` those of a parameter; with `output` those of one
    output of a layer, its row of the weight matrix (of an embedding, those of a word); with `fours` each four
    consecutive inputs of an output: density 0.5 is the pattern 2:4 of Mishra et al. 2021 (arXiv 2104.08378). There a
    convolution is a matrix whose columns go through the input channels first, then through the places of the kernel;
    where a row does not divide by four, its last group is smaller; and a vector (biases, norms) is one row. Of equal
    scores the first in order are kept.
    Weights outside `within` stay removed whatever they score. A mask lies in memory as its scores do. ValueError
    for a score that is not finite, or when more weights are asked for than `within` leaves; densities for `fours` are
    0.25, 0.5, 0.75 and 1.
    """
    if (density is None) == (keep is None):
        raise ValueError(f"density is {density} and keep is {keep}: exactly one of them is allowed")
    check_scope(scope, [] if density is None else [density])
    if keep is not None and scope != "global":
        raise ValueError(f"keep is {keep} with scope {scope}: density is allowed there")
    for name, score in scores.items():
        if not finite(score):
            raise ValueError(f"scores of {name} are not all finite: weights cannot be ranked")
    if scope == "layer":
        return {name: _keep_ranked({name: score}, density, None, within)[name] for name, score in scores.items()}
    if scope != "global":
        share, size = (quarters(density), 4) if scope == "fours" else (density, 0)
        return {name: _keep_grouped(s, share, within and within[name], size) for name, s in scores.items()}
    return _keep_ranked(scores, density, keep, within)


def in_rows(tensor: Tensor) -> Tensor:
    """As a matrix (outputs, inputs); of a convolution the input channels are next to each other, as GPUs read it."""
    if tensor.ndim < 2:
        return tensor.reshape(1, -1)
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).reshape(len(tensor), -1)


def _keep_grouped(score: Tensor, density: float, allowed: Tensor | None, size: int) -> Tensor:
    """The mask of the highest of each `size` scores of a row, and of what is left at its end; 0 takes whole rows."""
    rows, kept = in_rows(score), torch.empty_like(score, dtype=torch.bool)
    inside = torch.ones_like(rows, dtype=torch.bool) if allowed is None else in_rows(allowed)
    length = rows.shape[1]
    whole = length - length % size if size else length
    parts = [
        _highest(some.reshape(-1, n), left.reshape(-1, n), kept_count(n, density)).view(len(rows), -1)
        for some, left, n in (
            (rows[:, :whole], inside[:, :whole], size or length),
            (rows[:, whole:], inside[:, whole:], length - whole),
        )
        if some.numel()
    ]
    found = torch.cat(parts, 1)
    if score.ndim == 4:
        outputs, inputs, *places = score.shape
        return kept.copy_(found.view(outputs, *places, inputs).permute(0, 3, 1, 2))
    return kept.copy_(found.view(score.shape))


def _highest(rows: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The mask of the `count` highest allowed scores of each row, the first of equal ones."""
    left = int(allowed.sum(1).min())
    if count > left:
        raise ValueError(
            f"{count} of {rows.shape[1]} weights are to be kept: 1 to {left} (those not yet removed) is allowed"
        )
    scores = rows.masked_fill(~allowed, -torch.inf)
    lowest = scores.kthvalue(rows.shape[1] - count + 1, dim=1, keepdim=True).values
    above = scores > lowest
    ties = scores == lowest
    return above | (ties & (ties.cumsum(1) <= count - above.sum(1, keepdim=True)))


def in_memory_order(tensor: Tensor, like: Tensor) -> Tensor:
    """1-D, in the order in which `like` (of the same shape) lies in memory: no copy where `tensor` lies so too."""
    return tensor.detach().permute(_dimensions(like)).reshape(-1)


def _keep_ranked(scores: Scores, density: float | None, keep: int | None, within: Masks | None) -> Masks:
    precision = torch.float64 if any(s.dtype == torch.float64 for s in scores.values()) else torch.float32
    values = [in_memory_order(score, score).to(precision) for score in scores.values()]
    allowed = None if within is None else [in_memory_order(within[name], score) for name, score in scores.items()]
    n = sum(map(len, values))
    count = kept_count(n, density) if keep is None else keep
    left = n if allowed is None else _total(allowed)
    if not 1 <= count <= left:
        raise ValueError(f"{count} weights are to be kept: 1 to {left} (those not yet removed) is allowed")
    found = _select(values, allowed, count, *_brackets(values, allowed, count / left)) if left > SMALL else None
    flat, threshold, surplus = found or _select(values, allowed, count, *torch.tensor([-torch.inf, torch.inf]))
    kept = [_as_score(part, score) for part, score in zip(flat, scores.values(), strict=True)]
    _drop_last_ties(kept, list(scores.values()), threshold, surplus)
    return dict(zip(scores, kept, strict=True))


def _select(
    values: list[Tensor], allowed: list[Tensor] | None, count: int, low: Tensor, high: Tensor
) -> tuple[list[Tensor], Tensor, int] | None:
    """The `count` highest of the allowed values, and all that tie with the lowest of them: masks, that one, surplus.

    Only the values from `low` to `high` are gathered and compared with each other. None if the lowest is not there.
    """
    kept = _where(allowed, [value > high for value in values])
    reached = _where(allowed, [value >= low for value in values])
    places = [(r ^ k).nonzero().flatten() for r, k in zip(reached, kept, strict=True)]
    # a third of the time of values[mask]
    between = torch.cat([value.index_select(0, place) for value, place in zip(values, places, strict=True)])
    rank = count - _total(kept)
    if not 1 <= rank <= len(between):
        return None
    threshold = between.kthvalue(len(between) - rank + 1).values
    chosen = between >= threshold
    for mask, place, part in zip(kept, places, chosen.split([len(place) for place in places]), strict=True):
        mask[place[part]] = True
    return kept, threshold, int(chosen.count_nonzero()) - rank


def _brackets(values: list[Tensor], allowed: list[Tensor] | None, share: float) -> tuple[Tensor, Tensor]:
    """Two values with the one that `share` of the allowed values reach between them, by a sample of every 127th.

    Six standard deviations lie on each side of it (Floyd and Rivest 1975, "Expected time bounds for selection").
    """
    sample = [value[::STRIDE] for value in values]
    if allowed is not None:
        sample = [value[mask[::STRIDE]] for value, mask in zip(sample, allowed, strict=True)]
    ordered = torch.cat(sample).sort().values
    infinite = ordered.new_tensor([torch.inf])
    ordered = torch.cat([-infinite, ordered, infinite])
    middle, margin = (1 - share) * len(ordered), 3 * sqrt(len(ordered)) + 1
    low, high = max(0, int(middle - margin)), min(len(ordered) - 1, int(middle + margin))
    return ordered[low], ordered[high]


def _drop_last_ties(kept: list[Tensor], scores: list[Tensor], threshold: Tensor, surplus: int) -> None:
    """Take `surplus` of the weights that score `threshold` out of the masks `kept`, the last in order first."""
    for mask, score in zip(reversed(kept), reversed(scores), strict=True):
        if not surplus:
            return
        ties = (mask & (score.to(threshold.dtype) == threshold)).reshape(-1).nonzero().flatten()
        dropped = ties[max(0, len(ties) - surplus) :]
        if len(dropped):
            ordered = mask.clone(memory_format=torch.contiguous_format).view(-1)  # in the order of positions
            ordered[dropped] = False
            mask.copy_(ordered.view(mask.shape))
            surplus -= len(dropped)


def _as_score(flat: Tensor, score: Tensor) -> Tensor:
    """What `in_memory_order` made 1-D, in the shape of `score` again."""
    dimensions = _dimensions(score)
    back = sorted(range(score.ndim), key=dimensions.__getitem__)
    return flat.view([score.shape[d] for d in dimensions]).permute(back)


def _dimensions(tensor: Tensor) -> list[int]:
    return sorted(range(tensor.ndim), key=lambda d: -tensor.stride(d))


def _where(allowed: list[Tensor] | None, parts: list[Tensor]) -> list[Tensor]:
    return parts if allowed is None else [part.logical_and_(mask) for part, mask in zip(parts, allowed, strict=True)]


def _total(parts: list[Tensor]) -> int:
    return int(sum(part.count_nonzero() for part in parts))
