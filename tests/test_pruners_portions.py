"""Batches in parts: the same scores, and a graph that fits."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from lib import masks, models, pruners
from lib.pruners import common

IMAGE = (2, 8, 8)
SCORES = {"snip": pruners.snip, "grasp": pruners.grasp}


def batches(sizes=(12, 7), shape=IMAGE, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, *shape, generator=draw).to(dtype), torch.randint(0, 10, (n,), generator=draw)) for n in sizes
    ]


def network(name="resnet8") -> nn.Module:
    """With statistics and biases that are not neutral."""
    model, draw = models.build(name, IMAGE), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=draw)
    return model


def limited(monkeypatch, model: nn.Module, images: int) -> None:
    """Let a part have at most so many images of IMAGE."""
    weights = common.effective(model, None, grad=True)
    dtype = next(model.parameters()).dtype
    per_image = common._image_bytes(model, weights, torch.zeros(1, *IMAGE, dtype=dtype))
    monkeypatch.setattr(common, "GRAPH_BYTES", images * per_image)


def whole(pruner: str, model: nn.Module, data: list, temperature: float = 200.0) -> dict:
    """Both scores as they are defined, every batch in one go."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in masks.prunable(model).items()}

    def slopes(x, y, divisor=1.0, **options):
        loss = F.cross_entropy(functional_call(model, weights, (x,)) / divisor, y)
        return torch.autograd.grad(loss, list(weights.values()), **options)

    def summed(found):
        return [sum(parts) for parts in zip(*found, strict=True)]

    if pruner == "snip":
        g = summed(slopes(x, y) for x, y in data)
        return {name: (w.detach() * d).abs() for (name, w), d in zip(weights.items(), g, strict=True)}
    g = summed(slopes(x, y, temperature) for x, y in data)
    products = []
    for x, y in data:
        found = slopes(x, y, temperature, create_graph=True)
        along = sum((a * b).sum() for a, b in zip(found, g, strict=True))
        products.append(torch.autograd.grad(along, list(weights.values()), materialize_grads=True))
    return {name: w.detach() * h for (name, w), h in zip(weights.items(), summed(products), strict=True)}


@pytest.mark.parametrize("images", [1, 2, 5, 11])
@pytest.mark.parametrize("pruner", SCORES)
def test_scores_in_parts_are_those_of_whole_batches(pruner, images, monkeypatch):
    model, data = network().double(), batches(dtype=torch.float64)
    limited(monkeypatch, model, images)
    found, expected = SCORES[pruner](model, data), whole(pruner, model.eval(), data)
    for name, score in expected.items():
        assert torch.allclose(found[name], score, rtol=1e-9, atol=1e-12 * score.abs().max().item()), name
    kept, wanted = masks.keep_top(found, 0.2), masks.keep_top(expected, 0.2)
    assert all(torch.equal(kept[name], wanted[name]) for name in kept)


@pytest.mark.parametrize("name", ["fc", "resnet8"])
@pytest.mark.parametrize("pruner", SCORES)
def test_batches_that_fit_score_as_ever_bit_for_bit(pruner, name, monkeypatch):
    model, data = network(name), batches()
    limited(monkeypatch, model, 12)
    found, expected = SCORES[pruner](model, data), whole(pruner, model.eval(), data)
    assert all(torch.equal(found[name], score) for name, score in expected.items())


@pytest.mark.parametrize("sizes", [(100,), (12, 7), (1,), (9, 10, 11)])
@pytest.mark.parametrize("images", [1, 3, 10, 1000])
def test_parts_are_whole_batches_in_order_and_no_larger_than_allowed(sizes, images, monkeypatch):
    model, data = network("fc"), batches(sizes)
    limited(monkeypatch, model, images)
    parts = common.portions(model, common.effective(model, None, grad=True), data, training=False)
    for what in (0, 1):
        assert torch.equal(torch.cat([part[what] for part in parts]), torch.cat([batch[what] for batch in data]))
    lengths = [len(x) for x, _, _ in parts]
    assert max(lengths) <= images
    assert len(parts) == sum(-(-n // images) for n in sizes), "as few parts as it takes"
    done = 0
    for n in sizes:  # each batch is covered by parts of its own, whose shares are of it
        count = -(-n // images)
        shares = [share for _, _, share in parts[done : done + count]]
        assert sum(lengths[done : done + count]) == n
        assert shares == [length / n for length in lengths[done : done + count]]
        done += count


def test_an_image_larger_than_the_limit_is_a_part_of_its_own(monkeypatch):
    monkeypatch.setattr(common, "GRAPH_BYTES", 1)
    parts = common.portions(network(), common.effective(network(), None, grad=True), batches((3,)), training=False)
    assert [len(x) for x, _, _ in parts] == [1, 1, 1]


class OfTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        self.fc = nn.Linear(4 * 36, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


@pytest.mark.parametrize("pruner", SCORES)
@pytest.mark.parametrize(("make", "training"), [(network, True), (OfTheBatch, False)])
def test_batches_stay_whole_where_batch_norm_takes_their_statistics(pruner, make, training, monkeypatch):
    torch.manual_seed(0)
    model, data = make(), batches()
    expected = SCORES[pruner](model, data, training=training)
    monkeypatch.setattr(common, "GRAPH_BYTES", 1)
    found = SCORES[pruner](model, data, training=training)
    assert all(torch.equal(found[name], score) for name, score in expected.items())


def test_the_bytes_of_an_image_by_hand():
    """Kept are the input and what ReLU gives, once each though two functions keep it; weights do not count."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 5))
    weights = common.effective(model, None, grad=True)
    assert common._image_bytes(model, weights, torch.randn(1, 2, 2, 2)) == 4 * (8 + 3)
    assert common._image_bytes(model, weights, torch.randn(4, 2, 2, 2)) == 4 * 4 * (8 + 3)


def test_large_networks_are_divided_and_the_small_ones_of_the_studies_are_not():
    def parts(name, shape):
        model = models.build(name, shape)
        data = [(torch.zeros(100, *shape), torch.zeros(100, dtype=torch.int64))]
        return len(common.portions(model, common.effective(model, None, grad=True), data, training=False))

    assert [parts(name, (3, 32, 32)) for name in ("fc", "resnet20", "vgg16", "vgg16-bn")] == [1, 1, 1, 1]
    assert 4 <= parts("resnet50", (3, 32, 32)) <= 10
