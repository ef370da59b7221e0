"""Score and keep, in rounds."""

import inspect
from collections.abc import Collection
from contextlib import nullcontext

import torch
from torch import nn

from lib import catalog
from lib.masks import Masks, Scores, check_density, full, keep_top
from lib.memory import keep_freed_memory
from lib.noise import Noise
from lib.pruners.common import Batches
from lib.rounds import SCHEDULES, check_scope, densities


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
    also: Collection[str] = (),
    spare: Collection[str] = (),
    training: bool = False,
    invert: bool = False,
) -> Masks:
    """Masks that keep `density` of what is prunable, by `rounds` of scoring and keeping; model untouched.

    After round r of n the density is density ** (r / n) with schedule `exponential` and
    1 - (1 - density) r / n with `linear`; each round scores the network that the one before left, and what is
    removed stays removed. `scope` says which weights compete, see `lib.ranking.keep_top`: `mag` to density 0.5 with
    `fours` is the pattern 2:4. `seed` decides what is drawn at random. Density 1 keeps everything, and pruner `dense`
    allows no other.

    `also` and `spare` choose what takes part, see `lib.masks.prunable`; density is a share of that. `training` scores
    in training mode. `invert` keeps the lowest scores, the sanity check of Frankle et al. 2021 (arXiv 2009.08576).

    ValueError for an unknown name, an impossible number, scores that are missing or cannot be ranked, or a pruner
    without training mode.
    """
    score = catalog.load("pruner", pruner)
    check_density(density)
    if pruner == "dense" and density != 1:
        raise ValueError(f"density is {density} with pruner dense: 1 is allowed there")
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}: one of {', '.join(SCHEDULES)}")
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is {rounds}: an integer of 1 or more is allowed")
    if training and "training" not in inspect.signature(score).parameters:
        raise ValueError(f"training is True and pruner {pruner} takes no argument of this name: False is allowed")
    shares = densities(density, rounds, schedule)
    check_scope(scope, shares)
    masks = full(model, also, spare)
    if not masks:
        raise ValueError(f"nothing is prunable with also {also!r} and spare {spare!r}: something has to be")
    mode = {"training": True} if training else {}
    generator = torch.Generator().manual_seed(seed)
    keep_freed_memory()
    # dropout draws from torch's own generator
    with Noise(next(model.parameters()).device, seed) if training else nullcontext():
        for share in shares:
            scores = scored(model, pruner, batches, masks, generator, **mode)
            if invert:
                scores = {name: -score for name, score in scores.items()}
            masks = keep_top(scores, share, scope=scope, within=masks)
    return masks


def scored(model: nn.Module, pruner: str, batches: Batches, masks: Masks, generator: torch.Generator, **mode) -> Scores:
    """The scores of what `masks` name, by a pruner of the catalogue; ValueError where it leaves one of them out."""
    score = catalog.load("pruner", pruner)
    return _matching(score(model, batches, masks=masks, generator=generator, **mode), masks, pruner)


def _matching(scores: Scores, masks: Masks, pruner: str) -> Scores:
    """The scores of what takes part: a pruner may score more, but not less."""
    for name, mask in masks.items():
        found = tuple(scores[name].shape) if name in scores else "none"
        if found != tuple(mask.shape):
            raise ValueError(f"scores of pruner {pruner} for {name} are {found}: {tuple(mask.shape)} is needed")
    return {name: scores[name] for name in masks}
