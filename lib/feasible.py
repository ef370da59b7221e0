"""`python -m lib.feasible`: can these runs work at all? Asked before a study starts, where only torch can tell.

The runs come as a JSON list of `{"id", "notebook", "parameters"}` on standard input. `data`, `model`, `train_images`,
`test_images`, `batch`, `latency_batches`, `calibration_images`, `pruner`, `pretrained`,
`checkpoint` and `layer_shares` mean in every notebook what they do in the workbench's.
What many runs share is tried once. Nothing is written, but for data sets and pretrained weights that are downloaded.
"""

import inspect
import json
import sys
from functools import cache
from typing import TextIO

import torch

from lib import catalog, device, models
from lib.compiling import first_line
from lib.data import Dataset, normalise, room, sampling, scoring_batches
from lib.data.listing import Files
from lib.masks import check_kept, full
from lib.models import imagenet
from lib.reference_checkpoint import load_reference_checkpoint

PER_CLASS = inspect.signature(scoring_batches).parameters["per_class"].default
TRACED = 3  # batches that the notebook `trace` takes, of test images


def main(source: TextIO) -> int:
    """0 when all runs can work; else 2, and one line on stderr about the first that cannot."""
    for run in json.load(source):
        try:
            check(run["notebook"], run["parameters"])
        except (ValueError, OSError) as error:
            print(f"{run['id']}: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
    return 0


def check(notebook: str, values: dict) -> None:
    """ValueError or FileNotFoundError in one line where a run of `notebook` with these parameters cannot work.

    Its data set is there, undamaged as far as can be seen without decoding images, and fits into memory; it has as many
    images as are asked for; the model can be built for them and trained; and a checkpoint or pretrained weights are
    there and fit. Costs the reading of each data set, and of each model its making: 2 s for VGG-16 on one core.
    """
    if "data" not in values or values.get("trace_file"):
        return
    name, batch = values["data"], values.get("batch", 0)
    per_class = PER_CLASS if _scores(notebook, values) else 0
    classes, test = _counts(name, values.get("train_images", 0), per_class)
    train = sum(classes) - values.get("validation_images", 0)
    _check_tests(notebook, values, test)
    _check_calibration(values, classes)
    _check_validation(values, classes)
    if "model" not in values:
        return
    # batch norm may have nothing to divide by where a batch of the training has one image
    alone = batch and {"epochs", "pre_epochs"} & set(values) and 1 in (batch, train % batch)
    _check_model(values["model"], name, 1 if alone else 2)
    if values.get("layer_shares"):
        _check_layers(values["model"], name, values["layer_shares"])
    if values.get("activation_method", "").startswith("map-"):
        _check_maps(values["model"], name, values["activation_method"])
    if values.get("pretrained"):
        _check_pretrained(values["model"])
    if values.get("checkpoint"):
        _check_checkpoint(values["checkpoint"], values["model"], name, values.get("density"))


def _scores(notebook: str, values: dict) -> bool:
    """Whether a run draws scoring batches: for the pruners it names, or for examples of `timing` without sources."""
    return bool({"pruner", "compared", "method"} & set(values)) or (notebook == "timing" and not values["sources"])


@cache
def _whole(name: str) -> Dataset | Files:
    return catalog.load("data", name)()


def _shape(data: Dataset | Files) -> tuple[int, ...]:
    return data.shape if isinstance(data, Dataset) else (data.channels, *data.test_size)


@cache
def _counts(name: str, train_images: int, per_class: int) -> tuple[list[int], int]:
    """How many training images of each class, and how many test images a run takes of the data set.

    ValueError where there are not so many, not `per_class` of each class to train with, or too many for the memory.
    """
    data = _whole(name)
    counts = data.train_y.bincount(minlength=data.classes)
    fewest = int(counts.argmin())
    if counts[fewest] < per_class:
        raise ValueError(
            f"class {fewest} of {name} has {counts[fewest]} training images: {per_class} or more are needed for scores"
        )
    if 0 < train_images < per_class * data.classes:
        raise ValueError(
            f"train_images is {train_images}: 0 (all), or {per_class * data.classes} or more is allowed for {name}, as "
            f"scores take {per_class} of each class"
        )
    used = sampling.subset(data, train_images, seed=0) if train_images else data
    if isinstance(data, Files):
        room.check_memory(data, train_images, device.choose())
    return used.train_y.bincount(minlength=data.classes).tolist(), len(used.test_y)


def _check_tests(notebook: str, values: dict, available: int) -> None:
    for name in ("test_images", "counted_images"):
        if values.get(name, 0) > available:
            raise ValueError(f"{name} is {values[name]}: 0 (all) to {available} is allowed for {values['data']}")
    most = (available - 1) // (TRACED - 1)  # so that an image is left for the last batch
    if notebook == "trace" and values["batch"] > most:
        raise ValueError(
            f"batch is {values['batch']} with the {available} test images of {values['data']}: 1 to {most} is allowed, "
            f"as a trace takes {TRACED} batches"
        )
    batches = values.get("latency_batches", []) if values.get("timed_passes", 1) else []  # 0 times nothing
    if max(batches, default=0) > available:
        raise ValueError(
            f"latency_batches are {batches}: 1 to {available}, all test images of {values['data']}, are allowed"
        )


def _check_calibration(values: dict, classes: list[int]) -> None:
    wanted, most = values.get("calibration_images"), sampling.most_balanced(classes)
    if wanted is not None and not len(classes) <= wanted <= most:
        raise ValueError(
            f"calibration_images is {wanted}: {len(classes)} to {most} is allowed for {values['data']}, as many "
            f"of each class as of any other"
        )


def _check_validation(values: dict, classes: list[int]) -> None:
    """Enough of each class is left to train with, or to score on."""
    wanted, left = values.get("validation_images"), values.get("scoring_images", 1)
    most = sampling.most_balanced([max(count - left, 0) for count in classes])
    if wanted is not None and not len(classes) <= wanted <= most:
        raise ValueError(
            f"validation_images is {wanted}: {len(classes)} to {most} of the {sum(classes)} training images of "
            f"{values['data']} is allowed, which leaves {left} of each class"
        )


@cache
def _check_model(model: str, name: str, count: int) -> None:
    """Build the model for the data set `name`, and send `count` of its images through in training mode.

    On the CPU: the imports of torch's device `meta` take longer than VGG-16 takes to be built. Black images stand for
    those that are not decoded yet.
    """
    data = _whole(name)
    shape, what = _shape(data), f"{'x'.join(map(str, _shape(data)))} of {name}"
    try:
        network = models.build(model, shape, data.classes).train()
    except ValueError:
        raise
    except Exception as error:  # whatever it is, the run would end with it
        raise ValueError(f"model {model} cannot be built for {what} ({_reason(error)})") from error
    x = normalise(data, data.train_x[:count]) if isinstance(data, Dataset) else torch.zeros(count, *shape)
    try:
        with torch.inference_mode():
            found = tuple(network(x).shape)
    except Exception as error:
        said = "2 images" if count > 1 else "1 image, which batch and train_images leave alone"
        raise ValueError(f"model {model} cannot be trained on {said}, {what} ({_reason(error)})") from error
    if found != (len(x), data.classes):
        raise ValueError(f"model {model} gives {found} for {len(x)} of {name}: {(len(x), data.classes)} is needed")


def _check_layers(model: str, name: str, layer_shares: dict) -> None:
    """ValueError for a pattern that matches no layer of the network."""
    from lib.pipeline.weights import of_layers  # here, since torch-pruning takes a second to import

    data = _whole(name)
    of_layers(full(models.build(model, _shape(data), data.classes)), 1.0, layer_shares)


@cache
def _check_maps(model: str, name: str, method: str) -> None:
    """ValueError for a method that removes feature maps of a network that has none."""
    from lib.pipeline.inputs import pruned_layers

    data = _whole(name)
    pruned_layers(models.build(model, _shape(data), data.classes), method)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


@cache
def _check_pretrained(model: str) -> None:
    imagenet.pretrained(model)


@cache
def _check_checkpoint(path: str, model: str, name: str, density: float | None) -> None:
    _, kept = load_reference_checkpoint(path, model, _shape(_whole(name)), _whole(name).classes)
    if density is not None:
        check_kept(kept, density)


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
