"""Iterative magnitude pruning and 8-bit quantisation in either order, and what comes of it.

"Prune, then quantise" is `lib.multishot` and, after it, `lib.quantise.calibrated`, with or without `fine_tuned`.
"Quantise, then prune" is `quantise_then_prune`: there training and magnitudes see the rounded weights throughout.
"""

import copy
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import formats, pruners
from lib.catalog import PRUNED_FIRST, QUANTISED_FIRST, UNPRUNED
from lib.data import Dataset
from lib.formats_int8 import save_int8
from lib.masks import Masks, density_of, full, keep_top
from lib.multishot import multishot
from lib.pruners import Batches
from lib.quantise import PLAIN, calibrated, layers, plain, quantised, rounded, scales
from lib.sparsity import of_parameters
from lib.train import evaluate, train

Pruned = dict[str, tuple[nn.Module, Masks]]  # order -> a trained network and its masks
Follow = Callable[[int, str], Callable[[dict], None]]
Networks = list[tuple[dict[str, Tensor], Masks]]  # trained weights and masks of each level, as `multishot` has them
# column -> the form of `lib.formats` and the end of the file's name
SIZES = {"disk_mb": ("dense", ""), "bitmask_mb": ("bitmask", ""), "compressed_mb": ("bitmask", formats.SUFFIX)}


def both_orders(
    network: nn.Module,
    data: Dataset,
    density: float,
    calibration: Batches,
    *,
    further_epochs: int = 0,
    checkpoint: Callable[[str], Path] | None = None,
    **settings,
) -> dict:
    """The unpruned network and both orders at one density, these also after `further_epochs` that see the rounding.

    `settings` are those of `quantise_then_prune`, for either order; `network` stays as it is. `checkpoint(name)` is
    the file for the state of some of the trainings. Interrupted at any time, the same call gives the same bits.

    Returns `techniques`, of all networks; `networks`, by order, the trained weights and masks of each level; `masks`,
    by order; `history`, a row an epoch, with `order`, `level` and `further` (whether it comes after the levels). The
    training of the unpruned network is level 0 of the first order. Costs 2 (levels + 1) epochs + 2 further_epochs.
    """
    place = checkpoint or (lambda name: None)
    first = {"network": copy.deepcopy(network)}
    levels = {"keep_networks": True, "checkpoint": place("levels"), **settings}
    first |= multishot(first["network"], data, "mag", density, [], **levels)
    second = quantise_then_prune(network, data, density, calibration, checkpoint=place("quantised"), **settings)
    found = {PRUNED_FIRST: first, QUANTISED_FIRST: second}
    pruned = {order: (one["network"], one["masks"]) for order, one in found.items()}
    made = techniques({UNPRUNED: unpruned(network, first["networks"])} | pruned, calibration)
    history = [{"order": order, "further": False, **row} for order, one in found.items() for row in one["history"]]
    if further_epochs:
        recipe = {name: value for name, value in settings.items() if name not in ("levels", "epochs", "also")}
        recipe |= {"epochs": further_epochs, "checkpoint": place("further")}
        tuned, trained = fine_tuned(pruned, data, calibration, **recipe)
        made += techniques(tuned, calibration, further_epochs)
        history += [{"further": True, "level": settings["levels"], **row} for row in trained]
    kept = {name: {order: one[name] for order, one in found.items()} for name in ("networks", "masks")}
    return kept | {"techniques": made, "history": history}


def quantise_then_prune(
    network: nn.Module,
    data: Dataset,
    density: float,
    calibration: Batches,
    *,
    levels: int,
    epochs: int,
    also: Collection[str] = (),
    seed: int = 0,
    checkpoint: Path | None = None,
    follow: Follow | None = None,
    **recipe,
) -> dict:
    """Iterative magnitude pruning with rewinding of a network that is quantised from its first epoch on.

    Levels are those of `lib.multishot.multishot` with pruner `mag`: to `density` in `levels` steps, rewinding to the
    weights of `network`, which stays as it is; `also` as there. The magnitudes are those of the rounded weights.
    Ranges of activations start from the batches `calibration` and follow those of the training.

    Returns `network`, quantised, of the last level, its ranges those of `calibration` again; `masks`; `networks`, the
    rounded weights and masks of each level; `history`, a row an epoch, with its `level`. With `checkpoint` each
    training keeps its state in a file beside that one, and goes on from it. `follow(epochs, what)` makes the
    `on_epoch` of each training. Costs (levels + 1) * epochs of training. ValueError for an impossible number.
    """
    if levels < 1 or epochs < 1:
        raise ValueError(f"levels {levels}, epochs {epochs}: 1 or more is allowed")
    trained = calibrated(network, calibration)
    point = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    kept, history, networks = full(network, also), [], []
    for level, aim in enumerate([*pruners.densities(density, levels, "exponential"), None]):
        trained.load_state_dict(point)  # `train` removes what the masks remove
        part = _part(checkpoint, str(level), follow, epochs, f"quantised, level {level} of {levels}")
        rows = train(trained, data, epochs=epochs, masks=kept, seed=seed, **recipe, **part)
        history += [{"level": level, **row} for row in rows]
        on_grid = plain(trained)
        networks.append((on_grid.state_dict(), kept))
        if aim is not None:
            kept = keep_top(pruners.scored(on_grid, "mag", [], kept, torch.Generator()), aim, within=kept)
    return {"network": calibrated(trained, calibration), "masks": kept, "networks": networks, "history": history}


def fine_tuned(
    pruned: Pruned,
    data: Dataset,
    calibration: Batches,
    *,
    epochs: int,
    checkpoint: Path | None = None,
    follow: Follow | None = None,
    **recipe,
) -> tuple[Pruned, list[dict]]:
    """Quantised copies of pruned networks, plain or quantised, after `epochs` of training that sees the rounding.

    Returns them and the rows of their trainings, with their `order`.

    `recipe` as for `train`, `checkpoint` and `follow` as for `quantise_then_prune`. Ranges of activations are those of
    `calibration` before and after.
    """
    tuned, history = {}, []
    for order, (network, masks) in pruned.items():
        found = calibrated(network, calibration)
        part = _part(checkpoint, order.partition(",")[0], follow, epochs, f"{order}, further")
        rows = train(found, data, masks=masks, epochs=epochs, **recipe, **part)
        history += [{"order": order, **row} for row in rows]
        tuned[order] = calibrated(found, calibration), masks
    return tuned, history


def _part(checkpoint: Path | None, name: str, follow: Follow | None, epochs: int, what: str) -> dict:
    """Where one of several trainings keeps its state, and how it is followed."""
    place = {"checkpoint": checkpoint.with_name(f"{checkpoint.stem}-{name}.pt")} if checkpoint else {}
    return place | ({"on_epoch": follow(epochs, what)} if follow else {})


def unpruned(network: nn.Module, networks: Networks) -> tuple[nn.Module, Masks]:
    """A copy of `network` with the trained weights of the first level, and the masks of that, which keep everything."""
    state, kept = networks[0]
    made = copy.deepcopy(network)
    made.load_state_dict(state)
    return made, kept


def techniques(pruned: Pruned, calibration: Batches, fine_tuning_epochs: int = 0) -> list[dict]:
    """Pruned networks with and without rounding: `order`, `fine_tuning_epochs`, `quantisation`, `network`, `masks`.

    A plain network is quantised after training, in three ways: none, weights, weights and activations. A network that
    was trained quantised has the latter two: what it is without rounding, nobody trained.
    """
    found = []
    for order, (network, masks) in pruned.items():
        trained_so = any(type(layer) in PLAIN for layer in layers(network).values())
        made = {} if trained_so else {"none": network}
        made |= {"weights": quantised(network), "weights and activations": calibrated(network, calibration)}
        same = {"order": order, "fine_tuning_epochs": fine_tuning_epochs, "masks": masks}
        found += [same | {"quantisation": name, "network": n} for name, n in made.items()]
    return found


def rows(found: list[dict], data: Dataset) -> list[dict]:
    """A row for each of `techniques`: what it is, `sparsity_pct`, `zeros_pct`, `top1_pct`, `test_loss`, and sizes.

    Sparsity is the share of prunable weights that the masks remove, zeros are those weights that are 0 as the network
    runs, also by rounding. Sizes are those of real files (1 MB is 10^6 bytes), float32 or int8: `disk_mb` of every
    weight, `bitmask_mb` of a bit a weight and the kept values, `compressed_mb` the latter by zstd.
    """
    return [_row(one, data) for one in found]


def _row(one: dict, data: Dataset) -> dict:
    network, masks = one["network"], one["masks"]
    score = evaluate(network, data)
    found = {key: value for key, value in one.items() if key not in ("network", "masks")}
    found |= {"sparsity_pct": 100 * (1 - density_of(masks))}
    found |= {"zeros_pct": 100 * of_parameters(network if _is_plain(one) else plain(network), masks)}
    found |= {"top1_pct": score["top1_pct"], "test_loss": score["loss"]}
    save = formats.save_as if _is_plain(one) else save_int8
    with tempfile.TemporaryDirectory() as folder:
        for column, (form, end) in SIZES.items():
            found[column] = save(form, Path(folder) / f"model{end}", network, masks) / 1e6
    return found


def _is_plain(one: dict) -> bool:
    return one["quantisation"] == "none"


@torch.no_grad()
def tie_rows(order: str, networks: Networks) -> list[dict]:
    """What each pruning step chose among, a row a step.

    `level` (before the step), `left` (weights before it), `kept` (after it), `zeros` (weights that were already zero,
    though kept so far), `magnitudes` (different ones), `threshold` (the least that was kept), `tied` (weights that
    have just that magnitude) and `tied_kept` (those of them that were kept; fewer than all: by their position alone).
    """
    found = []
    for level, ((state, before), (_, after)) in enumerate(zip(networks, networks[1:], strict=False)):
        values = torch.cat([state[name][mask].abs() for name, mask in before.items()])
        kept = torch.cat([after[name][mask] for name, mask in before.items()])
        threshold = values[kept].min()
        tied = values == threshold
        found.append({
            "order": order, "level": level, "left": len(values), "kept": int(kept.sum()),
            "zeros": int((values == 0).sum()), "magnitudes": len(values.unique()), "threshold": threshold.item(),
            "tied": int(tied.sum()), "tied_kept": int((tied & kept).sum()),
        })  # fmt: skip
    return found


@torch.no_grad()
def rounding_rows(found: list[dict]) -> list[dict]:
    """What rounding does to the kept weights, a row a masked layer of each of `techniques` that rounds activations too.

    `order`, `fine_tuning_epochs`, `layer`, `weights`, `kept`, `zeroed` (kept weights that become zero, being less than
    half a step), `half_step` (the median over the output channels) and `magnitudes` (different ones of kept weights on
    the grid, in all channels together).
    """
    chosen = [one for one in found if one["quantisation"] == "weights and activations"]
    return [
        _rounding(one, name) for one in chosen for name in layers(one["network"]) if f"{name}.weight" in one["masks"]
    ]


def _rounding(one: dict, layer: str) -> dict:
    mask = one["masks"][f"{layer}.weight"]
    weight = one["network"].get_submodule(layer).weight.detach() * mask
    kept = rounded(weight)[mask]
    return {
        "order": one["order"], "fine_tuning_epochs": one["fine_tuning_epochs"], "layer": layer,
        "weights": mask.numel(), "kept": len(kept), "zeroed": int((kept == 0).sum()),
        "half_step": scales(weight).median().item() / 2, "magnitudes": len(kept.abs().unique()),
    }  # fmt: skip


def overlap_pct(a: Masks, b: Masks) -> float:
    """The share of the weights that `a` keeps which `b` keeps too, in percent; by chance it is the density of `b`."""
    both = sum(int((mask & b[name]).sum()) for name, mask in a.items())
    return 100 * both / sum(int(mask.sum()) for mask in a.values())
