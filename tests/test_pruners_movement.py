"""Movement: the score of a training, and levels with it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_checkpoint import Killed, kill_after, often  # noqa: F401
from test_multishot import SETTINGS, run, scoring
from test_train import network, same, tiny

from lib import catalog, explore, masks, multishot, pruners, train

RECIPE = {"batch": 16, "seed": 4, "optimizer": "momentum", "lr": 0.02, "weight_decay": 0.01}


def watched(name="fc", kept=None, **changes) -> tuple:
    model = network(name)
    watch = pruners.Movement(model, kept)
    rows = train.train(model, tiny(augmented=False), masks=kept, watch=watch, **{"epochs": 2} | RECIPE | changes)
    return model, watch, rows


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", ["fc", "resnet8"])
def test_movement_is_minus_weight_times_gradient_summed_over_the_steps(name, pruned):
    """Against a loop of its own, with the gradient of the loss at the weights before each step."""
    kept = pruners.prune(network(name), "rand", 0.4, []) if pruned else None
    _, watch, _ = watched(name, kept)
    data, model = tiny(augmented=False), network(name).train()
    stepper = catalog.load("optimizer", "momentum")(model.parameters(), 0.02, 0.01)
    chosen = masks.prunable(model)
    totals = {n: torch.zeros_like(w) for n, w in chosen.items()}
    take = train._batches(data)
    masks.apply_masks_(model, kept or {})
    for epoch in (1, 2):
        for index in train._order(data, 4, epoch).split(16):
            x, y = take(index)
            stepper.zero_grad()
            F.cross_entropy(model(x), y).backward()
            for n, weight in chosen.items():
                totals[n] -= weight.detach() * weight.grad
            stepper.step()
            masks.apply_masks_(model, kept or {})
    scores = watch.scores()
    assert list(scores) == list(totals)
    assert all(torch.allclose(scores[n], total, rtol=1e-4, atol=1e-8) for n, total in totals.items())
    assert any((score < 0).any() for score in scores.values())
    assert all(not scores[n][~mask].any() for n, mask in (kept or {}).items())


def test_a_weight_that_moves_away_from_zero_scores_above_zero():
    """One weight, loss log(1 + exp(-w)): every step of descent makes w larger, towards zero or away from it."""
    for start, sign in ((-1.0, -1), (1.0, 1)):
        model = torch.nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[start], [0.0]]))
        watch, x, y = pruners.Movement(model), torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
        F.cross_entropy(model(x), y).backward()
        watch.step()
        assert watch.scores()["weight"][0].sign().item() == sign


def test_watching_changes_nothing_of_the_training():
    model, _, rows = watched("resnet8", precision="amp")
    alone = network("resnet8")
    assert [r["train_loss"] for r in rows] == [
        r["train_loss"]
        for r in train.train(alone, tiny(augmented=False), **{"epochs": 2} | RECIPE | {"precision": "amp"})
    ]
    assert same(model, alone)


def test_gradients_beyond_the_range_of_float16_add_nothing():
    model = torch.nn.Linear(2, 1, bias=False)
    watch = pruners.Movement(model)
    model.weight.grad = torch.tensor([[torch.inf, torch.nan]])
    watch.step()
    assert not watch.scores()["weight"].any()


# Interrupted


@pytest.mark.usefixtures("often")
def test_a_watched_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    file, (whole, expected, _) = tmp_path / "state.pt", watched(epochs=3)
    for steps in (1, 4, 2):
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                watched(epochs=3, checkpoint=file)
    model, watch, _ = watched(epochs=3, checkpoint=file)
    assert same(model, whole)
    assert all(torch.equal(score, expected.scores()[name]) for name, score in watch.scores().items())
    again = watched(epochs=3, checkpoint=file)[1]  # nothing is left to do, and the sums are there
    assert all(torch.equal(score, expected.scores()[name]) for name, score in again.scores().items())


def test_the_checkpoint_of_a_training_that_nobody_watched_is_not_used(tmp_path):
    file = tmp_path / "state.pt"
    train.train(network("fc"), tiny(augmented=False), epochs=2, checkpoint=file, **RECIPE)
    with pytest.warns(RuntimeWarning, match="is of a training with watch None, not Movement: training starts anew"):
        _, watch, _ = watched(checkpoint=file)
    assert all(torch.equal(score, watched()[1].scores()[name]) for name, score in watch.scores().items())


@pytest.mark.usefixtures("often")
def test_levels_by_movement_go_on_bit_for_bit(tmp_path, monkeypatch):
    data, whole, resumed = tiny(), network("fc"), network("fc")
    expected = run(whole, data, "movement")
    for steps in (3, 9, 1):  # of four an epoch: within a level, in the next, and where that ends
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                run(network("fc"), data, "movement", checkpoint=tmp_path / "state.pt")
    found = run(resumed, data, "movement", checkpoint=tmp_path / "state.pt")
    assert same(resumed, whole)
    assert all(torch.equal(found["masks"][name], mask) for name, mask in expected["masks"].items())


# In levels


def test_a_level_keeps_what_its_own_training_moved_away_from_zero(monkeypatch):
    """By hand: train, rank the sums of that training, rewind, and again with fresh sums."""
    data, model, kept = tiny(), network("fc"), masks.full(network("fc"))
    recipe = {name: value for name, value in SETTINGS.items() if name != "levels"}
    for share in pruners.densities(0.1, 3, "exponential"):
        by_hand = network("fc")
        watch = pruners.Movement(by_hand, kept)
        train.train(by_hand, data, masks=kept, watch=watch, **recipe)
        kept = masks.keep_top(watch.scores(), share, within=kept)
    found = run(model, data, "movement")["masks"]
    assert all(torch.equal(found[name], mask) for name, mask in kept.items())


@pytest.mark.parametrize("pruner", ["obd", "woodfisher", "wanda", "movement"])
def test_no_level_brings_back_what_an_earlier_one_removed(pruner, monkeypatch):
    seen = []

    def watching(*arguments, **options):
        seen.append(masks.keep_top(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(multishot, "keep_top", watching)
    model = network("fc")
    run(model, tiny(), pruner)
    weights = sum(w.numel() for w in masks.prunable(model).values())
    counts = [sum(int(mask.sum()) for mask in kept.values()) for kept in seen]
    assert counts == [masks.kept_count(weights, 0.1 ** (level / 3)) for level in (1, 2, 3)]
    for before, after in zip(seen, seen[1:], strict=False):
        assert all(not (after[name] & ~before[name]).any() for name in after)


@pytest.mark.parametrize("pruner", ["obd", "wanda", "movement"])
def test_networks_are_copied_saved_and_loaded_before_between_and_after_levels(pruner, monkeypatch, tmp_path):
    checked = []

    def check(model):
        x = scoring(tiny())[0][0]
        with torch.no_grad(), masks.evaluating(model):
            expected = model(x)
            torch.save(model.state_dict(), tmp_path / "state.pt")
            torch.save(model, tmp_path / "whole.pt")
            fresh = network()
            fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
            whole = torch.load(tmp_path / "whole.pt", weights_only=False)
            for other in (copy.deepcopy(model), fresh, whole):
                assert torch.equal(other.eval()(x), expected)
        checked.append(pruner)

    def training(model, data, **arguments):
        check(model)
        rows = train.train(model, data, **arguments)
        check(model)
        return rows

    monkeypatch.setattr(multishot, "train", training)
    model = network()
    check(model)
    run(model, tiny(), pruner, epochs=1)
    check(model)
    assert len(checked) == 2 + 2 * 4  # before and after, and around the training of each level


def test_movement_of_batches_alone_is_refused_in_one_line():
    data = tiny()
    for ask in (
        lambda: pruners.prune(network(), "movement", 0.5, scoring(data)),
        lambda: explore.viewer(network(), scoring(data), data.shape, 0)("movement", 0.5),
    ):
        with pytest.raises(
            ValueError, match="pruner movement scores a training, not batches: it is allowed for levels"
        ) as e:
            ask()
        assert "\n" not in str(e.value)
