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

from lib import catalog, models
from lib import data as datasets
from lib.data import places
from lib.train import evaluate, train

REAL = os.environ.get("WORKBENCH_DATA", "")
needs_real_data = pytest.mark.skipif(not REAL, reason="WORKBENCH_DATA names no folder with the real files")

IDX = {"train-images-idx3-ubyte": 40, "t10k-images-idx3-ubyte": 20}


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with a tiny MNIST (gzipped), CIFAR-10 and CIFAR-100, and WORKBENCH_DATA set to it."""
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
    folder = tmp_path / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, count in {"train": 300, "test": 100}.items():
        fine = {b"fine_labels": [i % 100 for i in range(count)], b"coarse_labels": [i % 20 for i in range(count)]}
        batch = {b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8)} | fine
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
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


def test_cifar100_files(root):
    cifar = datasets.load("cifar100")
    assert cifar.train_x.shape == (300, 3, 32, 32)
    assert cifar.train_y.bincount().tolist() == [3] * 100, "the fine labels, not the coarse ones"
    assert cifar.test_y.tolist() == list(range(100))
    assert (cifar.classes, cifar.info["classes"], cifar.augment) == (100, 100, True)
    batch = pickle.loads((root / "cifar100/cifar-100-python/train").read_bytes())
    assert np.array_equal(cifar.train_x[7, 1].numpy().ravel(), batch[b"data"][7, 1024:2048]), "green comes second"
    assert "CIFAR-100 (Krizhevsky 2009), but not the original" in cifar.info["source"]
    (root / "cifar100/lossy_indices.json").write_text(json.dumps({"train": [5], "test": []}))
    assert datasets.load("cifar100").info["altered_train"] == 1
    assert datasets.load("cifar10").info["altered_train"] is None, "each has a list of its own"


def test_the_checksums_of_cifar_are_those_that_torchvision_publishes():
    from torchvision.datasets import CIFAR10, CIFAR100

    assert [list(item) for item in datasets.CIFAR10_MD5.items()] == CIFAR10.train_list + CIFAR10.test_list
    assert [list(item) for item in datasets.CIFAR100_MD5.items()] == CIFAR100.train_list + CIFAR100.test_list


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "cifar100"])
def test_info_says_how_many_classes_there_are(root, name):
    data = datasets.load(name)
    assert data.info["classes"] == data.classes == len(data.train_y.unique())


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


# A data set of one's own


def stripes():
    """Upright stripes and lying ones in two shades of grey, under noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 2
    wave = np.where(np.arange(12) // 3 % 2, 60, 190)
    images = np.where(labels[:, None, None] == 0, wave[:, None], wave[None, :])
    images = (images + rng.integers(-20, 21, images.shape)).astype(np.uint8)[:, None]
    return datasets.assemble(
        "stripes", images[:200], labels[:200], images[200:], labels[200:], source="Stripes, drawn by a function."
    )


def test_a_data_set_of_ones_own_is_one_function_and_one_line(monkeypatch):
    monkeypatch.setitem(catalog.DATA, "stripes", f"{__name__}:stripes")
    data = datasets.load("stripes", train_images=120, seed=1)
    assert (data.shape, data.classes, data.augment) == ((1, 12, 12), 2, False)
    assert data.train_y.bincount().tolist() == [60, 60]
    assert data.info["source"].startswith("Stripes, drawn by a function. A class-balanced 120 of the 200")
    assert (data.info["train_images"], data.info["test_images"], data.info["classes"]) == (120, 40, 2)
    assert json.loads(json.dumps(data.info)) == data.info
    normalised = datasets.normalise(data, stripes().train_x)
    assert (normalised.mean().item(), normalised.std().item()) == pytest.approx((0, 1), abs=1e-3)
    assert [len(y) for _, y in datasets.scoring_batches(data, per_class=10)] == [20]
    network = models.build("fc", data.shape, data.classes)
    rows = train(network, data, epochs=1, lr=3e-3, batch=20)
    assert rows[0]["test_top1_pct"] > 90


def test_statistics_are_measured_exactly():
    images = torch.randint(0, 200, (1500, 3, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, 2] = 9
    data = datasets.assemble("noise", images, torch.arange(1500) % 4, images[:2], torch.arange(2), source="Noise.")
    scaled = images.numpy() / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert data.std[:2] == pytest.approx(scaled.std((0, 2, 3))[:2].tolist(), abs=1e-12)
    assert torch.isfinite(datasets.normalise(data, data.test_x)).all(), "a constant channel can be divided by"


GOOD = {"x": torch.zeros(6, 1, 4, 4, dtype=torch.uint8), "y": torch.arange(6) % 3}
BAD = [
    ({"train_y": GOOD["y"][:5]}, r"numbers of images and labels differ: \[6, 5, 6, 6\]"),
    ({"train_x": GOOD["x"].float()}, r"images are \(6, 1, 4, 4\) torch.float32: uint8 \(N, C, H, W\)"),
    ({"test_x": GOOD["x"][:, 0]}, r"images are \(6, 4, 4\) torch.uint8"),
    ({"test_x": GOOD["x"].expand(6, 3, 4, 4)}, "the same C in both splits"),
    ({"test_x": GOOD["x"][:0], "test_y": GOOD["y"][:0]}, "with N > 0"),
    ({"train_x": GOOD["x"][:, :, 1:]}, r"training images of \(3, 4\) pixels and test images of \(4, 4\)"),
    ({"train_y": GOOD["y"].float()}, r"training labels are \(6,\) torch.float32: integers"),
    ({"test_y": GOOD["y"] + 1}, "test labels go from 1 to 3: 0 to 2 is allowed"),
    ({"train_y": GOOD["y"] - 1}, "training labels go from -1 to 1: 0 to 1 is allowed"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_tensors_that_make_no_data_set(change, said):
    parts = {"train_x": GOOD["x"], "train_y": GOOD["y"], "test_x": GOOD["x"], "test_y": GOOD["y"]}
    datasets.assemble("mine", **parts, source="Mine.")
    with pytest.raises(ValueError, match=f"^mine: .*{said}") as caught:
        datasets.assemble("mine", **parts | change, source="Mine.")
    one_line(caught)


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


def test_the_smallest_class_limits_a_subset(monkeypatch):
    monkeypatch.setitem(catalog.DATA, "uneven", f"{__name__}:uneven")
    assert datasets.load("uneven", train_images=7).train_y.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert len(datasets.load("uneven", train_images=10).train_x) == 10, "all of them need no balance"
    with pytest.raises(ValueError, match=r"train_images is 8: 0 \(all\) or 3 to 7 is allowed for uneven"):
        datasets.load("uneven", train_images=8)


def uneven():
    labels = torch.tensor([0] * 4 + [1] * 2 + [2] * 4)
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    return datasets.assemble("uneven", images, labels, images, labels, source="Uneven.")


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


def large() -> datasets.Dataset:
    """Training images of 12 x 13 pixels, of which networks see 8 x 8; each pixel tells where it is."""
    place = 13 * torch.arange(12).view(-1, 1) + torch.arange(13)
    images = place.expand(200, 1, 12, 13).to(torch.uint8)
    labels = torch.arange(200) % 4
    return datasets.assemble("large", images, labels, images[:, :, 2:10, 2:10], labels, source="Large.", augment=True)


def test_larger_training_images_are_cropped_at_random_in_training():
    data = large()
    found = datasets.augment(data.train_x, torch.Generator().manual_seed(0), data.shape[1:])
    assert found.shape == (200, 1, 8, 8)
    corners, flips = set(), 0
    for crop in found[:, 0].int():
        flipped = bool(crop[0, 0] > crop[0, 7])
        crop = crop.flip(1) if flipped else crop
        top, left = divmod(int(crop[0, 0]), 13)
        assert torch.equal(crop, data.train_x[0, 0, top : top + 8, left : left + 8].int()), "no padding"
        corners.add((top, left))
        flips += flipped
    assert corners == {(top, left) for top in range(5) for left in range(6)}
    assert 70 < flips < 130


def test_larger_training_images_are_cropped_to_their_centre_elsewhere():
    data = large()
    centre = datasets.normalise(data, data.test_x[:1])[0]
    assert data.shape == (1, 8, 8)
    assert torch.equal(datasets.normalise(data, data.train_x[:1])[0], centre)
    assert all(torch.equal(x, centre) for batch, _ in datasets.scoring_batches(data) for x in batch)
    network = models.build("fc", data.shape, data.classes)
    assert len(train(network, data, epochs=1, batch=50)) == 1
    assert evaluate(network, data, split="train") == pytest.approx(evaluate(network, data))


def test_augmentation_follows_its_generator():
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    first, second, third = (datasets.augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


# Missing and damaged files


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
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


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({b"fine_labels": [0, 100]}, "a label is outside 0 to 99"),
        ({b"coarse_labels": [0, 1]}, "KeyError: b'fine_labels'"),
    ],
)
def test_a_damaged_cifar100_file_is_named(root, labels, said):
    path = root / "cifar100/cifar-100-python/test"
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)} | labels))
    with pytest.raises(ValueError, match=rf"cifar-100-python/test is damaged \({said}\): delete it"):
        datasets.load("cifar100")


class Payload:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "cifar-10-batches-py/data_batch_1"), ("cifar100", "cifar-100-python/train")]
)
def test_a_pickle_that_would_run_code_is_refused(root, name, file):
    pixels = np.zeros((2, 3072), np.uint8)
    write_batch(root / name / file, pixels, payload=Payload(root / "made"))
    with pytest.raises(ValueError, match=rf"{file} is damaged \(UnpicklingError: \w+.mkdir is not allowed"):
        datasets.load(name)
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
    with pytest.raises(ValueError, match="unknown data 'imagenette': one of digits, mnist, cifar10, cifar100"):
        datasets.load("imagenette")


# Downloads


@pytest.mark.parametrize("title", ["CIFAR10", "CIFAR100"])
def test_a_failed_download_says_what_to_do(title, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise RuntimeError("Error downloading it:\nmany lines")

    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setattr(places, "DOWNLOADS", tmp_path)
    fake = SimpleNamespace(**{title: unreachable})
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=fake))  # the real one takes seconds
    with pytest.raises(FileNotFoundError, match=rf"{title} could not be downloaded .*set WORKBENCH_DATA") as caught:
        datasets.load(title.lower())
    one_line(caught)


@needs_real_data
def test_torchvision_finds_and_verifies_what_lies_in_its_place(tmp_path, monkeypatch):
    """The four original files where torchvision keeps them: no network is needed, and none is used."""
    monkeypatch.setattr(places, "DOWNLOADS", tmp_path)
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for name in datasets.MNIST_MD5:
        shutil.copy(
            places.first_existing([Path(REAL, "mnist", f"{name}.gz"), Path(REAL, "MNIST/raw", f"{name}.gz")]), raw
        )
    monkeypatch.delenv("WORKBENCH_DATA")
    places.download("MNIST")
    assert (raw / "train-images-idx3-ubyte").exists(), "torchvision has unpacked it"
    monkeypatch.setattr(places, "download", lambda title: pytest.fail("original files need no download"))
    assert datasets.load("mnist").info["original"] is True


@needs_real_data
def test_the_real_files():
    mnist, cifar = datasets.load("mnist"), datasets.load("cifar10")
    assert mnist.info["original"] is True
    assert len(mnist.train_x) == 60_000
    assert cifar.train_y.bincount().tolist() == [5000] * 10
    assert (cifar.info["altered_train"], cifar.info["altered_test"]) in [(0, 0), (72, 20)]
    means = cifar.train_x.sum((0, 2, 3), dtype=torch.int64) / (255 * 50_000 * 1024)
    assert means.tolist() == pytest.approx(cifar.mean, abs=1e-3)
