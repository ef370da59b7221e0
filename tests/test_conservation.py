"""The theorems of Tanaka et al. 2020 where they hold and where they must not, against finite differences and numpy."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import conservation, data, masks, models, pruners, train

CONSERVED = ["synflow", conservation.SALIENCY]


class Chain(nn.Module):
    """A small VGG: convolutions, pools, a flattened 2x2 map, two linear layers; biases that are not zero."""

    def __init__(self, activation=torch.relu_):
        super().__init__()
        self.activation = activation
        self.convs = nn.ModuleList([nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)])
        self.linears = nn.ModuleList([nn.Linear(12, 5), nn.Linear(5, 3)])

    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(self.activation(conv(x)), 2)
        return self.linears[1](self.activation(self.linears[0](x.flatten(1))))


class Fork(nn.Module):
    """Units that two layers read, and units that one layer reads twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = torch.relu(self.a(x.flatten(1)))
        return self.d(torch.relu(self.c(x))) + self.b(x)


def seeded(build, *arguments) -> nn.Module:
    torch.manual_seed(0)
    return build(*arguments)


def random_batches(shape, classes: int, count: int = 2) -> list:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, *shape, generator=generator), torch.randint(classes, (6,), generator=generator))
        for _ in range(count)
    ]


def network(name: str) -> tuple[nn.Module, list]:
    if name == "chain":
        return seeded(Chain), random_batches((2, 8, 8), 3)
    return models.build(name, (1, 16, 16), 4, seed=3), random_batches((1, 16, 16), 4)


def measured(model, batches, names=("rand", "mag", "snip", "grasp", "synflow")) -> tuple[pd.DataFrame, pd.DataFrame]:
    units, layers = conservation.measure(model, batches, list(names), seed=5)
    return pd.DataFrame(units), pd.DataFrame(layers)


def difference(units: pd.DataFrame, score: str) -> float:
    """The largest |incoming - outgoing| in shares of the larger."""
    part = units.loc[units["score"] == score, ["incoming", "outgoing"]]
    return ((part["incoming"] - part["outgoing"]).abs() / part.abs().max(axis=1).clip(lower=1e-300)).max()


# Which units lie between two layers


@pytest.mark.parametrize(
    ("name", "between"),
    [
        ("chain", "convs.0 convs.1 linears.0 linears.1"),
        ("fc", "layers.0 layers.1 layers.2 layers.3 layers.4 layers.5"),
        ("vgg11", "layers.0 layers.2 layers.4 layers.5 layers.7 layers.8 layers.10 layers.11 fc"),
    ],
)
def test_in_a_chain_every_two_layers_are_linked(name, between):
    model, batches = network(name)
    order = [f"{layer}.conv" if name == "vgg11" and layer != "fc" else layer for layer in between.split()]
    assert conservation.links(model, batches) == list(zip(order[:-1], order[1:], strict=True))


def test_shared_units_are_left_out():
    model, batches = network("resnet8")
    inner = [(f"blocks.{n}.conv1", f"blocks.{n}.conv2") for n in range(3)]
    assert conservation.links(model, batches) == inner
    assert conservation.links(seeded(Fork), random_batches((4, 1, 1), 4)) == [("c", "d")]
    with pytest.raises(ValueError, match="no hidden unit of the network lies between two layers alone"):
        conservation.measure(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), random_batches((4, 1, 1), 2), ["mag"])


def test_looking_leaves_the_network_alone():
    model, batches = network("resnet8")
    model.train()
    before, modes = deepcopy(model.state_dict()), [m.training for m in model.modules()]
    conservation.measure(model, batches, ["snip", "synflow"])
    conservation.cut_rows(model, batches, [0.5], [2])
    bare = conservation.without_biases(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert bare is not model


def test_without_biases_changes_nothing_else():
    model, _ = network("chain")
    bare = conservation.without_biases(model).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(bare[name], torch.zeros_like(value) if name.endswith("bias") else value)
        assert value.any()


# Theorem 1: units


@pytest.mark.parametrize("name", ["chain", "fc", "resnet8"])
def test_saliencies_of_units_are_conserved_and_other_scores_are_not(name):
    units, _ = measured(*network(name))
    for score in CONSERVED:
        assert difference(units, score) < 1e-9
    for score in ("rand", "mag", "snip", "grasp"):
        assert difference(units, score) > 0.1


def test_units_are_not_conserved_where_activations_are_not_homogeneous():
    units, _ = measured(seeded(Chain, torch.tanh), random_batches((2, 8, 8), 3))
    assert min(difference(units, score) for score in CONSERVED) > 0.01


def test_sums_of_units_are_the_derivatives_of_a_common_factor():
    """Incoming: of L by a factor on a unit's weights and bias; outgoing: by one on the weights that read it."""
    model, batches = network("chain")
    units, _ = measured(model, batches, ["mag"])
    model, step = model.double(), 1e-6

    def loss(changed: dict) -> float:
        state = model.state_dict() | changed
        return sum(F.cross_entropy(torch.func.functional_call(model, state, (x.double(),)), y) for x, y in batches)

    def slope(factors: dict) -> float:
        """d loss / d factor at 1, where `factors` say what is scaled."""
        state = model.state_dict()
        ends = [loss({n: state[n] * (1 + sign * step * f) for n, f in factors.items()}) for sign in (1, -1)]
        return float(ends[0] - ends[1]) / (2 * step)

    for unit in (0, 2):
        row = units[(units["score"] == "saliency") & (units["layer"] == "convs.1") & (units["unit"] == unit)].iloc[0]
        one = torch.zeros(3, dtype=torch.float64)
        one[unit] = 1
        into = slope({"convs.1.weight": one.view(3, 1, 1, 1), "convs.1.bias": one})
        out_of = slope({"linears.0.weight": one.repeat_interleave(4)})
        assert row["incoming"] == pytest.approx(into, rel=1e-5, abs=1e-9)
        assert row["outgoing"] == pytest.approx(out_of, rel=1e-5, abs=1e-9)
        assert abs(into) > 1e-6


def test_unit_sums_equal_numpy():
    generator = np.random.default_rng(0)
    conv, bias, linear = (generator.normal(size=shape) for shape in ((3, 2, 2, 2), (3,), (4, 12)))
    scores = {"a.weight": torch.tensor(conv), "a.bias": torch.tensor(bias), "b.weight": torch.tensor(linear)}
    rows = pd.DataFrame(conservation.unit_rows(scores, [("a", "b")]))
    np.testing.assert_allclose(rows["incoming"], conv.sum((1, 2, 3)) + bias)
    np.testing.assert_allclose(rows["outgoing"], [linear[:, 4 * n : 4 * n + 4].sum() for n in range(3)])
    assert rows["unit"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="b has 10 inputs for the 3 units of a: a multiple is allowed"):
        conservation.unit_rows(scores | {"b.weight": torch.ones(4, 10)}, [("a", "b")])


def test_saliency_is_what_snip_takes_the_absolute_value_of():
    model, batches = network("chain")
    signed = conservation.saliency(model, batches)
    for name, score in pruners.snip(model, batches).items():
        torch.testing.assert_close(signed[name].abs(), score)
    assert any((score < 0).any() for score in signed.values())


def test_unknown_scores_are_refused():
    model, batches = network("chain")
    with pytest.raises(ValueError, match="unknown pruner 'snap': one of "):
        conservation.measure(model, batches, ["mag", "snap"])


# Theorem 2: layers


def test_every_layer_of_a_chain_without_biases_holds_what_the_outputs_hold():
    model, batches = network("chain")
    bare = conservation.without_biases(model).double()
    _, layers = measured(bare, batches)
    totals = {score: part["total"].to_numpy() for score, part in layers.groupby("score")}
    flow = 0.0  # of L: the sum of logits times dL/dlogits
    for x, y in batches:
        logits = bare(x.double()).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), logits)
        flow += (gradient * logits).sum().item()
    np.testing.assert_allclose(totals["saliency"], flow, rtol=1e-9)
    for parameter in bare.parameters():
        parameter.data.abs_()
    np.testing.assert_allclose(totals["synflow"], bare(torch.ones(1, 2, 8, 8).double()).sum().item(), rtol=1e-9)
    for score in ("rand", "mag", "snip"):
        assert np.ptp(totals[score]) > 0.1 * np.abs(totals[score]).max()


def test_biases_are_sources_between_layers():
    """Each layer holds what the one before it holds, and its own biases."""
    model, batches = network("chain")
    _, layers = measured(model, batches)
    totals = layers.loc[layers["score"] == "synflow", "total"].to_numpy()
    scores = pruners.synflow(model, batches, masks=masks.full(model, also=["biases"]))
    biases = [score.sum().item() for name, score in scores.items() if name.endswith("bias")]
    np.testing.assert_allclose(np.diff(totals), biases[1:], rtol=1e-9)
    assert min(biases) > 1e-3 * totals[-1]


@pytest.mark.parametrize("score", CONSERVED)
def test_shortcuts_share_the_flow(score):
    _, layers = measured(*network("resnet8"))
    total = layers[layers["score"] == score].set_index("layer")["total"]
    whole = total["fc"]
    assert total["conv"] == pytest.approx(whole, rel=1e-9)  # cuts of the whole network
    for block in ("blocks.1", "blocks.2"):
        inner, beside = total[f"{block}.conv2"], total[f"{block}.shortcut.0"]
        assert inner + beside == pytest.approx(whole, rel=1e-9)
        assert min(abs(inner), abs(beside)) > 1e-3 * abs(whole)
    assert total["blocks.0.conv1"] != pytest.approx(whole, rel=1e-3)  # its shortcut carries no weights


def test_layer_rows_count_biases():
    scores = {"a.weight": torch.tensor([[1.0, -4.0]]), "a.bias": torch.tensor([1.0]), "b.weight": torch.ones(2, 1)}
    assert conservation.layer_rows(scores) == [
        {"layer": "a", "size": 3, "total": -2.0, "mean": 2 / 3},
        {"layer": "b", "size": 2, "total": 2.0, "mean": 1.0},
    ]


# Theorem 3: cuts


def small(seed: int = 0) -> tuple[nn.Module, list]:
    torch.manual_seed(seed)
    sizes = (16, 12, 6, 3)
    layers = [nn.Linear(a, b, bias=False) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    model = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    return model, random_batches((1, 4, 4), 3, count=1)


def numpy_cuts(model: nn.Module, steps: list[float]) -> tuple[list[float], list[int]]:
    """Cut over flow in each round of SynFlow on `small`, and the layers' sizes after them."""
    weights = [layer.weight.detach().double().abs().numpy() for layer in model if isinstance(layer, nn.Linear)]
    total, ratios = sum(w.size for w in weights), []
    for step in steps:
        forward, backward = [np.ones(16)], [np.ones(3)]
        for w in weights:
            forward.append(w @ forward[-1])
        for w in weights[::-1]:
            backward.append(backward[-1] @ w)
        scores = [w * np.outer(b, f) for w, f, b in zip(weights, forward, backward[-2::-1], strict=False)]
        flat = np.concatenate([s.ravel() for s in scores])
        gone = np.argsort(flat, kind="stable")[: int((1 - step) * total)]
        ratios.append(flat[gone].sum() / forward[-1].sum())
        edges = np.cumsum([0, *(w.size for w in weights)])
        for w, low, high in zip(weights, edges[:-1], edges[1:], strict=True):
            w.ravel()[gone[(gone >= low) & (gone < high)] - low] = 0
    return ratios, [np.count_nonzero(w) for w in weights]


@pytest.mark.parametrize("schedule", pruners.SCHEDULES)
@pytest.mark.parametrize("rounds", [1, 4])
def test_cuts_equal_numpy(schedule, rounds):
    model, batches = small()
    rows = conservation.cut_rows(model, batches, [0.3], [rounds])
    (row,) = (row for row in rows if row["schedule"] == schedule)
    ratios, sizes = numpy_cuts(model, pruners.densities(0.3, rounds, schedule))
    assert row["cut_ratio"] == pytest.approx(max(ratios), rel=1e-9)
    assert (row["kept"], row["emptied"]) == (sum(sizes), sizes.count(0))


def test_a_schedule_that_never_cuts_the_flow_empties_no_layer():
    rows = []
    for seed in range(4):
        model, batches = small(seed)
        rows += conservation.cut_rows(model, batches, [0.5, 0.1, 0.03], [1, 3, 10, 40])
    frame = pd.DataFrame(rows)
    below = frame["cut_ratio"] < 1 - 1e-9  # what removes all of the flow removes 1 of it up to rounding
    assert below.sum() > 20
    assert (frame.loc[below, "emptied"] == 0).all()
    assert (frame.loc[~below, "emptied"] > 0).any()  # the condition is needed
    for density, part in frame.groupby("density"):
        assert set(part["kept"]) == {masks.kept_count(16 * 12 + 12 * 6 + 6 * 3, density)}
    finest = frame[frame["rounds"] == 40].groupby("schedule")["cut_ratio"].max()
    assert finest["exponential"] < 0.95
    assert finest["linear"] > 1 - 1e-9


# Magnitudes while training


def test_magnitudes_are_those_before_and_after_each_epoch():
    digits = data.load("digits", train_images=60, seed=1)
    one, other = (models.build("fc", digits.shape, 10, seed=2) for _ in range(2))
    seen = []
    recipe = {"optimizer": "momentum", "lr": 0.01, "batch": 20, "seed": 3}
    watched, history = conservation.train_watched(one, digits, epochs=2, on_epoch=seen.append, **recipe)
    before = conservation.magnitude_rows(other, 0)
    expected = train.train(other, digits, epochs=2, **recipe)
    assert [row["epoch"] for row in watched] == [0] * 6 + [1] * 6 + [2] * 6
    assert watched[:6] == before
    assert watched[12:] == conservation.magnitude_rows(other, 2)
    assert [row["test_loss"] for row in history] == [row["test_loss"] for row in expected]
    assert seen == history
    squares = torch.cat([p.detach().double().flatten() ** 2 for p in one.layers[5].parameters()])
    assert watched[-1]["size"] == len(squares) == 1010
    assert watched[-1]["mean_square"] == pytest.approx(squares.mean().item(), rel=1e-12)
