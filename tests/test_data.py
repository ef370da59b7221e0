import gzip
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib import data as datasets

REAL = os.environ.get("WORKBENCH_DATA", "")
needs_real_data = pytest.mark.skipif(not REAL, reason="WORKBENCH_DATA names no folder with the real files")

IDX = {"train-images-idx3-ubyte": 40, "t10k-images-idx3-ubyte": 20}


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with a tiny MNIST (gzipped) and a tiny CIFAR-10, and WORKBENCH_DATA set to it."""
    rng = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    for name, count in IDX.items():
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / "mnist" / f"{name.replace('images-idx3', 'labels-idx1')}.gz").write_bytes(
            gzip.compress(idx(labels))
        )
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in datasets.CIFAR10_MD5:
        write_batch(folder / name, rng.integers(0, 256, (20, 3072), dtype=np.uint8))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    return tmp_path


def write_batch(path: Path, pixels: np.ndarray, **extra) -> None:
    labels = [i % 10 for i in range(len(pixels))]
    path.write_bytes(pickle.dumps({b"data": pixels, b"labels": labels} | extra, protocol=4))


# What a data set is


def test_digits_are_real_balanced_and_complete():
    digits = datasets.load("digits")
    assert digits.shape == (1, 28, 28)
    assert digits.train_x.dtype == torch.uint8
    assert digits.train_y.bincount().tolist() == [400] * 10
    assert digits.test_y.bincount().tolist() == [100] * 10
    assert not digits.augment
    assert digits.info["original"] is None
    pixels = {image.numpy().tobytes() for image in torch.cat([digits.train_x, digits.test_x])}
    assert len(pixels) == 5000, "no image of the test set is in the training set"
    json.dumps(digits.info)


def test_mnist_files(root):
    mnist = datasets.load("mnist")
    assert mnist.train_x.shape == (40, 1, 28, 28)
    assert mnist.test_x.shape == (20, 1, 28, 28)
    assert mnist.train_y.tolist() == [i % 10 for i in range(40)]
    raw = np.frombuffer(gzip.decompress((root / "mnist/train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    assert np.array_equal(mnist.train_x.numpy().ravel(), raw)
    assert mnist.info["original"] is False


def test_mnist_files_in_torchvisions_place_and_not_compressed(root):
    compressed = datasets.load("mnist")
    (root / "MNIST").mkdir()
    (root / "mnist").rename(root / "MNIST/raw")
    for path in list((root / "MNIST/raw").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert datasets.load("mnist").info == compressed.info


def test_cifar10_files(root):
    cifar = datasets.load("cifar10")
    assert cifar.train_x.shape == (100, 3, 32, 32)
    assert cifar.test_x.shape == (20, 3, 32, 32)
    assert cifar.augment
    batch = pickle.loads((root / "cifar10/cifar-10-batches-py/data_batch_2").read_bytes())
    assert np.array_equal(cifar.train_x[20, 0].numpy().ravel(), batch[b"data"][0, :1024]), "the red plane comes first"
    assert cifar.info["original"] is False
    assert cifar.info["altered_train"] is None
    assert "not known" in cifar.info["source"]


def test_cifar10_says_how_many_images_are_altered(root):
    (root / "cifar10/lossy_indices.json").write_text(json.dumps({"train": [1, 2, 3], "test": [0]}))
    info = datasets.load("cifar10").info
    assert (info["altered_train"], info["altered_test"]) == (3, 1)
    assert "3 training and 1 test images" in info["source"]


def test_the_fingerprint_follows_the_pixels(root):
    first = datasets.load("cifar10").info["fingerprint"]
    assert first == datasets.load("cifar10").info["fingerprint"]
    assert len(first.removeprefix("sha256:")) == 16
    path = root / "cifar10/cifar-10-batches-py/test_batch"
    write_batch(path, pickle.loads(path.read_bytes())[b"data"] ^ 1)
    assert first != datasets.load("cifar10").info["fingerprint"]


# Subsets, scoring batches, normalisation, augmentation


def test_a_subset_is_balanced_seeded_and_said_aloud():
    whole, part = datasets.load("digits"), datasets.load("digits", train_images=105, seed=1)
    assert sorted(part.train_y.bincount().tolist()) == [10] * 5 + [11] * 5
    assert part.info["train_images"] == 105
    assert "105 of the 4,000" in part.info["source"]
    assert part.info["fingerprint"] == whole.info["fingerprint"]
    assert torch.equal(part.test_x, whole.test_x)
    assert torch.equal(part.train_x, datasets.load("digits", train_images=105, seed=1).train_x)
    assert not torch.equal(part.train_x, datasets.load("digits", train_images=105, seed=2).train_x)
    assert datasets.load("digits", train_images=4000).info == whole.info


@pytest.mark.parametrize("number", [-1, 5, 4001])
def test_impossible_subsets(number):
    with pytest.raises(ValueError, match=rf"train_images is {number}: 0 \(all\) or 10 to 4000 is allowed for digits"):
        datasets.load("digits", train_images=number)


def test_scoring_batches_are_balanced_and_seeded():
    digits = datasets.load("digits")
    found = datasets.scoring_batches(digits, per_class=10, seed=1, batch=64)
    assert [len(y) for _, y in found] == [64, 36]
    assert torch.cat([y for _, y in found]).bincount().tolist() == [10] * 10
    assert all(x.dtype == torch.float32 and x.shape[1:] == digits.shape for x, _ in found)
    training = {image.numpy().tobytes() for image in datasets.normalise(digits, digits.train_x)}
    images = [image.numpy().tobytes() for x, _ in found for image in x]
    assert len(set(images)) == 100
    assert training >= set(images)
    again = datasets.scoring_batches(digits, seed=1, batch=64)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(found, again, strict=True))
    assert not torch.equal(found[0][0], datasets.scoring_batches(digits, seed=2, batch=64)[0][0])


def test_impossible_scoring_batches():
    digits = datasets.load("digits")
    with pytest.raises(ValueError, match="401 images of class 0 asked for: 1 to 400"):
        datasets.scoring_batches(digits, per_class=401)
    with pytest.raises(ValueError, match="batch is 0"):
        datasets.scoring_batches(digits, batch=0)


def test_normalisation_by_hand(root):
    cifar = datasets.load("cifar10")
    found = datasets.normalise(cifar, cifar.train_x[:5])
    mean, std = torch.tensor([0.491, 0.482, 0.447]), torch.tensor([0.247, 0.243, 0.262])
    expected = (cifar.train_x[:5] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.allclose(found, expected, atol=1e-5)
    digits = datasets.load("digits")
    assert abs(datasets.normalise(digits, digits.train_x).mean()) < 0.02
    assert digits.train_x.dtype == torch.uint8, "the images themselves are not touched"


def test_augmentation_is_a_crop_of_the_padded_image_perhaps_flipped():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (300, 3, 8, 10), generator=generator, dtype=torch.uint8)
    found = datasets.augment(images, generator)
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    places = [(top, left, flip) for top in range(9) for left in range(9) for flip in (False, True)]

    def window(image, top, left, flip):
        crop = image[:, top : top + 8, left : left + 10]
        return crop.flip(2) if flip else crop

    seen = set()
    for image, crop in zip(padded, found, strict=True):
        matches = [place for place in places if torch.equal(crop, window(image, *place))]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert 0.4 < sum(flip for _, _, flip in seen) / len(seen) < 0.6


def test_augmentation_follows_its_generator():
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    first, second, third = (datasets.augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


# Missing and damaged files


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_missing_file_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name)
    assert str(tmp_path) in one_line(caught)
    assert "WORKBENCH_DATA" in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"<html>not found</html>",
        lambda content: gzip.compress(b""),
        lambda content: gzip.compress(b"\0\0\x08\x03\0\0"),
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
        lambda content: gzip.compress(gzip.decompress(content) + b"\0"),
        lambda content: gzip.compress(b"\0\0\x0d" + gzip.decompress(content)[3:]),
        lambda content: content[:100] + b"\xff" * 8 + content[108:],
    ],
)
def test_a_damaged_mnist_file_is_named(root, damage):
    path = root / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is damaged \(.*\): delete it") as caught:
        datasets.load("mnist")
    one_line(caught)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"<html>not found</html>",
        lambda content: pickle.dumps([1, 2]),
        lambda content: pickle.dumps({b"data": np.zeros((2, 3000), np.uint8), b"labels": [0, 1]}),
        lambda content: pickle.dumps({b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]}),
        lambda content: pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
        lambda content: pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}),
        lambda content: pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}),
    ],
)
def test_a_damaged_cifar_file_is_named(root, damage):
    path = root / "cifar10/cifar-10-batches-py/data_batch_3"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged \(.*\): delete it") as caught:
        datasets.load("cifar10")
    one_line(caught)


class Payload:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused(root):
    pixels = np.zeros((2, 3072), np.uint8)
    write_batch(root / "cifar10/cifar-10-batches-py/data_batch_1", pixels, payload=Payload(root / "made"))
    with pytest.raises(ValueError, match=r"data_batch_1 is damaged \(UnpicklingError: \w+.mkdir is not allowed"):
        datasets.load("cifar10")
    assert not (root / "made").exists()


def test_a_damaged_list_of_altered_images_is_named(root):
    (root / "cifar10/lossy_indices.json").write_text('{"train": 3}')
    with pytest.raises(ValueError, match="lossy_indices.json is damaged"):
        datasets.load("cifar10")


def test_numbers_of_images_and_labels_must_agree(root):
    (root / "mnist/train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    with pytest.raises(ValueError, match="numbers of images and labels differ"):
        datasets.load("mnist")


def test_unknown_data_set():
    with pytest.raises(ValueError, match="unknown data 'imagenet': one of digits, mnist, cifar10"):
        datasets.load("imagenet")


# Downloads


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise RuntimeError("Error downloading it:\nmany lines")

    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setattr(datasets, "DOWNLOADS", tmp_path)
    fake = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=unreachable))  # the real one takes seconds to import
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    with pytest.raises(FileNotFoundError, match=r"CIFAR10 could not be downloaded .*set WORKBENCH_DATA") as caught:
        datasets.load("cifar10")
    one_line(caught)


@needs_real_data
def test_torchvision_finds_and_verifies_what_lies_in_its_place(tmp_path, monkeypatch):
    """The four original files where torchvision keeps them: no network is needed, and none is used."""
    monkeypatch.setattr(datasets, "DOWNLOADS", tmp_path)
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for name in datasets.MNIST_MD5:
        shutil.copy(
            datasets._first_existing([Path(REAL, "mnist", f"{name}.gz"), Path(REAL, "MNIST/raw", f"{name}.gz")]), raw
        )
    monkeypatch.delenv("WORKBENCH_DATA")
    datasets._download("MNIST")
    assert (raw / "train-images-idx3-ubyte").exists(), "torchvision has unpacked it"
    monkeypatch.setattr(datasets, "_download", lambda title: pytest.fail("original files need no download"))
    assert datasets.load("mnist").info["original"] is True


@needs_real_data
def test_the_real_files():
    mnist, cifar = datasets.load("mnist"), datasets.load("cifar10")
    assert mnist.info["original"] is True
    assert len(mnist.train_x) == 60_000
    assert cifar.train_y.bincount().tolist() == [5000] * 10
    assert (cifar.info["altered_train"], cifar.info["altered_test"]) in [(0, 0), (72, 20)]
    means = cifar.train_x.double().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx(cifar.mean, abs=1e-3)
