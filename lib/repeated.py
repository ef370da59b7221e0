"""Pruning the same network again and again: counts, masks without retraining, and what each network is worth."""

import copy
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import formats, pruners, sparsity
from lib.data import Dataset, scoring_batches
from lib.masks import Masks, apply_masks_, collapsed, density_of, full, keep_top, prunable
from lib.multishot import multishot
from lib.storage import load_weights
from lib.timing import latencies
from lib.train import evaluate, train

Networks = list[tuple[dict[str, Tensor], Masks]]  # the state and the masks of each iteration, from 0, the dense one


def counts(weights: int, step: float, iterations: int) -> list[int]:
    """How many of `weights` are left after each iteration that removes the share `step` of what is left.

    As torch.nn.utils.prune counts: it removes round(step * left). ValueError unless 0 < step < 1 and something is left.
    """
    if not 0 < step < 1:
        raise ValueError(f"step is {step}: more than 0 and less than 1 is allowed")
    left = [weights]
    for _ in range(iterations):
        left.append(left[-1] - round(step * left[-1]))
    if left[-1] < 1:
        raise ValueError(f"step is {step} and iterations is {iterations}, which leave none of {weights} weights")
    return left[1:]


def rounds(
    network: nn.Module,
    data: Dataset,
    retrain: str,
    source: Path | None,
    *,
    pruner: str,
    step: float,
    iterations: int,
    scoring_images: int,
    also: Collection[str],
    seed: int,
    checkpoint: Path,
    follow: Callable[[int, str], Callable[[dict], None]],
    **recipe,
) -> tuple[list[nn.Module], list[Masks], list[dict]]:
    """The networks of all iterations, from the dense one on, their masks, and the rows of all trainings.

    With `retrain` "rewind" each is trained from the initial weights of `network` (`lib.multishot`); with "none" all
    have those of the folder `source`, a finished run, or of one training where there is none. `scoring_images` of each
    class are what `pruner` scores on. `recipe`, `checkpoint` and `follow` as for `lib.multishot.multishot`. ValueError
    for an impossible number.
    """
    left = counts(sum(weight.numel() for weight in prunable(network, also).values()), step, iterations)
    batches = scoring_batches(data, scoring_images, seed=seed)
    chosen, history = {"also": also, "seed": seed}, []
    if retrain == "rewind":
        place = {"counts": left, "keep_networks": True, "checkpoint": checkpoint, "follow": follow}
        found = multishot(network, data, pruner, None, batches, **chosen, **place, **recipe)
        networks, history = found["networks"], found["history"]
    else:
        if source:
            load_weights(source / "weights.safetensors", network)
        else:
            watch = {"checkpoint": checkpoint, "on_epoch": follow(recipe["epochs"], "dense")}
            history = train(network, data, seed=seed, **recipe, **watch)
        networks = without_retraining(network, pruner, batches, left, **chosen)
    return built(network, networks), [kept for _, kept in networks], history


def without_retraining(
    network: nn.Module,
    pruner: str,
    batches: pruners.Batches,
    left: Sequence[int],
    *,
    also: Collection[str] = (),
    seed: int = 0,
) -> Networks:
    """The trained `network`, pruned to each number in `left`, one after the other; untouched itself.

    Each iteration scores what the one before has left, at the weights as they are.
    """
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found: Networks = [(state, full(network, also))]
    generator = torch.Generator().manual_seed(seed)
    for keep in left:
        kept = found[-1][1]
        scores = pruners.scored(network, pruner, batches, kept, generator)
        found.append((state, keep_top(scores, keep=keep, within=kept)))
    return found


def different(network: nn.Module, theirs: Masks, step: float) -> int:
    """Weights of which torch's masks `theirs` and ours after one iteration of global L1 pruning say something else."""
    scores = {name: network.get_parameter(name).detach().abs() for name in theirs}
    ours = keep_top(scores, keep=counts(sum(s.numel() for s in scores.values()), step, 1)[0])
    return sum(int((theirs[name] != ours[name]).sum()) for name in theirs)


def built(network: nn.Module, networks: Networks) -> list[nn.Module]:
    """A copy of `network` for each iteration, with its weights, the removed ones zero."""
    copies = []
    for state, kept in networks:
        one = copy.deepcopy(network)
        one.load_state_dict(state)
        apply_masks_(one, kept)
        copies.append(one.eval())
    return copies


def iterations(models: list[nn.Module], masks: list[Masks], data: Dataset, batch: int = 256) -> list[dict]:
    """One row a network: `iteration`, `sparsity_pct` of what was pruned and of the whole model, weights, `top1_pct`.

    `collapsed_layers` are the names of layers without a weight; `connected` says whether a path is left.
    """
    rows = []
    for number, (model, kept) in enumerate(zip(models, masks, strict=True)):
        score, collapse = evaluate(model, data, batch=batch), collapsed(model, kept, data.shape)
        rows.append({
            "iteration": number,
            "sparsity_pct": 100 * (1 - density_of(kept)),
            "model_sparsity_pct": 100 * sparsity.of_model(model),
            "weights": sum(mask.numel() for mask in kept.values()),
            "weights_kept": sum(int(mask.sum()) for mask in kept.values()),
            "parameters": sum(p.numel() for p in model.parameters()),
            "top1_pct": score["top1_pct"],
            "test_loss": score["loss"],
            "collapsed_layers": " ".join(collapse["layers"]),
            "connected": collapse["connected"],
        })  # fmt: skip
    return rows


def files(models: list[nn.Module], masks: list[Masks], folder: Path) -> list[dict]:
    """Bytes of each network in every form of `lib.formats`, plain and compressed, as written to `folder` and removed.

    Rows `iteration`, `form`, `compressed`, `bytes`, `loads`: whether a network that reads the file, and had nothing but
    not-a-number before, is the same, bit for bit.
    """
    rows = []
    for number, (model, kept) in enumerate(zip(models, masks, strict=True)):
        for form in formats.FORMS:
            for compressed in (False, True):
                path = folder / f"{form}.safetensors{formats.SUFFIX if compressed else ''}"
                size = formats.save_as(form, path, model, kept)
                fresh = copy.deepcopy(model)
                for tensor in fresh.state_dict().values():
                    tensor.fill_(torch.nan if tensor.is_floating_point() else -1)
                formats.load_from(path, fresh)
                same = all(torch.equal(t, model.state_dict()[n]) for n, t in fresh.state_dict().items())
                path.unlink()
                rows.append({"iteration": number, "form": form, "compressed": compressed, "bytes": size, "loads": same})
    return rows


def times(models: list[nn.Module], inputs: dict[int, Tensor], *, repeats: int, warmup: int) -> list[dict]:
    """`lib.timing.latencies` of all networks, called by their iteration; [] for 0 repeats."""
    if not repeats:
        return []
    return latencies(dict(enumerate(models)), inputs, repeats=repeats, warmup=warmup)
