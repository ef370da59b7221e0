"""Data sets that are folders of image files: Tiny-ImageNet, ImageNet, and any other."""

import statistics
from collections import Counter
from pathlib import Path

from lib import catalog
from lib.data.listing import Classes, Files, by_class, files, images
from lib.data.places import damaged, root

# Mean and standard deviation per channel, as in the code of Tanaka et al. 2020.
TINYIMAGENET_STATISTICS = (0.480, 0.448, 0.397), (0.276, 0.269, 0.282)
IMAGENET_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LARGE = {"train_size": (256, 256), "test_size": (224, 224), "shorter": 256}  # Krizhevsky et al. 2012
SIDES = (32, 64, 224)  # of the images that networks are commonly made for
GREY = {"1", "L"}  # Pillow's names


def tinyimagenet() -> Files:
    """Tiny-ImageNet: 200 classes, 100,000 and 10,000 images (its validation set), 64 x 64 colour, augmented.

    In the folder `tiny-imagenet-200`, as the official archive unpacks, or with the validation images already
    sorted into folders of classes; both give the same data set.
    """
    place = root() / "tiny-imagenet-200"
    if not place.is_dir():
        raise FileNotFoundError(
            f"no folder {place}: fetch tiny-imagenet-200.zip (from cs231n.stanford.edu) and unpack it in "
            f"{place.parent}, or set WORKBENCH_DATA to the folder that holds it"
        )
    train = by_class(place / "train")[0]
    annotated = place / "val" / "val_annotations.txt"
    test = _annotated(annotated) if annotated.exists() else by_class(place / "val")[0]
    return files(
        "tinyimagenet",
        train,
        test,
        source="Tiny-ImageNet (Le and Yang 2015), tested on its validation images."
        + _incomplete(train, test, (200, 100_000, 10_000)),
        channels=3,
        train_size=(64, 64),
        test_size=(64, 64),
        shorter=0,
        statistics=TINYIMAGENET_STATISTICS,
    )


def imagenet() -> Files:
    """ImageNet (ILSVRC 2012; Russakovsky et al. 2015): 1,000 classes, 1,281,167 and 50,000 images, augmented.

    In the folder `imagenet`, as train/<class>/ and val/<class>/. The shorter side is resized to 256 pixels
    (bilinear, with antialiasing); of the central 256 x 256 of a training image a random 224 x 224 is seen, of a
    validation image the central one. 197 kB and 151 kB an image.
    """
    place = root() / "imagenet"
    if not place.is_dir():
        raise FileNotFoundError(
            f"no folder {place}: train/<class>/ and val/<class>/ with the images of ILSVRC 2012 are expected there, "
            f"or in the folder imagenet of another WORKBENCH_DATA"
        )
    train, test = by_class(place / "train")[0], by_class(place / "val")[0]
    return files(
        "imagenet",
        train,
        test,
        source="ImageNet (ILSVRC 2012), tested on its validation images; shorter side 256, of which a square of 224."
        + _incomplete(train, test, (1000, 1_281_167, 50_000)),
        channels=3,
        **LARGE,
        statistics=IMAGENET_STATISTICS,
    )


def _incomplete(train: Classes, test: Classes, expected: tuple[int, int, int]) -> str:
    found = len(train), sum(map(len, train.values())), sum(map(len, test.values()))
    if found == expected:
        return ""
    return " Not the whole of it: {:,} classes, {:,} training and {:,} test images.".format(*found)


def _annotated(path: Path) -> Classes:
    """The validation images of Tiny-ImageNet by the class that `val_annotations.txt` (name, class, box) gives them."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    if not all(len(line) > 1 for line in lines):
        raise damaged(path, "a line without a tab between file name and class")
    labels = {line[0]: line[1] for line in lines}
    found: Classes = {}
    for image in images(path.parent / "images")[0]:
        name = Path(image).name
        if name not in labels:
            raise damaged(path, f"it does not name {name}")
        found.setdefault(labels[name], []).append(image)
    return found


def folder(name: str) -> Files:
    """The folder `name` of the data folder: train/<class>/ and test/<class>/ (or val/<class>/), any images of 8 bits.

    Images that all have one size are taken as they are. Of others the shorter side is resized (bilinear, with
    antialiasing) and the central square cut out: its side is 224, 64 or 32, the largest that the shorter side of
    half of all images reaches, and 32 where none is; at 224 as with ImageNet. Grey, and then not augmented, where
    all images are grey; otherwise colour, cropped and flipped. Normalised by the training images in use.
    0.06 ms an image to see what they are.
    """
    from lib.data.decoding import header  # here, since Pillow takes 0.2 s to import

    catalog.check("data", f"folder-{name}")
    place = root() / name
    if not place.is_dir():
        raise FileNotFoundError(
            f"no folder {place}: train/<class>/ and test/<class>/ or val/<class>/ with images are expected there"
        )
    tested = "test" if (place / "test").is_dir() else "val"
    (train, others), (test, more) = by_class(place / "train"), by_class(place / tested)
    seen = Counter(header(path) for found in (train, test) for paths in found.values() for path in paths)
    form, said = _form(seen)
    left = f" {others + more} files that are no images were left out." if others + more else ""
    return files(
        f"folder-{name}",
        train,
        test,
        source=f"Images in folders of classes ({name}/train and {name}/{tested}), {said}.{left}",
        channels=1 if {mode for mode, _ in seen} <= GREY else 3,
        **form,
        statistics=None,
    )


def _form(seen: Counter) -> tuple[dict, str]:
    """Sizes to decode to, and in words, for images whose (mode, (height, width)) are counted in `seen`."""
    sizes = {size for _, size in seen}
    if len(sizes) == 1:
        height, width = size = sizes.pop()
        return {"train_size": size, "test_size": size, "shorter": 0}, f"{height} x {width} pixels"
    middle = statistics.median_low([min(size) for (_, size), count in seen.items() for _ in range(count)])
    side = max((side for side in SIDES if side <= middle), default=SIDES[0])
    if side == SIDES[-1]:
        return LARGE, f"of different sizes: shorter side resized to {LARGE['shorter']}, of which a square of {side}"
    form = {"train_size": (side, side), "test_size": (side, side), "shorter": side}
    return form, f"of different sizes: shorter side resized to {side}, and the central square"
