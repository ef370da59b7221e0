"""Optimal brain damage and WoodFisher against gradients image by image, and a dense Fisher matrix."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import masks, models, pruners
from lib.pruners import second_order

IMAGE, TEXT = (2, 8, 8), (7, 30)
SHAPES = {"fc": IMAGE, "resnet8": IMAGE, "mlp-2x6": TEXT, "transformer": TEXT}


def batches(shape=IMAGE, sizes=(5, 3), classes=4, dtype=torch.float64) -> list:
    draw = torch.Generator().manual_seed(0)
    found = []
    for n in sizes:
        texts = torch.randint(0, 30, (n, 7), generator=draw).sort(descending=True).values
        x = texts if shape == TEXT else torch.randn(n, *shape, generator=draw, dtype=dtype)
        found.append((x, torch.randint(0, classes, (n,), generator=draw)))
    return found


def network(name="fc") -> nn.Module:
    """Float64, with biases, shifts and statistics that are not neutral."""
    model, draw = models.build(name, SHAPES[name], 4), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=draw)
    return model.double()


def tiny() -> nn.Module:
    """Small enough for the Fisher matrix of a whole parameter: 20 and 12 weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def tiny_batches(sizes=(6, 3)) -> list:
    return batches((5,), sizes, classes=3)


def by_hand(model: nn.Module, data: list, kept: dict) -> dict[str, torch.Tensor]:
    """The gradient of every image's loss, (images, *shape), by one backward pass each through a masked copy."""
    model = copy.deepcopy(model).eval()
    masks.apply_masks_(model, kept)
    rows = {name: [] for name in kept}
    for x, y in data:
        for image, label in zip(x, y, strict=True):
            model.zero_grad()
            F.cross_entropy(model(image[None]), label[None]).backward()
            for name, found in rows.items():
                found.append(model.get_parameter(name).grad.clone())
    return {name: torch.stack(found) for name, found in rows.items()}


def close(found: dict, expected: dict, rtol: float = 1e-7) -> bool:
    assert list(found) == list(expected)
    largest = max(score.max().item() for score in expected.values())
    return all(torch.allclose(found[n], score, rtol=rtol, atol=1e-12 * largest) for n, score in expected.items())


# Optimal brain damage


@pytest.mark.parametrize("name", SHAPES)
def test_obd_is_the_mean_squared_gradient_of_single_images(name):
    model, data = network(name), batches(SHAPES[name])
    kept = masks.full(model, masks.ALSO)
    for mask in kept.values():
        mask[::3] = False
    rows = by_hand(model, data, kept)
    expected = {n: model.get_parameter(n).square() * kept[n] * g.square().mean(0) / 2 for n, g in rows.items()}
    assert close(pruners.obd(model, data, masks=kept), expected)


def test_obd_estimates_what_a_removal_costs():
    """At a minimum whose labels the network itself has drawn, Fisher is the Hessian: here logistic regression."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    x = torch.randn(20_000, 3, dtype=torch.float64)
    with torch.no_grad():
        model[0].weight.mul_(0.2)
        labels = torch.multinomial(model(x).softmax(1), 1).flatten()
    scores = pruners.obd(model, [(x, labels)])["0.weight"]
    hessian = torch.autograd.functional.hessian(lambda w: F.cross_entropy(x @ w.T, labels), model[0].weight.detach())
    exact = torch.stack([hessian[i, j, i, j] for i in range(2) for j in range(3)]).view(2, 3)
    assert torch.allclose(scores, model[0].weight.square() * exact / 2, rtol=0.05)


@pytest.mark.parametrize("size", [1, 2, 4, 1000])
@pytest.mark.parametrize("pruner", [pruners.obd, pruners.woodfisher])
def test_no_more_gradients_than_fit_are_computed_at_a_time(pruner, size, monkeypatch):
    model, data, seen = network(), batches(), []
    expected, weights = pruner(model, data), sum(w.numel() for w in masks.prunable(model).values())
    monkeypatch.setattr(second_order, "GRADIENT_BYTES", 4 * weights * size)
    original = second_order.vmap

    def counting(*arguments, **options):
        function = original(*arguments, **options)
        return lambda chosen, x, y: seen.append(len(x)) or function(chosen, x, y)

    monkeypatch.setattr(second_order, "vmap", counting)
    assert close(pruner(model, data), expected, rtol=1e-4)
    assert sum(seen) == 8
    assert max(seen) == min(size, 5)


# WoodFisher


def dense_scores(model: nn.Module, data: list, kept: dict, block: int, damping: float) -> dict:
    """w^2 / (2 [F^-1]_qq) by torch.linalg.inv of the Fisher matrix of the kept weights of each block."""
    scores = {}
    for name, rows in by_hand(model, data, kept).items():
        weight, flat, inside = model.get_parameter(name).detach(), rows.flatten(1), kept[name].flatten()
        score = torch.zeros(weight.numel(), dtype=torch.float64)
        for start in range(0, weight.numel(), block):
            places = [q for q in range(start, min(start + block, weight.numel())) if inside[q]]
            g = flat[:, places]
            fisher = g.T @ g / len(g) + damping * torch.eye(len(places), dtype=torch.float64)
            score[places] = weight.flatten()[places] ** 2 / (2 * torch.linalg.inv(fisher).diagonal())
        scores[name] = score.view(weight.shape)
    return scores


@pytest.mark.parametrize("damping", [1e-5, 1e-2])
@pytest.mark.parametrize("block", [1, 3, 7, 64])
@pytest.mark.parametrize("pruned", [False, True])
def test_woodfisher_agrees_with_a_dense_inverse(block, damping, pruned):
    model, data = tiny(), tiny_batches()
    kept = masks.full(model, ["biases"])
    if pruned:
        kept = pruners.prune(model, "rand", 0.5, [], also=["biases"], seed=3)
    found = pruners.woodfisher(model, data, masks=kept, block=block, damping=damping)
    assert close(found, dense_scores(model, data, kept, block, damping))
    assert found["0.weight"].dtype == torch.float64


def test_woodfisher_is_the_least_loss_at_which_a_weight_can_be_removed():
    """Of the quadratic (1/2) d^T F d, over all changes d of the parameter that set the weight to zero."""
    model, data, damping = tiny(), tiny_batches(), 1e-3
    scores = pruners.woodfisher(model, data, block=64, damping=damping)["0.weight"].flatten()
    g = by_hand(model, data, masks.full(model))["0.weight"].flatten(1)
    fisher = g.T @ g / len(g) + damping * torch.eye(20, dtype=torch.float64)
    weight = model[0].weight.detach().flatten()
    for q in range(20):
        rest = [k for k in range(20) if k != q]
        moved = torch.zeros(20, dtype=torch.float64)
        moved[q] = -weight[q]
        moved[rest] = torch.linalg.solve(fisher[rest][:, rest], fisher[rest][:, q] * weight[q])
        assert scores[q].item() == pytest.approx((moved @ fisher @ moved / 2).item(), rel=1e-8)


def test_blocks_of_one_weight_are_optimal_brain_damage():
    model, data = tiny(), tiny_batches()
    obd, found = pruners.obd(model, data), pruners.woodfisher(model, data, block=1, damping=1e-6)
    assert close(found, {n: s + 0.5e-6 * model.get_parameter(n).square() for n, s in obd.items()})


@pytest.mark.parametrize("name", ["resnet8", "transformer"])
def test_woodfisher_of_convolutions_and_texts(name):
    """Blocks go over the positions of a parameter, whatever its layout in memory."""
    # not of `network`: its gradients are so large that what lets float64 invert their squares is above the damping
    model, data = models.build(name, SHAPES[name], 4).double(), batches(SHAPES[name])
    chosen = list(masks.prunable(model))[:2] + list(masks.prunable(model))[-1:]
    kept = {n: mask for n, mask in masks.full(model).items() if n in chosen}
    found = pruners.woodfisher(model, data, masks=kept, damping=1e-2)
    assert close(found, dense_scores(model, data, kept, 64, 1e-2), rtol=1e-4)


def test_parameters_in_groups_and_blocks_in_parts_score_the_same(monkeypatch):
    model, data = network("resnet8"), batches()
    expected = pruners.woodfisher(model, data)
    monkeypatch.setattr(second_order, "BLOCKS", 3)
    monkeypatch.setattr(second_order, "KEPT_BYTES", 8 * 4 * 3000)
    weights = {name: w.detach() for name, w in masks.prunable(model).items()}
    groups = second_order._groups(weights, 3000)
    assert [name for group in groups for name in group] == list(weights)
    assert all(len(group) == 1 or sum(weights[n].numel() for n in group) <= 3000 for group in groups)
    assert 3 < len(groups) < len(weights)
    assert close(pruners.woodfisher(model, data), expected, rtol=1e-4)


# Both


@pytest.mark.parametrize("pruner", [pruners.obd, pruners.woodfisher])
def test_what_has_no_gradient_of_a_single_image_is_refused(pruner):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(108, 4)
    )
    with pytest.raises(ValueError, match="batch norm without running statistics"):
        pruner(model, batches(dtype=torch.float32))
    with pytest.raises(ValueError, match="no scoring batches"):
        pruner(tiny(), [])


@pytest.mark.parametrize("pruner", ["obd", "woodfisher"])
def test_neither_scores_in_training_mode_or_what_is_not_finite(pruner):
    with pytest.raises(ValueError, match=f"training is True and pruner {pruner} takes no argument of this name"):
        pruners.prune(tiny(), pruner, 0.5, tiny_batches(), training=True)
    broken = [(x * torch.inf, y) for x, y in tiny_batches()]
    with pytest.raises(ValueError, match="not all finite: weights cannot be ranked"):
        pruners.prune(tiny(), pruner, 0.5, broken)
