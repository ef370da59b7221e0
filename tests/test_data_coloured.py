"""MNIST in colour: the same strokes, in colours that follow the class as often as was said."""

import json

import pytest
import torch

from lib import catalog, data, models
from lib.data.coloured import COLOURS, coloured, drawn, painted, resized

GREY = data.load("digits")
PALETTE = torch.tensor(list(COLOURS.values()))


def chosen(images: torch.Tensor) -> torch.Tensor:
    """The number of each image's colour, from its brightest pixel."""
    flat = images.flatten(2).int()
    brightest = flat.amax(1).argmax(1)
    pixels = flat.gather(2, brightest[:, None, None].expand(-1, 3, 1)).squeeze(2)
    scaled = (pixels * 255 / pixels.amax(1, keepdim=True)).float()
    return torch.cdist(scaled, PALETTE.float()).argmin(1)


@pytest.mark.parametrize("name", ["digits-colour", "digits-colour-70"])
def test_three_channels_and_the_grey_image_is_the_brightest_of_them(name):
    found = data.load(name)
    assert found.shape == (3, 28, 28)
    for split in ("train_x", "test_x"):
        images, grey = getattr(found, split), getattr(GREY, split)
        assert torch.equal(images.amax(1, keepdim=True), grey)
        colours = PALETTE[chosen(images)].view(-1, 3, 1, 1)
        assert (images - grey * colours / 255).abs().max() <= 0.5, "one colour an image, its shades rounded"
    assert torch.equal(found.train_y, GREY.train_y)
    assert torch.equal(found.test_y, GREY.test_y)
    assert not found.augment
    json.dumps(found.info)


def test_ten_colours_apart():
    assert len(COLOURS) == 10
    apart = torch.cdist(PALETTE.float(), PALETTE.float()) + 1000 * torch.eye(10)
    assert apart.min() >= 127
    assert (PALETTE.amax(1) == 255).all()


@pytest.mark.parametrize("percent", [0, 30, 95, 100])
def test_the_correlation_is_the_one_stated(percent):
    """Cramer's V of 4,000 draws, whose chi-squared of independent ones has mean 81 and standard deviation 12.7."""
    found = coloured(of="digits", percent=percent)
    for images, labels in ((found.train_x, found.train_y), (found.test_x, found.test_y)):
        n = len(labels)
        counts = torch.zeros(10, 10).index_put_((labels, chosen(images)), torch.ones(n), accumulate=True)
        agreeing = counts.trace().item() / n
        expected = percent / 100 + (1 - percent / 100) / 10
        assert agreeing == pytest.approx(expected, abs=4 * (expected * (1 - expected) / n) ** 0.5 + 1e-9)
        by_chance = counts.sum(1, keepdim=True) * counts.sum(0) / n
        chi_squared = ((counts - by_chance) ** 2 / by_chance).sum().item()
        v = (chi_squared / n / 9) ** 0.5
        assert v**2 == pytest.approx(
            (percent / 100) ** 2, abs=(81 + 5 * 12.7) / n / 9 + 4 * (1 / n) ** 0.5 * percent / 100
        )
    assert f"correlation of colour and class {percent / 100:g}, seed 0" in found.info["source"]


def test_colours_are_the_seed_s_and_each_split_has_its_own():
    first, again, other = (coloured(of="digits", seed=seed) for seed in (0, 0, 1))
    assert first.info == again.info
    assert torch.equal(first.train_x, again.train_x)
    assert torch.equal(first.test_x, again.test_x)
    assert first.info["fingerprint"] != other.info["fingerprint"]
    assert not torch.equal(first.train_x, other.train_x)
    assert not torch.equal(chosen(first.train_x)[:1000], chosen(first.test_x))
    counts = chosen(first.train_x).bincount(minlength=10)
    assert counts.min() > 300, "every colour is drawn"
    assert torch.equal(drawn(GREY.test_y, 1.0, torch.Generator().manual_seed(0)), GREY.test_y)


@pytest.mark.parametrize("size", [32, 64])
def test_other_sizes(size):
    found = data.load(f"digits-colour-95-{size}x{size}", train_images=100)
    assert found.shape == (3, size, size)
    grey = resized(GREY.test_x, size)
    assert torch.equal(found.test_x.amax(1, keepdim=True), grey)
    near = grey.float().mean((1, 2, 3)), GREY.test_x.float().mean((1, 2, 3))
    assert (near[0] - near[1]).abs().max() < 2, "as bright as before"
    assert models.build("resnet8", found.shape)(data.normalise(found, found.test_x[:2])).shape == (2, 10)


def test_a_grey_level_keeps_its_colour():
    grey = torch.tensor([0, 1, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    orange = painted(grey, torch.tensor([list(COLOURS).index("orange")]))
    assert orange.flatten(2).tolist() == [[[0, 1, 128, 255], [0, 1, 64, 128], [0, 0, 0, 0]]]


@pytest.mark.parametrize(
    "name", ["mnist-colour", "digits-colour-1", "mnist-colour-100", "mnist-colour-32x32", "digits-colour-95-64x64"]
)
def test_names(name):
    assert catalog.check("data", name) == name
    assert callable(catalog.load("data", name))
    assert catalog.label(name) == name.replace("mnist", "MNIST").replace("digits", "Digits")
    assert not catalog.holds_texts(name)


@pytest.mark.parametrize(
    "name",
    ["cifar10-colour", "mnist-colour-0", "mnist-colour-101", "mnist-colour-095", "mnist-colour-28x28",
     "mnist-colour-32x64", "mnist-colour-64x64-95", "mnist-color"],
)  # fmt: skip
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match=rf"^unknown data '{name}': one of .*mnist-colour-P-SxS .*\(1 to 100\)"):
        catalog.check("data", name)
