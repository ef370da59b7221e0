"""What the notebooks of all stages share: data with a validation part, the network of the stage before, the result.

A script that calls the same functions has the same pipeline: `lib.pipeline.weights.prune_weights`,
`lib.pipeline.inputs.prune_inputs`, `lib.pipeline.grids`, `lib.pipeline.training.fine_tune` take a `Network` and give
one, `lib.pipeline.stored` writes and reads it.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from torch import nn

from lib import data as datasets
from lib import device, models, progress, quantise, runs, widths
from lib.data import Dataset
from lib.data.validation import hold_out
from lib.files import read_json
from lib.masks import full, prunable
from lib.pipeline import grids, inputs, measure, stored
from lib.pipeline.network import Network
from lib.pipeline.training import fine_tune
from lib.pipeline.weights import of_layers
from lib.study.spec import SAME

MODEL = "model.safetensors"
ANEW = 1_000_003  # added to the seed of a network that is trained from scratch
Batches = list[tuple]


def data(name: str, *, train_images: int, validation_images: int, seed: int) -> tuple[Dataset, Dataset]:
    """The data set without `validation_images` of its training images, and these as the test images of another.

    The same arguments give the same images in every stage, so that no stage trains on what another chooses by.
    """
    whole = datasets.load(name, train_images=train_images, seed=seed, device=device.choose())
    return hold_out(whole, validation_images, seed)


def calibration(validation: Dataset, images: int, seed: int = 0) -> Batches:
    """So many images of the validation part, as many of each class as of any other, normalised, in batches."""
    held_out = replace(validation, train_x=validation.test_x, train_y=validation.test_y)
    return quantise.calibration_batches(held_out, images, seed)


def initial(run: runs.Run, dataset: Dataset, anew: bool = False) -> nn.Module:
    """A network of this run's model that has learned nothing, or, where the run says so, what torchvision's has.

    `anew` draws other weights than those that the first stage of the same seed started from.
    """
    values = run.parameters
    pretrained = {"pretrained": True} if values.get("pretrained") else {}
    seed = values["seed"] + (ANEW if anew else 0)
    return models.build(values["model"], dataset.shape, dataset.classes, seed, **pretrained).to(dataset.device)


def trained(model: nn.Module, dataset: Dataset, **recipe) -> tuple[Network, list[dict]]:
    """A whole network of ordinary weights after training, and one row an epoch; `recipe` as for `fine_tune`."""
    return fine_tune(Network(model.eval(), full(model)), dataset, **recipe)


def opened(run: runs.Run, dataset: Dataset, rounded: bool = False) -> Network:
    """The network in the model file of the source of `run`.

    Where it has none, one that is trained `pre_epochs` now, and `rounded` to 8 bits if so wished. ValueError for a
    source that is no stage, or one with other data: what it has set aside would be other images.
    """
    values, model = run.parameters, initial(run, dataset)
    if source := values["source"]:
        if not (path := runs.directory(source) / MODEL).is_file():
            raise ValueError(f"source {source!r} has no {MODEL}: a run of a stage is allowed, such as pretrained")
        theirs = runs.parameters_of(source)
        for name in SAME:  # by hand too, as a study checks it
            if theirs[name] != values[name]:
                raise ValueError(f"{name} is {values[name]!r} and that of source {source!r} is {theirs[name]!r}")
        return stored.load(path, model)
    follow = progress.follow(run, values["pre_epochs"], "a network to start from")
    place = {"checkpoint": runs.checkpoint(run, "source"), "on_epoch": follow, "seed": values["seed"]}
    made, _ = trained(model, dataset, epochs=values["pre_epochs"], lr=1e-3, batch=64, **place)
    return grids.quantise_int8(made) if rounded else made


def quantised(
    before: Network, run: runs.Run, validation: Dataset, batches: Batches
) -> tuple[Network, tuple[int, int] | None]:
    """`before` as the parameters of `run` round it, and the fraction bits of weights and activations in fixed point.

    Fraction bits that are to be chosen are those of the lowest loss on the `validation` part, of the activations after
    those of the weights. 8-bit ranges of activations are those of `batches`.
    """
    values = run.parameters
    bits, fraction, activations = values["weight_bits"], values["fraction_bits"], values["round_activations"]
    if values["grid"] == "shared":
        return grids.share(before, bits), None
    if values["grid"] == "int8":
        made = grids.quantise_int8(before)
        return (grids.round_inputs_int8(made, batches) if activations else made), None

    def score(candidate: Network) -> float:
        return -inputs.evaluated(candidate, validation)["loss"]

    chosen = grids.best_fraction(before, bits, score) if fraction == widths.CHOSEN else fraction
    made, of_inputs = grids.quantise_fixed(before, bits, chosen), chosen
    if activations and fraction == widths.CHOSEN:
        of_inputs = max(range(bits), key=lambda at: score(grids.round_inputs_fixed(made, bits, at)))
    return (grids.round_inputs_fixed(made, bits, of_inputs) if activations else made), (chosen, of_inputs)


def pruning(run: runs.Run, pruned: Network) -> str:
    """What a stage that removes weights did, in words: the share kept, unless every layer has one of its own."""
    values, own = run.parameters, run.parameters["layer_shares"]
    told = [f"{pattern} {share:g}" for pattern, share in own.items()]
    if not own or math.nan in of_layers(pruned.masks, math.nan, own).values():
        told.insert(0, f"{values['share_kept']:g}")
    return f"weights pruned: {values['method']}, {values['pruning_scope']}, kept {', '.join(told)}"


def rounding(run: runs.Run, fraction: tuple[int, int] | None) -> str:
    """What a stage that rounds did, in words; `fraction` as `quantised` returns it."""
    values = run.parameters
    bits, activations = values["weight_bits"], values["round_activations"]
    words = {"fixed": "fixed point", "int8": "int8 by channel", "shared": f"shared, {2**bits} values a layer"}
    text = f"quantised: {words[values['grid']]}"
    if fraction:
        text += f", {bits} bits, {fraction[0]} of them fraction"
    if activations:
        text += f", activations too ({fraction[1]} fraction bits)" if fraction else ", activations too"
    return text


def without_zeros(before: Network) -> Network:
    """`before` with the kept weights that are zero removed from its masks; its output is the same."""
    weights = prunable(before.model)
    kept = {name: mask & (weights[name].detach() != 0) for name, mask in before.masks.items()}
    return before._replace(model=copy.deepcopy(before.model), masks=kept)


def timed(work: Callable, *given: Any, **named: Any) -> tuple[Any, float]:
    """What `work` returns for these arguments, and the seconds that it took."""
    started = time.perf_counter()
    return work(*given, **named), time.perf_counter() - started


def closed(
    run: runs.Run,
    network: Network,
    dataset: Dataset,
    validation: Dataset,
    label: str,
    work_s: float | None = None,
    *,
    before: Network | None = None,
    trainings: list[dict] | None = None,
    **form: str,
) -> SimpleNamespace:
    """Store `network` as the model file of `run`, load that file again, and measure what was loaded.

    `label` says what the stage did, and `work_s` how long that took; without it, it is the writing and the reading, and
    with `trainings`, rows of epochs, no less than these took, as some may have been run before an interruption.
    `before` is the network that the stage began with: weights that it had removed and this one has not are counted.
    `form` is `positions` and `coding` of `lib.pipeline.stored.save`. Returns `network` (the loaded one), `metrics`,
    `parts`, `layers` for `runs.finish`, and `stages`, the metrics of all stages up to this one, which comes last.
    """
    loaded, metrics, parts, layers = _stored(run, network, dataset, validation, run.directory / MODEL, **form)
    epochs_s = sum(row["train_s"] + row["test_s"] for row in trainings or ())
    took = metrics["save_s"] + metrics["load_s"] if work_s is None else max(work_s, epochs_s)
    metrics = {"stage": label, "stage_s": took} | metrics
    if before:
        metrics["brought_back"] = sum(int((m & ~before.masks[n]).sum()) for n, m in network.masks.items())
    about = {"run": "", "seed": run.parameters["seed"]}
    earlier = history(run.parameters.get("source", "")) or _first(run, before, dataset, validation, about)
    this = {"notebook": run.notebook, **about, **metrics}
    return SimpleNamespace(network=loaded, metrics=metrics, parts=parts, layers=layers, stages=[*earlier, this])


def _stored(
    run: runs.Run, network: Network, dataset: Dataset, validation: Dataset, path: Path, **form: str
) -> tuple[Network, dict, pd.DataFrame, list[dict]]:
    parts, save_s = timed(stored.save, path, network, **form)
    loaded, load_s = timed(stored.load, path, initial(run, dataset))
    metrics, layers = measure.measured(loaded, parts, dataset, validation, run.parameters["counted_images"])
    return loaded, {"save_s": save_s, "load_s": load_s} | metrics, parts, layers


def _first(run: runs.Run, before: Network | None, dataset: Dataset, validation: Dataset, about: dict) -> list[dict]:
    """What is measured of a network that a stage without a source has made for itself."""
    if not before:
        return []
    with tempfile.TemporaryDirectory() as folder:
        _, metrics, _, _ = _stored(run, before, dataset, validation, Path(folder) / MODEL)
    label = f"trained: {run.parameters['pre_epochs']} epochs, by this run"
    return [{"notebook": "pretrained", **about, "stage": label, "stage_s": math.nan} | metrics]


def history(source: str) -> list[dict]:
    """What the finished run `study/run` and those that it came from measured, the first stage first; [] without one."""
    found = []
    while source:
        folder, values = runs.directory(source), runs.parameters_of(source)
        about = {"run": folder.name, "notebook": read_json(folder / runs.RUN)["notebook"], "seed": values["seed"]}
        found.insert(0, about | read_json(folder / runs.METRICS))
        source = values.get("source", "")
    return found
