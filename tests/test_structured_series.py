"""Many smaller networks of one, trained on and measured; and the notebook that shows them."""

import copy
import itertools

import notebook_cells
import pandas as pd
import pytest
import torch
from test_train import tiny

from lib import flops, formats, masks, models, parameters, paths, pruners, runs, storage, timing, train
from lib.data.dataset import assemble_texts
from lib.structured import remove, series


def texts():
    numbers = torch.randint(1, 30, (40, 6), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    numbers[labels == 1, 0] = 7
    return assemble_texts(
        "t", numbers, labels, numbers[:20], labels[:20], words=30, classes=2, source="Made up."
    )  # fmt: skip


def network(data, name="resnet8"):
    return models.build(name, data.shape, data.classes, seed=1)


def test_every_network_is_measured_and_the_model_left_alone():
    data = tiny()
    model = network(data)
    before = copy.deepcopy(model.state_dict())
    found = series.series(model, data, [], [0.25, 0.5], epochs=0)
    names = ["unpruned", *(f"{s} {r}" for s, r in itertools.product(("channels", "blocks"), (0.25, 0.5)))]
    assert list(found["networks"]) == names == [row["network"] for row in found["rows"]]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert found["history"] == []
    for row, one in zip(found["rows"], found["networks"].values(), strict=True):
        assert row["parameters"] == sum(p.numel() for p in one.parameters())
        assert row["macs"] == flops.macs(one, data.shape)["macs_dense"]
        assert row["top1_pct"] == row["top1_before_pct"] == train.evaluate(one, data)["top1_pct"]
    rows = pd.DataFrame(found["rows"]).set_index("network")
    assert rows.loc["channels 0.5", ["units", "units_removed"]].tolist() == [16 + 16 + 2 * 32 + 2 * 64, 112]
    assert rows.loc["blocks 0.25", ["units", "units_removed"]].tolist() == [1, 0]
    assert rows.loc["blocks 0.5", ["units", "units_removed"]].tolist() == [1, 1]
    assert rows["units_removed"]["unpruned"] == 0
    pruned = rows.drop(index="unpruned")
    assert (pruned["max_abs_logit_difference"] <= 1e-5 * pruned["max_abs_logit"]).all()
    assert {row["network"] for row in found["removed"]} == {*names[1:]}


def test_disk_size_is_that_of_the_state_dict(tmp_path):
    data = tiny()
    found = series.series(network(data), data, ["channels"], [0.5])
    for row, one in zip(found["rows"], found["networks"].values(), strict=True):
        assert 1e6 * row["disk_mb"] == formats.save_as("dense", tmp_path / "a.safetensors", one, {})


def test_training_on_is_that_of_train_and_goes_on_where_it_stopped(tmp_path):
    data = tiny()
    model, recipe = network(data), {"lr": 0.01, "batch": 10, "seed": 3}
    place = lambda name: tmp_path / f"{name}.pt"  # noqa: E731
    told = []
    follow = lambda epochs, name: lambda row: told.append((name, epochs, row["epoch"]))  # noqa: E731
    found = series.series(model, data, ["channels"], [0.5], epochs=2, checkpoint=place, follow=follow, **recipe)
    assert told == [(name, 2, epoch) for name in ("unpruned", "channels 0.5") for epoch in (1, 2)]
    alone = remove(model, data.shape, "channels", 0.5)[1]
    history = train.train(alone, data, epochs=2, **recipe)
    last = found["rows"][-1]
    assert last["top1_pct"] == history[-1]["test_top1_pct"]
    assert [row["network"] for row in found["history"]] == ["unpruned"] * 2 + ["channels 0.5"] * 2
    again = series.series(model, data, ["channels"], [0.5], epochs=2, checkpoint=place, **recipe)
    for one, two in zip(found["networks"].values(), again["networks"].values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(("name", "structures"), [("transformer", {"neurons", "heads"}), ("mlp-2x16", {"neurons"})])
def test_texts(name, structures):
    data = texts()
    found = series.series(network(data, name), data, [], [0.5], epochs=1, batch=10)
    assert {row["structure"] for row in found["rows"]} == {"unpruned", *structures}
    timed = timing.latencies(found["networks"], timing.first_inputs(data, [1, 4]), repeats=2, warmup=0)
    assert len(timed) == 2 * 2 * (1 + len(structures))


@pytest.mark.parametrize(
    ("structures", "rates", "said"),
    [
        (["channels", "channels"], [0.5], "structures are "),
        (["channels"], [0.5, 0.5], r"structures are \['channels'\] and rates \[0.5, 0.5\]: each once"),
        (["channels"], [], "structures are "),
        (["channels", "heads"], [0.5], "structure is 'heads': of this network channels, blocks can be removed"),
        (["blocks", "channels"], [0.5, 0.999], "rate is 0.999 for the 16 units of conv: at most 15 may go, not 16"),
    ],
)
def test_impossible_series_are_refused_before_any_training(structures, rates, said):
    data = tiny()
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        series.series(network(data), data, structures, rates, epochs=10**9)
    assert "\n" not in str(caught.value)


def test_more_inputs_than_there_are():
    data = tiny()
    assert [x.shape for x in timing.first_inputs(data, [1, 20]).values()] == [(1, 3, 8, 8), (20, 3, 8, 8)]
    with pytest.raises(ValueError, match=r"^latency_batches are \[1, 21\]: 1 to 20, all test"):
        timing.first_inputs(data, [1, 21])


def test_a_pruned_source_is_refused(tmp_path):
    data = tiny()
    model = network(data)
    storage.save_weights(tmp_path / "weights.safetensors", model)
    storage.save_masks(tmp_path / "masks.safetensors", masks.full(model))
    fresh = models.build("resnet8", data.shape, data.classes, seed=2)
    series.load_unpruned_(tmp_path, fresh)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))
    storage.save_masks(tmp_path / "masks.safetensors", pruners.prune(model, "mag", 0.5, []))
    with pytest.raises(ValueError, match=r"^source .* is pruned already: a run of pruner dense is allowed$"):
        series.load_unpruned_(tmp_path, fresh)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rates": [1.0]}, "rates.0: received 1.0"),
        ({"rates": []}, r"rates: received \[\]"),
        ({"structures": ["wings"]}, "structures.0: received 'wings'"),
        ({"tune_epochs": -1}, "tune_epochs: received -1"),
        ({"latency_batches": [0]}, "latency_batches.0: received 0"),
    ],
)
def test_parameters_that_no_run_can_have(values, said):
    with pytest.raises(ValueError, match=f"^notebook structured: {said}"):
        parameters.resolve("structured", values)


SMALL = {"train_images": 100, "pre_epochs": 1, "repeats": 2, "latency_batches": [1, 8]}


def csv(folder, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


def test_the_notebook_trains_removes_and_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    book = notebook_cells.execute("structured", SMALL)
    assert notebook_cells.labels(book) == {"tbl-structured", "fig-structured"}
    folder = next(tmp_path.glob("scratch/structured-digits-resnet8-*"))
    rows, latencies = csv(folder, "structured"), csv(folder, "latencies")
    assert rows["network"].tolist() == ["unpruned", "channels 0.25", "channels 0.5", "blocks 0.25", "blocks 0.5"]
    assert latencies.groupby("network", sort=False)["batch"].apply(list).tolist() == [[1, 8]] * 5
    assert (latencies["latency_q1_s"] <= latencies["latency_s"]).all()
    assert (latencies["latency_s"] <= latencies["latency_q3_s"]).all()
    assert csv(folder, "history").groupby("network").size().tolist() == [1] * 5
    assert csv(folder, "removed")["after"].le(csv(folder, "removed")["before"]).all()
    said = notebook_cells.words(book)
    assert "The smaller networks compute what the masked ones do" in said
    assert runs.read_json(folder / runs.METRICS)["networks"] == 5


def test_the_notebook_starts_from_a_finished_run(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    data = {"data": "digits-20x20", "model": "mlp-2x16"}
    model = models.build("mlp-2x16", (1, 20, 20), 10, seed=5)
    folder = tmp_path / "s" / "a"
    folder.mkdir(parents=True)
    storage.save_weights(folder / "weights.safetensors", model)
    storage.save_masks(folder / "masks.safetensors", masks.full(model))
    (folder / runs.METRICS).write_text("{}")
    notebook_cells.execute("structured", SMALL | data | {"source": "s/a", "rates": [0.5], "tune_epochs": 0})
    rows = csv(next(tmp_path.glob("scratch/structured-digits-20x20-mlp-*")), "structured")
    expected = sum(p.numel() for p in remove(model, (1, 20, 20), "neurons", 0.5)[1].parameters())
    assert rows["parameters"].tolist() == [sum(p.numel() for p in model.parameters()), expected]
    assert (rows["top1_pct"] == rows["top1_before_pct"]).all()
    with pytest.raises(ValueError, match=r"^no finished run 's/b': allowed is study/run, one of a$"):
        notebook_cells.execute("structured", SMALL | data | {"source": "s/b"})
