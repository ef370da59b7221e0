"""Structures are really gone: the smaller network computes what the masked one does, and that is what was asked for."""

import copy

import pytest
import torch
from test_compact import lively
from torch import nn
from torch.nn.utils import prune

from lib import catalog, flops, models, storage, structured
from lib.models.transformer import HEAD
from lib.structured import coupled

IMAGE, TEXT = (3, 16, 16), (7, 50)
SHAPES = {"vgg16-bn": (3, 16, 16), "conv": (1, 6, 6), "mlp-2x16": (1, 6, 6), "resnet18": (3, 8, 8)}


class Own(nn.Module):
    """What our networks have not: channels side by side, an activation that is not zero at zero, groups."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.norm, self.both = nn.BatchNorm2d(10), nn.Conv2d(10, 8, 3, padding=1)
        self.grouped, self.hidden = nn.Conv2d(8, 8, 3, groups=4), nn.Linear(8 * 36, 12)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.sigmoid(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        return self.last(torch.sigmoid(self.hidden(self.grouped(self.both(x)).flatten(1))))


def build(name: str) -> tuple[nn.Module, tuple]:
    """A network as training leaves one, nothing zero by chance, and the shape of its inputs."""
    torch.manual_seed(0)
    shape = TEXT if name == "transformer" or name.endswith("texts") else SHAPES.get(name, IMAGE)
    model = Own() if name == "own" else models.build(name.removesuffix(" of texts"), shape, 5)
    return lively(model), (3, 8, 8) if name == "own" else shape


def some(shape: tuple, count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if len(shape) == 3:
        return torch.randn(count, *shape, generator=generator)
    texts = torch.randint(1, shape[1], (count, shape[0]), generator=generator)
    texts[1, 3:] = 0  # a shorter one
    return texts


def layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


HAS = {
    "resnet8": "channels blocks", "resnet20": "channels blocks", "resnet18": "channels blocks", "vgg16-bn": "channels",
    "conv": "channels", "mlp-2x16": "neurons", "mlp-2x16 of texts": "neurons", "transformer": "neurons heads",
    "own": "channels neurons", "fc": "neurons",
}  # fmt: skip


@pytest.mark.parametrize("name", HAS)
def test_a_network_has_these_structures(name):
    model, shape = build(name)
    assert structured.structures(model, shape) == tuple(HAS[name].split())
    for structure in {*catalog.STRUCTURES} - {*HAS[name].split()}:
        with pytest.raises(ValueError, match=f"^structure is '{structure}': of this network {HAS[name].split()[0]}"):
            structured.remove(model, shape, structure, 0.5)


@pytest.mark.parametrize("rate", [0.3, 0.6])
@pytest.mark.parametrize("scope", structured.SCOPES)
@pytest.mark.parametrize(("name", "structure"), [(n, s) for n, found in HAS.items() for s in found.split()])
def test_the_smaller_network_computes_what_the_masked_one_does(name, structure, scope, rate):
    model, shape = build(name)
    x = some(shape)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        model = model.to(dtype)
        masked, smaller, rows = structured.remove(model, shape, structure, rate, scope=scope)
        x = x.to(dtype) if x.is_floating_point() else x
        with torch.no_grad():
            whole, expected, logits = model(x), masked(x), smaller(x)
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
        gone = sum(row["before"] - row["after"] for row in rows)
        assert gone == 0 or float((whole - expected).abs().max()) > 1e-3 * float(whole.abs().max())
    # what the masks set to zero is what has gone: nothing was zero before
    assert sum(p.numel() for p in smaller.parameters()) == sum(int(p.count_nonzero()) for p in masked.parameters())
    assert flops.macs(smaller, shape)["macs_dense"] <= flops.macs(model, shape)["macs_dense"]


def test_channels_that_meet_in_a_sum_are_found_and_masked_by_hand():
    """ResNet-8 by hand: which layers end in one sum, which channels have the least L1 norm, what is set to zero."""
    model, shape = build("resnet8")
    sums = [["conv", "blocks.0.conv2"], *([f"blocks.{i}.conv2", f"blocks.{i}.shortcut.0"] for i in (1, 2))]
    norms = {"conv": "bn", "blocks.1.shortcut.0": "blocks.1.shortcut.1", "blocks.2.shortcut.0": "blocks.2.shortcut.1"}
    groups = sums + [[f"blocks.{i}.conv1"] for i in range(3)]
    by_hand, expected = copy.deepcopy(model), {}
    for group in groups:
        size = sum(model.get_submodule(name).weight.abs().sum((1, 2, 3)) for name in group)
        lowest = size.argsort()[: len(size) // 4]
        for name in group:
            expected[name] = (len(size), len(size) - len(lowest))
            norm = by_hand.get_submodule(norms.get(name, name.replace("conv", "bn")))
            for tensor in (by_hand.get_submodule(name).weight, norm.weight, norm.bias):
                tensor.data[lowest] = 0  # scale and shift too, and nothing in the layer behind
    _, smaller, rows = structured.remove(model, shape, "channels", 0.25)
    assert {row["layer"]: (row["before"], row["after"]) for row in rows} == expected
    assert [row["layer"] for row in rows if row["group"] == "blocks.1.conv2"] == sums[1]
    x = some(shape)
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), by_hand(x), rtol=1e-4, atol=1e-4)
        norm = by_hand.get_submodule("blocks.0.bn1")
        norm.bias.data.copy_(model.get_submodule("blocks.0.bn1").bias)  # one shift forgotten
        assert float((smaller(x) - by_hand(x)).abs().max()) > 1e-2


def test_neurons_are_those_of_torch_pruning_by_l1():
    model, shape = build("mlp-2x16")
    masked, smaller, rows = structured.remove(model, shape, "neurons", 0.5)
    for number in (0, 1):
        theirs = copy.deepcopy(model.layers[number])
        prune.ln_structured(theirs, "weight", amount=0.5, n=1, dim=0)
        assert torch.equal(masked.layers[number].weight.any(1), theirs.weight_mask.any(1))
        assert not masked.layers[number].bias[~theirs.weight_mask.any(1)].any()
        assert smaller.layers[number].out_features == smaller.layers[number + 1].in_features == 8
    assert smaller.layers[0].in_features == 36
    assert smaller.layers[2].out_features == 5
    assert flops.macs(smaller, shape)["macs_dense"] == 36 * 8 + 8 * 8 + 8 * 5
    assert rows[0] == {
        "structure": "neurons", "layer": "layers.0", "group": "layers.0", "before": 16, "after": 8,
    }  # fmt: skip


def test_heads_are_rows_of_three_layers_and_columns_of_one():
    model, shape = build("transformer")
    masked, smaller, _ = structured.remove(model, shape, "heads", 0.5)
    for block, small, zeroed in zip(model.blocks, smaller.blocks, masked.blocks, strict=True):
        three = [getattr(block.attention, name) for name in ("query", "key", "value")]
        size = sum(layer.weight.detach().abs().unflatten(0, (-1, HEAD)).sum((1, 2)) for layer in three)
        kept = torch.cat([torch.arange(HEAD) + HEAD * head for head in sorted(size.argsort()[-2:].tolist())])
        for name in ("query", "key", "value"):
            one, whole = getattr(small.attention, name), getattr(block.attention, name)
            assert torch.equal(one.weight, whole.weight[kept])
            assert torch.equal(one.bias, whole.bias[kept])
            assert int(getattr(zeroed.attention, name).weight.any(1).sum()) == len(kept)
        assert torch.equal(small.attention.out.weight, block.attention.out.weight[:, kept])
        assert torch.equal(small.attention.out.bias, block.attention.out.bias)
        assert torch.equal(small.wide.weight, block.wide.weight)


def test_blocks_with_the_least_weights_are_replaced_by_nothing():
    model, shape = build("resnet20")
    free = [f"blocks.{i}" for i in (0, 1, 2, 4, 5, 7, 8)]  # 3 and 6 change the shape
    sizes = {n: (model.get_parameter(f"{n}.conv1.weight").abs().mean().item()) for n in free}
    sizes = {n: (s + model.get_parameter(f"{n}.conv2.weight").abs().mean().item()) for n, s in sizes.items()}
    _, smaller, rows = structured.remove(model, shape, "blocks", 0.5)
    gone = {row["layer"] for row in rows if row["after"] == 0}
    assert gone == {*sorted(free, key=sizes.get)[:4]}  # half of 7, upwards
    assert [row["layer"] for row in rows] == free
    assert {n for n, m in smaller.blocks.named_children() if isinstance(m, nn.Identity)} == {n[7:] for n in gone}
    left = {n: p for n, p in model.named_parameters() if not n.startswith(tuple(f"{g}." for g in gone))}
    assert all(torch.equal(p, left[n]) for n, p in smaller.named_parameters())
    assert len(left) == len(dict(smaller.named_parameters()))
    masked, smaller, _ = structured.remove(model, shape, "blocks", 0.99)
    assert torch.equal(smaller(some(shape)), masked(some(shape)))  # also without all of them


def group(name: str, *scores: float) -> coupled.Group:
    return coupled.Group([name], torch.tensor(scores, dtype=torch.float64))


def chosen(rate: float, scope: str, *groups: coupled.Group) -> list[list[int]]:
    return [units.tolist() for units in structured.choose(list(groups), rate, scope)]


def test_which_units_go_by_hand():
    a, b = group("a", 4, 1, 3, 2), group("b", 50, 10, 20, 40, 30)
    assert chosen(0.5, "layer", a, b) == [[1, 3], [1, 2, 4]]
    assert chosen(0.0, "layer", a, b) == chosen(0.05, "global", a, b) == [[], []]
    # beside the means 2.5 and 30: 1.6 0.4 1.2 0.8 and 1.67 0.33 0.67 1.33 1
    assert chosen(3 / 9, "global", a, b) == [[1], [1, 2]]
    assert chosen(7 / 9, "global", a, b) == [[1, 2, 3], [1, 2, 3, 4]]
    assert chosen(0.5, "global", group("a", 1, 1), group("b", 100, 1, 1, 1)) == [[], [1, 2, 3]]
    assert chosen(0.5, "layer", group("a", 0, 0, 0, 0)) == [[2, 3]]  # of equal ones the first stay


@pytest.mark.parametrize(
    ("rate", "scope", "said"),
    [
        (0.9, "layer", "rate is 0.9 for the 4 units of a: at most 3 may go, not 4"),
        (0.9, "global", "rate is 0.9 for the 9 units of 2 groups: at most 7 may go, not 8"),
    ],
)
def test_no_group_is_left_without_a_unit(rate, scope, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        chosen(rate, scope, group("a", 4, 1, 3, 2), group("b", 50, 10, 20, 40, 30))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 1.0}, "rate is 1.0 and scope 'layer': 0 or more and less than 1, layer or global"),
        ({"rate": -0.1}, "rate is -0.1 and"),
        ({"rate": float("nan")}, "rate is nan and"),
        ({"scope": "model"}, "rate is 0.5 and scope 'model': "),
        ({"structure": "wings"}, "structure is 'wings': of this network neurons can be removed"),
        ({"only": ["layers.2"]}, r"only is \['layers.2'\]: a list of some of layers.0, layers.1, which have neurons"),
        ({"only": "layers.0"}, "only is 'layers.0': a list of"),
        ({"only": []}, r"only is \[\]: "),
    ],
)
def test_what_cannot_be_removed_is_refused_in_one_line(options, said):
    model, shape = build("mlp-2x16")
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        structured.remove(model, shape, **{"structure": "neurons", "rate": 0.5} | options)
    assert "\n" not in str(caught.value)


def test_only_one_group_is_pruned_where_one_is_named():
    model, shape = build("resnet8")
    _, smaller, rows = structured.remove(model, shape, "channels", 0.5, only=["blocks.0.conv2"])
    assert [row["layer"] for row in rows] == ["conv", "blocks.0.conv2"]
    before, after = layers(model), layers(smaller)
    changed = {n for n in before if before[n].weight.shape != after[n].weight.shape}
    assert changed == {
        "conv", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.shortcut.0",
    }  # fmt: skip
    found = structured.groups(model, shape, "channels")
    assert [(g.layers[0], len(g.scores)) for g in found] == [
        ("conv", 16), ("blocks.0.conv1", 16), ("blocks.1.conv1", 32), ("blocks.1.conv2", 32),
        ("blocks.2.conv1", 64), ("blocks.2.conv2", 64),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "structure"), [("resnet8", "channels"), ("resnet8", "blocks"), ("vgg16-bn", "channels")]
)
def test_the_model_is_left_alone_and_the_copies_are_like_it(name, structure):
    model, shape = build(name)
    model.train()
    next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():  # the caller's
        masked, smaller, rows = structured.remove(model, shape, structure, 0.5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    for copied in (masked, smaller):
        assert all(module.training for module in copied.modules() if next(module.children(), None) is None)
        assert not own & {tensor.data_ptr() for tensor in copied.state_dict().values()}
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    for row in rows:
        if structure == "channels":
            assert len(smaller.get_submodule(row["layer"]).weight) == row["after"]
    convolutions = [p for p in smaller.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)


@pytest.mark.parametrize(
    ("name", "structure"),
    [("resnet20", "channels"), ("resnet20", "blocks"), ("mlp-2x16", "neurons"), ("transformer", "heads")],
)
def test_three_rounds_with_training_copying_saving_and_loading_between(tmp_path, name, structure):
    model, shape = build(name)
    x, sizes = some(shape), []
    for number, rate in enumerate((0.25, 0.34, 0.5)):
        masked, model, _ = structured.remove(model, shape, structure, rate)
        with torch.no_grad():
            torch.testing.assert_close(model(x), masked(x), rtol=1e-4, atol=1e-4)
        sizes.append(sum(p.numel() for p in model.parameters()))
        model.train()
        stepper = torch.optim.SGD(model.parameters(), 0.01)
        model(x).square().mean().backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
        stepper.step()
        model.eval()
        copied = copy.deepcopy(model)
        storage.save_weights(tmp_path / f"{number}.safetensors", model)
        for p in copied.parameters():
            p.data.zero_()
        storage.load_weights(tmp_path / f"{number}.safetensors", copied)
        with torch.no_grad():
            assert torch.equal(copied(x), model(x))
        model = copied
    assert sizes == sorted(sizes, reverse=True)
    assert len({*sizes}) == 3
