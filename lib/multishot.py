"""Iterative pruning with rewinding, in levels: train, prune a step, rewind, repeat ("multi-shot").

Frankle et al. 2020 (arXiv 1912.05671, algorithm 2), with any pruner in place of magnitude. What goes back to the
rewind point at every level: all weights and biases, scale and shift of batch norm and its running statistics, and the
position in the learning-rate schedule and in the order of the data. The optimizer is new at every level, and so are
the random numbers of augmentation and dropout. (The code of Tanaka et al. 2020 has the loop too, but loads the
weights that the network has at the moment: there every level goes on from trained weights.)
"""

import json
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lib import catalog, pruners, storage
from lib.data import Dataset, fingerprint
from lib.files import read_json, write_json
from lib.masks import Masks, apply_masks_, check_density, collapsed, density_of, full, keep_top
from lib.rounds import check_scope
from lib.train import identity, train

Follow = Callable[[int, str], Callable[[dict], None]]


def multishot(
    network: nn.Module,
    data: Dataset,
    pruner: str,
    density: float | None,
    batches: pruners.Batches,
    *,
    epochs: int,
    levels: int = 0,
    counts: Sequence[int] = (),
    rewind_epochs: int = 0,
    schedule: str = "exponential",
    scope: str = "global",
    also: Collection[str] = (),
    seed: int = 0,
    keep_networks: bool = False,
    checkpoint: Path | None = None,
    follow: Follow | None = None,
    **recipe,
) -> dict:
    """Prune `network` to `density` in `levels` steps, each after `epochs` of training, and train what is left.

    Level 0 is the dense network. After its training, and after that of every level but the last, `pruner` scores the
    trained weights on `batches` (`movement` scores that training instead); of n levels, level l keeps
    density ** (l / n) of them with schedule `exponential` and 1 - (1 - density) l / n with `linear`, of those that are
    left; or with `counts`, in place of density and levels, exactly so many weights a level. Then the kept weights go
    back to the rewind point: the initial weights, or with `rewind_epochs` those after so many epochs of dense training.
    The training from there is the rest of one of rewind_epochs + epochs epochs. `scope` and `also` as for
    `pruners.prune`; `recipe` goes to `train`.

    Returns `masks` (of the last level), `levels` (a row a level, see `_row`), `history` (a row an epoch, those of
    `train` with their level) and `rewind` (the rows of the training to the rewind point). `network` is then that of
    the last level, trained. With `keep_networks` also `networks`, the trained state and the masks of each level.

    With `checkpoint` the state is kept in files beside that one: of each training as `train` keeps it, and of each
    finished level its masks and rows. Interrupted at any time, the same call gives the same bits, and no finished
    level is trained again. `follow(epochs, what)` makes the `on_epoch` of each training.

    Costs (levels + 1) * epochs + rewind_epochs of training. ValueError for an impossible number or an unknown name.
    """
    aims = _aims(density, levels, counts, schedule)
    _check(pruner, aims, epochs, rewind_epochs, scope)
    numbers = {"density": density, "levels": levels, "epochs": epochs, "rewind_epochs": rewind_epochs, "seed": seed}
    numbers |= {"counts": list(counts), "also": list(also), "keep_networks": keep_networks}
    names = {"pruner": pruner, "schedule": schedule, "scope": scope}
    scored = fingerprint(tensor for pair in batches for tensor in pair)
    settings = identity(network, data, None) | numbers | names | recipe | {"batches": scored} if checkpoint else {}
    states = _States(checkpoint, settings, data.device) if checkpoint else None
    whole = rewind_epochs + epochs

    def part(what: str, name: str, **arguments) -> list[dict]:
        place = {"checkpoint": states.training(name)} if states else {}
        shown = {"on_epoch": follow(whole, what)} if follow else {}
        return train(network, data, seed=seed, **arguments, **recipe, **place, **shown)

    rewind = part("to the rewind point", "rewind", epochs=rewind_epochs, after=epochs) if rewind_epochs else []
    point = _copied(network)
    kept, rows, history, networks = full(network, also), [], [], []
    for level, aim in enumerate([*aims, None]):
        stored, before = states and states.finished(level, network if keep_networks else None), kept
        if stored:
            kept, row, trained = stored
        else:
            _rewind(network, point, kept)
            what = f"level {level} of {len(aims)}"
            watch = pruners.Movement(network, kept) if pruner in catalog.TRAINED else None
            trained = part(what, str(level), epochs=epochs, before=rewind_epochs, masks=kept, watch=watch)
            trained = [{"level": level, **row} for row in trained]
            row = _row(network, data, level, kept, trained)
            if aim is not None:
                generator = torch.Generator().manual_seed(seed + 1_000_003 * level)
                scores = watch.scores() if watch else pruners.scored(network, pruner, batches, kept, generator)
                kept = keep_top(scores, **aim, scope=scope, within=kept)
                if states:
                    states.finish(level, kept, row, trained, network if keep_networks else None)
        rows, history = [*rows, row], history + trained
        if keep_networks:
            networks.append((_copied(network), before))
    found = {"masks": kept, "levels": rows, "history": history, "rewind": rewind}
    return found | ({"networks": networks} if keep_networks else {})


def _aims(density: float | None, levels: int, counts: Sequence[int], schedule: str) -> list[dict]:
    """What `keep_top` is told after each level; ValueError for an impossible number."""
    if schedule not in pruners.SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}: one of {', '.join(pruners.SCHEDULES)}")
    if counts:
        if density is not None or levels:
            raise ValueError(f"density is {density} and levels is {levels} with counts: none of them is allowed then")
        return [{"keep": count} for count in counts]
    if density is None or check_density(density) == 1:
        raise ValueError(f"density is {1 if density else None}: less than 1 is allowed, as levels remove weights")
    return [{"density": share} for share in pruners.densities(density, levels, schedule)] if levels > 0 else []


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _rewind(network: nn.Module, point: dict[str, Tensor], kept: Masks) -> None:
    network.load_state_dict(point)
    apply_masks_(network, kept)


def _row(network: nn.Module, data: Dataset, level: int, kept: Masks, trained: list[dict]) -> dict:
    """What a level is and what its training came to: shares of the prunable weights, the last epoch, the collapse."""
    last, collapse, density = trained[-1], collapsed(network, kept, data.shape), density_of(kept)
    return {
        "level": level,
        "density": density,
        "sparsity": 1 - density,
        "weights": sum(mask.numel() for mask in kept.values()),
        "weights_kept": sum(int(mask.sum()) for mask in kept.values()),
        "top1_pct": last["test_top1_pct"],
        "top5_pct": last["test_top5_pct"],
        "test_loss": last["test_loss"],
        "train_top1_pct": last["train_top1_pct"],
        "train_loss": last["train_loss"],
        "train_s": sum(row["train_s"] for row in trained),
        "collapsed_layers": " ".join(collapse["layers"]),
        "connected": collapse["connected"],
    }


class _States:
    """The files of an experiment under way: `<stem>-<training>.pt`, and of each finished level two more.

    A level is finished when its JSON is there, which is written last. Files of other settings are not used.
    """

    def __init__(self, path: Path, settings: dict, device: torch.device):
        self.path, self.device = Path(path), device
        self.settings = json.loads(json.dumps(settings))  # as they come back: tuples are lists
        self.usable = True  # until one file is not: the levels after it are made anew, too

    def _file(self, name: str, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.stem}-{name}{suffix}")

    def _weights(self, level: int) -> Path:
        return self._file(f"{level}-weights", ".safetensors")

    def training(self, name: str) -> Path:
        return self._file(name, ".pt")

    def finished(self, level: int, network: nn.Module | None) -> tuple[Masks, dict, list[dict]] | None:
        """Masks of the level after this one, and the rows of this one; None if it must be trained.

        With `network` its trained weights, which must have been kept, are read into that.
        """
        record = self._file(str(level), ".json")
        if not self.usable or not record.is_file():
            self.usable = False
            return None
        try:
            found = read_json(record)
            if found["settings"] != self.settings:
                name = next(n for n, value in self.settings.items() if found["settings"].get(n) != value)
                reason = f"is of a pruning with {name} {found['settings'].get(name)}, not {self.settings[name]}"
                return self._unusable(record, reason)
            masks = storage.load_masks(self._file(str(level), ".safetensors"), self.device)
            if network is not None:
                storage.load_weights(self._weights(level), network)
            return masks, found["row"], found["history"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return self._unusable(record, f"is damaged ({type(error).__name__})")

    def _unusable(self, record: Path, reason: str) -> None:
        self.usable = False
        warnings.warn(f"level {record} {reason}: it is trained anew", RuntimeWarning, stacklevel=4)

    def finish(
        self, level: int, masks: Masks, row: dict, history: list[dict], network: nn.Module | None = None
    ) -> None:
        """Keep a level's results, after which the state of its training can go; a full disk costs the state only."""
        try:
            if network is not None:
                storage.save_weights(self._weights(level), network)
            storage.save_masks(self._file(str(level), ".safetensors"), masks)
            write_json(self._file(str(level), ".json"), {"settings": self.settings, "row": row, "history": history})
            self.training(str(level)).unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"level {level} was not kept on disk ({reason})", RuntimeWarning, stacklevel=3)


def _check(pruner: str, aims: list[dict], epochs: int, rewind_epochs: int, scope: str) -> None:
    catalog.check("pruner", pruner)
    if pruner == "dense":
        raise ValueError("pruner is dense, which keeps every weight: one that removes weights is allowed")
    if pruner == "mag-init":
        raise ValueError("pruner is mag-init, and levels score trained weights: mag is allowed for these")
    if not aims or epochs < 1 or rewind_epochs < 0:
        given = f"levels {len(aims)}, epochs {epochs}, rewind_epochs {rewind_epochs}"
        raise ValueError(f"{given}: 1 or more, 1 or more and 0 or more are allowed")
    check_scope(scope, [aim["density"] for aim in aims if "density" in aim])
    if scope != "global" and "keep" in aims[0]:
        raise ValueError(f"scope is {scope} with counts: global is allowed then")
