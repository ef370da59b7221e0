"""Training and evaluation: one small engine for dense and pruned networks, float32 or mixed precision.

The removed weights are set to zero after every optimizer step, which equals multiplying by the mask in the
forward pass bit for bit for SGD, Adam and AdamW, and costs one fused product. What is reported is the last
epoch, never the best one.
"""

import math
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import catalog
from lib.data import Dataset, augment, normalise
from lib.device import synchronise
from lib.masks import Masks, evaluating, multipliers

PRECISIONS = ("float32", "amp")


def adam(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam, Kingma and Ba 2015 (arXiv 1412.6980), betas 0.9 and 0.999; decay as an L2 term of the gradient."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)


def sgd(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay)


def momentum(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9, as `momentum` in the code of Tanaka et al. 2020."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)


def train(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    masks: Masks | None = None,
    optimizer: str = "adam",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    drops: tuple[int, ...] = (),
    drop_factor: float = 0.1,
    batch: int = 256,
    precision: str = "float32",
    seed: int = 0,
    on_epoch: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train `model` in place on the device of `data`, with a new optimizer; return one row an epoch.

    The learning rate is multiplied by `drop_factor` after each epoch named in `drops`. `seed` decides the data
    order and, by a generator of its own, the augmentation. `masks` holds the removed weights at zero from
    before the first step on. `precision="amp"` is float16 with loss scaling on a GPU and bfloat16 on a CPU.

    Rows: epoch (from 1), train_loss and train_top1_pct, train_top5_pct over the epoch's batches as they came
    (augmented, training mode, weights changing), test_loss, test_top1_pct, test_top5_pct after the epoch, and
    train_s, test_s (wall clock, device synchronised). Top-5 of fewer than five classes is top of all.
    `on_epoch` is called with each row. ValueError for an impossible setting, a model on another device, or a
    training loss that is not finite.
    """
    _check(model, data, epochs, batch, precision, lr)
    order = torch.Generator(data.device).manual_seed(seed)
    changes = torch.Generator(data.device).manual_seed(seed + 1_000_003)  # augmentation: not the order's stream
    stepper = catalog.load("optimizer", optimizer)(model.parameters(), lr, weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(stepper, sorted(drops), drop_factor)
    scaler = torch.amp.GradScaler(data.device.type, enabled=precision == "amp" and data.device.type == "cuda")
    masked, factors = multipliers(model, masks or {})
    _multiply(masked, factors)
    rows = []
    for epoch in range(1, epochs + 1):
        start = _clock(data.device)
        totals = _Totals(data)
        model.train()
        for index in torch.randperm(len(data.train_x), generator=order, device=data.device).split(batch):
            images, labels = data.train_x[index], data.train_y[index]
            x = normalise(data, augment(images, changes) if data.augment else images)
            with _autocast(data.device, precision):
                logits = model(x)
                loss = F.cross_entropy(logits, labels)
            stepper.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(stepper)
            scaler.update()
            _multiply(masked, factors)
            totals.add(loss, logits, labels)
        row = {"epoch": epoch, **totals.row("train_")}
        middle = _clock(data.device)
        if not math.isfinite(row["train_loss"]):
            raise ValueError(
                f"the training loss is {row['train_loss']} in epoch {epoch} (lr {lr}, {precision}): "
                f"a finite one is needed, perhaps by a lower lr"
            )
        test = evaluate(model, data, precision=precision)
        row |= {f"test_{key}": value for key, value in test.items()}
        row |= {"train_s": middle - start, "test_s": _clock(data.device) - middle}
        rows.append(row)
        schedule.step()
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
    with evaluating(model), _autocast(data.device, precision):
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            logits = model(normalise(data, x))
            totals.add(F.cross_entropy(logits, y), logits, y)
    return totals.row()


class _Totals:
    """Sums of loss and hits, kept on the device: reading them once an epoch is the only synchronisation."""

    def __init__(self, data: Dataset):
        self.sums = torch.zeros(3, dtype=torch.float64, device=data.device)  # loss, top-1 hits, top-5 hits
        self.count = 0
        self.k = min(5, data.classes)

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        hits = logits.topk(self.k).indices == labels[:, None]  # (N, k)
        self.sums += torch.stack([loss.double() * len(labels), hits[:, 0].sum(), hits.sum()])
        self.count += len(labels)

    def row(self, prefix: str = "") -> dict[str, float]:
        loss, top1, top5 = self.sums.tolist()
        return {
            f"{prefix}loss": loss / self.count,
            f"{prefix}top1_pct": 100 * top1 / self.count,
            f"{prefix}top5_pct": 100 * top5 / self.count,
        }


@torch.no_grad()
def _multiply(weights: list[Tensor], factors: list[Tensor]) -> None:
    if weights:
        torch._foreach_mul_(weights, factors)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision == "amp")


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
