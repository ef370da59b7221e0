"""Mistakes that only the data set, the network or a file shows: found before a study starts, and nothing is written."""

import inspect
import io
import os
import subprocess
import urllib.error
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from stub_study import Bench

from lib import catalog, feasible, models, parameters, paths, precision, pruners, quantise, timing, tracing
from lib import data as datasets
from lib.models import imagenet
from lib.study import __main__ as command
from lib.study import beforehand, execute, state

FC = {"data": "digits", "model": "fc"}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A workbench with the real notebooks, whose data folder holds `folder-few`: 12 and 4 images of class a and b."""
    made = Bench(tmp_path, paths.NOTEBOOKS)
    for name in ("RUNS", "STUDIES", "FIGURES"):
        monkeypatch.setattr(paths, name, getattr(made, name.lower()))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write(tmp_path / "data" / "few", {"train": {"a": 12, "b": 4}, "test": {"a": 2, "b": 2}})
    for cached in (feasible._whole, feasible._counts, feasible._check_model):
        cached.cache_clear()
    yield made
    made.close()


def write(folder, counts: dict) -> None:
    """Colour images of 32 x 32, `counts[split][class]` of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for split, classes in counts.items():
        for label, count in classes.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(pixels + number).save(folder / split / label / f"{number}.png")


@pytest.fixture
def here(bench, monkeypatch):
    """The same, with what is to be asked in a process of its own asked in this one, which has imported torch."""

    def asked(arguments, input, **_):
        assert arguments[1:] == ["-m", "lib.feasible"]
        with pytest.MonkeyPatch.context() as patch:
            said = io.StringIO()
            patch.setattr("sys.stderr", said)
            code = feasible.main(io.StringIO(input))
        return subprocess.CompletedProcess(arguments, code, "", said.getvalue())

    monkeypatch.setattr(beforehand, "subprocess", SimpleNamespace(run=asked))
    monkeypatch.setattr(execute, "attempt", lambda *_: pytest.fail("a run was executed"))
    return bench


def refused(bench, capsys, *blocks: dict) -> str:
    """What `run` says about a study of these blocks, which it must refuse."""
    bench.write("s", *blocks)
    assert command.main(["run", "s", "--jobs", "1"]) == 2
    return one_line(bench, capsys.readouterr().err)


def one_line(bench, err: str) -> str:
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert not bench.runs.exists()
    return err.removeprefix("error: ").removesuffix("\n")


def works(bench, *blocks: dict, **more) -> None:
    bench.write("s", *blocks, **more)
    beforehand.check(state.plan("s")["runs"])


def block(notebook: str, **fixed) -> dict:
    return {"notebook": notebook, "fixed": fixed}


# Checkpoints and pretrained weights


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def saved(path, content) -> str:
    torch.save(content, path)
    return str(path)


def original(density: float = 0.2) -> dict:
    """The network fc for digits as the original program saves it."""
    network = models.build("fc", (1, 28, 28), 10)
    kept, state = pruners.prune(network, "rand", density, []), {}
    for name, value in network.state_dict().items():
        _, number, part = name.split(".")
        state[f"{1 + 2 * int(number)}.{part}"] = value
        state[f"{1 + 2 * int(number)}.{part}_mask"] = kept.get(name, torch.ones_like(value)).float()
    return state


CHECKPOINTS = {
    "holds pickled code (": lambda: {"conv.weight": Evil()},
    "is damaged, or no checkpoint (": None,
    "fits no fc: layers.0.weight is 16x1x3x3 there, 100x784 is allowed": (
        lambda: models.build("resnet8", (1, 28, 28), 10).state_dict()
    ),
    "fits no fc: layers.0.weight is missing there, 100x784 is allowed": lambda: {"whatever": torch.ones(7)},
    "density is 0.2 and the masks keep 0.5: the same share is needed": lambda: original(0.5),
}


@pytest.mark.parametrize("message", CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit(here, capsys, tmp_path, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = CHECKPOINTS[message]
    path = tmp_path / "model.pt"
    path.write_bytes(b"nothing of the kind")
    if make:
        saved(path, make())
    said = refused(here, capsys, block("checkpoint", **FC, checkpoint=str(path), density=0.2))
    assert message in said
    assert said.startswith("checkpoint-digits-fc-d0.2-seed1: ")
    assert not (tmp_path / "made-by-a-pickle").exists()


def test_a_checkpoint_that_fits_and_runs_that_look_at_it(here, tmp_path):
    path = saved(tmp_path / "model.pt", original())
    source = "checkpoint-digits-fc-d0.2-seed{seed}"
    works(
        here,
        block("checkpoint", **FC, checkpoint=path, density=0.2),
        block("layers", source=source),
        block("trace", source=source),
        block("timing", **FC, sources=["checkpoint-*"]),
    )


def test_pretrained_weights_that_do_not_exist(here, capsys):
    said = refused(here, capsys, block("accuracy", **FC, pretrained=True))
    assert "pretrained is True with model fc, and no such weights exist: one of resnet18-imagenet, " in said


def test_the_catalogue_knows_whose_weights_can_be_asked_for():
    assert set(catalog.PRETRAINED) == {name for name in catalog.MODELS if name.endswith(imagenet.SUFFIX)}


def test_pretrained_weights_that_cannot_be_fetched(here, capsys, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    write(tmp_path / "data" / "enough", {"train": {"a": 10, "b": 10}, "test": {"a": 1, "b": 1}})
    wanted = block("accuracy", data="folder-enough", model="resnet18-imagenet", pretrained=True)
    said = refused(here, capsys, wanted)
    assert "resnet18-f37072fd.pth could not be downloaded (<urlopen error no route to host>): put the file at " in said
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth")
    works(here, wanted)


# Pruners that make no sense there


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (block("multishot", pruner="dense"), "pruner is dense with levels: one that removes weights is allowed"),
        (block("multishot", pruner="dense", density=1), "pruner is dense with levels: one that removes weights"),
        (block("multishot", pruner="mag-init"), "pruner is mag-init with levels, which score trained weights: mag is"),
        (block("amp", pruner="dense"), "pruner dense keeps every weight, so densities must be [1.0], not [0.631, 0.1]"),
        (
            block("accuracy", pruner="mag-init", pre_epochs=2),
            "pre_epochs is 2 with pruner mag-init, which ranks initial",
        ),
        (
            block("accuracy", pruner="mag-init", model="resnet18-imagenet", pretrained=True),
            "pretrained is True with pruner mag-init, which ranks initial weights: mag is allowed there",
        ),
        (
            block("accuracy", pruner="mag-init", source="accuracy-dense-c0-seed{seed}"),
            "source is 's/accuracy-dense-c0-seed1' with pruner mag-init, which ranks initial weights: mag is allowed",
        ),
    ],
)
def test_pruners_where_they_make_no_sense(here, capsys, wanted, message):
    dense = block("accuracy", pruner="dense", compression=0)
    said = refused(here, capsys, dense, wanted)
    assert said.startswith(f"study s: notebook {wanted['notebook']}: ")
    assert message in said


def test_the_same_pruners_where_they_do(here):
    source = "accuracy-mag-init-c1-seed{seed}"
    works(
        here,
        block("accuracy", pruner="mag-init", compression=1),
        block("layers", source=source),
        block("trace", source=source),
        block("accuracy", pruner="mag", compression=1, source=source),
        block("amp", pruner="dense", compressions=[0]),
        block("multishot", pruner="mag"),
    )


# Networks that do not take the images


class Odd(torch.nn.Module):
    """Takes 32 x 32 in colour only, and for three classes gives two."""

    def __init__(self, shape, classes):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 32 * 32, 2 if classes == 3 else classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"model": "vgg11-imagenet"}, "images for vgg11-imagenet have 1 channels: 3 is allowed"),
        ({"model": "resnet18-imagenet"}, "images for resnet18-imagenet have 1 channels: 3 is allowed"),
        ({"model": "vgg11-tinyimagenet"}, "images for this VGG are 28x28: 32x32 or more is allowed"),
        ({"model": "resnet8-w1000000"}, "model resnet8-w1000000 cannot be built for 1x28x28 of digits (RuntimeError: "),
        ({"model": "odd"}, "model odd cannot be trained on 2 images, 1x28x28 of digits (RuntimeError: "),
        ({"model": "odd", "data": "folder-three"}, "model odd gives (2, 2) for 2 of folder-three: (2, 3) is needed"),
        (
            {"model": "vgg11-bn", "train_images": 101, "batch": 50},
            "model vgg11-bn cannot be trained on 1 image, which batch and train_images leave alone, 1x28x28 of ",
        ),
    ],
)
def test_a_network_that_does_not_take_the_images(here, capsys, tmp_path, monkeypatch, fixed, message):
    monkeypatch.setitem(catalog.MODELS, "odd", f"{__name__}:Odd")
    three = dict.fromkeys("abc", 10)
    write(tmp_path / "data" / "three", {"train": three, "test": three})
    said = refused(here, capsys, block("accuracy", data="digits"), block("accuracy", seed=2, **{**FC, **fixed}))
    assert said.startswith(f"accuracy-{fixed.get('data', 'digits')}-{fixed['model']}-seed2: {message}")


def test_a_network_of_ones_own_that_takes_them(here, tmp_path, monkeypatch):
    monkeypatch.setitem(catalog.MODELS, "odd", f"{__name__}:Odd")
    write(tmp_path / "data" / "two", {"train": {"a": 10, "b": 10}, "test": {"a": 1, "b": 1}})
    works(here, block("accuracy", data="folder-two", model="odd"))
    works(here, block("accuracy", data="digits", model="vgg11-bn", train_images=102, batch=50))


# Too few images


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (block("accuracy", train_images=99), "train_images is 99: 0 (all), or 100 or more is allowed for digits, as"),
        (block("layers", train_images=5), "train_images is 5: 0 (all), or 100 or more is allowed for digits"),
        (block("amp", train_images=5), "train_images is 5: 0 (all), or 100 or more is allowed for digits"),
        (block("conservation", train_images=5), "train_images is 5: 0 (all), or 100 or more is allowed for digits"),
        (block("timing", train_images=5), "train_images is 5: 0 (all), or 100 or more is allowed for digits"),
        (block("accuracy", train_images=4001), "train_images is 4001: 0 (all) or 10 to 4000 is allowed for digits"),
        (block("accuracy", data="folder-few"), "class 1 of folder-few has 4 training images: 10 or more are needed"),
        (block("timing", test_images=1001), "test_images is 1001: 0 (all) to 1000 is allowed for digits"),
        (
            block("trace", batch=500),
            "batch is 500 with the 1000 test images of digits: 1 to 499 is allowed, as a trace",
        ),
        (
            block("structured", latency_batches=[1, 1001]),
            "latency_batches are [1, 1001]: 1 to 1000, all test images of digits, are allowed",
        ),
        (block("repeated", data="digits", latency_batches=[1001]), "latency_batches are [1001]: 1 to 1000, all"),
        (block("runtime", data="folder-few", latency_batches=[5]), "latency_batches are [5]: 1 to 4, all test images"),
        (block("quantized", data="folder-few", latency_batches=[5]), "latency_batches are [5]: 1 to 4, all test"),
        (
            block("runtime", calibration_images=9),
            "calibration_images is 9: 10 to 4000 is allowed for digits, as many of each class as of any other",
        ),
        (block("runtime", calibration_images=4001), "calibration_images is 4001: 10 to 4000 is allowed for digits"),
        (
            block("runtime", data="folder-few", latency_batches=[4], calibration_images=10),
            "calibration_images is 10: 2 to 9 is allowed for folder-few",  # 5 of the 12 of class a, 4 of class b
        ),
        (
            block("quantized", data="digits", train_images=55, calibration_images=56),
            "calibration_images is 56: 10 to 55 is allowed for digits",
        ),
        (block("accuracy", data="folder-none"), "no folder "),
    ],
)
def test_too_few_images(here, capsys, wanted, message):
    assert f": {message}" in refused(here, capsys, wanted)


def test_as_many_images_as_there_are(here):
    works(here, *(block("accuracy", data="digits", model="vgg11", train_images=n, seed=n) for n in (100, 4000)))
    works(here, block("timing", model="vgg11", test_images=1000), block("trace", model="vgg11", batch=499))
    works(
        here,
        block("repeated", data="digits", model="mlp-1x16", latency_batches=[1000]),
        block("repeated", data="digits", model="mlp-1x16", latency_batches=[1001], timed_passes=0, seed=2),
        block("structured", model="mlp-1x16", latency_batches=[1, 1000]),
        block("runtime", model="mlp-1x16", latency_batches=[1000], calibration_images=4000),
        block("quantized", data="digits", model="mlp-1x16", train_images=55, calibration_images=55),
    )
    for count in (2, 9):
        data = datasets.load("folder-few")
        assert sum(len(y) for _, y in quantise.calibration_batches(data, count, seed=0)) == count
        works(here, block("runtime", data="folder-few", model="fc", latency_batches=[4], calibration_images=count))
    dense = block("accuracy", data="digits", model="vgg11", train_images=100)
    works(here, dense, block("timing", model="vgg11", train_images=100, sources=["accuracy-*"]))


def test_who_draws_scoring_batches():
    drawing = {path.stem for path in paths.NOTEBOOKS.glob("*.ipynb") if "scoring_batches(" in path.read_text()}
    for module, name in ((precision.compare, "amp"), (timing.examples, "timing")):
        assert "scoring_batches(" in inspect.getsource(module)
        drawing.add(name)
    asked = {path.stem for path in paths.NOTEBOOKS.glob("*.ipynb") if feasible._scores(path.stem, defaults(path.stem))}
    assert asked >= drawing
    assert not asked & {"runtime", "structured", "quantized"}
    assert not feasible._scores("timing", defaults("timing") | {"sources": ["study/run"]})
    assert inspect.signature(tracing.record).parameters["warmup"].default + 1 == feasible.TRACED


def defaults(notebook: str) -> dict:
    return {name: entry["default"] for name, entry in parameters.declared(notebook).items()}


def test_images_are_listed_and_not_decoded(here, tmp_path):
    """What is damaged behind a whole header would take the decoding of all to be found."""
    write(tmp_path / "data" / "two", {"train": {"a": 10, "b": 10}, "test": {"a": 1, "b": 1}})
    path = tmp_path / "data/two/train/a/1.png"
    path.write_bytes(path.read_bytes()[:-60])
    works(here, block("accuracy", data="folder-two", model="fc"))


def test_images_that_do_not_fit_into_memory(here, capsys, tmp_path, monkeypatch):
    write(tmp_path / "data" / "two", {"train": {"a": 10, "b": 10}, "test": {"a": 1, "b": 1}})
    monkeypatch.setattr("lib.data.room._free", lambda device: 1000)
    said = refused(here, capsys, block("accuracy", data="folder-two", model="fc"))
    assert "folder-two: 20 training and 2 test images need" in said


# In a process of its own


def test_the_process_that_is_asked(bench):
    """The very command line: one line, code 2, nothing written, and a process without torch."""
    bench.write("s", block("accuracy", data="digits"), block("accuracy", data="folder-trees", seed=2))
    ended = bench.run("run", "s", "--jobs", "1")
    assert ended.returncode == 2
    assert one_line(bench, ended.stderr).startswith(
        f"accuracy-folder-trees-seed2: no folder {bench.root}/data/trees: train/<class>/ and test/<class>/ or "
    )


def test_one_that_dies_is_named(bench, monkeypatch, capsys):
    dead = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(beforehand, "subprocess", SimpleNamespace(run=lambda *_, **__: dead))
    assert refused(bench, capsys, block("accuracy", data="cifar10")).endswith("-m lib.feasible ended with code -9")


# What need not be asked


def unasked(monkeypatch) -> None:
    monkeypatch.setattr(beforehand, "subprocess", SimpleNamespace())  # without `run`


def test_the_quick_study_is_not_asked_about(monkeypatch):
    unasked(monkeypatch)
    beforehand.check(state.plan("quick")["runs"])


def test_what_is_not_asked_about_works(bench, monkeypatch):
    """Every kind of network that counts as sure, and every number of images at the ends of what counts as sure."""
    sure = []
    for model in ("fc", "conv", "resnet8", "resnet20-w32", "resnet18", "resnet50", "lenet-300-100", "vgg7"):
        sure.append(block("accuracy", data="digits", model=model, batch=1))
    for images in (beforehand.DIGITS["train_images"][0], beforehand.DIGITS["train_images"][-1]):
        sure.append(block("accuracy", **FC, train_images=images, batch=64, seed=images))
    sure.append(block("timing", **FC, test_images=beforehand.DIGITS["test_images"][-1]))
    for images in (beforehand.DIGITS["calibration_images"][0], beforehand.DIGITS["calibration_images"][-1]):
        fixed = {"seed": images, "calibration_images": images, "train_images": beforehand.DIGITS["train_images"][0]}
        sure.append(block("quantized", **FC, **fixed, latency_batches=[beforehand.DIGITS["test_images"][-1]]))
    sure.append(block("trace", **FC, batch=beforehand.TRACE["batch"][-1]))
    bench.write("s", *sure)
    unasked(monkeypatch)
    planned = state.plan("s")["runs"]
    beforehand.check(planned)
    for run in planned:
        feasible.check(run["notebook"], run["parameters"])
    made = [catalog.load("model", run["parameters"]["model"]) for run in planned]
    functions = {getattr(one, "func", one) for one in made}
    assert {f"{one.__module__}:{one.__name__}" for one in functions} == set(catalog.SMALL_IMAGES)


def test_what_is_new_is_asked_about(monkeypatch):
    values = parameters.resolve("accuracy", dict(FC))
    assert beforehand._sure("accuracy", values)
    for kind, name in (("MODELS", "fc"), ("DATA", "digits")):
        with monkeypatch.context() as patch:
            patch.setitem(getattr(catalog, kind), name, f"{__name__}:Odd")
            assert not beforehand._sure("accuracy", values)
    assert not beforehand._sure("accuracy", values | {"model": "resnet8-w8"}), "for a width may be too much for memory"
