"""A notebook's parameters cell is its interface: read it, and check values against it before anything runs."""

import ast
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from lib import catalog, paths, rates, widths
from lib.rounds import SCOPES, check_scope, densities

Density = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
TRACE = "a trace of torch.profiler, .json or .json.gz"
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _known(kind: str):
    return Annotated[str, AfterValidator(partial(catalog.check, kind))]


def _existing(what: str, path: str) -> str:
    if path and not (paths.ROOT / path).is_file():
        raise ValueError(f"no file {path!r}: allowed is {what}, or nothing")
    return path


class Allowed(BaseModel, strict=True, extra="ignore"):
    """What the parameters that several notebooks share may be; others are only held to the type of their default."""

    data: _known("data") = "digits"
    model: _known("model") = "fc"
    pruner: _known("pruner") = "rand"
    optimizer: _known("optimizer") = "adam"
    density: Density = 1.0
    densities: Annotated[list[Density], Field(min_length=1)] = [1.0]
    rounds: PositiveInt = 1
    round_counts: Annotated[list[PositiveInt], Field(min_length=1)] = [1]
    compared: Annotated[list[_known("pruner")], Field(min_length=1)] = ["rand"]
    schedule: Literal["exponential", "linear"] = "exponential"
    scope: Literal[SCOPES] = "global"
    also: list[Literal["biases", "norms", "embeddings"]] = []
    spare: list[Literal["shortcuts", "last"]] = []
    train_mode: bool = False
    ablation: Literal[catalog.ABLATIONS] = "none"
    precision: Literal["float32", "amp"] = "float32"
    epochs: PositiveInt = 1
    pre_epochs: NonNegativeInt = 0
    tune_epochs: NonNegativeInt = 0
    qat_epochs: NonNegativeInt = 0
    calibration_images: PositiveInt = 100
    batch: PositiveInt = 256
    rewind_epochs: NonNegativeInt = 0
    levels: PositiveInt = 1
    retrain: Literal["none", "rewind"] = "none"
    step: Annotated[float, Field(gt=0, lt=1)] = 0.33
    iterations: PositiveInt = 1
    latency_batches: Annotated[list[PositiveInt], Field(min_length=1)] = [1]
    scoring_images: PositiveInt = 10
    timed_passes: NonNegativeInt = 0
    structured_rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    sparsities: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)] = [0.5]
    activation_method: Literal[catalog.ACTIVATION_METHODS] = "element-l1"
    activation_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    calibrated: bool = False
    lr: PositiveNumber = 0.001
    lr_schedule: Literal[rates.SCHEDULES] = "constant"
    lr_drops: list[PositiveInt] = []
    lr_drop_factor: PositiveNumber = rates.DROP_FACTOR
    lr_warmup: NonNegativeInt = 0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    seed: NonNegativeInt = 0
    repeats: PositiveInt = 5
    warmup: NonNegativeInt = 1
    source: str = ""
    pretrained: bool = False
    checkpoint: Annotated[str, AfterValidator(partial(_existing, "a model.pt of the original program"))] = ""
    trace_file: Annotated[str, AfterValidator(partial(_existing, TRACE))] = ""
    train_images: NonNegativeInt = 0
    test_images: NonNegativeInt = 0
    structures: list[Literal[catalog.STRUCTURES]] = []
    method: Literal[tuple(catalog.WEIGHT_METHODS)] = "element-l1"
    share_kept: Share = 1.0
    pruning_scope: Literal["local", "global"] = "local"
    layer_shares: dict[str, Share] = {}
    validation_images: PositiveInt = 500
    counted_images: NonNegativeInt = 0
    positions: Literal["none", "bitmask", "relative"] = "bitmask"
    round_activations: bool = False
    grid: Literal[widths.GRIDS] = "fixed"
    weight_bits: int = 8
    fraction_bits: int = widths.CHOSEN
    rates: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)] = [0.5]  # last: hides the module

    @model_validator(mode="after")
    def _levels_remove_weights(self):
        if "levels" not in self.model_fields_set:
            return self
        if self.pruner == "dense":
            raise ValueError("pruner is dense with levels: one that removes weights is allowed, such as mag")
        if self.pruner == "mag-init":
            raise ValueError("pruner is mag-init with levels, which score trained weights: mag is allowed for these")
        if self.density == 1:
            raise ValueError("density is 1 with levels: less than 1 is allowed, as levels remove weights")
        return self

    @model_validator(mode="after")
    def _dense_keeps_all(self):
        given = self.model_fields_set
        if self.pruner == "dense" and "density" in given and self.density != 1:
            raise ValueError(f"pruner dense keeps every weight, so density must be 1, not {self.density}")
        if self.pruner == "dense" and "densities" in given and set(self.densities) != {1}:
            raise ValueError(f"pruner dense keeps every weight, so densities must be [1.0], not {self.densities}")
        if self.pruner == "dense" and self.ablation != "none":
            raise ValueError(f"pruner dense has no mask to destroy, so ablation must be none, not {self.ablation}")
        return self

    @model_validator(mode="after")
    def _groups_of_four_keep_quarters(self):
        given = self.model_fields_set
        if {"scope", "density"} <= given:
            count = self.levels if "levels" in given else self.rounds
            check_scope(self.scope, densities(self.density, count, self.schedule))
        return self

    @model_validator(mode="after")
    def _scores_can_be_had(self):
        """By the pruner, in such a notebook, of such inputs."""
        given = self.model_fields_set
        pruned = "pruner" in given and (not self.source or "pre_epochs" in given)  # else the source's is looked at
        named = {*([self.pruner] if pruned else []), *(self.compared if "compared" in given else [])}
        at_once = given & {"rounds", "densities", "round_counts"}
        for pruner in named & {*catalog.TRAINED} if at_once else ():
            raise ValueError(f"pruner {pruner} scores the trainings of levels: only the notebook multishot has these")
        if "synflow" in named and catalog.holds_texts(self.data):
            raise ValueError(
                f"pruner synflow with data {self.data}: its input is an image of ones, so images are allowed"
            )
        if self.train_mode and self.pruner in catalog.PER_IMAGE:
            raise ValueError(
                f"train_mode is True with pruner {self.pruner}, which takes single images: False is allowed"
            )
        return self

    @model_validator(mode="after")
    def _initial_weights_are_initial(self):
        if self.pruner != "mag-init" or "pre_epochs" not in self.model_fields_set:
            return self  # without `pre_epochs`, a notebook looks at what its source has pruned
        for name in ("source", "pre_epochs", "pretrained"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{name} is {value!r} with pruner mag-init, which ranks initial weights: mag is allowed there"
                )
        return self

    @model_validator(mode="after")
    def _rewinding_trains(self):
        if "retrain" not in self.model_fields_set:
            return self
        if self.retrain == "rewind" and self.source:
            raise ValueError(f"source is {self.source!r} with retrain rewind, which trains anew: nothing is allowed")
        if self.retrain == "none" and self.pruner in catalog.TRAINED:
            raise ValueError(f"pruner {self.pruner} with retrain none: it scores trainings, so rewind is allowed")
        return self

    @model_validator(mode="after")
    def _pretrained_weights_exist(self):
        if self.pretrained and self.model not in catalog.PRETRAINED:
            known = ", ".join(catalog.PRETRAINED)
            raise ValueError(f"pretrained is True with model {self.model}, and no such weights exist: one of {known}")
        return self

    @model_validator(mode="after")
    def _shares_of_layers_are_local(self):
        if self.layer_shares and self.pruning_scope == "global":
            raise ValueError(f"layer_shares is {self.layer_shares} with pruning_scope global: local is allowed there")
        return self

    @model_validator(mode="after")
    def _images_for_synflow(self):
        if {"method", "data"} <= self.model_fields_set and "synflow" in self.method and catalog.holds_texts(self.data):
            raise ValueError(
                f"method {self.method} with data {self.data}: its input is an image of ones, so images are allowed"
            )
        return self

    @model_validator(mode="after")
    def _calibration_is_of_the_validation_part(self):
        both = {"validation_images", "calibration_images"} <= self.model_fields_set
        if both and self.calibration_images > self.validation_images:
            raise ValueError(
                f"calibration_images is {self.calibration_images}: at most the {self.validation_images} of "
                "validation_images is allowed"
            )
        return self

    @model_validator(mode="after")
    def _codebooks_are_of_weights(self):
        if self.round_activations and self.grid == "shared":
            raise ValueError("round_activations is True with grid shared, which has values for weights only: False")
        return self

    @model_validator(mode="after")
    def _grids_have_such_widths(self):
        widths.check(self.grid, self.weight_bits, self.fraction_bits)
        return self

    @model_validator(mode="after")
    def _rates_fit_every_training(self):
        after = "rewind_epochs + epochs" if self.rewind_epochs else "epochs"
        for name, epochs in ((after, self.rewind_epochs + self.epochs), ("pre_epochs", self.pre_epochs)):
            rates.check(self.lr_schedule, self.lr_drops, self.lr_drop_factor, self.lr_warmup, epochs, name)
        return self


@cache
def declared(notebook: str | Path) -> dict[str, dict]:
    """Name -> {"default", "help"} of every line of the cell tagged `parameters`, in order.

    `notebook` is a name in notebooks/ or a path. Papermill infers the same by regular expression; a literal
    parse also refuses a line that papermill would skip without a word.
    """
    path = notebook if isinstance(notebook, Path) else paths.notebook(notebook)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = next(("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])), None)
    if source is None:
        raise ValueError(f"{path.name} has no cell tagged 'parameters'")
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            raise ValueError(f"{path.name}: parameters cell holds {lines[node.lineno - 1]!r}, not name = value")
        text = lines[node.end_lineno - 1].partition("  # ")[2]
        if not text or "=" in text:
            raise ValueError(f"{path.name}: {node.targets[0].id} needs a comment without an equals sign")
        found[node.targets[0].id] = {"default": ast.literal_eval(node.value), "help": text}
    return found


def resolve(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters of `notebook`: the defaults, overridden by `given`, each checked.

    ValueError in one line for an unknown name, a value of the wrong type, or one out of range.
    """
    known = declared(notebook)
    for name in given:
        if name not in known:
            raise ValueError(f"notebook {notebook} has no parameter {name!r}: one of {', '.join(known)}")
    values = {name: given.get(name, deepcopy(entry["default"])) for name, entry in known.items()}
    for name, value in given.items():
        _check_type(notebook, name, value, known[name]["default"])
    try:
        checked = Allowed(**values)
    except ValidationError as error:
        raise ValueError(f"notebook {notebook}: {one_line(error)}") from None
    ranged = checked.model_dump()
    return {name: ranged.get(name, value) for name, value in values.items()}


def one_line(error: ValidationError, keys: Mapping[str, Iterable[str]] | None = None) -> str:
    """What was received and what is allowed, of the first thing that pydantic refused.

    `keys` are those allowed in a table of the file, by its name; "" is the file itself.
    """
    first = error.errors()[0]
    *tables, last = map(str, first["loc"] or ("",))
    where = ".".join((*tables, last))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = ", ".join((keys or {}).get(".".join(tables), ()))
        message = f"allowed are {known}" if known else "there is no such key"
    elif first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        message = ("" if where else f"received {first['input']!r}, ") + "allowed are lines such as `key: value`"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if not where or where in message:
        return message + more
    return f"{where}: received {first['input']!r}, {message[0].lower()}{message[1:]}{more}"


def _check_type(notebook: str, name: str, value: Any, default: Any) -> None:
    wanted = (int, float) if isinstance(default, float) else type(default)
    if isinstance(value, wanted) and not (isinstance(value, bool) and not isinstance(default, bool)):
        return
    kind = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    kind |= {dict: "a table"}
    hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(default, float) and _is_number(value) else ""
    raise ValueError(
        f"notebook {notebook}: {name}: received {value!r}, allowed is {kind.get(type(default), 'a value')}"
        f" such as {default!r}{hint}"
    )


def _is_number(value: Any) -> bool:
    """Whether a text is a number with an exponent, such as 1e-3."""
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return isinstance(value, str) and "e" in value.lower()
