import time
from collections import Counter

import pytest
import torch

from lib import models, pruners, timing
from lib.data import load


@pytest.fixture(scope="module")
def digits():
    return load("digits", train_images=100)


def recorder(name, calls):
    def network(x):
        assert torch.is_inference_mode_enabled()
        calls.append((name, len(x)))

    return network


def test_every_network_has_one_turn_a_round_and_the_rows_are_complete(digits):
    calls = []
    networks = {(name, "permanent"): recorder(name, calls) for name in "abc"}
    rows = timing.inference(networks, digits, batch=300, repeats=4, warmup=2)
    assert Counter((row["network"], row["repeat"]) for row in rows) == Counter(
        (name, repeat) for name in "abc" for repeat in (1, 2, 3, 4)
    )
    assert all(list(row) == ["network", "form", "repeat", "seconds"] and row["seconds"] >= 0 for row in rows)
    turns = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    assert len(turns) == 3 * (4 + 2), "warm-up rounds are run and not reported"
    assert all([size for _, size in turn] == [300, 300, 300, 100] for turn in turns), "the last batch may be smaller"
    order = [turn[0][0] for turn in turns]
    assert ["".join(order[i : i + 3]) for i in range(0, 18, 3)] == ["abc", "bca", "cab", "abc", "bca", "cab"]


def test_the_pass_itself_is_what_is_timed(digits):
    networks = {("slow", "permanent"): lambda x: time.sleep(0.01), ("quick", "permanent"): lambda x: None}
    rows = timing.inference(networks, digits, batch=500, repeats=2)
    slow, quick = ([row["seconds"] for row in rows if row["network"] == name] for name in ("slow", "quick"))
    assert min(slow) >= 0.02
    assert min(quick) < min(slow)


def test_models_are_put_in_evaluation_mode(digits):
    model = models.build("resnet8", digits.shape).train()
    timing.inference({("a", "permanent"): model}, digits, batch=50, repeats=1, warmup=0, test_images=50)
    assert not model.training


def test_only_so_many_images(digits):
    calls = []
    timing.inference({("a", "permanent"): recorder("a", calls)}, digits, batch=64, repeats=1, warmup=0, test_images=100)
    assert [size for _, size in calls] == [64, 36]


def test_both_forms_of_a_pruned_network_give_the_same_logits(digits):
    model = models.build("fc", digits.shape)
    kept = pruners.prune(model, "rand", 0.1, [])
    whole = models.build("fc", digits.shape, seed=1)
    networks = {"rand": (model, kept), "dense": (whole, pruners.prune(whole, "dense", 1.0, []))}
    forms = timing.forms(networks)
    assert list(forms) == [("rand", "permanent"), ("rand", "masked forward"), ("dense", "permanent")]
    x = torch.randn(3, *digits.shape)
    assert torch.equal(forms["rand", "permanent"](x), forms["rand", "masked forward"](x))


def test_examples_are_a_dense_and_a_pruned_network(digits):
    found = timing.examples("fc", digits, 0.1, seed=1)
    assert list(found) == ["dense", "snip"]
    assert len(timing.forms(found)) == 3


@pytest.mark.parametrize(
    "changes", [{"networks": {}}, {"batch": 0}, {"repeats": 0}, {"warmup": -1}, {"test_images": 1001}]
)
def test_impossible_settings(digits, changes):
    arguments = {"networks": {("a", "permanent"): print}} | changes
    with pytest.raises(ValueError, match=r"at least 1, 1, 1, 0 and 0 to 1000 are allowed"):
        timing.inference(data=digits, **arguments)


def test_single_passes_take_turns_at_every_batch_size():
    calls = []
    networks = {name: recorder(name, calls) for name in "ab"}
    rows = timing.latencies(networks, {1: torch.zeros(1, 2), 8: torch.zeros(8, 2)}, repeats=20, warmup=1)
    assert Counter((row["network"], row["batch"]) for row in rows) == {(n, b): 20 for n in "ab" for b in (1, 8)}
    rounds = [calls[i : i + 6] for i in range(0, len(calls), 6)]
    assert len(rounds) == 21
    # one of them has an untimed pass more with each batch, before the first one's turn; not always the same
    more = [Counter(turn) - Counter([("a", 1), ("a", 8), ("b", 1), ("b", 8)]) for turn in rounds]
    assert all(sorted(batch for _, batch in found) == [1, 8] for found in more)
    assert {pair for found in more for pair in found} == {("a", 1), ("a", 8), ("b", 1), ("b", 8)}
    assert len({turn[0] for turn in rounds}) > 2, "nobody is always first"


@pytest.mark.parametrize("changes", [
    {"networks": {}}, {"inputs": {}}, {"inputs": {2: torch.zeros(1, 2)}}, {"repeats": 0}, {"warmup": -1},
])  # fmt: skip
def test_impossible_latencies(changes):
    good = {"networks": {"a": lambda x: x}, "inputs": {1: torch.zeros(1, 2)}, "repeats": 1, "warmup": 0}
    with pytest.raises(ValueError, match="1 and 0 are allowed"):
        timing.latencies(**(good | changes))
