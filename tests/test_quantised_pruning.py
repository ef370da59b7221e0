"""Both orders of pruning and quantisation: what levels start from and see, and what is counted of them."""

import copy

import pytest
import torch
from test_train import same, tiny
from torch import nn

from lib import masks, models, multishot, quantise, storage, train
from lib import quantised_pruning as orders

RECIPE = {"lr": 0.01, "batch": 16, "seed": 4}
STEPS = {"levels": 2, "epochs": 2}


def start():
    data = tiny(augmented=False)
    model = models.build("mlp-1x16", data.shape, 10, seed=0)
    return data, model, quantise.calibration_batches(data, 20, seed=1)


def run(model, data, calibration, density=0.1, **changes) -> dict:
    return orders.quantise_then_prune(model, data, density, calibration, **STEPS | RECIPE | changes)


def test_without_rounding_it_is_iterative_magnitude_pruning(monkeypatch):
    """The levels against those of `multishot`, bit for bit."""
    data, model, calibration = start()
    monkeypatch.setattr(quantise, "rounded", lambda weight: weight)
    monkeypatch.setattr(quantise.Inputs, "forward", lambda self, x: x)
    found = run(model, data, calibration)
    reference = copy.deepcopy(model)
    wanted = multishot.multishot(reference, data, "mag", 0.1, [], **STEPS | RECIPE, keep_networks=True)
    assert same(quantise.plain(found["network"]), reference)
    assert all(torch.equal(found["masks"][name], mask) for name, mask in wanted["masks"].items())
    for (state, kept), (theirs, of_them) in zip(found["networks"], wanted["networks"], strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in theirs.items())
        assert all(torch.equal(kept[name], mask) for name, mask in of_them.items())
    assert [(r["level"], r["epoch"]) for r in found["history"]] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]


def test_levels_rewind_and_keep_the_largest_rounded_weights(monkeypatch):
    data, model, calibration = start()
    before, starts = copy.deepcopy(model.state_dict()), []

    def recording(network, *args, **arguments):
        starts.append(copy.deepcopy(network.state_dict()))
        return train.train(network, *args, **arguments)

    monkeypatch.setattr(orders, "train", recording)
    found = run(model, data, calibration)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert len(starts) == 3
    for state in starts:
        assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
        assert all(torch.equal(state[name], starts[0][name]) for name in state)  # ranges, too
    kept = [mask for _, mask in found["networks"]]
    total = sum(mask.numel() for mask in kept[0].values())
    counts = [sum(int(m.sum()) for m in one.values()) for one in kept]
    assert counts == [masks.kept_count(total, 0.1 ** (level / 2)) for level in range(3)]
    for (state, earlier), later in zip(found["networks"][:-1], kept[1:], strict=True):
        assert all(torch.equal(quantise.rounded(state[name]), state[name]) for name in earlier)
        values = {name: state[name].abs() for name in earlier}
        least = min(values[name][later[name]].min() for name in later)
        removed = [values[name][earlier[name] & ~later[name]] for name in later]
        assert max(tensor.max() for tensor in removed if len(tensor)) <= least
    network = found["network"]
    assert not any(network.get_parameter(name)[~mask].any() for name, mask in found["masks"].items())
    assert quantise.ranges_of(quantise.quantised(network), calibration) == {
        name: (layer.inputs.low.item(), layer.inputs.high.item()) for name, layer in quantise.layers(network).items()
    }


def test_interrupted_it_gives_the_same_bits(tmp_path):
    data, model, calibration = start()
    wanted = run(model, data, calibration)
    place = tmp_path / "levels.pt"

    class Stop(Exception):
        pass

    def follow(epochs, what):
        def stop(row):
            if "level 1" in what:
                raise Stop

        return stop

    with pytest.raises(Stop):
        run(model, data, calibration, checkpoint=place, follow=follow)
    assert sorted(path.name for path in tmp_path.glob("*.pt"))[0] == "levels-0.pt"
    found = run(model, data, calibration, checkpoint=place)
    assert same(found["network"], wanted["network"])
    assert all(torch.equal(found["masks"][name], mask) for name, mask in wanted["masks"].items())


def test_fine_tuning_sees_the_rounding_and_keeps_the_zeros():
    data, model, calibration = start()
    kept = multishot.multishot(model, data, "mag", 0.2, [], **STEPS | RECIPE)["masks"]
    before = copy.deepcopy(model.state_dict())
    pruned = {"prune, then quantise": (model, kept)}
    found, history = orders.fine_tuned(pruned, data, calibration, epochs=3, **RECIPE)
    ((tuned, same_masks),) = found.values()
    assert [(row["order"], row["epoch"]) for row in history] == [("prune, then quantise", n) for n in (1, 2, 3)]
    assert same_masks is kept
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(tuned.get_parameter(name)[~mask].any() for name, mask in kept.items())
    loss = train.evaluate(quantise.calibrated(model, calibration), data, split="train")["loss"]
    assert train.evaluate(tuned, data, split="train")["loss"] < loss


def test_networks_survive_copies_and_files_between_rounds(tmp_path):
    data, model, calibration = start()
    network, kept = quantise.calibrated(model, calibration), masks.full(model)
    x = calibration[0][0]
    for density in (0.5, 0.3, 0.1):
        train.train(network, data, epochs=1, masks=kept, **RECIPE)
        kept = masks.keep_top({n: quantise.plain(network).get_parameter(n).abs() for n in kept}, density, within=kept)
        masks.apply_masks_(network, kept)
        storage.save_weights(tmp_path / "w.safetensors", network)
        fresh = quantise.calibrated(models.build("mlp-1x16", data.shape, 10, seed=9), calibration)
        storage.load_weights(tmp_path / "w.safetensors", fresh)
        copied = copy.deepcopy(network)
        for other in (fresh, copied):
            assert torch.equal(other.eval()(x), network.eval()(x))
        network = copied


def test_rows_measure_every_form():
    data, model, calibration = start()
    kept = masks.full(model)
    masks.apply_masks_(model, kept)
    found = orders.techniques({"prune, then quantise": (model, kept)}, calibration)
    trained_so = {"quantise, then prune": (quantise.calibrated(model, calibration), kept)}
    found += orders.techniques(trained_so, calibration, 2)
    rows = orders.rows(found, data)
    names = ["none", "weights", "weights and activations", "weights", "weights and activations"]
    assert [row["quantisation"] for row in rows] == names
    assert [row["fine_tuning_epochs"] for row in rows] == [0, 0, 0, 2, 2]
    plain, weights, both = rows[:3]
    assert plain["top1_pct"] == train.evaluate(model, data)["top1_pct"]
    assert plain["disk_mb"] == pytest.approx(4 * weights["disk_mb"], rel=0.4)
    assert weights["disk_mb"] <= both["disk_mb"]
    assert weights["zeros_pct"] == both["zeros_pct"] > plain["zeros_pct"] == 0
    for a, b in zip(rows[1:3], rows[3:], strict=True):
        drop = ("order", "fine_tuning_epochs")
        assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}


def one(name: str, *values: float) -> dict:
    return {name: torch.tensor(values)}


def flags(name: str, bits: str) -> dict:
    return {name: torch.tensor([bit == "1" for bit in bits])}


def test_ties_are_counted():
    levels = [
        (one("w", 0.0, 1.0, -1.0, 1.0, 2.0, -3.0), flags("w", "111111")),
        (one("w", 0.0, 0.0, 0.0, 0.5, 0.5, -3.0), flags("w", "000111")),
        (one("w", 0.0, 0.0, 0.0, 0.0, 0.5, 1.0), flags("w", "000011")),
    ]
    first, second = orders.tie_rows("prune, then quantise", levels)
    assert first == {
        "order": "prune, then quantise", "level": 0, "left": 6, "kept": 3, "zeros": 1, "magnitudes": 4,
        "threshold": 1.0, "tied": 3, "tied_kept": 1,
    }  # fmt: skip
    wanted = {"left": 3, "kept": 2, "zeros": 0, "magnitudes": 2, "tied": 2, "tied_kept": 1, "threshold": 0.5}
    assert {key: second[key] for key in wanted} == wanted


def test_overlap_is_a_share_of_the_first():
    assert orders.overlap_pct(flags("w", "1100"), flags("w", "0110")) == 50
    assert orders.overlap_pct(flags("w", "1000"), flags("w", "1110")) == 100


def test_weights_that_rounding_makes_zero_are_counted():
    layer = nn.Linear(4, 2)
    layer.weight.data = torch.tensor([[127.0, 0.4, 0.6, 9.0], [12.7, 0.04, 0.06, 0.0]])
    model = quantise.quantised(nn.Sequential(layer), {"0": (0.0, 1.0)})
    kept = {"0.weight": torch.tensor([[True, True, True, False], [True, True, True, True]])}
    made = {"order": "x", "fine_tuning_epochs": 0, "network": model, "masks": kept}
    rows = orders.rounding_rows([made | {"quantisation": "weights and activations"}, made | {"quantisation": "none"}])
    assert len(rows) == 1
    assert (rows[0]["layer"], rows[0]["kept"], rows[0]["zeroed"]) == ("0", 7, 3)
    assert rows[0]["half_step"] == pytest.approx(0.05, rel=1e-4)  # the lower of two in the middle


def test_impossible_numbers_are_refused():
    data, model, calibration = start()
    with pytest.raises(ValueError, match="levels 0, epochs 2: 1 or more is allowed"):
        run(model, data, calibration, levels=0)
