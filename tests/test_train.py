import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import catalog, compiling, masks, models, optimizers, pruners, rates, train
from lib.data import Dataset, augment, load, normalise

COLUMNS = [
    "epoch",
    "lr",
    "train_loss",
    "train_top1_pct",
    "train_top5_pct",
    "test_loss",
    "test_top1_pct",
    "test_top5_pct",
    "train_s",
    "test_s",
    "step",
]


def tiny(classes=10, augmented=True, images=40) -> Dataset:
    """Random colour images, 8 x 8, whose class can be read off their brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    x = torch.randint(0, 60, (images, 3, 8, 8), generator=generator) + 20 * (labels % 10).view(-1, 1, 1, 1)
    x = x.to(torch.uint8)
    return Dataset(
        "tiny",
        x,
        labels,
        x[:20],
        labels[:20],
        classes,
        (0.5,) * 3,
        (0.25,) * 3,
        augmented,
        info={"fingerprint": "tiny"},
    )


def network(name="resnet8", data=None, seed=0):
    return models.build(name, (3, 8, 8) if data is None else data.shape, seed=seed)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def weights_decay_too(parameters, lr, weight_decay):
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


# Masks during training


@pytest.mark.parametrize("optimizer", [*catalog.OPTIMIZERS, "adamw"])
@pytest.mark.parametrize("name", ["fc", "resnet8"])
def test_masking_after_the_step_equals_masking_in_the_forward_bit_for_bit(name, optimizer, monkeypatch):
    """The engine against an independent loop that multiplies masks at every forward, as the reference does."""
    monkeypatch.setattr(optimizers, "adamw", weights_decay_too, raising=False)
    monkeypatch.setitem(catalog.OPTIMIZERS, "adamw", "lib.optimizers:adamw")
    data = tiny(augmented=False)
    settings = {"lr": 0.01, "weight_decay": 0.1}
    kept = pruners.prune(network(name), "rand", 0.3, [])
    engine = network(name)
    train.train(engine, data, epochs=3, masks=kept, optimizer=optimizer, batch=16, seed=4, **settings)

    reference = network(name)
    stepper = catalog.load("optimizer", optimizer)(reference.parameters(), **settings)
    forward = masks.masked_forward(reference, kept)
    reference.train()
    for epoch in (1, 2, 3):
        order = torch.Generator().manual_seed(400_012 + epoch)
        for index in torch.randperm(len(data.train_x), generator=order).split(16):
            loss = F.cross_entropy(forward(normalise(data, data.train_x[index])), data.train_y[index])
            stepper.zero_grad()
            loss.backward()
            stepper.step()
    assert not same(reference, engine), "its removed weights have drifted"
    masks.apply_masks_(reference, kept)
    assert same(reference, engine)


@pytest.mark.parametrize("precision", train.PRECISIONS)
@pytest.mark.parametrize("optimizer", catalog.OPTIMIZERS)
def test_removed_weights_stay_zero(optimizer, precision):
    model, data = network(), tiny()
    kept = pruners.prune(model, "snip", 0.2, [(normalise(data, data.train_x), data.train_y)])
    train.train(model, data, epochs=1, masks=kept, optimizer=optimizer, weight_decay=0.1, batch=16, precision=precision)
    for name, weight in masks.prunable(model).items():
        assert not weight[~kept[name]].any()
        assert weight[kept[name]].any()


def test_masks_are_applied_before_the_first_step_too():
    model = network()
    kept = pruners.prune(model, "rand", 0.2, [])
    assert train.train(model, tiny(), epochs=0, masks=kept) == []
    assert all(not weight[~kept[name]].any() for name, weight in masks.prunable(model).items())


# What a training run is


def test_the_network_learns_and_the_rows_say_so():
    model, data, seen = network(), tiny(augmented=False), []
    rows = train.train(model, data, epochs=15, batch=20, on_epoch=seen.append)
    assert rows == seen
    assert [row["epoch"] for row in rows] == list(range(1, 16))
    assert all(list(row) == COLUMNS for row in rows)
    assert rows[-1]["test_top1_pct"] > 90
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2
    assert all(row["train_s"] > 0 and row["test_s"] > 0 for row in rows)
    final = train.evaluate(model, data)
    assert [final[key] for key in ("loss", "top1_pct", "top5_pct")] == [
        rows[-1][f"test_{key}"] for key in ("loss", "top1_pct", "top5_pct")
    ]


def test_on_real_digits_a_pruned_network_learns():
    data = load("digits", train_images=1000)
    model = models.build("fc", data.shape)
    kept = pruners.prune(model, "rand", 0.3, [])
    assert train.train(model, data, epochs=5, masks=kept, batch=32, lr=5e-3)[-1]["test_top1_pct"] > 60


def test_the_same_seed_gives_the_same_weights_whatever_torchs_own_generator_holds():
    models_ = [network(), network(), network()]
    for position, (model, seed) in enumerate(zip(models_, (1, 1, 2), strict=True)):
        torch.manual_seed(position)
        train.train(model, tiny(), epochs=2, batch=16, seed=seed)
    assert same(models_[0], models_[1])
    assert not same(models_[0], models_[2])


def test_order_and_augmentation_have_generators_of_their_own():
    """Without augmentation the order stays: the first batch holds the same images."""
    first = {}

    class Recorder(nn.Module):
        def __init__(self, key):
            super().__init__()
            self.key, self.scale = key, nn.Linear(1, 10)

        def forward(self, x):
            if self.training:
                first.setdefault(self.key, x.detach().clone())
            return self.scale(x.mean((1, 2, 3))[:, None])

    data = tiny()
    train.train(Recorder("augmented"), data, epochs=1, batch=16, seed=3)
    train.train(Recorder("plain"), replace(data, augment=False), epochs=1, batch=16, seed=3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(300_009 + 1))[:16]  # seed and epoch
    assert torch.equal(first["plain"], normalise(data, data.train_x[order]))
    expected = augment(data.train_x[order], torch.Generator().manual_seed(3 + 1_000_003))
    assert torch.equal(first["augmented"], normalise(data, expected))


def test_every_image_is_seen_once_an_epoch_the_last_small_batch_too():
    sizes = []

    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 10)

        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return self.fc(x.mean((1, 2, 3))[:, None])

    train.train(Counter(), tiny(images=41), epochs=2, batch=20)
    assert sizes == [20, 20, 1] * 2


def test_rms_is_the_original_programs(monkeypatch):
    """torch's RMSprop with nothing but the learning rate and the weight decay given."""
    models_ = {True: network("fc"), False: network("fc")}
    for ours, model in models_.items():
        if not ours:
            plain = lambda parameters, lr, decay: torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay)  # noqa: E731
            monkeypatch.setattr(optimizers, "rms", plain)
        train.train(model, tiny(), epochs=2, optimizer="rms", weight_decay=0.01, batch=16)
    assert same(models_[True], models_[False])


# The learning rate

SCHEDULES = [
    {},
    {"lr_warmup": 3},
    {"lr_schedule": "steps", "lr_drops": [2, 4], "lr_drop_factor": 0.5},
    {"lr_schedule": "steps", "lr_drops": [3], "lr_warmup": 1},
    {"lr_schedule": "cosine"},
    {"lr_schedule": "cosine", "lr_warmup": 2},
]


@pytest.fixture
def recorded(monkeypatch) -> list[float]:
    """The rates that the optimizer steps with."""
    steps = []

    def recording(parameters, lr, weight_decay):
        stepper = torch.optim.SGD(parameters, lr=lr)
        stepper.register_step_post_hook(lambda *_: steps.append(stepper.param_groups[0]["lr"]))
        return stepper

    monkeypatch.setattr(optimizers, "sgd", recording)
    return steps


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_step_has_its_rate_and_every_row_that_of_the_last(recorded, schedule):
    rows = train.train(network("fc"), tiny(images=41), epochs=5, optimizer="sgd", lr=0.01, batch=20, **schedule)
    expected = rates.rates(0.01, epochs=5, steps=3, **schedule)
    assert recorded == [expected(step) for step in range(15)]
    assert [row["lr"] for row in rows] == recorded[2::3]


def test_a_compiled_training_follows_the_schedule_too(recorded, monkeypatch):
    monkeypatch.setattr(compiling, "compiler_missing", lambda: None)
    monkeypatch.setattr(compiling, "compiled", lambda function: torch.compile(function, backend="eager"))
    schedule = {"lr_schedule": "cosine", "lr_warmup": 1}
    rows = train.train(network("fc"), tiny(), epochs=2, optimizer="sgd", lr=0.01, batch=20, graph=True, **schedule)
    assert rows[0]["step"] == "compiled"
    assert recorded == pytest.approx([0.005, 0.01, 0.01, 0.005])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_training_in_two_parts_has_the_rates_and_the_order_of_the_whole(recorded, schedule):
    """Without a state in the optimizer and without augmentation the two parts even give the same network."""
    data, recipe = tiny(augmented=False), {"optimizer": "sgd", "lr": 0.01, "batch": 16, "seed": 3, **schedule}
    whole, parts = network(), network()
    expected = train.train(whole, data, epochs=5, **recipe)
    of_whole, recorded[:] = list(recorded), []
    rows = train.train(parts, data, epochs=2, after=3, **recipe) + train.train(
        parts, data, epochs=3, before=2, **recipe
    )
    assert recorded == of_whole
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in expected]
    assert same(whole, parts)


def test_the_rate_takes_effect():
    ends = []
    for schedule in ({}, {"lr_warmup": 1}, {"lr_schedule": "cosine"}, {"lr_schedule": "steps", "lr_drops": [1]}):
        model = network("fc")
        train.train(model, tiny(), epochs=2, batch=20, **schedule)
        ends.append(model)
    assert not any(same(a, b) for a, b in combinations(ends, 2))


# Dropout


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(192, 20), nn.Dropout(0.5), nn.Linear(20, 10)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.first(x.flatten(1)))))


def dropping() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dropping()


def test_dropout_follows_the_seed_alone_and_leaves_torchs_own_generator():
    ends, seen = [dropping(), dropping(), dropping()], []
    for position, (model, seed) in enumerate(zip(ends, (1, 1, 2), strict=True)):
        torch.manual_seed(position)
        before = torch.get_rng_state()
        recipe = {"epochs": 2, "batch": 16, "seed": seed}
        train.train(model, tiny(), on_epoch=lambda _: seen.append(torch.get_rng_state()), **recipe)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(state, before) for state in seen[-2:])  # on_epoch finds it as it was, too
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def test_dropout_drops_differently_at_every_step(monkeypatch):
    drawn = []
    model = dropping()
    model.drop.register_forward_hook(lambda _, inputs, output: drawn.append(output != 0))
    monkeypatch.setattr(train, "evaluate", lambda *_, **__: {})
    train.train(model, tiny(), epochs=2, batch=20)
    assert len(drawn) == 4
    assert not any(torch.equal(a, b) for a, b in combinations(drawn, 2))


def test_a_failed_training_leaves_torchs_own_generator_too():
    model = dropping()
    with torch.no_grad():
        model.last.weight[:] = math.nan
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="the training loss is nan"):
        train.train(model, tiny(), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


# Evaluation


def test_evaluation_by_hand_and_top5_of_few_classes():
    class Fixed(nn.Module):
        """Logits that put class 0 first, class 1 second and so on, whatever the image."""

        def __init__(self, classes):
            super().__init__()
            self.logits = nn.Parameter(-torch.arange(classes, dtype=torch.float32))

        def forward(self, x):
            return self.logits.expand(len(x), -1)

    ten = train.evaluate(Fixed(10), tiny(), batch=7)
    assert (ten["top1_pct"], ten["top5_pct"]) == (10.0, 50.0)
    expected = F.cross_entropy(-torch.arange(10.0).expand(20, -1), torch.arange(20) % 10).item()
    assert ten["loss"] == pytest.approx(expected)
    assert train.evaluate(Fixed(10), tiny(), split="train", batch=7)["loss"] == pytest.approx(expected)
    three = train.evaluate(Fixed(3), tiny(classes=3, images=30), split="train")
    assert three["top5_pct"] == 100
    assert three["top1_pct"] == pytest.approx(100 / 3)


def test_evaluation_leaves_the_model_alone():
    model = network().train()
    model.bn.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train.evaluate(model, tiny())
    assert model.training
    assert not model.bn.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_mixed_precision_trains_float32_weights_to_nearly_the_same_loss():
    losses = {}
    for precision in train.PRECISIONS:
        model = network()
        losses[precision] = train.train(model, tiny(), epochs=3, batch=20, precision=precision)[-1]["train_loss"]
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses["amp"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["amp"] != losses["float32"]


# Misuse, and a training that fails


def test_a_network_that_cannot_learn_is_a_result():
    """Nothing is kept of the first layer: the logits are the same for every image, and that is reported."""
    model, data = network("fc"), tiny()
    kept = masks.full(model)
    kept["layers.0.weight"][:] = False
    row = train.train(model, data, epochs=1, masks=kept)[0]
    assert row["test_top1_pct"] == 10
    assert math.isfinite(row["train_loss"])


def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_epoch():
    model = network("fc")
    with torch.no_grad():
        model.layers[0].weight[:] = math.inf
    with pytest.raises(ValueError, match=r"the training loss is nan in epoch 1 \(lr 0.001, float32\)") as caught:
        train.train(model, tiny(), epochs=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs -1"),
        ({"batch": 0}, "batch 0"),
        ({"lr": 0.0}, "lr 0.0"),
        ({"lr": math.nan}, "lr nan"),
        ({"lr_schedule": "linear"}, "unknown lr_schedule 'linear': one of constant, steps, cosine"),
        ({"lr_drops": [1]}, r"lr_drops is \[1\] with lr_schedule constant: lr_schedule steps is allowed there"),
        ({"lr_warmup": 2}, "lr_warmup is 2 with epochs 1 and lr_schedule constant: 0 to 1 epochs are allowed"),
        ({"before": -1}, "before is -1 and after is 0: 0 or more epochs are allowed"),
        ({"precision": "float16"}, "unknown precision 'float16': one of float32, amp"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion': one of adam, sgd, momentum, rms"),
    ],
)
def test_impossible_settings_are_refused_before_training(changes, message):
    model = network("fc")
    with pytest.raises(ValueError, match=message) as caught:
        train.train(model, tiny(), **{"epochs": 1, "masks": masks.full(model)} | changes)
    assert "\n" not in str(caught.value)
    assert same(model, network("fc"))


def test_model_and_data_must_share_a_device():
    with pytest.raises(ValueError, match="the model is on meta and the data on cpu"):
        train.evaluate(network("fc").to("meta"), tiny())


def test_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'validation': one of test, train|one of train, test"):
        train.evaluate(network("fc"), tiny(), split="validation")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("precision", train.PRECISIONS)
def test_on_a_gpu(precision):
    data = tiny()
    tensors = {key: getattr(data, key).cuda() for key in ("train_x", "train_y", "test_x", "test_y")}
    data = replace(data, **tensors)
    model = network().cuda()
    kept = pruners.prune(model, "rand", 0.3, [])
    rows = train.train(model, data, epochs=3, masks=kept, batch=16, precision=precision)
    assert math.isfinite(rows[-1]["train_loss"])
    assert all(not weight[~kept[name]].any() for name, weight in masks.prunable(model).items())
