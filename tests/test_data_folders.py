import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib import catalog, models, paths
from lib import data as datasets
from lib.data import cached, decoding, folders, room, sampling
from lib.train import train

TINY = {"train": {"n01": 3, "n02": 3}, "val": {"n01": 2, "n02": 2}}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(cached, "CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def picture(size=(40, 30), mode="RGB", seed=0) -> Image.Image:
    """A smooth random image of `size` (width, height) under noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    array = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int) + rng.integers(-20, 21, 3)
    return Image.fromarray(array.clip(0, 255).astype(np.uint8)).convert(mode)


def write(place: Path, counts: dict, sizes=((40, 30),), mode="RGB", suffix=".png", below="") -> None:
    """`counts[split][class]` pictures, which have the sizes one after the other."""
    seed = 0
    for split, classes in counts.items():
        for label, count in classes.items():
            (place / split / label / below).mkdir(parents=True)
            for i in range(count):
                seed += 1
                path = place / split / label / below / f"{label}_{i}{suffix}"
                picture(sizes[seed % len(sizes)], mode, seed).save(path)


def tiny_imagenet(place: Path, annotated: bool) -> None:
    """As the official archive unpacks (`annotated`), or as the original program's set-up leaves it."""
    write(place, {"train": TINY["train"]}, sizes=((64, 64),), suffix=".JPEG", below="images")
    write(place, {"val": TINY["val"]}, sizes=((64, 64),), suffix=".JPEG")
    for label in TINY["train"]:
        (place / "train" / label / f"{label}_boxes.txt").write_text("boxes")
    if annotated:
        lines = [f"{path.name}\t{path.parent.name}\t0\t0\t9\t9\n" for path in sorted(place.glob("val/*/*"))]
        (place / "val/images").mkdir()
        for path in list(place.glob("val/n*/*")):
            path.rename(place / "val/images" / path.name)
            if not list(path.parent.iterdir()):
                path.parent.rmdir()
        (place / "val/val_annotations.txt").write_text("".join(lines))


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


def test_imagenet_is_resized_and_cropped_as_torchvision_does(root):
    from torchvision import datasets as reference
    from torchvision import transforms

    sizes = ((300, 280), (257, 401), (500, 333), (90, 120), (301, 300), (49, 98))
    write(root / "imagenet", {"train": {"n02": 4, "n01": 3}, "val": {"n01": 3, "n02": 3}}, sizes, suffix=".JPEG")
    data = datasets.load("imagenet")
    assert data.train_x.shape == (7, 3, 256, 256)
    assert data.shape == (3, 224, 224)
    assert (data.classes, data.augment) == (2, True)
    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
    folder = reference.ImageFolder(root / "imagenet/val", transform)
    assert torch.equal(data.test_x, torch.stack([image for image, _ in folder]))
    assert data.test_y.tolist() == folder.targets
    folder = reference.ImageFolder(root / "imagenet/train", transform)
    assert torch.equal(data.train_x[:, :, 16:240, 16:240], torch.stack([image for image, _ in folder]))
    assert data.train_y.tolist() == folder.targets
    assert "Not the whole of it: 2 classes, 7 training and 6 test images" in data.info["source"]


@pytest.mark.parametrize("annotated", [True, False])
def test_tiny_imagenet_in_both_arrangements(root, tmp_path, annotated):
    tiny_imagenet(root / "tiny-imagenet-200", annotated)
    data = datasets.load("tinyimagenet")
    assert data.train_x.shape == (6, 3, 64, 64)
    assert (data.train_y.tolist(), data.test_y.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    paths = sorted(root.glob("tiny-imagenet-200/val/**/*.JPEG"))
    assert all(
        np.array_equal(image.permute(1, 2, 0), Image.open(path)) for image, path in zip(data.test_x, paths, strict=True)
    )
    tiny_imagenet(tmp_path / "other/tiny-imagenet-200", not annotated)
    os.environ["WORKBENCH_DATA"] = str(tmp_path / "other")  # the fixture puts it back
    other = datasets.load("tinyimagenet")
    assert torch.equal(other.test_x, data.test_x)
    assert other.info == data.info


def test_grey_images_among_coloured_ones_are_coloured(root):
    tiny_imagenet(root / "tiny-imagenet-200", annotated=False)
    picture((64, 64), "L").save(root / "tiny-imagenet-200/val/n01/n01_0.JPEG")
    image = datasets.load("tinyimagenet").test_x[0]
    assert torch.equal(image[0], image[2])


def test_a_folder_of_images_of_one_size_is_taken_as_it_is(root):
    write(root / "flowers", {"train": {"rose": 3, "aster": 4}, "test": {"aster": 2}, "val": {"rose": 2}})
    (root / "flowers/train/rose/notes.txt").write_text("roses")
    (root / "flowers/train/.hidden").mkdir()
    (root / "flowers/train/rose/._rose_0.png").write_bytes(b"what a Mac leaves behind")
    data = datasets.load("folder-flowers")
    assert (data.name, data.shape, data.classes, data.augment) == ("folder-flowers", (3, 30, 40), 2, True)
    assert data.train_y.tolist() == [0] * 4 + [1] * 3, "classes by name"
    found = sorted(root.glob("flowers/train/aster/*")) + sorted(root.glob("flowers/train/rose/rose_*"))
    assert np.array_equal(data.train_x.permute(0, 2, 3, 1), np.stack([np.asarray(Image.open(path)) for path in found]))
    assert data.test_y.tolist() == [0, 0], "test comes before val"
    said = "(flowers/train and flowers/test), 30 x 40 pixels. 1 files that are no images were left out."
    assert data.info["source"].endswith(said)
    assert "val" not in data.info["source"]
    scaled = data.train_x.numpy() / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(scaled.std((0, 2, 3)).tolist())


@pytest.mark.parametrize("mode", ["1", "L"])
def test_a_folder_of_grey_images_has_one_channel_and_is_not_augmented(root, mode):
    write(root / "letters", {"train": {"a": 2, "b": 2}, "val": {"a": 1}}, mode=mode)
    data = datasets.load("folder-letters")
    assert (data.shape, data.augment) == ((1, 30, 40), False)
    expected = np.asarray(Image.open(root / "letters/val/a/a_0.png").convert("L"))
    assert np.array_equal(data.test_x[0, 0], expected)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "CMYK"])
def test_pictures_of_every_kind_of_8_bits_are_read_as_colours(root, mode):
    suffix = ".tif" if mode == "CMYK" else ".png"
    write(root / "kinds", {"train": {"a": 1, "b": 1}, "val": {"a": 1}}, mode=mode, suffix=suffix)
    if mode == "P":
        image = Image.open(root / "kinds/val/a/a_0.png")
        image.save(root / "kinds/val/a/a_0.png", transparency=bytes(range(256)))
    data = datasets.load("folder-kinds")
    expected = np.asarray(Image.open(root / f"kinds/train/a/a_0{suffix}").convert("RGB"))
    assert np.array_equal(data.train_x[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("sizes", "train_side", "side"),
    [
        (((40, 30), (20, 50)), 32, 32),
        (((31, 30), (31, 29)), 32, 32),
        (((63, 64), (80, 63)), 32, 32),
        (((70, 64), (500, 64), (64, 90)), 64, 64),
        (((900, 300), (223, 223)), 64, 64),
        (((300, 224), (224, 400)), 256, 224),
    ],
)
def test_images_of_different_sizes_become_squares_of_a_common_side(root, sizes, train_side, side):
    write(root / "mixed", {"train": {"a": 3, "b": 3}, "val": {"a": 2}}, sizes)
    data = datasets.load("folder-mixed")
    assert data.train_x.shape[2:] == (train_side, train_side)
    assert data.shape[1:] == (side, side)
    assert f"shorter side resized to {train_side}" in data.info["source"]
    image = Image.open(root / "mixed/train/a/a_0.png")
    scale = train_side / min(image.size)
    larger = image.resize([max(train_side, int(scale * s)) for s in image.size], Image.Resampling.BILINEAR)
    left, top = (larger.width - train_side) // 2, (larger.height - train_side) // 2
    middle = np.asarray(larger)[top : top + train_side, left : left + train_side]
    assert np.abs(data.train_x[0].permute(1, 2, 0).numpy().astype(int) - middle).mean() < 8, (
        "half a pixel aside at most"
    )


def test_half_of_the_images_decide_the_common_side():
    def side(*shorter):
        return folders._form(Counter({("RGB", (s, s + 1)): 1 for s in shorter}))[0]["test_size"][0]

    assert side(40, 70, 300) == 64
    assert side(40, 64, 224, 300) == 64
    assert side(40, 224, 225, 300) == 224
    assert side(5, 10, 500) == 32


# Names


@pytest.mark.parametrize("name", ["folder-flowers", "folder-My_Flowers-2", "folder-7"])
def test_the_catalogue_knows_folders_by_a_pattern(name):
    code = "import sys; from lib import catalog; {}; assert not {{'torch', 'numpy'}} & set(sys.modules)"
    said = f"print(catalog.check('data', {name!r}), catalog.label({name!r}))"
    done = subprocess.run([sys.executable, "-c", code.format(said)], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout.split() == [name, name.removeprefix("folder-")], done.stderr


@pytest.mark.parametrize(
    "name",
    ["folder-", "folder-..", "folder-../x", "folder-/etc", "folder-a/b", "folder-a\\b", "folder-.x", "folder-~",
     "folder-a b", "folder-a\n", "folder-{a}", "Folder-a", "folder--", "flowers"],
)  # fmt: skip
def test_names_do_not_leave_the_data_folder(root, name):
    for call in (catalog.check, catalog.load):
        with pytest.raises(ValueError, match="and folder-NAME for the folder NAME") as caught:
            call("data", name)
        assert repr(name) in one_line(caught)
    if name.startswith("folder-"):
        with pytest.raises(ValueError, match="unknown data"):
            datasets.folder(name.removeprefix("folder-"))
    with pytest.raises(ValueError, match="unknown model"):
        catalog.check("model", "folder-flowers")


# What is missing or wrong


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def flowers(root: Path) -> Path:
    write(root / "flowers", {"train": {"aster": 2, "rose": 2}, "val": {"aster": 1, "rose": 1}})
    return root / "flowers"


WRONG = [
    (lambda place: shutil.rmtree(place), "no folder {}: train/<class>/ and test/<class>/ or val/<class>/ with images"),
    (lambda place: shutil.rmtree(place / "train"), "no folder {}/train: {}/train/<class>/ with images is expected"),
    (lambda place: shutil.rmtree(place / "val"), "no folder {}/val: {}/val/<class>/ with images"),
    (lambda place: [shutil.rmtree(p) for p in (place / "train").iterdir()], "{}/train holds no folders"),
    (lambda place: [p.unlink() for p in place.glob("train/rose/*")], "{}/train/rose holds no images: files ending in"),
    (lambda place: [p.rename(f"{p}.bin") for p in place.glob("val/aster/*")], "{}/val/aster holds no images"),
    (lambda place: (place / "val/rose").rename(place / "val/tulip"), "test images of class tulip, which training"),
    (lambda place: damage(place / "train/rose/rose_1.png"), "{}/train/rose/rose_1.png is damaged ("),
    (lambda place: (place / "train/rose/rose_1.png").write_bytes(b""), "{}/train/rose/rose_1.png is damaged ("),
    (lambda place: Image.new("I;16", (4, 3)).save(place / "val/rose/rose_0.png"), "rose_0.png has pixels of mode I;16"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), WRONG)
def test_a_folder_that_is_no_data_set(root, spoil, said):
    place = flowers(root)
    spoil(place)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        datasets.load("folder-flowers")
    assert said.replace("{}", str(place)) in one_line(caught)
    assert not list(root.parent.glob("cache/*")), "nothing is written"


def test_missing_sets_say_what_to_fetch_and_where(root):
    with pytest.raises(
        FileNotFoundError, match=r"fetch tiny-imagenet-200.zip .* unpack it in .*WORKBENCH_DATA"
    ) as caught:
        datasets.load("tinyimagenet")
    assert str(root) in one_line(caught)
    with pytest.raises(FileNotFoundError, match=r"no folder .*imagenet: train/<class>/ and val/<class>/") as caught:
        datasets.load("imagenet")
    assert str(root) in one_line(caught)


def test_annotations_that_do_not_fit_are_named(root):
    place = root / "tiny-imagenet-200"
    tiny_imagenet(place, annotated=True)
    text = (place / "val/val_annotations.txt").read_text()
    (place / "val/val_annotations.txt").write_text(text.split("\n", 1)[1])
    with pytest.raises(ValueError, match=r"val_annotations.txt is damaged \(it does not name n01_0.JPEG\)"):
        datasets.load("tinyimagenet")
    (place / "val/val_annotations.txt").write_text("n01_0.JPEG n01")
    with pytest.raises(ValueError, match="a line without a tab"):
        datasets.load("tinyimagenet")


def test_an_image_of_another_size_is_named_where_all_have_to_be_alike(root):
    tiny_imagenet(root / "tiny-imagenet-200", annotated=True)
    picture((64, 63)).save(root / "tiny-imagenet-200/val/images/n02_1.JPEG")
    with pytest.raises(ValueError, match=r"n02_1.JPEG is 63 x 64 pixels: 64 x 64 is expected") as caught:
        datasets.load("tinyimagenet")
    one_line(caught)


# Subsets and memory


def counted(monkeypatch) -> list[str]:
    """Paths of the images that are decoded from here on."""
    seen, decode = [], decoding._pixels
    monkeypatch.setattr(decoding, "_pixels", lambda path, *rest: [seen.append(path), decode(path, *rest)][1])
    return seen


def test_only_the_images_of_a_subset_are_decoded(root, monkeypatch):
    write(root / "many", {"train": {"a": 8, "b": 6, "c": 9}, "val": {"a": 2, "b": 3}})
    whole = datasets.load("folder-many")
    seen = counted(monkeypatch)
    part = datasets.load("folder-many", train_images=10, seed=3)
    assert len(seen) == 15
    assert part.train_y.bincount().tolist() == [4, 3, 3]
    assert {x.numpy().tobytes() for x in part.train_x} < {x.numpy().tobytes() for x in whole.train_x}
    assert torch.equal(part.test_x, whole.test_x)
    assert torch.equal(part.train_x, datasets.load("folder-many", train_images=10, seed=3).train_x)
    assert not torch.equal(part.train_x, datasets.load("folder-many", train_images=10, seed=4).train_x)
    assert part.info["fingerprint"] == whole.info["fingerprint"]
    assert (part.info["train_images"], whole.info["train_images"]) == (10, 23)
    assert "A class-balanced 10 of the 23 training images are used (seed 3)" in part.info["source"]
    with pytest.raises(ValueError, match=r"train_images is 20: 0 \(all\) or 3 to 19 is allowed for folder-many"):
        datasets.load("folder-many", train_images=20)


def test_test_images_beyond_a_limit_are_left_out_of_subsets_and_that_is_said(root, monkeypatch):
    for module in (sampling, room):
        monkeypatch.setattr(module, "TEST_IMAGES", 5)
    write(root / "many", {"train": {"a": 4, "b": 4}, "val": {"a": 5, "b": 6}})
    assert datasets.load("folder-many").info["test_images"] == 11
    parts = [datasets.load("folder-many", train_images=4, seed=seed) for seed in (1, 2)]
    assert torch.equal(parts[0].test_x, parts[1].test_x)
    assert (len(parts[0].test_x), parts[0].info["test_images"]) == (5, 5)
    assert "A random 5 of the 11 test images are used, always the same. A class-bal" in parts[0].info["source"]


def test_what_does_not_fit_into_memory_is_refused_with_the_number_that_does(root, monkeypatch):
    write(root / "many", {"train": {"a": 20, "b": 20}, "val": {"a": 5, "b": 5}})
    one = 3 * 30 * 40
    monkeypatch.setattr(room.psutil, "virtual_memory", lambda: SimpleNamespace(available=one * 33 / 0.75))
    seen = counted(monkeypatch)
    said = (
        r"40 training and 10 test images need 0.0 GiB, and 75% of the free 0.0 GiB are allowed: train_images of 2 to 23"
    )
    with pytest.raises(ValueError, match=f"folder-many: {said} would fit") as caught:
        datasets.load("folder-many")
    one_line(caught)
    with pytest.raises(ValueError, match="24 training and 10 test images need"):
        datasets.load("folder-many", train_images=24)
    assert seen == []
    assert len(datasets.load("folder-many", train_images=23).train_x) == 23
    monkeypatch.setattr(room.psutil, "virtual_memory", lambda: SimpleNamespace(available=one * 10))
    with pytest.raises(ValueError, match="no subset would fit"):
        datasets.load("folder-many")


# Fingerprint and cache


def test_the_fingerprint_follows_names_classes_and_sizes_and_not_the_place(root, tmp_path, monkeypatch):
    place = flowers(root)

    def found():
        return datasets.load("folder-flowers").info["fingerprint"]

    first = found()
    os.utime(place / "train/rose/rose_0.png", (1, 1))
    assert found() == first
    shutil.copytree(place, tmp_path / "elsewhere/flowers")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "elsewhere"))
    assert found() == first
    seen = {first}
    for change in (
        lambda place: picture(seed=77).save(place / "train/rose/rose_0.png"),
        lambda place: (place / "train/rose/rose_1.png").rename(place / "train/rose/rose_2.png"),
        lambda place: (place / "train/rose/rose_0.png").rename(place / "train/aster/rose_0.png"),
        lambda place: (place / "train/aster/rose_0.png").rename(place / "val/aster/rose_0.png"),
    ):
        change(tmp_path / "elsewhere/flowers")
        seen.add(found())
    assert len(seen) == 5


def test_decoded_images_are_kept_when_decoding_took_long(root, monkeypatch):
    place = flowers(root)
    datasets.load("folder-flowers")
    assert not cached.CACHE.exists(), "it did not take long"
    monkeypatch.setattr(decoding, "SLOW_S", -1)
    first = datasets.load("folder-flowers")
    (kept,) = cached.CACHE.iterdir()
    seen = counted(monkeypatch)

    def again(decoded: int):
        seen.clear()
        data = datasets.load("folder-flowers")
        assert len(seen) == decoded
        assert torch.equal(data.train_x, first.train_x)
        assert torch.equal(data.test_x, first.test_x)
        assert data.info == first.info
        assert (data.mean, data.std) == (first.mean, first.std)

    again(0)
    content = kept.read_bytes()
    for damaged in (content[:-1], content[:20], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        kept.write_bytes(damaged)
        again(6)
        again(0)
    os.utime(place / "train/rose/rose_0.png", (1, 1))  # perhaps another image of the same size
    again(6)
    assert len(datasets.load("folder-flowers", train_images=2).train_x) == 2
    assert len(list(cached.CACHE.iterdir())) == 3, "each choice of files has its own, and nothing else is left"


def test_images_that_cannot_be_kept_are_used_all_the_same(root, monkeypatch):
    flowers(root)
    monkeypatch.setattr(decoding, "SLOW_S", -1)
    monkeypatch.setattr(cached.psutil, "disk_usage", lambda path: SimpleNamespace(free=30_000))
    with pytest.warns(
        RuntimeWarning, match=r"are not kept in .*cache, .*: they are 0.0 GiB and the disk has 0.0 GiB left"
    ):
        assert len(datasets.load("folder-flowers").train_x) == 4
    assert list(cached.CACHE.iterdir()) == []
    cached.CACHE.rmdir()
    cached.CACHE.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="are not kept in"):
        datasets.load("folder-flowers")


def test_a_folder_trains(root):
    write(root / "mixed", {"train": {"a": 8, "b": 8}, "val": {"a": 4, "b": 4}}, sizes=((60, 40), (33, 50)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = datasets.load("folder-mixed", train_images=12)
        network = models.build("resnet8", data.shape, data.classes)
        rows = train(network, data, epochs=1, batch=6)
    assert rows[0]["test_top5_pct"] == 100
