"""The stage that removes weights, by what they score, alone or together with others."""

import copy
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch

from lib import catalog, granularity, pruners
from lib.masks import Masks, apply_masks_
from lib.pipeline.network import Network
from lib.pruners import Batches

METHODS = catalog.WEIGHT_METHODS


def prune_weights(
    net: Network,
    method: str,
    density: float,
    *,
    scope: str = "local",
    densities: Mapping[str, float] | None = None,
    batches: Batches = (),
    shape: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Network:
    """`net` with the share `density` in [0, 1] of its weights left, counted in the units of `method`.

    `method` is a name of METHODS, such as `element-l1`, `kernel-l2`, `multi-l1`, `obd` or `channel-snip`: a granularity
    and a pruner, see `lib.granularity` for what is a unit, how it scores and what exactly is kept. Of what is there at
    first: 1 removes nothing, also where weights are gone already, and 0 everything (with `multi` the outputs that can
    go). With scope `local` every layer keeps its share, with `global` all units compete. `densities` are shares of
    single layers, for scope `local`: a pattern of names of layers (`layers.0`, `blocks.*`, `*`), or `last` for the last
    layer, the classifier; of several that match the last counts.

    `batches` are for pruners that need images, on the model's device; `shape`, of one input without the batch, for
    `multi`, where there are no batches to read it from. `seed` decides what is drawn at random. Biases, batch norms,
    grid and inputs stay as they are; the activations that `net.inputs` prunes are not pruned while scoring.

    ValueError in one line for an unknown name, an impossible number, or a pattern that matches no layer.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: one of {', '.join(METHODS)}")
    units, pruner, norm = METHODS[method]
    shares = of_layers(net.masks, density, densities) if densities else density
    groups = granularity.successors(net.model, _shape(shape, batches)) if units == "multi" else []
    scores = pruners.scored(net.model, pruner, batches, net.masks, torch.Generator().manual_seed(seed))
    kept = granularity.keep_units(
        scores, shares, granularity=units, norm=norm, scope=scope, within=net.masks, groups=groups
    )
    model = copy.deepcopy(net.model)
    apply_masks_(model, kept)
    return net._replace(model=model, masks=kept)


def of_layers(masks: Masks, density: float, densities: Mapping[str, float]) -> dict[str, float]:
    """Parameter -> its density: that of the last pattern that matches its layer, else `density`; see `prune_weights`.

    ValueError for a pattern that counts for no layer.
    """
    layers = {name: name.removesuffix("weight").removesuffix(".") for name in masks}
    last = list(masks)[-1]
    chosen = {}
    for name, layer in layers.items():
        matching = [p for p in densities if fnmatchcase(layer, p) or (p == "last" and name == last)]
        chosen[name] = matching[-1] if matching else None
    for pattern in densities:
        if pattern not in chosen.values():
            raise ValueError(
                f"density of layers {pattern!r} counts for no layer: patterns of {', '.join(layers.values())} "
                "or last are allowed, and of several that match the last one counts"
            )
    return {name: density if pattern is None else densities[pattern] for name, pattern in chosen.items()}


def _shape(shape: tuple[int, ...] | None, batches: Batches) -> tuple[int, ...]:
    if shape is None and not batches:
        raise ValueError("shape and batches are missing: multi needs one of them to run the network")
    if shape is not None:
        return tuple(shape)
    x = batches[0][0]
    return tuple(x.shape[1:]) if x.ndim == 4 else (x.shape[1], 0)  # a text as long as these; its words do not matter
