"""What is done to what enters layers: which layers, in which order, with which gradients, in training too."""

import copy
from contextlib import contextmanager

import pytest
import torch
from test_train import tiny
from torch import nn

from lib import compiling, masks, models, quantise, train
from lib.catalog import ACTIVATION_METHODS
from lib.data import normalise
from lib.pipeline import activations
from lib.pipeline.inputs import attach, evaluated, fixed_point, layers, prune_inputs, pruned_layers
from lib.pipeline.network import Network

TEXTS = (7, 30)
CASES = {"conv": (1, 8, 8), "resnet8": (3, 8, 8), "mlp-2x16": (3, 8, 8), "mlp-1x16": TEXTS, "transformer": TEXTS}
CONVOLUTIONAL = ("conv", "resnet8")
cases = pytest.mark.parametrize(("name", "shape"), CASES.items(), ids=lambda value: str(value))
each_method = pytest.mark.parametrize("method", ACTIVATION_METHODS)
FIXED = {"kind": "fixed", "bits": 8, "fraction": 4}


def images(shape, count: int = 6, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    if len(shape) == 2:
        return torch.randint(0, shape[1], (count, shape[0]), generator=draw).sort(1, descending=True).values
    return torch.randn(count, *shape, generator=draw)


def network(name: str = "resnet8") -> Network:
    model = models.build(name, CASES[name], 10, seed=1).eval()
    return Network(model, masks.full(model))


@contextmanager
def looking(model: nn.Module):
    seen, hooks = {}, []
    for name, layer in layers(model).items():
        hooks.append(
            layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].detach()}))
        )
    yield seen
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def entering(net: Network, x: torch.Tensor) -> tuple[dict, dict, torch.Tensor]:
    """What reaches each layer, what it works with, and the logits."""
    with looking(net.model) as before, attach(net.model, net.inputs), looking(net.model) as after:
        logits = net.model(x)
    return before, after, logits


def bare(model: nn.Module) -> bool:
    return not any(module._forward_pre_hooks for module in model.modules())


@cases
@each_method
def test_the_share_goes_in_every_convolution_or_where_there_is_none_in_linear_layers(name, shape, method):
    net = network(name)
    if method.startswith("map-") and name not in CONVOLUTIONAL:
        with pytest.raises(
            ValueError, match=f"method {method} for a network without .*: element-l1, element-l2 is all"
        ):
            prune_inputs(net, method, 0.5)
        return
    before, after, _ = entering(prune_inputs(net, method, 0.3), images(shape))
    kind = nn.Conv2d if name in CONVOLUTIONAL else nn.Linear
    assert pruned_layers(net.model, method).keys() == {n for n, m in layers(net.model).items() if isinstance(m, kind)}
    for layer, x in before.items():
        gone = torch.zeros(())
        if layer in pruned_layers(net.model, method):
            gone = activations.removed(x, method, 0.3)
            gone = gone if gone.ndim == x.ndim else gone[:, :, None, None]
        assert torch.equal(after[layer], torch.where(gone.bool(), 0, x))
    assert bare(net.model)


@cases
def test_nothing_goes_at_0_and_everything_at_1(name, shape):
    net, x = network(name), images(shape)
    _, whole, logits = entering(net, x)
    for batches in (None, [(x, None)]):
        _, after, same = entering(prune_inputs(net, "element-l1", 0, batches=batches), x)
        assert torch.equal(same, logits)
        assert all(torch.equal(after[layer], whole[layer]) for layer in whole)
    pruned = pruned_layers(net.model, "element-l1")
    _, after, same = entering(prune_inputs(net, "element-l1", 1), x)
    assert not any(after[layer].any() for layer in pruned)
    assert not torch.equal(same, logits)
    sets = prune_inputs(net, "element-l1", 1, batches=[(x, None)]).inputs["prune"]["sets"]
    assert all(torch.equal(sets[layer], ~whole[layer].any(0)) for layer in pruned)


@cases
def test_an_input_of_zeros_stays_one(name, shape):
    net = network(name)
    first = next(iter(layers(net.model)))
    zeros = images(shape) * 0
    for method in ACTIVATION_METHODS if name in CONVOLUTIONAL else ACTIVATION_METHODS[:2]:
        before, after, logits = entering(prune_inputs(net, method, 0.5), zeros)
        assert logits.isfinite().all()
        if len(shape) == 3:
            assert not after[first].any()


# Fixed sets


@each_method
def test_a_fixed_set_is_exact_and_the_same_for_all_images(method):
    net, x = network(), images(CASES["resnet8"], 12)
    x[:, :, :2] = 0  # positions that no image uses
    fixed = prune_inputs(net, method, 0.4, batches=[(x[:5], None), (x[5:], None)])
    whole, _, _ = entering(net, x)
    before, after, _ = entering(fixed, images(CASES["resnet8"], 9, seed=3))
    element = method.startswith("element-")
    assert fixed.inputs["prune"].keys() == {"method", "share", "fixed", "sets"}
    for layer, kept in fixed.inputs["prune"]["sets"].items():
        used = (whole[layer] != 0).any(0) if element else (whole[layer] != 0).any(0).flatten(1).any(1)
        assert kept.shape == used.shape
        assert kept.dtype == torch.bool
        assert int((~kept).sum()) == round(0.4 * int(used.sum()))
        assert not (~kept & ~used).any()
        assert torch.equal(after[layer], before[layer] * (kept if element else kept[:, None, None]))


def test_a_fixed_set_removes_the_lowest_mean_scores():
    net, x = network(), images(CASES["resnet8"], 12).mul(torch.linspace(0.1, 2, 8))
    first = next(iter(layers(net.model)))
    for method, score in (
        ("element-l1", x.abs().mean(0)),
        ("element-l2", x.abs().mean(0)),
        ("map-l1", x.abs().sum((2, 3)).mean(0)),
        ("map-l2", x.square().sum((2, 3)).sqrt().mean(0)),
    ):
        kept = prune_inputs(net, method, 0.4, batches=[(x[:7], None), (x[7:], None)]).inputs["prune"]["sets"][first]
        assert score[kept].min() >= score[~kept].max()
    like = torch.nn.functional.cosine_similarity(x.flatten(2)[:, :, None], x.flatten(2)[:, None], dim=3).mean(0)
    a, b = divmod(int(like.fill_diagonal_(-2).argmax()), 3)
    size = x.abs().sum((2, 3)).mean(0)
    kept = prune_inputs(net, "map-similarity", 0.4, batches=[(x, None)]).inputs["prune"]["sets"][first]
    assert (~kept).nonzero().flatten().tolist() == [min(a, b, key=lambda i: size[i].item())]


def test_pruning_again_takes_the_place_of_what_was_and_rounding_stays_after_it():
    net, x = network(), images(CASES["resnet8"])
    once = prune_inputs(net._replace(inputs={"round": FIXED}), "map-l1", 0.9)
    again = prune_inputs(once, "element-l1", 0.5, batches=[(x, None)])
    anew = prune_inputs(net._replace(inputs={"round": FIXED}), "element-l1", 0.5, batches=[(x, None)])
    assert list(again.inputs) == ["prune", "round"]
    sets, wanted = (made.inputs["prune"]["sets"] for made in (again, anew))
    assert all(torch.equal(sets[layer], wanted[layer]) for layer in wanted)
    assert net.inputs == {}


# Rounding


@pytest.mark.parametrize(("bits", "fraction"), [(8, 4), (8, 0), (4, 6), (6, -2), (16, 8), (1, 0)])
def test_fixed_point_is_that_of_torch(bits, fraction):
    step, low, high = 2.0**-fraction, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    x = torch.cat([torch.linspace(2 * low * step, 2 * abs(low) * step, 9_999), torch.arange(-20, 20) * step / 2])
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    found = fixed_point(bits, fraction)(ours)
    wanted = torch.fake_quantize_per_tensor_affine(theirs, step, 0, low, high)
    assert torch.equal(found, wanted)
    for value in (found, wanted):
        value.sum().backward()
    clear = ((x - low * step).abs() > step) & ((x - high * step).abs() > step)  # at the very edge torch rounds first
    assert torch.equal(ours.grad[clear], theirs.grad[clear])
    assert ours.grad[clear].unique().tolist() in ([0.0, 1.0], [0.0])


def test_eight_bits_of_which_four_fraction():
    x = torch.tensor([-9.0, -8.0, 0.03125, 0.09375, 0.04, 7.9, 100.0])
    assert fixed_point(8, 4)(x).tolist() == [-8, -8, 0, 0.125, 0.0625, 7.875, 7.9375]  # halves to the even one


@cases
def test_inputs_of_all_layers_are_rounded_after_pruning(name, shape):
    net = network(name)._replace(inputs={"round": FIXED})
    before, after, _ = entering(prune_inputs(net, "element-l1", 0.5), images(shape))
    for layer, x in before.items():
        pruned = layer in pruned_layers(net.model, "element-l1")
        x = x.masked_fill(activations.removed(x, "element-l1", 0.5), 0) if pruned else x
        assert torch.equal(after[layer], (16 * x).round().clamp(-128, 127) / 16)


@cases
def test_eight_bit_inputs_are_those_of_the_simulation(name, shape):
    model, x = network(name).model, images(shape)
    ranges = quantise.ranges_of(model, [(x, None)])
    wanted = quantise.quantised(model, ranges)
    on_grid = quantise.plain(wanted)
    for embedding in (m for m in wanted.modules() if isinstance(m, nn.Embedding)):
        assert torch.equal(quantise.rounded(embedding.weight), quantise.rounded(quantise.rounded(embedding.weight)))
    with attach(on_grid, {"round": {"kind": "int8", "ranges": {k: list(v) for k, v in ranges.items()}}}) as attached:
        assert torch.equal(attached.eval()(x), wanted.eval()(x))
        assert attached.training is False
    with attach(on_grid.train(), {"round": {"kind": "int8", "ranges": ranges}}), looking(on_grid) as seen:
        on_grid(3 * x if len(shape) == 3 else x)
    for layer, found in seen.items():
        low, high = ranges[layer]
        step = (high - low) / 255
        assert low - step <= found.min()
        assert found.max() <= high + step  # the ranges have not moved


# Gradients and training


def test_what_is_pruned_or_clipped_gets_no_gradient():
    layer = nn.Conv2d(1, 1, 1, bias=False)
    layer.weight.data.fill_(1)
    x = torch.tensor([0.1, -0.2, 3.0, 20.0, -30.0, 0.0]).view(1, 1, 2, 3).requires_grad_()
    prune = {"method": "element-l1", "share": 0.4, "fixed": False}
    with attach(layer, {"prune": prune, "round": FIXED}):
        found = layer(x)
    found.sum().backward()
    assert found.flatten().tolist() == [0, 0, 3, 7.9375, -8, 0]
    assert x.grad.flatten().tolist()[:5] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("precision", ["float32", "amp"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_network_trains_with_its_inputs_pruned_and_rounded(precision, fixed):
    data = tiny(augmented=False)
    net = network()._replace(inputs={"round": FIXED})
    batches = [(normalise(data, data.train_x), data.train_y)]
    net = prune_inputs(net, "element-l1", 0.3, batches=batches if fixed else None)
    with attach(net.model, net.inputs):
        rows = train.train(net.model, data, epochs=4, batch=16, lr=0.01, precision=precision)
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert rows[-1]["step"] == "eager"
    if precision == "float32":
        test = evaluated(net, data)
        assert test["loss"] == pytest.approx(rows[-1]["test_loss"])
        assert test["loss"] != train.evaluate(net.model, data)["loss"]
    assert bare(net.model)


def test_a_step_with_hooks_is_made_no_graph_of(monkeypatch):
    monkeypatch.setattr(compiling, "CPU_WORK", 0)
    net = prune_inputs(network(), "map-similarity", 0.3)
    assert compiling.pays(net.model, (3, 8, 8), 10, 8, "amp")
    with attach(net.model, net.inputs):
        assert not compiling.pays(net.model, (3, 8, 8), 10, 8, "amp")


@each_method
def test_gradients_are_those_of_products_with_what_is_kept(method):
    net, x = prune_inputs(network("conv"), method, 0.5), images(CASES["conv"])
    before, after, _ = entering(net, x)
    factors = {layer: (after[layer] != 0).float() for layer in pruned_layers(net.model, method)}
    ours, theirs = net.model, copy.deepcopy(net.model)
    for layer, factor in factors.items():
        theirs.get_submodule(layer).register_forward_pre_hook(lambda _, given, factor=factor: given[0] * factor)
    with attach(ours, net.inputs):
        ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6)


# What is refused


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prunes": {}}, "inputs has prunes: prune, round are allowed"),
        ({"prune": {"method": "element-l1", "share": 0.5}}, "prune has method, share: fixed, method, share are"),
        ({"prune": {"method": "l1", "share": 0.5, "fixed": False}}, "unknown method 'l1' .*: one of element-l1, "),
        ({"prune": {"method": "map-l1", "share": 1.5, "fixed": False}}, r"share is 1\.5: 0 to 1"),
        ({"prune": {"method": "map-l1", "share": 0.5, "fixed": True, "sets": {}}}, "sets for : exactly conv, "),
        ({"round": {"kind": "fixed", "bits": 8}}, "round has kind, bits: bits, fraction, kind are allowed"),
        ({"round": FIXED | {"bits": 32}}, "bits is 32 and fraction 4: 1 to 24"),
        ({"round": {"kind": "float8"}}, "unknown kind 'float8' of rounding inputs: one of fixed, int8"),
        ({"round": {"kind": "int8", "ranges": {"conv": [0, 1]}}}, "ranges for conv: exactly conv, "),
    ],
)
def test_impossible_inputs_are_named_and_leave_no_hook(inputs, message):
    model = network().model
    with pytest.raises(ValueError, match=message), attach(model, inputs):
        pass
    assert bare(model)


def test_what_cannot_be_calibrated_or_does_not_fit_is_named():
    net, x = network(), images(CASES["resnet8"])
    with pytest.raises(ValueError, match="share is nan: 0 to 1 is allowed"):
        prune_inputs(net, "map-l1", float("nan"))
    with pytest.raises(ValueError, match="no batches to calibrate with"):
        prune_inputs(net, "map-l1", 0.5, batches=[])
    fixed = prune_inputs(net, "element-l1", 0.5, batches=[(x, None)])
    with (
        pytest.raises(ValueError, match=r"set of conv is \(3, 8, 8\): \(3, 16, 16\) is"),
        attach(net.model, fixed.inputs),
    ):
        net.model(images((3, 16, 16)))
    idle = nn.Sequential(nn.Conv2d(3, 1, 1))
    idle[0].spare = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match=r"sees no input of 0\.spare"):
        prune_inputs(Network(idle, {}), "map-l1", 0.5, batches=[(x, None)])
    layer = nn.Conv2d(3, 1, 1)
    with (
        pytest.raises(ValueError, match=r"is \(3, 8, 8\): a batch"),
        attach(layer, prune_inputs(Network(layer, {}), "element-l1", 0.5).inputs),
    ):
        layer(x[0])
    assert bare(net.model)
    assert bare(layer)
