import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from lib import catalog, masks, models, pruners

IMAGE = (2, 8, 8)
# those that remove something, and score batches
PRUNERS = [name for name in catalog.PRUNERS if name not in ("dense", *catalog.TRAINED)]
DRAWN = ("rand", "uniform", "erk")


def batches(count=2, size=6, shape=IMAGE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(count)
    ]


def network(name="resnet8", shape=IMAGE):
    return models.build(name, shape)


def feed_forward() -> nn.Module:
    """A small VGG: convolutions with batch norm and pooling, no biases, no shortcuts."""
    torch.manual_seed(0)
    plan, layers, inputs = [8, "pool", 16, 16, "pool", 32], [], IMAGE[0]
    for width in plan:
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * 4, 10, bias=False))


class ThreeWeights(nn.Module):
    """Logits (a b x1 + c x2, 0): small enough for its Hessian to be written down."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1, 1, bias=False)
        self.second = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.first.weight[:] = 0.75
            self.second.weight[:] = torch.tensor([[-1.25, 0.5]])

    def forward(self, x):  # (N, 2)
        logit = self.second(torch.cat([self.first(x[:, :1]), x[:, 1:]], 1))
        return torch.cat([logit, torch.zeros_like(logit)], 1)


def three_weight_batches():
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(4, 2, generator=generator), torch.randint(0, 2, (4,), generator=generator)) for _ in range(2)]


# Every pruner of the catalogue


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("name", ["fc", "resnet8"])
def test_scoring_leaves_the_model_as_it_was(pruner, name):
    model = network(name).train()
    first = next(model.children())
    first.eval()  # a single module in another mode must come back so
    next(model.parameters()).requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(model)
    parameters = list(model.parameters())
    pruners.prune(model, pruner, 0.2, batches(), rounds=2)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    for key, value in before.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    for a, b in zip(before.parameters(), model.parameters(), strict=True):
        assert a.requires_grad == b.requires_grad
        assert torch.equal(b.grad, torch.ones_like(b))
    for a, b in zip(before.modules(), model.modules(), strict=True):
        assert a.training == b.training
        assert not b._forward_hooks
        assert not b._backward_hooks
        assert not b._forward_pre_hooks


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(("rounds", "schedule"), [(1, "exponential"), (3, "exponential"), (3, "linear")])
def test_the_kept_count_is_exact(pruner, scope, rounds, schedule):
    model = network()
    kept = pruners.prune(model, pruner, 0.13, batches(), rounds=rounds, schedule=schedule, scope=scope)
    sizes = [weight.numel() for weight in masks.prunable(model).values()]
    counts = [int(mask.sum()) for mask in kept.values()]
    if scope == "global":
        assert sum(counts) == masks.kept_count(sum(sizes), 0.13)
    else:
        assert counts == [masks.kept_count(n, 0.13) for n in sizes]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_masks_are_nested_over_densities_and_keep_all_at_one(pruner):
    model = network()
    found = [pruners.prune(model, pruner, density, batches(), seed=5) for density in (0.05, 0.3, 0.8, 1.0)]
    for smaller, larger in zip(found[:-1], found[1:], strict=True):
        assert all(bool((larger[name] | ~smaller[name]).all()) for name in larger)
    assert masks.density_of(found[-1]) == 1


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_same_seed_gives_the_same_masks(pruner):
    first, second = (pruners.prune(network(), pruner, 0.2, batches(), rounds=2, seed=1) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_seeds_give_other_masks():
    model = network()
    first, second = (pruners.prune(model, "rand", 0.2, [], seed=seed) for seed in (1, 2))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    pruners.prune(model, "rand", 0.2, [], seed=1)
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is not used"


# WoodFisher knows what is removed from what happens to be zero: its Fisher matrix is of the rest
@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name not in (*DRAWN, "woodfisher")])
def test_removed_weights_count_as_zero_in_later_rounds(pruner):
    """Scoring under masks equals scoring a network whose removed weights are zero."""
    model = network()
    kept = pruners.prune(model, "rand", 0.4, [])
    score = catalog.load("pruner", pruner)
    under_masks = score(model, batches(), masks=kept)
    masks.apply_masks_(model, kept)
    permanent = score(model, batches())
    assert all(torch.equal(under_masks[name], permanent[name]) for name in kept)


@pytest.mark.parametrize("pruner", ["dense", *PRUNERS])
def test_scores_carry_no_graph_and_work_without_gradients_enabled(pruner):
    model = network()
    expected = catalog.load("pruner", pruner)(model, batches(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = catalog.load("pruner", pruner)(model, batches(), generator=torch.Generator().manual_seed(0))
    assert list(found) == list(masks.prunable(model))
    for name, score in found.items():
        assert not score.requires_grad
        assert torch.equal(score, expected[name])


# Each against what its paper says


def test_mag_is_the_absolute_weight():
    model = network()
    assert all(torch.equal(s, model.get_parameter(n).abs()) for n, s in pruners.mag(model, []).items())


def test_dense_keeps_everything():
    kept = pruners.prune(network(), "dense", 1.0, [])
    assert masks.density_of(kept) == 1


def test_rand_is_normal():
    scores = torch.cat([score.flatten() for score in pruners.rand(network("fc"), []).values()])
    assert abs(scores.mean().item()) < 0.02
    assert scores.std().item() == pytest.approx(1, abs=0.02)


def test_snip_agrees_with_finite_differences_of_a_mask_multiplier():
    model = network("fc").double().eval()
    data = [(x.double(), y) for x, y in batches()]
    scores = pruners.snip(model, data)

    def loss(name, index, multiplier):
        weight = model.get_parameter(name).detach().clone()
        weight[index] *= multiplier
        with torch.no_grad():
            return sum(F.cross_entropy(functional_call(model, {name: weight}, (x,)), y).item() for x, y in data)

    step = 1e-4
    for name in ("layers.0.weight", "layers.3.weight", "layers.5.weight"):
        for index in [(0, 1), (3, 7), (9, 50)]:
            slope = (loss(name, index, 1 + step) - loss(name, index, 1 - step)) / (2 * step)
            assert scores[name][index].item() == pytest.approx(abs(slope), rel=1e-5, abs=1e-10)


def test_grasp_agrees_with_an_explicit_hessian():
    model, data, temperature = ThreeWeights().double(), three_weight_batches(), 200.0
    data = [(x.double(), y) for x, y in data]
    flat = torch.cat([model.first.weight.flatten(), model.second.weight.flatten()]).detach()

    def loss(weights, x, y):
        named = {"first.weight": weights[:1].view(1, 1), "second.weight": weights[1:].view(1, 2)}
        return F.cross_entropy(functional_call(model, named, (x,)) / temperature, y)

    hessian = sum(torch.autograd.functional.hessian(lambda w, x=x, y=y: loss(w, x, y), flat) for x, y in data)
    gradient = sum(torch.autograd.functional.jacobian(lambda w, x=x, y=y: loss(w, x, y), flat) for x, y in data)
    expected = flat * (hessian @ gradient)
    scores = pruners.grasp(model, data, temperature=temperature)
    found = torch.cat([scores["first.weight"].flatten(), scores["second.weight"].flatten()])
    assert torch.allclose(found, expected, rtol=1e-10, atol=0)
    assert (found < 0).any(), "an example where the sign matters"


def test_grasp_of_the_three_weights_by_hand():
    """One example of class 0, logit z = a b x1 + c x2, loss log(1 + exp(-z / T)); u and v its derivatives by z."""
    model, t = ThreeWeights().double(), 200.0
    a, b, c, x1, x2 = 0.75, -1.25, 0.5, 1.5, -0.6
    z = torch.tensor((a * b * x1 + c * x2) / t, dtype=torch.float64)
    u, v = (torch.sigmoid(z) - 1).item() / t, (torch.sigmoid(z) * (1 - torch.sigmoid(z))).item() / t**2
    dz = torch.tensor([b * x1, a * x1, x2], dtype=torch.float64)
    hessian = v * torch.outer(dz, dz)
    hessian[0, 1] += u * x1
    hessian[1, 0] += u * x1
    expected = torch.tensor([a, b, c], dtype=torch.float64) * (hessian @ (u * dz))
    example = (torch.tensor([[x1, x2]], dtype=torch.float64), torch.tensor([0]))
    scores = pruners.grasp(model, [example])
    found = torch.cat([scores["first.weight"].flatten(), scores["second.weight"].flatten()])
    assert torch.allclose(found, expected, rtol=1e-10, atol=0)


def test_synflow_layer_sums_are_equal_in_a_feed_forward_net_without_biases():
    model = feed_forward()
    sums = [score.sum().item() for score in pruners.synflow(model, batches(1)).values()]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-9)
    assert sums[0] > 0


def test_synflow_layer_sums_stay_equal_on_trained_statistics_of_the_mean():
    """Running means are set to zero; subtracting them, as the original does, breaks the conservation of flow."""
    model = feed_forward()
    model[1].running_mean.uniform_(-1, 1)
    sums = [score.sum().item() for score in pruners.synflow(model, batches(1)).values()]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-9)


def test_synflow_by_hand_on_two_layers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[1].weight[:] = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        model[3].weight[:] = torch.tensor([[-5.0, 6.0]])
    scores = pruners.synflow(model, [(torch.randn(3, 1, 1, 2), torch.zeros(3))])
    assert scores["1.weight"].tolist() == [[5.0, 10.0], [18.0, 24.0]]
    assert scores["3.weight"].tolist() == [[15.0, 42.0]]


def test_synflow_does_not_overflow_in_the_deepest_network():
    scores = pruners.synflow(network("resnet110"), batches(1))
    assert all(score.dtype == torch.float64 and torch.isfinite(score).all() for score in scores.values())


def test_one_round_of_synflow_collapses_the_fc_net_and_a_hundred_do_not():
    shape = (1, 28, 28)
    model, data = network("fc", shape), batches(1, shape=shape)
    once = pruners.prune(model, "synflow", 0.1, data)
    assert masks.collapsed(model, once, shape) == {"layers": ["layers.0"], "connected": False}
    often = pruners.prune(model, "synflow", 0.1, data, rounds=100)
    assert masks.collapsed(model, often, shape) == {"layers": [], "connected": True}


def test_one_round_of_synflow_empties_layers_of_resnet20_but_leaves_it_connected():
    model, shape = network("resnet20", (3, 32, 32)), (3, 32, 32)
    found = masks.collapsed(model, pruners.prune(model, "synflow", 0.1, batches(1, shape=shape)), shape)
    assert 2 <= len(found["layers"]) <= 4
    assert found["connected"]


# Schedules and misuse


def test_schedules():
    assert pruners.densities(0.01, 2, "exponential") == pytest.approx([0.1, 0.01])
    assert pruners.densities(0.1, 3, "linear") == pytest.approx([0.7, 0.4, 0.1])
    assert pruners.densities(0.3, 1, "linear") == [0.3]
    assert pruners.densities(0.3, 7, "linear")[-1] == 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruner": "random"}, "unknown pruner 'random': one of .*rand, mag, snip, grasp, synflow"),
        ({"density": 0}, "density is 0"),
        ({"density": 1.5}, "density is 1.5"),
        ({"density": 0.5, "pruner": "dense"}, "density is 0.5 with pruner dense: 1 is allowed there"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 1.5}, "rounds is 1.5"),
        ({"schedule": "cubic"}, "unknown schedule 'cubic': one of exponential, linear"),
        ({"scope": "local"}, "unknown scope 'local': one of global, layer"),
        ({"batches": []}, "no scoring batches"),
    ],
)
def test_misuse_is_named_in_one_line(changes, message):
    arguments = {"pruner": "snip", "density": 0.5, "batches": batches(1)} | changes
    with pytest.raises(ValueError, match=message) as caught:
        pruners.prune(network("fc"), **arguments)
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_no_finite_loss_is_refused_by_layer():
    model = network("fc")
    with torch.no_grad():
        model.layers[2].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"scores of layers.0.weight are not all finite"):
        pruners.prune(model, "snip", 0.5, batches(1))
