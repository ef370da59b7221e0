"""Units of weights: exactly as many as were asked for, by scores that other code finds too."""

import copy

import pytest
import torch
from test_compact import lively
from torch import nn
from torch.nn.utils import prune

from lib import catalog, masks, models
from lib.granularity import keep_units, successors
from lib.pipeline.network import Network
from lib.pipeline.weights import METHODS, of_layers, prune_weights

NINE = ["element-rand", *(f"{unit}-{norm}" for unit in catalog.GRANULARITIES for norm in ("l1", "l2"))]
DENSITIES = [0, 0.1, 0.37, 0.9, 1]


def same(a: masks.Masks, b: masks.Masks) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kept_count(n: int, density: float) -> int:
    """n less the share that goes, rounded down, in whole numbers: density is a number of hundredths."""
    return n - (100 - round(100 * density)) * n // 100


MODELS = {
    "fc": (1, 6, 6), "conv": (2, 6, 6), "resnet8": (3, 8, 8), "vgg7": (3, 8, 8), "lenet-300-100": (1, 6, 6),
    "transformer": (7, 50), "mlp-2x16": (1, 6, 6), "mlp-2x16 of texts": (7, 50), "own": (3, 8, 8),
}  # fmt: skip


class Own(nn.Module):
    """1x1 and grouped convolutions, a layer of one weight, one that is zero from the start."""

    def __init__(self):
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, padding=1)
        self.grouped, self.last = nn.Conv2d(12, 12, 3, groups=4), nn.Linear(12, 5)
        self.scale, self.empty = nn.Linear(1, 1), nn.Linear(5, 5)
        nn.init.zeros_(self.empty.weight)

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.wide(torch.relu(self.narrow(x))))))
        x = self.last(x.mean((2, 3)))
        return x + self.empty(x) * self.scale(x.new_ones(1))


def network(name: str) -> Network:
    torch.manual_seed(0)
    model = Own().eval() if name == "own" else models.build(name.removesuffix(" of texts"), MODELS[name], 5)
    model = model if name == "own" else lively(model)
    return Network(model, masks.full(model))


def images(name: str, count: int = 4) -> torch.Tensor:
    shape, generator = MODELS[name], torch.Generator().manual_seed(3)
    if len(shape) == 2:
        return torch.randint(1, shape[1], (count, shape[0]), generator=generator)
    return torch.randn(count, *shape, generator=generator)


def batches(name: str) -> list:
    return [(images(name), torch.arange(4))]


def units_kept(mask: torch.Tensor, unit: str) -> torch.Tensor:
    """bool, one a unit; a unit is kept whole or not at all."""
    whole = {"element": mask.flatten(), "kernel": mask.flatten(2).flatten(0, 1) if mask.ndim == 4 else mask.flatten()}
    parts = whole.get(unit, mask.flatten(1)).reshape(
        -1, {"element": 1, "kernel": mask[0, 0].numel()}.get(unit, mask[0].numel())
    )
    assert torch.equal(parts.any(1), parts.all(1))
    return parts.all(1)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", MODELS)
def test_exactly_so_many_units_of_every_layer_are_kept(name, density):
    net = network(name)
    for method in NINE:
        found = prune_weights(net, method, density, shape=MODELS[name], seed=1)
        unit = METHODS[method][0]
        for key, mask in found.masks.items():
            if unit != "multi":
                kept = units_kept(mask, unit)
                assert int(kept.sum()) == (kept_count(len(kept), density) if density else 0), (method, key)
            assert torch.equal(found.model.get_parameter(key), net.model.get_parameter(key) * mask)
        assert torch.isfinite(found.model(images(name))).all()
        if density == 0 and name not in ("transformer", "own"):
            assert masks.density_of(found.masks) == 0, "of the transformer and `own` some outputs stay with multi"
        rest = {k: v for k, v in net.model.state_dict().items() if k not in net.masks}
        assert all(torch.equal(found.model.state_dict()[k], v) for k, v in rest.items())
        assert all(mask.all() for mask in net.masks.values()), "what was given stays as it was"


@pytest.mark.parametrize("name", ["conv", "resnet8", "transformer", "own"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_every_method_of_the_catalogue_prunes(name, scope):
    net = network(name)
    for method in METHODS:
        if MODELS[name] == (7, 50) and "synflow" in method:
            continue  # its input is an image of ones
        found = prune_weights(net, method, 0.5, scope=scope, batches=batches(name), seed=1)
        again = prune_weights(net, method, 0.5, scope=scope, batches=batches(name), seed=1)
        assert same(found.masks, again.masks), method
        assert 0 < masks.density_of(found.masks) < 1, method


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("name", ["fc", "conv", "resnet8", "own"])
def test_channels_and_weights_are_those_that_torch_removes(name, norm):
    net = network(name)
    channel, element = (prune_weights(net, f"{unit}-l{norm}", 0.37) for unit in ("channel", "element"))
    everywhere = prune_weights(net, f"element-l{norm}", 0.37, scope="global")
    theirs = copy.deepcopy(net.model).to(memory_format=torch.contiguous_format)  # as torch's pruning needs it
    layers = {key: theirs.get_submodule(key.removesuffix(".weight")) for key in net.masks}
    total = sum(mask.numel() for mask in net.masks.values())
    prune.global_unstructured(
        [(m, "weight") for m in layers.values()], prune.L1Unstructured, amount=total - kept_count(total, 0.37)
    )
    for key, layer in layers.items():
        if key != "empty.weight":  # of equal scores each keeps others
            assert torch.equal(everywhere.masks[key], layer.weight_mask.bool())
        prune.remove(layer, "weight")
    theirs = copy.deepcopy(net.model).to(memory_format=torch.contiguous_format)
    for key in net.masks:
        if key == "empty.weight":
            continue
        layer = theirs.get_submodule(key.removesuffix(".weight"))
        n, all_of = len(layer.weight), layer.weight.numel()
        other = copy.deepcopy(layer)
        prune.ln_structured(layer, "weight", n - kept_count(n, 0.37), n=norm, dim=0)
        prune.l1_unstructured(other, "weight", all_of - kept_count(all_of, 0.37))
        assert torch.equal(channel.masks[key], layer.weight_mask.bool())
        assert torch.equal(element.masks[key], other.weight_mask.bool())


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
def test_kernels_kept_have_the_largest_norms(norm, order):
    net = network("resnet8")
    found = prune_weights(net, f"kernel-{norm}", 0.3)
    for key, mask in found.masks.items():
        weight = net.model.get_parameter(key).detach()
        sizes = weight.flatten(2).norm(order, 2) if weight.ndim == 4 else weight.abs()
        kept = mask.flatten(2).all(2) if weight.ndim == 4 else mask
        assert sizes[kept].min() >= sizes[~kept].max()


def test_a_weight_s_norms_are_one_and_other_granularities_are_not():
    net = network("conv")
    found = {
        method: prune_weights(net, method, 0.4).masks
        for method in METHODS
        if METHODS[method][1] == "mag" and "multi" not in method
    }
    assert same(found["element-l2"], found["element-l1"])
    assert not same(found["kernel-l1"], found["element-l1"])
    assert not same(found["channel-l1"], found["channel-l2"])
    linear = network("fc")
    assert same(prune_weights(linear, "kernel-l1", 0.4).masks, prune_weights(linear, "element-l1", 0.4).masks)


# Channels with what reads them


@pytest.mark.parametrize("norm", [1, 2])
def test_half_the_row_and_half_the_next_layer_s_slice(norm):
    net = network("fc")
    found = prune_weights(net, f"multi-l{norm}", 0.3, shape=MODELS["fc"])
    weights = [net.model.get_parameter(key).detach() for key in net.masks]
    kept = list(found.masks.values())
    for i in range(len(weights) - 1):
        mixed = weights[i].norm(norm, 1) / 2 + weights[i + 1].norm(norm, 0) / 2
        chosen = mixed.topk(kept_count(len(mixed), 0.3)).indices.sort().values
        inputs = slice(None) if i == 0 else kept[i - 1].any(0)
        assert torch.equal(kept[i].any(1).nonzero().flatten(), chosen)
        assert torch.equal(kept[i + 1].any(0).nonzero().flatten(), chosen), "the slice goes with the row"
        if i == 0:
            assert kept[0][chosen][:, inputs].all()
    assert kept[-1].any(1).all(), "classes stay"


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("name", ["conv", "resnet8", "mlp-2x16 of texts", "transformer", "own"])
def test_nothing_reads_a_channel_that_is_gone(name, scope):
    """Whatever its bias and its batch norm say, the network's output is the same."""
    net = network(name)
    found = prune_weights(net, "multi-l1", 0.5, scope=scope, shape=MODELS[name])
    expected = found.model(images(name)).detach()
    changed = 0
    for group in successors(net.model, MODELS[name]):
        rows = [found.masks[f"{layer}.weight"].flatten(1).any(1) for layer in group.layers]
        kept = torch.stack(rows).any(0)
        for row in rows:  # layers that meet in a sum lose the same; one may have lost all it reads
            assert torch.equal(row, kept) or (scope == "global" and not row.any())
        if scope == "local":
            assert int(kept.sum()) == kept_count(len(kept), 0.5)
        with torch.no_grad():
            for part in group.parts:
                bias = found.model.get_submodule(part.layer).bias
                if part.side == "outputs" and bias is not None:
                    gone = ~kept[part.units]
                    bias[part.positions[gone]] += 3
                    changed += int(gone.sum())
    assert changed
    torch.testing.assert_close(found.model(images(name)), expected)


def test_coupled_layers_need_one_density():
    net = network("resnet8")
    with pytest.raises(
        ValueError, match="densities of layers that share their channels differ .*conv 0.5.*one density"
    ):
        prune_weights(net, "multi-l1", 0.2, shape=MODELS["resnet8"], densities={"conv": 0.5})
    with pytest.raises(ValueError, match="shape and batches are missing: multi needs one of them"):
        prune_weights(net, "multi-l1", 0.2)


# All units compete


@pytest.mark.parametrize("method", [*NINE, "snip", "channel-snip"])
@pytest.mark.parametrize("name", ["fc", "conv", "resnet8", "own"])
def test_globally_the_weights_of_kept_units_come_within_half_a_unit(name, method):
    net = network(name)
    unit = METHODS[method][0]
    for density in (0.05, 0.3, 0.8):
        found = prune_weights(net, method, density, scope="global", batches=batches(name))
        wanted = kept_count(sum(mask.numel() for mask in net.masks.values()), density)
        if unit == "multi":
            continue
        got = sum(
            int(units_kept(mask, unit).sum()) * mask.numel() // len(units_kept(mask, unit))
            for mask in found.masks.values()
        )
        largest = max(mask.numel() // len(units_kept(mask, unit)) for mask in found.masks.values())
        assert abs(got - wanted) <= (0 if unit == "element" else largest / 2)


def test_units_of_several_sizes_are_ranked_by_their_mean():
    scores = {"a.weight": torch.tensor([[3.0, 3.0], [1.0, 1.0]]), "b.weight": torch.tensor([[2.0] * 6, [0.5] * 6])}
    everything = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    options = {"granularity": "channel", "scope": "global", "within": everything}

    def rows(density, norm="l1"):
        found = keep_units(scores, density, norm=norm, **options)
        return [found[name].all(1).tolist() for name in scores]

    for norm in ("l1", "l2"):
        assert rows(2 / 16, norm) == [[True, False], [False, False]]
        assert rows(0.5, norm) == [[True, False], [True, False]]
        assert rows(10 / 16, norm) == [[True, True], [True, False]]
        assert rows(0, norm) == [[False, False], [False, False]]
    assert rows(1e-9) == [[True, False], [False, False]], "one unit is kept at least"


def test_a_pruner_s_sign_counts():
    scores = {"weight": torch.tensor([[2.0, -3.0], [1.0, 1.0], [-5.0, 0.0]])}
    within = {"weight": torch.ones(3, 2, dtype=torch.bool)}
    for norm in ("l1", "l2"):
        found = keep_units(scores, 0.33, granularity="channel", norm=norm, within=within)["weight"]
        assert found.all(1).tolist() == [False, True, False]
        ranked = keep_units(scores, 0.5, norm=norm, within=within)["weight"]
        assert torch.equal(ranked, scores["weight"] > 0)


# After an earlier stage


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("method", NINE)
def test_nothing_comes_back(method, scope):
    net = network("resnet8")
    first = prune_weights(net, "element-l1", 0.5)
    second = prune_weights(first, method, 0.4, scope=scope, shape=MODELS["resnet8"])
    assert all(not (mask & ~first.masks[key]).any() for key, mask in second.masks.items())
    again = prune_weights(first, method, 1, scope=scope, shape=MODELS["resnet8"])
    assert same(again.masks, first.masks), "density 1 removes nothing more"
    gone = prune_weights(second, method, 0, scope=scope, shape=MODELS["resnet8"])
    still = prune_weights(gone, method, 0.5, scope=scope, shape=MODELS["resnet8"])
    assert masks.density_of(gone.masks) == masks.density_of(still.masks) == 0
    assert torch.isfinite(still.model(images("resnet8"))).all()


def test_a_density_is_of_what_was_there_at_first():
    net = network("fc")
    for method in ("element-l1", "channel-l1"):
        twice = prune_weights(prune_weights(net, method, 0.6), method, 0.2)
        assert same(twice.masks, prune_weights(net, method, 0.2).masks)
        assert same(prune_weights(twice, method, 0.9).masks, twice.masks)


def test_the_rest_of_the_network_stays():
    net = network("conv")._replace(grid={"kind": "fixed", "bits": 8, "fraction": 4}, inputs={"round": {}})
    found = prune_weights(net, "kernel-l1", 0.5)
    assert (found.grid, found.inputs) == (net.grid, net.inputs)


# Densities of layers


def test_patterns_of_layers():
    net = network("fc")
    shares = {"*": 0.5, "layers.[12]": 0.1, "last": 1}
    wanted = [0.5, 0.1, 0.1, 0.5, 0.5, 1]
    assert list(of_layers(net.masks, 0.3, shares).values()) == wanted
    assert list(of_layers(net.masks, 0.3, {"layers.0": 0.0}).values()) == [0.0, *[0.3] * 5]
    for method in ("element-l1", "channel-l2"):
        found = prune_weights(net, method, 0.3, densities=shares).masks.values()
        assert [len(units_kept(m, METHODS[method][0])) for m in found] == [
            len(units_kept(m, METHODS[method][0])) for m in net.masks.values()
        ]
        for mask, share in zip(found, wanted, strict=True):
            kept = units_kept(mask, METHODS[method][0])
            assert int(kept.sum()) == kept_count(len(kept), share)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"densities": {"layers.9": 0.5}},
            r"density of layers 'layers\.9' counts for no layer: patterns of layers\.0, ",
        ),
        ({"densities": {"layers.0": 0.5, "*": 0.2}}, r"density of layers 'layers\.0' counts for no layer"),
        ({"densities": {"*": 1.5}}, r"density is 1\.5: 0 to 1 is allowed"),
        ({"densities": {"*": 0.5}, "scope": "global"}, "densities of layers with scope global: scope local is allowed"),
        ({"density": -0.1}, r"density is -0\.1: 0 to 1 is allowed"),
        ({"density": float("nan")}, "density is nan: 0 to 1 is allowed"),
        ({"scope": "layer"}, "scope is 'layer': one of local, global is allowed"),
        ({"method": "element-l3"}, "unknown method 'element-l3': one of element-rand, element-l1, "),
        ({"method": "obd"}, "no scoring batches"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given, said):
    options = {"method": "element-l1", "density": 0.3} | given
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        prune_weights(network("fc"), **options)
    assert "\n" not in str(caught.value)
