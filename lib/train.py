"""Training and evaluation: one small engine for dense and pruned networks, float32 or mixed precision.

The removed weights are set to zero after every optimizer step, which equals multiplying by the mask in the
forward pass bit for bit for SGD, Adam, AdamW and RMSprop, and costs one fused product. What is reported is the
last epoch, never the best one.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import catalog, compiling, small_maps
from lib.checkpoint import Checkpoint
from lib.data import Dataset, augment, fingerprint, normalise
from lib.device import settle, synchronise
from lib.masks import Masks, evaluating, multipliers
from lib.noise import Noise
from lib.pruners.movement import Movement
from lib.rates import DROP_FACTOR, rates

PRECISIONS = ("float32", "amp")
PREPARED_BYTES = 2**30
ENGINE = 2  # to be raised with a change of this module after which a training goes another way


def train(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    masks: Masks | None = None,
    optimizer: str = "adam",
    lr: float = 1e-3,
    lr_schedule: str = "constant",
    lr_drops: Sequence[int] = (),
    lr_drop_factor: float = DROP_FACTOR,
    lr_warmup: int = 0,
    weight_decay: float = 0.0,
    batch: int = 256,
    precision: str = "float32",
    seed: int = 0,
    before: int = 0,
    after: int = 0,
    graph: bool | None = None,
    watch: Movement | None = None,
    checkpoint: Path | None = None,
    facts: dict | None = None,
    on_epoch: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train `model` in place on the device of `data`, with a new optimizer; return one row an epoch.

    The learning rate follows `lib.rates`, from step to step: `lr_schedule` is `constant`, `steps` (times
    `lr_drop_factor` after each epoch in `lr_drops`) or `cosine` (towards zero), and rises to `lr` over the first
    `lr_warmup` epochs. Where these `epochs` are part of a longer training, `before` and `after` are its other ones:
    the schedule, the order of the data and the numbers of the rows are those of the whole.

    `seed` decides the data order and, by generators of their own, the augmentation and what dropout draws; torch's
    global generator is left as it was. `masks` holds the removed weights at zero from before the first step on.
    `precision="amp"` is float16 with loss scaling on a GPU and bfloat16 on a CPU. `graph` says whether a step runs as
    one graph (see `lib.compiling`); None decides by the work ahead.

    `watch` sees the gradients of every step, and changes nothing; its state is part of the checkpoint.

    With `checkpoint` the state is kept in that file, at least every minute and at the end, and a training that
    finds its own there goes on from it; a file of another training is not used, and a warning says so. `facts` (plain
    values) are what else decides the numbers, such as how hooks round: another training is also one of other facts.

    Rows: epoch (from 1), lr (of the epoch's last step), train_loss and train_top1_pct, train_top5_pct over the epoch's
    batches as they came (augmented, training mode, weights changing), test_loss, test_top1_pct, test_top5_pct after
    the epoch, train_s, test_s (wall clock, device synchronised, without making the graph), and step (`eager`,
    `compiled` or `CUDA graph`). Top-5 of fewer than five classes is top of all.
    `on_epoch` is called with each row. ValueError for an impossible setting, a model on another device, or a
    training loss that is not finite.
    """
    _check(model, data, epochs, batch, precision, lr)
    if before < 0 or after < 0:
        raise ValueError(f"before is {before} and after is {after}: 0 or more epochs are allowed")
    schedule = {"lr_schedule": lr_schedule, "lr_drops": list(lr_drops), "lr_drop_factor": lr_drop_factor}
    schedule |= {"lr_warmup": lr_warmup}
    per_epoch = -(-len(data.train_x) // batch)
    rate = rates(lr, epochs=before + epochs + after if epochs else 0, steps=per_epoch, **schedule)
    recipe = {"optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "batch": batch, "precision": precision}
    recipe |= schedule | {"seed": seed, "epochs": epochs, "before": before, "after": after}
    recipe |= {"watch": type(watch).__name__} if watch else {}
    settings = identity(model, data, masks) | recipe | (facts or {}) if checkpoint else {}
    settle(data.device)
    stepper = catalog.load("optimizer", optimizer)(model.parameters(), lr, weight_decay)
    removed = multipliers(model, masks or {})
    _multiply(*removed)
    scaler = torch.amp.GradScaler(data.device.type, enabled=precision == "amp" and data.device.type == "cuda")
    # streams of their own, apart from the order's and from each other
    changes = torch.Generator(data.device).manual_seed(seed + 1_000_003)  # augmentation
    noise = Noise(data.device, seed + 2_000_003)  # dropout
    totals = _Totals(data)
    parts = {"model": model, "optimizer": stepper, "scaler": scaler, "totals": totals}
    parts |= {"watch": watch} if watch else {}
    saved = Checkpoint(checkpoint, settings, parts, {"changes": changes, "noise": noise}) if checkpoint else None
    rows, done, seconds = (saved and saved.load()) or ([], 0, 0.0)

    if len(rows) >= epochs:  # nothing to do, or done before
        return rows

    take = _batches(data)
    loss = compiling.Loss(model, precision)
    whole, how = loss, "eager"
    steps = epochs * (len(data.train_x) // batch)
    if graph is None:
        graph = compiling.pays(model, data.shape, steps, batch, precision)
    if graph and steps:
        model.train()
        # augmented like every batch, so that the graph is made for their layout in memory
        sample = take(torch.arange(batch, device=data.device), torch.Generator(data.device))
        with Noise(data.device, seed):  # the trial draws too
            whole, how = compiling.prepare(loss, *sample)

    def advance(index: Tensor, lr_now: float) -> None:
        for group in stepper.param_groups:
            group["lr"] = lr_now
        x, labels = take(index, changes)
        # a graph takes batches of one size, and an epoch's last one may be smaller
        step = whole if len(index) == batch else loss
        with small_maps.faster(data.device, precision) if step is loss else nullcontext():
            value, logits = step(x, labels)
        stepper.zero_grad()
        scaler.scale(value).backward()
        if watch:
            scaler.unscale_(stepper)
            watch.step()
        scaler.step(stepper)
        scaler.update()
        _multiply(*removed)
        totals.add(value.detach(), logits, labels)

    for epoch in range(before + len(rows) + 1, before + epochs + 1):
        with noise:
            start = _clock(data.device) - seconds
            model.train()
            batches = _order(data, seed, epoch).split(batch)
            for number in range(done, len(batches)):
                advance(batches[number], rate((epoch - 1) * per_epoch + number))
                if saved and saved.due():
                    saved.save((rows, number + 1, _clock(data.device) - start))
            middle = _clock(data.device)
            row = {"epoch": epoch, "lr": rate(epoch * per_epoch - 1), **totals.row("train_")}
            if not math.isfinite(row["train_loss"]):
                if saved:
                    saved.remove()
                raise ValueError(
                    f"the training loss is {row['train_loss']} in epoch {epoch} (lr {lr}, {precision}): "
                    f"a finite one is needed, perhaps by a lower lr"
                )
            test = evaluate(model, data, precision=precision)
            row |= {f"test_{key}": value for key, value in test.items()}
            row |= {"train_s": middle - start, "test_s": _clock(data.device) - middle, "step": how}
            rows.append(row)
            done, seconds = 0, 0.0
            totals.clear()
            if saved and (saved.due() or epoch == before + epochs):
                saved.save((rows, 0, 0.0))
        if on_epoch:
            on_epoch(row)
    return rows


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Dataset, *, split: str = "test", batch: int = 256, precision: str = "float32"
) -> dict[str, float]:
    """`{"loss", "top1_pct", "top5_pct"}` over a whole split (`test` or `train`), in evaluation mode.

    Nothing is augmented; the model's mode is restored. Batches of 256 take 0.4 of the time of batches of 1000 on
    a CPU, whose allocator returns larger blocks to the system after each use. On a freshly
    pruned, untrained network batch norm's statistics are stale and the loss may be astronomical: that is what it is.
    """
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: one of train, test")
    _check(model, data, 0, batch, precision, 1.0)
    images, labels = (data.test_x, data.test_y) if split == "test" else (data.train_x, data.train_y)
    totals = _Totals(data)
    settle(data.device)
    with evaluating(model), compiling.autocast(data.device, precision), small_maps.faster(data.device, precision):
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            logits = model(normalise(data, x))
            totals.add(F.cross_entropy(logits, y), logits, y)
    return totals.row()


class _Totals:
    """Sums of loss and hits, kept on the device: reading them once an epoch is the only synchronisation."""

    HELD = 64  # batches whose logits wait to be ranked together: ranking each costs a small network 4 % of its step

    def __init__(self, data: Dataset):
        self.loss = torch.zeros((), dtype=torch.float64, device=data.device)
        self.hits = torch.zeros(2, dtype=torch.int64, device=data.device)  # top-1, top-5
        self.count, self.k = 0, min(5, data.classes)
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []

    def clear(self) -> None:
        self.loss.zero_()
        self.hits.zero_()
        self.count = 0

    def state_dict(self) -> dict:
        self._rank()
        return {"loss": self.loss, "hits": self.hits, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.loss.copy_(state["loss"])
        self.hits.copy_(state["hits"])
        self.count = state["count"]

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss.add_(loss, alpha=len(labels))
        self.count += len(labels)
        self.logits.append(logits.clone() if logits.is_cuda else logits)  # a CUDA graph writes to the same place again
        self.labels.append(labels)
        if len(self.logits) >= self.HELD:
            self._rank()

    def _rank(self) -> None:
        if self.logits:
            hits = torch.cat(self.logits).topk(self.k).indices == torch.cat(self.labels)[:, None]  # (N, k)
            self.hits += torch.stack([hits[:, 0].sum(), hits.sum()])
        self.logits, self.labels = [], []

    def row(self, prefix: str = "") -> dict[str, float]:
        self._rank()
        loss, (top1, top5) = self.loss.item(), self.hits.tolist()
        return {
            f"{prefix}loss": loss / self.count,
            f"{prefix}top1_pct": 100 * top1 / self.count,
            f"{prefix}top5_pct": 100 * top5 / self.count,
        }


@torch.no_grad()
def _multiply(weights: list[Tensor], factors: list[Tensor]) -> None:
    if weights:
        torch._foreach_mul_(weights, factors)


def _order(data: Dataset, seed: int, epoch: int) -> Tensor:
    """Positions of the training images in the order of this epoch, which follows from seed and epoch alone."""
    generator = torch.Generator(data.device).manual_seed(seed * 100_003 + epoch)
    return torch.randperm(len(data.train_x), generator=generator, device=data.device)


def _batches(data: Dataset) -> Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]]:
    """A function from positions to normalised training images and labels, augmented if a generator is given.

    Images that are never augmented are normalised once, where they then fit into PREPARED_BYTES.
    """
    once = not data.augment and 4 * data.train_x.numel() <= PREPARED_BYTES
    images = normalise(data, data.train_x) if once else data.train_x

    def batch(index: Tensor, changes: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x = images.index_select(0, index)  # whole rows: a fifth of the time of indexing
        if data.augment and changes is not None:
            x = augment(x, changes, data.shape[1:])
        return x if once else normalise(data, x), data.train_y.index_select(0, index)

    return batch


def identity(model: nn.Module, data: Dataset, masks: Masks | None) -> dict:
    """What decides the numbers of a training besides its recipe."""
    return {
        "engine": ENGINE,
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(data.device) if data.device.type == "cuda" else str(data.device),
        "threads": torch.get_num_threads(),
        "data": data.info["fingerprint"],
        "images": len(data.train_x),
        "start": fingerprint(model.state_dict().values()),
        "masks": fingerprint((masks or {}).values()),
    }


def _clock(device: torch.device) -> float:
    synchronise(device)
    return time.perf_counter()


def _check(model: nn.Module, data: Dataset, epochs: int, batch: int, precision: str, lr: float) -> None:
    if epochs < 0 or batch < 1 or not 0 < lr < math.inf:
        raise ValueError(f"epochs {epochs}, batch {batch}, lr {lr}: 0 or more, 1 or more and above 0 are allowed")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: one of {', '.join(PRECISIONS)}")
    device = next(model.parameters()).device
    if device != data.device:
        raise ValueError(f"the model is on {device} and the data on {data.device}: one device is allowed")
