"""Training images that are set aside for choices."""

import json
from dataclasses import replace

import pytest
import torch

from lib import data as datasets
from lib.data.validation import hold_out
from lib.train import evaluate


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", train_images=400)


def images(values: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in values]


def test_the_parts_are_disjoint_and_together_the_whole(digits):
    kept, aside = hold_out(digits, 105, seed=1)
    assert sorted(images(kept.train_x) + images(aside.test_x)) == sorted(images(digits.train_x))
    assert sorted(kept.train_y.tolist() + aside.test_y.tolist()) == sorted(digits.train_y.tolist())
    assert aside.test_y.bincount().tolist() == [11] * 5 + [10] * 5
    assert (len(kept.train_x), len(aside.test_x)) == (295, 105)
    labels = dict(zip(images(digits.train_x), digits.train_y.tolist(), strict=True))
    for part, numbers in ((kept.train_x, kept.train_y), (aside.test_x, aside.test_y)):
        assert [labels[image] for image in images(part)] == numbers.tolist()
    assert torch.equal(kept.test_x, digits.test_x)
    assert torch.equal(aside.train_x, kept.train_x)
    assert not {*images(aside.test_x)} & {*images(digits.test_x)}


def test_the_seed_decides(digits):
    first, again, other = (hold_out(digits, 50, seed)[1].test_x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_was_done_is_said_and_accuracy_is_that_of_the_images_set_aside(digits):
    kept, aside = hold_out(digits, 50, seed=3)
    assert (kept.info["train_images"], kept.info["test_images"]) == (350, digits.info["test_images"])
    assert (aside.info["train_images"], aside.info["test_images"]) == (350, 50)
    for part in (kept, aside):
        assert "50 of the 400 training images are held out (seed 3)" in part.info["source"]
        assert part.info["source"].endswith(".")
        assert (part.mean, part.std, part.shape, part.name) == (digits.mean, digits.std, digits.shape, digits.name)
        assert json.loads(json.dumps(part.info)) == part.info

    class Always(torch.nn.Module):
        """Knows the images that are set aside, and no others."""

        def __init__(self):
            super().__init__()
            self.none = torch.nn.Parameter(torch.zeros(1))
            x = datasets.normalise(aside, aside.test_x)
            self.known = dict(zip(images(x), aside.test_y.tolist(), strict=True))

        def forward(self, x):
            return torch.nn.functional.one_hot(torch.tensor([self.known.get(i, 0) for i in images(x)]), 10).float()

    assert evaluate(Always(), aside)["top1_pct"] == 100
    assert evaluate(Always(), kept)["top1_pct"] == 10


def test_larger_training_images_are_cropped_to_their_centre(digits):
    small = replace(digits, test_x=digits.test_x[:, :, 2:-2, 2:-2])
    kept, aside = hold_out(small, 20, seed=0)
    assert kept.train_x.shape[2:] == (28, 28)
    assert aside.shape == small.shape == (1, 24, 24)
    assert {*images(aside.test_x)} < {*images(digits.train_x[:, :, 2:-2, 2:-2].contiguous())}


@pytest.mark.parametrize("number", [-1, 0, 9, 391, 400])
def test_impossible_numbers(digits, number):
    wanted = f"{number} training images of digits to hold out: 10 to 390 of 400 is allowed"
    with pytest.raises(ValueError, match=wanted):
        hold_out(digits, number, seed=0)


def test_as_many_as_can_be_leave_one_of_each_class(digits):
    kept, _ = hold_out(digits, 390, seed=0)
    assert kept.train_y.bincount().tolist() == [1] * 10
    with pytest.raises(ValueError, match="10 training images of digits to hold out: none is allowed"):
        hold_out(kept, 10, seed=0)
