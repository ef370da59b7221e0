"""Iterative pruning with rewinding: what a level starts from, what it keeps, and that it may be interrupted."""

import json

import pytest
import torch
from test_checkpoint import Killed, execute, kill_after, often, untimed  # noqa: F401
from test_train import network, same, tiny

from lib import catalog, masks, multishot, pruners, runs, train
from lib.data import normalise

EPOCHS, LEVELS = 2, 3
RECIPE = {"optimizer": "momentum", "lr": 0.02, "weight_decay": 0.01, "batch": 16}
SETTINGS = {"levels": LEVELS, "epochs": EPOCHS, "seed": 4} | RECIPE


def scoring(data) -> list:
    return [(normalise(data, data.train_x), data.train_y)]


def run(model, data, pruner="mag", density=0.1, **changes) -> dict:
    return multishot.multishot(model, data, pruner, density, scoring(data), **SETTINGS | changes)


def state(model) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def starts(monkeypatch) -> list[tuple]:
    """The state of the network and the masks at the start of each training."""
    seen = []

    def recording(model, data, **arguments):
        seen.append((state(model), arguments.get("masks"), arguments["epochs"]))
        return train.train(model, data, **arguments)

    monkeypatch.setattr(multishot, "train", recording)
    return seen


def dense_until(epochs: int, of: int, **recipe):
    model = network()
    train.train(model, tiny(), epochs=epochs, after=of - epochs, seed=4, **RECIPE | recipe)
    return model


# Levels


@pytest.mark.parametrize("schedule", [{}, {"lr_schedule": "cosine", "lr_warmup": 1}], ids=str)
@pytest.mark.parametrize("rewind_epochs", [0, 1])
@pytest.mark.parametrize("pruner", ["mag", "snip"])
def test_every_level_starts_from_the_rewind_point_bit_for_bit(starts, pruner, rewind_epochs, schedule):
    """Kept weights equal it, removed ones are zero, and all else goes back too: biases, scales, running statistics."""
    model = network()
    found = run(model, tiny(), pruner, rewind_epochs=rewind_epochs, **schedule)
    point = state(dense_until(rewind_epochs, rewind_epochs + EPOCHS, **schedule))
    levels = starts[1:] if rewind_epochs else starts
    assert len(levels) == LEVELS + 1
    for start, kept, epochs in levels:
        assert epochs == EPOCHS
        assert any(name.endswith("running_var") for name in start)
        for name, tensor in start.items():
            expected = torch.where(kept[name], point[name], 0) if name in kept else point[name]
            assert torch.equal(tensor, expected)
    assert not any(torch.equal(point[name], state(model)[name]) for name in levels[-1][1])  # it was trained
    assert [row["epoch"] for row in found["rewind"]] == [1] * rewind_epochs


@pytest.mark.parametrize(("schedule", "rule"), [("exponential", lambda s: 0.1**s), ("linear", lambda s: 1 - 0.9 * s)])
@pytest.mark.parametrize("pruner", ["mag", "snip"])
def test_masks_are_nested_and_counts_exact(starts, pruner, schedule, rule):
    model = network()
    found = run(model, tiny(), pruner, schedule=schedule)
    weights = sum(w.numel() for w in masks.prunable(model).values())
    kept = [kept for _, kept, _ in starts]
    counts = [sum(int(mask.sum()) for mask in one.values()) for one in kept]
    assert counts == [masks.kept_count(weights, rule(level / LEVELS)) for level in range(LEVELS + 1)]
    for before, after in zip(kept, kept[1:], strict=False):
        assert all(not (after[name] & ~before[name]).any() for name in after)
    rows = found["levels"]
    assert [row["level"] for row in rows] == [0, 1, 2, 3]
    assert [(row["weights"], row["weights_kept"]) for row in rows] == [(weights, count) for count in counts]
    assert [row["density"] for row in rows] == [count / weights for count in counts]
    assert all(row["sparsity"] == 1 - row["density"] for row in rows)
    assert all(torch.equal(found["masks"][name], mask) for name, mask in kept[-1].items())
    assert all(not weight[~found["masks"][name]].any() for name, weight in masks.prunable(model).items())


def test_rows_are_those_of_the_trainings():
    data, model = tiny(), network()
    found = run(model, data, rewind_epochs=1)
    assert [(row["level"], row["epoch"]) for row in found["history"]] == [(v, e) for v in range(4) for e in (2, 3)]
    for row in found["levels"]:
        own = [one for one in found["history"] if one["level"] == row["level"]]
        assert (row["top1_pct"], row["test_loss"]) == (own[-1]["test_top1_pct"], own[-1]["test_loss"])
        assert row["train_s"] == sum(one["train_s"] for one in own)
    assert found["levels"][-1]["top1_pct"] == train.evaluate(model, data)["top1_pct"]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("pruner", ["mag", "snip"])
def test_one_level_is_train_prune_rewind_train(pruner, scope):
    data, model, kept = tiny(), network(), {}
    found = run(model, data, pruner, levels=1, scope=scope)
    by_hand = network()
    rows = [train.train(by_hand, data, epochs=EPOCHS, seed=4, **RECIPE)]
    kept = pruners.prune(by_hand, pruner, 0.1, scoring(data), scope=scope, seed=4)
    by_hand = network()
    rows.append(train.train(by_hand, data, epochs=EPOCHS, masks=kept, seed=4, **RECIPE))
    assert same(model, by_hand)
    assert untimed(found["history"]) == [
        {"level": level, **row} for level, part in enumerate(rows) for row in untimed(part)
    ]
    assert all(torch.equal(found["masks"][name], mask) for name, mask in kept.items())


@pytest.mark.parametrize("name", sorted(set(catalog.PRUNERS) - {"dense", "mag-init"}))
def test_every_pruner_of_the_catalogue_takes_its_steps(name):
    model = network("fc")
    rows = run(model, tiny(), name, density=0.3, levels=2, epochs=1)["levels"]
    weights = rows[0]["weights"]
    assert [row["weights_kept"] for row in rows] == [weights, *(masks.kept_count(weights, 0.3**s) for s in (0.5, 1))]


def test_random_steps_are_drawn_anew_at_every_level():
    """With one seed for all levels the highest of the same scores would be kept, as if in one step."""
    once, twice = (run(network("fc"), tiny(), "rand", levels=levels, epochs=1)["masks"] for levels in (1, 2))
    assert any(not torch.equal(once[name], mask) for name, mask in twice.items())


def test_a_collapse_is_a_result():
    """So few weights that layers are emptied: every level still trains, and its row names them."""
    row = run(network("fc"), tiny(), density=1e-4, levels=1, epochs=1)["levels"][-1]
    assert not row["connected"]
    assert row["collapsed_layers"]
    assert set(row["collapsed_layers"].split()) <= {f"layers.{n}" for n in range(6)}


def test_followed_by_name():
    seen = []

    def follow(epochs, what):
        return lambda row: seen.append((epochs, what, row["epoch"]))

    run(network("fc"), tiny(), levels=1, rewind_epochs=1, follow=follow)
    parts = [("to the rewind point", 1), ("level 0 of 1", 2), ("level 0 of 1", 3), ("level 1 of 1", 2)]
    assert seen == [(3, what, epoch) for what, epoch in [*parts, ("level 1 of 1", 3)]]


def test_counts_are_kept_exactly(starts):
    found = run(network(), tiny(), density=None, levels=0, counts=[200, 77])
    assert [row["weights_kept"] for row in found["levels"]][1:] == [200, 77]
    assert sum(int(mask.sum()) for mask in found["masks"].values()) == 77


def test_counts_of_a_schedule_give_the_levels_of_that_schedule():
    by_density, by_counts = network(), network()
    found = run(by_density, tiny())
    counts = [row["weights_kept"] for row in found["levels"]][1:]
    run(by_counts, tiny(), density=None, levels=0, counts=counts)
    assert same(by_density, by_counts)


def test_the_network_of_each_level_is_kept_on_request():
    found = run(network(), tiny(), keep_networks=True)
    assert len(found["networks"]) == LEVELS + 1
    for (weights, kept), row in zip(found["networks"], found["levels"], strict=True):
        assert sum(int(mask.sum()) for mask in kept.values()) == row["weights_kept"]
        assert all(not weights[name][~mask].any() for name, mask in kept.items())
        model = network()
        model.load_state_dict(weights)
        assert train.evaluate(model, tiny(), batch=16)["top1_pct"] == pytest.approx(row["top1_pct"])


# Interrupted


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("pruner", "rewind_epochs"), [("mag", 0), ("snip", 1), ("rand", 0)])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, pruner, rewind_epochs):
    data, whole = tiny(), network("fc")
    expected = run(whole, data, pruner, rewind_epochs=rewind_epochs)
    changes = {"rewind_epochs": rewind_epochs, "checkpoint": tmp_path / "folder" / "state.pt"}
    steps = 0
    for more in (1, 6, 1, 12, 3):  # of four an epoch, the evaluation too; then it dies, within an epoch or after one
        steps += more
        with monkeypatch.context() as patch:
            kill_after(patch, more)
            with pytest.raises(Killed):
                run(network("fc"), data, pruner, **changes)
    left = ((LEVELS + 1) * EPOCHS + rewind_epochs) * 4 - steps
    assert left > 8
    resumed = network("fc")
    with monkeypatch.context() as patch:
        kill_after(patch, left)  # not one step was done twice
        found = run(resumed, data, pruner, **changes)
    assert same(resumed, whole)
    assert {part: untimed(found[part]) for part in ("levels", "history", "rewind")} == {
        part: untimed(expected[part]) for part in ("levels", "history", "rewind")
    }
    assert all(torch.equal(found["masks"][name], mask) for name, mask in expected["masks"].items())


def test_kept_networks_survive_an_interruption(tmp_path, monkeypatch):
    expected = run(network("fc"), tiny(), keep_networks=True)["networks"]
    file = tmp_path / "state.pt"
    with monkeypatch.context() as patch:
        kill_after(patch, 12)  # in the middle of the second level
        with pytest.raises(Killed):
            run(network("fc"), tiny(), keep_networks=True, checkpoint=file)
    found = run(network("fc"), tiny(), keep_networks=True, checkpoint=file)["networks"]
    for (weights, _), (other, _) in zip(expected, found, strict=True):
        assert all(torch.equal(weights[name], other[name]) for name in weights)
    (tmp_path / "state-0-weights.safetensors").unlink()
    with pytest.warns(RuntimeWarning, match="state-0.json is damaged .*: it is trained anew"):
        again = run(network("fc"), tiny(), keep_networks=True, checkpoint=file)["networks"]
    assert all(torch.equal(again[0][0][name], tensor) for name, tensor in expected[0][0].items())


def test_killed_while_a_level_is_written(tmp_path, monkeypatch):
    """Masks are there and the record is not: the level counts as unfinished, its training as finished."""
    data, file = tiny(), tmp_path / "state.pt"
    with monkeypatch.context() as patch:
        patch.setattr(multishot, "write_json", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(network("fc"), data, checkpoint=file)
    whole, resumed = network("fc"), network("fc")
    run(whole, data)
    run(resumed, data, checkpoint=file)
    assert same(whole, resumed)


def test_finished_levels_leave_masks_and_rows_and_no_state_of_a_training(tmp_path):
    run(network("fc"), tiny(), rewind_epochs=1, checkpoint=tmp_path / "state.pt")
    levels = [f"state-{level}.{kind}" for level in range(LEVELS) for kind in ("json", "safetensors")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*levels, "state-3.pt", "state-rewind.pt"])


@pytest.mark.parametrize(
    ("change", "message"), [({"density": 0.2}, "density 0.1, not 0.2"), ({"lr": 0.01}, "lr 0.02, not 0.01")]
)
def test_another_pruning_s_levels_are_not_used(tmp_path, change, message):
    file = tmp_path / "state.pt"
    run(network("fc"), tiny(), levels=1, checkpoint=file)
    alone, model = network("fc"), network("fc")
    run(alone, tiny(), **{"levels": 1} | change)
    with pytest.warns(RuntimeWarning) as caught:  # of the level, and of the last one's training
        run(model, tiny(), checkpoint=file, **{"levels": 1} | change)
    assert f"is of a pruning with {message}: it is trained anew" in str(caught[0].message)
    assert all("\n" not in str(warning.message) for warning in caught)
    assert same(alone, model)


def spoil_record(folder):
    (folder / "state-0.json").write_text("{")


def spoil_masks(folder):
    (folder / "state-0.safetensors").write_bytes(b"")


def lose_masks(folder):
    (folder / "state-0.safetensors").unlink()


@pytest.mark.parametrize("spoil", [spoil_record, spoil_masks, lose_masks])
def test_a_damaged_level_is_said_and_trained_anew(tmp_path, spoil):
    file, first, second = tmp_path / "state.pt", network("fc"), network("fc")
    run(first, tiny(), levels=2, checkpoint=file)
    spoil(tmp_path)
    with pytest.warns(RuntimeWarning, match="state-0.json is damaged .*: it is trained anew"):
        run(second, tiny(), levels=2, checkpoint=file)
    assert same(first, second)
    assert json.loads((tmp_path / "state-0.json").read_text())["row"]["level"] == 0


def test_a_full_disk_costs_the_states_only(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    alone, model = network("fc"), network("fc")
    run(alone, tiny(), levels=1)
    with pytest.warns(RuntimeWarning) as caught:
        run(model, tiny(), levels=1, checkpoint=tmp_path / "file" / "state.pt")
    assert any("level 0 was not kept on disk" in str(warning.message) for warning in caught)
    assert same(alone, model)


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(network("fc"), tiny(), levels=1, epochs=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("often")
def test_the_notebook_goes_on_after_a_kill(tmp_path, monkeypatch):
    """As a study does it: each attempt in a folder of its own, the state of the levels beside them."""
    study = tmp_path / "study"
    settings = {"levels": 2, "epochs": 2, "train_images": 100, "batch": 50, "density": 0.1}
    whole = execute("multishot", run_dir=str(tmp_path / "other" / "mag-seed1"), **settings)
    for number, steps in enumerate((8, 13)):  # of six an epoch, four of them of the test: at level 0, and at level 1
        attempt = str(study / runs.ATTEMPTS / f"mag-seed1.{number}")
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                execute("multishot", run_dir=attempt, **settings)
    assert (study / runs.CHECKPOINTS / "mag-seed1" / "levels-0.json").is_file()
    resumed = execute("multishot", run_dir=str(study / runs.ATTEMPTS / "mag-seed1.2"), **settings)
    assert same(resumed["network"], whole["network"])
    assert untimed(resumed["found"]["history"]) == untimed(whole["found"]["history"])
    assert (study / runs.CHECKPOINTS / "mag-seed1").exists()  # until the attempt is published


# Misuse


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruner": "lottery"}, "unknown pruner 'lottery': one of "),
        ({"pruner": "dense"}, "pruner is dense, which keeps every weight"),
        ({"pruner": "mag-init"}, "pruner is mag-init, and levels score trained weights: mag is allowed"),
        ({"density": 1.0}, "density is 1: less than 1 is allowed"),
        ({"density": 0.0}, "density is 0.0: more than 0"),
        ({"levels": 0}, "levels 0, epochs 2, rewind_epochs 0: 1 or more"),
        ({"epochs": 0}, "levels 3, epochs 0, rewind_epochs 0: 1 or more"),
        ({"rewind_epochs": -1}, "levels 3, epochs 2, rewind_epochs -1: 1 or more"),
        ({"schedule": "cubic"}, "unknown schedule 'cubic': one of exponential, linear"),
        ({"scope": "block"}, "unknown scope 'block': one of global, layer"),
        ({"lr_warmup": 3}, "lr_warmup is 3 with epochs 2"),
    ],
)
def test_impossible_settings_are_refused_before_training(changes, message):
    model = network("fc")
    with pytest.raises(ValueError, match=message) as caught:
        run(model, tiny(), **changes)
    assert "\n" not in str(caught.value)
    assert same(model, network("fc"))
