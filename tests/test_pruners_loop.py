"""The loop of `prune`: what takes part, rounds, training mode, inverted scores, and pruners of one's own."""

import copy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import catalog, masks, models, pruners
from lib.pruners import loop

IMAGE = (2, 8, 8)
PRUNERS = [name for name in catalog.PRUNERS if name not in ("dense", *catalog.TRAINED)]
BOTH_MODES = [name for name in PRUNERS if name not in catalog.PER_IMAGE]
RUN = ("snip", "grasp", "synflow", "wanda")  # those that run the network
CHOICES = [
    {"also": ("biases",)},
    {"also": ("norms",)},
    {"spare": ("last",)},
    {"spare": ("shortcuts",)},
    {"also": ("biases", "norms"), "spare": ("shortcuts", "last")},
]


def batches(count=2, size=6, shape=IMAGE):
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, *shape, generator=draw), torch.randint(0, 10, (size,), generator=draw)) for _ in range(count)
    ]


def network(name="resnet8", seed=0) -> nn.Module:
    """With biases, shifts and statistics that are not zero, as after some training."""
    model, draw = models.build(name, IMAGE, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=draw)
    return model


def equal(first: dict, second: dict) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


# What takes part


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_density_is_a_share_of_what_takes_part(pruner, choice):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = pruners.prune(model, pruner, 0.3, batches(), rounds=2, **choice)
    chosen = masks.prunable(model, **choice)
    assert {name: mask.shape for name, mask in kept.items()} == {name: p.shape for name, p in chosen.items()}
    n = sum(parameter.numel() for parameter in chosen.values())
    assert sum(int(mask.sum()) for mask in kept.values()) == masks.kept_count(n, 0.3)
    assert equal(before, dict(model.state_dict()))


@pytest.mark.parametrize("pruner", PRUNERS)
def test_nothing_chosen_is_the_weights_as_ever(pruner):
    model = network()
    assert equal(
        pruners.prune(model, pruner, 0.2, batches(), also=[], spare=[]), pruners.prune(model, pruner, 0.2, batches())
    )


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_removed_weight_never_comes_back(pruner, scope, invert):
    """Seen round by round, with negative scores and with numbers that are drawn anew in every round."""
    seen = []

    def watched(*arguments, **options):
        seen.append(masks.keep_top(*arguments, **options))
        return seen[-1]

    with mock.patch.object(loop, "keep_top", watched):
        pruners.prune(
            network(), pruner, 0.05, batches(1), rounds=4, scope=scope, invert=invert, also=("norms",), spare=("last",)
        )
    assert len(seen) == 4
    counts = [sum(int(mask.sum()) for mask in kept.values()) for kept in seen]
    assert counts == sorted(set(counts), reverse=True)
    for earlier, later in zip(seen[:-1], seen[1:], strict=True):
        assert not any((later[name] & ~earlier[name]).any() for name in earlier)


def test_everything_spared_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 10))
    with pytest.raises(ValueError, match=r"nothing is prunable with also \(\) and spare \['last'\]"):
        pruners.prune(model, "mag", 0.5, [], spare=["last"])


def test_snip_scores_biases_and_norms_like_weights():
    """Against a plain backward pass through a copy of the model."""
    model, data = network(), batches()
    scores = pruners.snip(model, data, masks=masks.full(model, masks.ALSO))
    plain = copy.deepcopy(model).eval()
    sum(F.cross_entropy(plain(x), y) for x, y in data).backward()
    for name, parameter in plain.named_parameters():
        assert torch.allclose(scores[name], (parameter * parameter.grad).abs(), rtol=1e-4, atol=1e-8)
    assert list(scores) == [name for name, _ in plain.named_parameters()]


def test_synflow_scores_biases_and_norms_in_the_linearised_network():
    """Against a copy of the model whose parameters are overwritten by their absolute, masked values, in float64."""
    model = network()
    kept = pruners.prune(model, "rand", 0.6, [], also=masks.ALSO)
    scores = pruners.synflow(model, batches(1), masks=kept)
    linear = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.copy_(parameter.abs() * kept[name])
        for module in linear.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.zero_()
    linear(torch.ones(1, *IMAGE, dtype=torch.float64)).sum().backward()
    for name, parameter in linear.named_parameters():
        assert torch.allclose(scores[name], parameter * parameter.grad, rtol=1e-9, atol=0)


def test_synflows_flow_is_kept_when_biases_take_part():
    """What reaches the output passes a layer's weights, or enters through its bias or one further on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))
    scores = {
        k: s.sum().item() for k, s in pruners.synflow(model, batches(1), masks=masks.full(model, ("biases",))).items()
    }
    last = scores["5.weight"] + scores["5.bias"]
    assert scores["3.weight"] + scores["3.bias"] + scores["5.bias"] == pytest.approx(last, rel=1e-12)
    assert scores["1.weight"] + scores["1.bias"] + scores["3.bias"] + scores["5.bias"] == pytest.approx(last, rel=1e-12)


# Rounds: iterative SNIP and FORCE


def iterative(model: nn.Module, density: float, data: list, rounds: int, resurrecting: bool) -> dict:
    """de Jorge et al. 2021, by hand: |gradient at the pruned network x weight|, exponential schedule, no way back.

    FORCE takes the original weight, iterative SNIP the pruned one.
    """
    original = {name: weight.detach().clone() for name, weight in masks.prunable(model).items()}
    n = sum(weight.numel() for weight in original.values())
    alive = {name: torch.ones_like(weight) for name, weight in original.items()}
    for r in range(1, rounds + 1):
        pruned = copy.deepcopy(model).eval()
        with torch.no_grad():
            for name in alive:
                pruned.get_parameter(name).mul_(alive[name])
        for x, y in data:
            F.cross_entropy(pruned(x), y).backward()
        saliency = []
        for name in alive:
            weight = pruned.get_parameter(name)
            score = (weight.grad * (original[name] if resurrecting else weight.detach())).abs()
            saliency.append(score.masked_fill(alive[name] == 0, -1).flatten())
        order = torch.cat(saliency).argsort(descending=True, stable=True)
        keep = n - int((1 - density ** (r / rounds)) * n)
        flat = torch.zeros(n)
        flat[order[:keep]] = 1
        parts = flat.split([weight.numel() for weight in original.values()])
        alive = {name: part.view(original[name].shape) for name, part in zip(alive, parts, strict=True)}
    return {name: mask.bool() for name, mask in alive.items()}


@pytest.mark.parametrize("resurrecting", [False, True], ids=["iterative SNIP", "FORCE"])
def test_several_rounds_of_snip_are_iterative_snip_and_force(resurrecting):
    model, data = network().double(), [(x.double(), y) for x, y in batches()]
    kept = pruners.prune(model, "snip", 0.05, data, rounds=5)
    assert equal(kept, iterative(model, 0.05, data, 5, resurrecting))
    assert not equal(kept, pruners.prune(model, "snip", 0.05, data))


# Training mode


class Dropped(nn.Module):
    """Batch norm and dropout: what differs between the modes."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.drop, self.fc = nn.Dropout(0.4), nn.Linear(6 * 36, 10)

    def forward(self, x):
        return self.fc(self.drop(torch.relu(self.bn(self.conv(x))).flatten(1)))


@pytest.mark.parametrize("pruner", BOTH_MODES)
@pytest.mark.parametrize("make", [network, Dropped])
def test_training_mode_leaves_no_trace(pruner, make):
    torch.manual_seed(0)
    model = make()
    model.train()
    next(model.children()).eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    first = pruners.prune(model, pruner, 0.3, batches(), rounds=2, training=True, seed=4)
    assert equal(before, model.state_dict()), "running statistics and the number of batches too"
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert equal(first, pruners.prune(model, pruner, 0.3, batches(), rounds=2, training=True, seed=4))


@pytest.mark.parametrize("pruner", BOTH_MODES)
def test_the_mode_matters_where_the_network_is_run(pruner):
    model = network()
    modes = [pruners.prune(model, pruner, 0.3, batches(), training=training) for training in (False, True)]
    assert equal(*modes) == (pruner not in RUN)


def test_snip_in_training_mode_is_a_plain_backward_pass_in_training_mode():
    model, data = network(), batches()
    scores = pruners.snip(model, data, training=True)
    plain = copy.deepcopy(model).train()
    sum(F.cross_entropy(plain(x), y) for x, y in data).backward()
    for name, score in scores.items():
        weight = plain.get_parameter(name)
        assert torch.allclose(score, (weight * weight.grad).abs(), rtol=1e-4, atol=1e-8)


def test_grasp_in_training_mode_agrees_with_finite_differences():
    """Hg is the derivative of g along g, taken here in a copy in training mode."""
    model, data = network().double(), [(x.double(), y) for x, y in batches(1)]
    scores = pruners.grasp(model, data, training=True)
    names = list(scores)

    def gradient(step: float, direction: dict | None) -> dict:
        moved = copy.deepcopy(model).train()
        with torch.no_grad():
            for name in names if direction else []:
                moved.get_parameter(name).add_(direction[name], alpha=step)
        (x, y), weights = data[0], [moved.get_parameter(name) for name in names]
        found = torch.autograd.grad(F.cross_entropy(moved(x) / 200, y), weights)
        return dict(zip(names, found, strict=True))

    g, step = gradient(0, None), 1e-5  # small, for the kinks of ReLU
    ahead, behind = gradient(step, g), gradient(-step, g)
    for name in names:
        expected = model.get_parameter(name) * (ahead[name] - behind[name]) / (2 * step)
        assert torch.allclose(scores[name], expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


# Inverted scores


@pytest.mark.parametrize("density", [0.1, 0.7])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_inverted_keeps_the_lowest_scores(pruner, density):
    model, data = network(), batches()
    kept = pruners.prune(model, pruner, density, data, invert=True, seed=3)
    generator = torch.Generator().manual_seed(3)
    scores = catalog.load("pruner", pruner)(model, data, masks=masks.full(model), generator=generator)
    inside = torch.cat([scores[name][mask] for name, mask in kept.items()])
    outside = torch.cat([scores[name][~mask] for name, mask in kept.items()])
    assert len(inside) == masks.kept_count(len(inside) + len(outside), density)
    assert inside.max() <= outside.min()
    assert inside.min() < outside.max()


# A pruner of one's own, registered as the README says


def relative(model, batches, *, masks=None, generator=None):
    return {name: w.detach().abs() / w.detach().abs().mean() for name, w in prunable(model).items()}


prunable = masks.prunable


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(catalog.PRUNERS, "relative", f"{__name__}:relative")
    return "relative"


@pytest.mark.parametrize(
    "options",
    [{}, {"rounds": 3}, {"scope": "layer"}, {"invert": True}, {"spare": ("last",), "rounds": 2, "schedule": "linear"}],
    ids=str,
)
def test_a_pruner_of_ones_own_knows_nothing_of_options(own, options):
    model = network()
    kept = pruners.prune(model, own, 0.2, [], **options)
    n = sum(mask.numel() for mask in kept.values())
    assert list(kept) == list(masks.prunable(model, spare=options.get("spare", ())))
    if "scope" not in options:
        assert sum(int(mask.sum()) for mask in kept.values()) == masks.kept_count(n, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": True}, "training is True and pruner relative takes no argument of this name: False is allowed"),
        ({"also": ("norms",)}, r"scores of pruner relative for bn.weight are none: \(16,\) is needed"),
        ({"also": ("bias",)}, "also is .*: a list of some of biases, norms"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(own, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        pruners.prune(network(), own, 0.2, [], **options)
    assert "\n" not in str(caught.value)
