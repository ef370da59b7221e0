"""Which values or feature maps of what enters a layer are removed: five methods, each with an exact count.

A feature map is one channel of one image. Each image is looked at alone: what is removed of it depends on no other
image of its batch. Of its n values that are not zero (of its n maps that are not all zero) exactly round(share * n)
are removed, halves to the even number; so share 0 removes nothing and 1 everything. Zeros that were there before are
never among them.

    element-l1, element-l2   the values of the smallest magnitude; both norms of a single number are its magnitude, so
                             these two are the same method
    map-l1, map-l2           the maps of the smallest norm
    map-similarity           of the two most similar maps the one with the smaller L1 norm, again and again; similarity
                             is the cosine of the two maps, from -1 to 1, with its sign

Of equal values the first in order are kept; of equally similar pairs that with the smallest map comes first. Sums are
made in float64 and rounded to float32: their last bits depend on the size of a batch, and must not decide.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES = 2**25  # of pairs of maps, held at once: 256 MB in float64


@torch.no_grad()
def removed(x: Tensor, method: str, share: float) -> Tensor:
    """What `method` removes of `x` (N, ...): bool, of its shape, or (N, C) for maps of `x` (N, C, H, W).

    True also where `x` is zero anyway, if anything that is larger goes.
    """
    return torch.cat([chosen(described(part, method), share) for part in portions(x, method)])


def portions(x: Tensor, method: str) -> tuple[Tensor, ...]:
    """`x` (N, ...) in parts that can be `described` at once: the pairs of many maps need much memory."""
    return x.split(max(1, SIMILARITIES // x.shape[1] ** 2) if method == "map-similarity" else len(x))


def described(x: Tensor, method: str) -> tuple[Tensor, ...]:
    """What `method` goes by: of `x` (N, ...) the magnitudes, of maps the norms (N, C).

    For map-similarity the cosines (N, C, C) between maps, and the L1 norms.
    """
    x = x.detach()
    if method.startswith("element-"):
        return (x.abs().to(torch.promote_types(x.dtype, torch.float32)),)
    norms = torch.linalg.vector_norm(x, 2 if method == "map-l2" else 1, (2, 3), dtype=torch.float64).float()
    if method != "map-similarity":
        return (norms,)
    maps = F.normalize(x.flatten(2).double(), dim=2, eps=0.0).nan_to_num_(0.0)  # a map of zeros is like no other
    return (maps @ maps.mT).float(), norms


def chosen(by: tuple[Tensor, ...], share: float) -> Tensor:
    """What goes of things that are `described`: bool."""
    return similar(*by, share) if len(by) == 2 else weakest(*by, share)


def weakest(scores: Tensor, share: float) -> Tensor:
    """The lowest of each row of `scores` (N, ...), as many as are to go of those above 0: bool of their shape."""
    flat = _rows(scores)
    present = flat.count_nonzero(1)
    gone = _count(present, share)
    limit = torch.where(gone > 0, _at(flat, flat.shape[1] - present + gone), 0).to(scores.dtype)
    limit = limit.view(-1, *[1] * (scores.ndim - 1))
    lowest = scores <= limit
    surplus = _rows(lowest).count_nonzero(1) - (flat.shape[1] - present) - gone  # of those that tie with the limit
    tied = (surplus > 0).nonzero().flatten()
    if len(tied):
        ties = (scores[tied] == limit[tied]).flatten(1)
        first = ties & (ties.cumsum(1) <= surplus[tied, None])
        lowest[tied] &= ~first.view(-1, *scores.shape[1:])
    return lowest


def _rows(scores: Tensor) -> Tensor:
    """(N, ...) as a matrix of N rows in any order, without a copy where channels lie last in memory."""
    last = scores.ndim == 4 and scores.is_contiguous(memory_format=torch.channels_last)
    return (scores.permute(0, 2, 3, 1) if last else scores).flatten(1)


def _at(rows: Tensor, ranks: Tensor) -> Tensor:
    """The value at its rank (from 1 on) of each row of numbers from 0 on, by selection; nothing is sorted.

    One selection for all: where the rank is not the highest, numbers below all others make up for it.
    """
    highest = ranks.max().clamp(min=1)
    more = torch.arange(int(highest - ranks.min()), device=rows.device) < (highest - ranks)[:, None]
    fill = torch.where(more, -1.0, torch.inf).to(rows.dtype)
    return torch.cat([rows, fill], 1).kthvalue(int(highest), dim=1).values


def _count(present: Tensor, share: float) -> Tensor:
    """How many of so many go, in Python's and torch's rounding."""
    return (share * present.double()).round().long()


def similar(cosines: Tensor, norms: Tensor, share: float) -> Tensor:
    """The maps that go, one after another, as the smaller of the most similar pair that is left: bool (N, C).

    `cosines` (N, C, C), `norms` (N, C). Which of a pair goes does not depend on what went before. So the similarity at
    which a map goes is that to the larger map most like it, among those that go later: known from the largest map on,
    in one step a map. When a single one is left and is to go too, it goes.
    """
    count, order = norms.shape[1], norms.sort(dim=1, descending=True, stable=True).indices
    images = torch.arange(len(norms), device=norms.device)
    at = torch.full_like(norms, torch.inf)  # so that what has not been looked at is no larger map
    for i in order.T:
        to = cosines[images, i]
        at[images, i] = torch.where(at <= to, to, -2.0).amax(1)  # less than any cosine: the largest goes last
    present = norms > 0
    at.masked_fill_(~present, -torch.inf)
    gone = _count(present.sum(1), share)
    # by similarity, and the smallest first among equals
    upwards = order.flip(1)
    turn = at.gather(1, upwards).sort(dim=1, descending=True, stable=True).indices
    early = torch.arange(count, device=norms.device) < gone[:, None]
    return torch.zeros_like(present).scatter_(1, upwards.gather(1, turn), early)
