"""Uniform and ERK: the layers' densities against the equations, whatever is kept and in however many rounds."""

import pytest
import torch

from lib import flops, masks, models, pruners

NETWORKS = [("resnet20", (3, 32, 32)), ("fc", (1, 28, 28)), ("vgg11-bn", (3, 32, 32))]


def equation(shapes: dict[str, tuple], ratios: dict[str, float], density: float) -> dict[str, float]:
    """min(1, eps ratio) of every layer, with eps found by halving an interval until the total is right."""
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    low, high = 0.0, 1e9
    for _ in range(200):
        eps = (low + high) / 2
        total = sum(min(1, eps * ratios[name]) * n for name, n in sizes.items())
        low, high = (eps, high) if total < density * sum(sizes.values()) else (low, eps)
    return {name: min(1, eps * ratio) for name, ratio in ratios.items()}


def wanted(pruner: str, shapes: dict[str, tuple], density: float) -> dict[str, float]:
    """The densities by the papers' words: everything equal, or by (n_in + n_out + w + h) / (n_in n_out w h)."""
    ratios = dict.fromkeys(shapes, 1.0)
    if pruner == "erk":
        for name, (outputs, inputs, *kernel) in shapes.items():
            height, width = kernel or (0, 0)
            ratios[name] = (inputs + outputs + height + width) / (inputs * outputs * (height or 1) * (width or 1))
    return equation(shapes, ratios, density)


@pytest.mark.parametrize("density", [0.9, 0.3, 0.05, 0.01])
@pytest.mark.parametrize(("name", "shape"), NETWORKS)
@pytest.mark.parametrize("pruner", ["uniform", "erk"])
def test_layer_densities_solve_the_equation_at_any_density(pruner, name, shape, density):
    model = models.build(name, shape)
    kept = pruners.prune(model, pruner, density, [], seed=1)
    sizes = {key: mask.numel() for key, mask in kept.items()}
    expected = wanted(pruner, {key: tuple(mask.shape) for key, mask in kept.items()}, density)
    for key, mask in kept.items():
        # a rounding of each layer, and that of the sum over all of them
        assert abs(int(mask.sum()) - expected[key] * sizes[key]) <= 1.5
    assert sum(int(mask.sum()) for mask in kept.values()) == masks.kept_count(sum(sizes.values()), density)


def test_erk_caps_what_would_be_more_than_all():
    model = models.build("resnet20")
    assert pruners.prune(model, "erk", 0.5, [])["conv.weight"].all()
    assert not pruners.prune(model, "uniform", 0.5, [])["conv.weight"].all()


@pytest.mark.parametrize("pruner", ["uniform", "erk"])
def test_rounds_draw_anew_and_change_no_layers_density(pruner):
    model = models.build("resnet20")
    once = pruners.prune(model, pruner, 0.1, [], seed=1)
    often = pruners.prune(model, pruner, 0.1, [], seed=1, rounds=5)
    assert any(not torch.equal(once[name], often[name]) for name in once)
    assert all(abs(int(once[name].sum()) - int(often[name].sum())) <= 1 for name in once)


@pytest.mark.parametrize("pruner", ["uniform", "erk"])
def test_positions_are_random_and_decided_by_the_seed(pruner):
    model, name = models.build("resnet20"), "blocks.8.conv2.weight"
    first, other = (pruners.prune(model, pruner, 0.2, [], seed=seed)[name] for seed in (1, 2))
    density = first.float().mean().item()
    chance = (density * (1 - density) / int(first.sum())) ** 0.5
    assert (first & other).sum().item() / first.sum().item() == pytest.approx(density, abs=5 * chance)
    for dim in range(4):  # no row or column is preferred
        shares = first.float().mean([d for d in range(4) if d != dim])
        deviation = (density * (1 - density) * len(shares) / first.numel()) ** 0.5
        assert ((shares - density).abs() < 5 * deviation).all()
    torch.manual_seed(9)
    state = torch.get_rng_state()
    pruners.prune(model, pruner, 0.2, [], seed=1)
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is not used"


def test_vectors_have_ratio_one():
    model = models.build("vgg11-bn")
    kept = pruners.prune(model, "erk", 0.02, [], also=masks.ALSO)
    shapes = {key: tuple(mask.shape) for key, mask in kept.items()}
    ratios = {key: sum(shape) / torch.Size(shape).numel() for key, shape in shapes.items()}
    expected = equation(shapes, ratios, 0.02)
    assert expected["fc.bias"] == 1
    assert all(abs(int(mask.sum()) - expected[key] * mask.numel()) <= 1.5 for key, mask in kept.items())


def test_erks_share_of_operations_is_the_published_one():
    """ResNet-50 on ImageNet at a tenth of the weights: 0.24 to 0.25 of the operations, Evci et al. 2020, figure 2."""
    model, shape = models.build("resnet50-imagenet", (3, 224, 224), 1000), (3, 224, 224)
    found = flops.macs(model, shape, pruners.prune(model, "erk", 0.1, []))
    assert found["macs_kept"] / found["macs_dense"] == pytest.approx(0.245, abs=0.008)
