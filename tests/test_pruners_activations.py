"""Wanda against norms taken by hand."""

import pytest
import torch
from torch import nn

from lib import data as datasets
from lib import masks, models, pruners

TEXT = (7, 30)


def images(shape=(4, 6, 6), sizes=(5, 3)) -> list:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(n, *shape, generator=draw), torch.randint(0, 3, (n,), generator=draw)) for n in sizes]


def texts(length=7, sizes=(5, 3)) -> list:
    """Of one to five words, and zeros from there on."""
    draw, found = torch.Generator().manual_seed(0), []
    for n in sizes:
        x = torch.randint(1, 30, (n, 5), generator=draw)
        x[torch.arange(5) > torch.randint(0, 5, (n, 1), generator=draw)] = 0
        x = torch.cat([x, torch.zeros(n, length - 5, dtype=torch.int64)], 1)
        found.append((x, torch.randint(0, 3, (n,), generator=draw)))
    return found


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1)),
        *(nn.Flatten(), nn.Linear(20, 3)),
    )
    with torch.no_grad():
        for tensor in (*model[1].parameters(), model[1].running_mean, model[1].running_var):
            tensor += torch.rand(6)
    return model.eval()


def through(layers, data: list) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([layers(x) for x, _ in data])


def test_wanda_is_the_weight_times_the_norm_of_its_input_feature():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), images((4,))
    scores = pruners.wanda(model, data)
    x = torch.cat([x for x, _ in data])
    assert torch.allclose(scores["0.weight"], model[0].weight.abs() * x.square().sum(0).sqrt())
    assert torch.allclose(scores["2.weight"], model[2].weight.abs() * through(model[:2], data).norm(dim=0))


def test_wanda_of_convolutions_norms_and_biases():
    model, data = convolutional(), images()
    scores = pruners.wanda(model, data, masks=masks.full(model, masks.ALSO))
    x = torch.cat([x for x, _ in data])
    first = model[0].weight.abs().clone()
    for output in range(6):  # three outputs see the first two channels, three the others
        for place in range(2):
            first[output, place] *= x[:, place + 2 * (output // 3)].norm()
    assert torch.allclose(scores["0.weight"], first)
    mixed = through(model[:3], data).square().sum((0, 2, 3)).sqrt()
    assert torch.allclose(scores["3.weight"], model[3].weight.abs() * mixed.view(1, 6, 1, 1))
    assert torch.allclose(scores["5.weight"], model[5].weight.abs() * through(model[:5], data).norm(dim=0))
    before, norm = through(model[0], data), model[1]
    scaled = (before - norm.running_mean.view(-1, 1, 1)) / (norm.running_var.view(-1, 1, 1) + norm.eps).sqrt()
    assert torch.allclose(scores["1.weight"], norm.weight.abs() * scaled.square().sum((0, 2, 3)).sqrt(), rtol=1e-4)
    for name, count in (("0.bias", 8 * 4), ("1.bias", 8 * 4), ("3.bias", 8 * 4), ("5.bias", 8)):
        assert torch.allclose(scores[name], model.get_parameter(name).abs() * count**0.5)


def test_wanda_of_embeddings_counts_words_and_no_ends_of_texts():
    model, data = models.build("mlp-2x6", TEXT, 3), texts()
    scores = pruners.wanda(model, data, masks=masks.full(model, masks.ALSO))
    words = [int(word) for x, _ in data for word in x.flatten() if word]
    for number in range(1, 30):
        expected = model.embedding.weight[number - 1].abs() * words.count(number) ** 0.5
        assert torch.allclose(scores["embedding.weight"][number - 1], expected)
    assert torch.allclose(scores["layers.0.bias"], model.layers[0].bias.abs() * 8**0.5)


@pytest.mark.parametrize("name", ["mlp-2x6", "transformer"])
def test_longer_ends_of_texts_change_no_score(name):
    model = models.build(name, TEXT, 3)
    kept = masks.full(model, masks.ALSO)
    short, long = (pruners.wanda(model, texts(length), masks=kept) for length in (5, 7))
    assert all(torch.allclose(short[n], long[n], rtol=1e-4, atol=1e-7) for n in kept)
    dot = model(datasets.blank(TEXT))  # the network is as it was
    assert torch.isfinite(dot).all()


def test_wanda_in_training_mode_sees_the_statistics_of_the_batch():
    model, data = convolutional(), images()[:1]
    kept = masks.full(model, ["norms"])
    before, (x, _) = model[0](data[0][0]), data[0]
    scores = pruners.wanda(model, data, masks=kept, training=True)
    mean, var = before.mean((0, 2, 3), keepdim=True), before.var((0, 2, 3), correction=0, keepdim=True)
    expected = ((before - mean) / (var + model[1].eps).sqrt()).square().sum((0, 2, 3)).sqrt()
    assert torch.allclose(scores["1.weight"], model[1].weight.abs() * expected, rtol=1e-4)
    assert torch.allclose(scores["0.weight"], pruners.wanda(model, data, masks=kept)["0.weight"])
    assert len(x) == 5


class Aside(nn.Module):
    """The weight of one layer is used without the layer being called."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return x @ self.first.weight @ self.second.weight.T


def test_weights_whose_inputs_cannot_be_seen_are_refused_and_no_hooks_stay():
    model = Aside()
    with pytest.raises(
        ValueError, match="pruner wanda sees no input of first.weight: only layers that the model calls"
    ):
        pruners.wanda(model, images((4,)))
    with pytest.raises(ValueError, match="no scoring batches"):
        pruners.wanda(model, [])
    assert not any(module._forward_hooks for module in model.modules())


def test_wanda_by_output_keeps_as_the_paper_does():
    """Each row of the weight matrix keeps its share of the best, ranked by torch.sort."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 3)), images((9,))
    kept = pruners.prune(model, "wanda", 0.5, data, scope="output")
    scores = pruners.wanda(model, data)
    for name, mask in kept.items():
        removed = scores[name].sort(dim=1).indices[:, : int(0.5 * mask.shape[1])]
        assert torch.equal(mask, torch.ones_like(mask).scatter(1, removed, False))
