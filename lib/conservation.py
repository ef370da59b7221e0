"""Conservation of synaptic saliency: the theory behind SynFlow, measured on a network at hand.

Tanaka et al. 2020 (arXiv 2006.05467) call any score dR/dw * w, for a function R of the network's outputs, a
*synaptic saliency*, and prove for networks whose activations are homogeneous (ReLU, pooling, none): what goes into a
hidden unit comes out of it (theorem 1), so every cut through the network, such as a layer, holds the same total
(theorem 2), and a method that never removes as much as a layer holds empties no layer (theorem 3). The functions here
return the rows of the paper's figures 3, 4, 5b and 7; they leave models as they were, except where one is trained.
"""

from collections.abc import Callable
from copy import deepcopy
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import catalog
from lib import train as training
from lib.data import Dataset
from lib.hooks import hooked
from lib.masks import Masks, Scores, evaluating, full, keep_top, prunable
from lib.pruners import SCHEDULES, Batches, densities
from lib.pruners.common import checked, effective, gradients, running

SALIENCY = "saliency"  # in the column `score`: dL/dw * w itself, what SNIP takes the absolute value of


def without_biases(model: nn.Module) -> nn.Module:
    """A copy of `model` whose biases (also those of batch norm) are zero, as VGGs and ResNets have them initially.

    A bias is a source of flow within the network: with it, later layers hold more than earlier ones.
    """
    copy = deepcopy(model)
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if name.rpartition(".")[2] == "bias":
                parameter.zero_()
    return copy


@torch.enable_grad()
def saliency(model: nn.Module, batches: Batches, *, masks: Masks | None = None, generator=None) -> Scores:
    """dL/dw * w, signed: a synaptic saliency for the mean cross-entropy L of each batch, summed over the batches."""
    weights = effective(model, masks, grad=True)
    with running(model, training=False) as logits:
        loss = sum(F.cross_entropy(logits(weights, x), y) for x, y in checked(batches))
    found = gradients(loss, weights)
    return {name: weight.detach() * g for (name, weight), g in zip(weights.items(), found, strict=True)}


def measure(model: nn.Module, batches: Batches, names: list[str], seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Rows of hidden units and rows of layers for the scores of each pruner in `names`, and for `saliency`.

    Scores are those of one round, of weights and biases, in float64, so that rounding does not look like a difference.
    Each row has `score` (the pruner's name) and what `unit_rows` and `layer_rows` return. Only units with a layer of
    their own on either side are listed, see `links`. ValueError for an unknown name, or a network without such units.
    """
    scorers = {name: catalog.load("pruner", name) for name in names} | {SALIENCY: saliency}
    exact = deepcopy(model).double()
    batches = [(x.double(), y) for x, y in batches]
    between = links(exact, batches)
    if not between:
        raise ValueError("no hidden unit of the network lies between two layers alone: at least one is needed")
    masks = full(exact, also=["biases"])
    units, layers = [], []
    for name, score in scorers.items():
        scores = score(exact, batches, masks=masks, generator=torch.Generator().manual_seed(seed))
        units += [{"score": name, **row} for row in unit_rows(scores, between)]
        layers += [{"score": name, **row} for row in layer_rows(scores)]
    return units, layers


def unit_rows(scores: Scores, between: list[tuple[str, str]]) -> list[dict]:
    """`layer`, `unit` (its number there), `incoming`, `outgoing` of the hidden units between two layers (figure 3).

    A unit is an output of the first layer, and its bias, where it is scored, one more incoming weight (theorem 1);
    where a feature map was flattened, several inputs of the second layer belong to it. ValueError where the inputs
    cannot be divided among the units, as in a grouped convolution.
    """
    rows = []
    for source, target in between:
        incoming = sum(part.flatten(1).sum(1) if part.ndim > 1 else part for part in _parts(scores)[source])
        by_input = scores[f"{target}.weight"].transpose(0, 1).flatten(1).sum(1)
        if len(by_input) % len(incoming):
            raise ValueError(
                f"{target} has {len(by_input)} inputs for the {len(incoming)} units of {source}: a multiple is allowed"
            )
        pairs = zip(incoming.tolist(), by_input.view(len(incoming), -1).sum(1).tolist(), strict=True)
        rows += [{"layer": source, "unit": n, "incoming": a, "outgoing": b} for n, (a, b) in enumerate(pairs)]
    return rows


def layer_rows(scores: Scores) -> list[dict]:
    """`layer`, `size` (weights and biases scored), `total` and `mean` (|total| / size) of its scores (figure 4)."""
    rows = []
    for layer, parts in _parts(scores).items():
        size, total = sum(part.numel() for part in parts), sum(part.double().sum().item() for part in parts)
        rows.append({"layer": layer, "size": size, "total": total, "mean": abs(total) / size})
    return rows


def _parts(tensors: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Layer -> its weight and, where there is one, its bias."""
    found: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        found.setdefault(name.rpartition(".")[0], []).append(tensor)
    return found


def links(model: nn.Module, batches: Batches) -> list[tuple[str, str]]:
    """Pairs of prunable layers, by name, between which hidden units lie that no other layer touches.

    In a plain chain of layers each pair that follow one another; in a residual block only its inner pair, since the
    shortcut shares the other units. Found from which layers' outputs reach which layers' inputs, for one image.
    """
    reached = _reached(model, batches[0][0][:1])
    readers: dict[str, list] = {}
    for target, sources in reached.items():
        for source in sources:
            readers.setdefault(source, []).append(target)
    single = [(next(iter(s)), target) for target, s in reached.items() if target is not None and len(s) == 1]
    return [(source, target) for source, target in single if readers[source] == [target]]


@torch.enable_grad()
def _reached(model: nn.Module, image: Tensor) -> dict[str | None, set[str]]:
    """Layer -> the layers whose outputs its input is made of, in the order of execution; key None for the logits.

    Each layer's output is cut off from its past, so the graph behind an input ends at the layers just before it.
    """
    ends: list[tuple[Tensor, str]] = []  # the tensors are held, so that none takes another's place in memory
    found: dict[str | None, set[str]] = {}

    def note(name: str | None, tensor: Tensor) -> None:
        found.setdefault(name, set()).update(_ends(tensor, ends))

    def cut(name: str, output: Tensor) -> Tensor:
        ends.append((output.detach().requires_grad_(), name))
        return ends[-1][0].clone()  # so that an activation may work in place

    watched = {name: model.get_submodule(name) for name in _parts(prunable(model))}
    noting = hooked(
        layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))
        for name, layer in watched.items()
    )
    cutting = hooked(
        layer.register_forward_hook(lambda _, given, output, name=name: cut(name, output))
        for name, layer in watched.items()
    )
    with noting, cutting, evaluating(model):
        note(None, model(image))
    return found


def _ends(tensor: Tensor, ends: list[tuple[Tensor, str]]) -> set[str]:
    """The names of those `ends` that `tensor` was computed from."""
    open_nodes, seen, names = [tensor.grad_fn], set(), set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names |= {name for end, name in ends if getattr(node, "variable", None) is end}
        open_nodes += [parent for parent, _ in node.next_functions]
    return names


def magnitude_rows(model: nn.Module, epoch: int) -> list[dict]:
    """`epoch`, `layer`, `size`, `mean_square` (of its weights and biases) of each prunable layer (figure 5b)."""
    squares = {name: p.detach().double().square() for name, p in prunable(model, also=["biases"]).items()}
    rows = layer_rows(squares)
    return [{"epoch": epoch, "layer": r["layer"], "size": r["size"], "mean_square": r["mean"]} for r in rows]


def train_watched(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    on_epoch: Callable[[dict], None] | None = None,
    **recipe,
) -> tuple[list[dict], list[dict]]:
    """`lib.train.train` (in place), and magnitude rows before it (epoch 0) and after each epoch; returns (these, its
    rows).

    Without a checkpoint: one that went on would lack the epochs before it.
    """
    watched = magnitude_rows(model, 0)

    def watch(row: dict) -> None:
        watched.extend(magnitude_rows(model, row["epoch"]))
        if on_epoch:
            on_epoch(row)

    return watched, training.train(model, data, epochs=epochs, on_epoch=watch, **recipe)


def cut_rows(
    model: nn.Module, batches: Batches, shares: list[float], round_counts: list[int], pruner: str = "synflow"
) -> list[dict]:
    """The largest cut of any round against the flow, for each schedule, density and number of rounds (figure 7).

    A round's cut is the total score of what it removes, and the flow that of the last layer, which with biases at
    zero is the network's summed output. Below 1 the conditions of theorem 3 hold, and no layer of a feed-forward
    network is emptied while there is a weight for each. Rows: `schedule`, `density`, `rounds`, `cut_ratio`, `emptied`
    (layers without a weight at the end), `kept`. Costs the sum of `round_counts` scorings a schedule and density.
    """
    last = list(_reached(model, batches[0][0][:1]))[-2]  # the logits come after it
    score = catalog.load("pruner", pruner)
    rows = []
    for schedule, density, rounds in product(SCHEDULES, shares, round_counts):
        masks, ratios = full(model), []
        for step in densities(density, rounds, schedule):
            scores = score(model, batches, masks=masks)
            kept = keep_top(scores, step, within=masks)
            flow = scores[f"{last}.weight"].sum().item()
            # after a collapse there is nothing left to cut
            ratios.append(_cut(scores, masks, kept) / flow if flow else 0.0)
            masks = kept
        sizes = [int(mask.sum()) for mask in masks.values()]
        rows.append(
            {
                "schedule": schedule,
                "density": density,
                "rounds": rounds,
                "cut_ratio": max(ratios),
                "emptied": sizes.count(0),
                "kept": sum(sizes),
            }
        )
    return rows


def _cut(scores: Scores, before: Masks, after: Masks) -> float:
    """Total score of the weights that `before` keeps and `after` does not."""
    return sum(score[before[name] & ~after[name]].sum().item() for name, score in scores.items())
