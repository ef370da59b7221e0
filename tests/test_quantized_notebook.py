"""The notebook `quantized`: both orders at one sparsity, its tables, and how it goes on after it was stopped."""

import pandas as pd
import pytest
import torch
from notebook_cells import execute, labels, words
from test_quantised_pruning import start

from lib import masks, models, paths, runs
from lib import quantised_pruning as orders
from lib.catalog import PRUNED_FIRST, QUANTISED_FIRST, UNPRUNED
from lib.data.dataset import assemble_texts

SMALL = {"model": "mlp-1x32", "train_images": 100, "levels": 2, "epochs": 1, "density": 0.3, "batch": 50}
SMALL |= {"calibration_images": 20, "latency_batches": [1, 8], "repeats": 2}
BOTH = "weights and activations"
TABLES = ("quantized", "rounding", "ties", "latencies", "history")


def tables(folder) -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The executed notebook, and the folder of its run."""
    folder = tmp_path_factory.mktemp("runs") / "study" / "quantized"
    return execute("quantized", SMALL | {"run_dir": str(folder)}), folder


def test_both_orders_are_there_at_the_sparsity_asked_for(small):
    book, folder = small
    assert labels(book) == {"tbl-quantized", "fig-quantized", "tbl-int8", "tbl-steps"}
    rows = tables(folder)["quantized"]
    total = 20 * 20 * 32 + 32 * 10
    kept = masks.kept_count(total, SMALL["density"])
    pruned, whole = rows[rows["order"] != UNPRUNED], rows[rows["order"] == UNPRUNED]
    assert pruned["sparsity_pct"].tolist() == pytest.approx([100 * (1 - kept / total)] * len(pruned), rel=1e-12)
    assert whole["sparsity_pct"].eq(0).all()
    assert (rows["zeros_pct"] >= rows["sparsity_pct"] - 1e-9).all()
    found = rows[["order", "fine_tuning_epochs", "quantisation"]].to_numpy().tolist()
    after = [[order, 1, name] for order in (PRUNED_FIRST, QUANTISED_FIRST) for name in ("weights", BOTH)]
    before = [[order, 0, name] for order in (UNPRUNED, PRUNED_FIRST) for name in ("none", "weights", BOTH)]
    assert found == [*before, *([order, 0, name] for order, _, name in after[2:]), *after]
    said = words(book)
    assert "pruning before quantising gives" in said
    assert "After 1 further epoch" in said
    assert "The two orders keep" in said


def test_files_are_smaller_where_they_must_be(small):
    rows = tables(small[1])["quantized"]
    by = rows[rows["fine_tuning_epochs"] == 0].set_index(["order", "quantisation"])
    for order in (UNPRUNED, PRUNED_FIRST):
        plain, eight = by.loc[(order, "none")], by.loc[(order, BOTH)]
        assert eight["disk_mb"] < 0.5 * plain["disk_mb"]
        assert eight["bitmask_mb"] < plain["bitmask_mb"]
    assert by.loc[(PRUNED_FIRST, "none"), "bitmask_mb"] < by.loc[(PRUNED_FIRST, "none"), "disk_mb"]
    assert by.loc[(PRUNED_FIRST, BOTH), "bitmask_mb"] < by.loc[(UNPRUNED, BOTH), "bitmask_mb"]


def test_what_ran_in_integers_has_its_columns(small):
    found = tables(small[1])
    ran = found["quantized"]["quantisation"] == BOTH
    assert found["quantized"].loc[ran, "int8_top1_pct"].between(0, 100).all()
    assert found["quantized"].loc[~ran, "int8_top1_pct"].isna().all()
    times = found["latencies"]
    assert list(times) == ["batch", "repeat", "seconds", "order", "fine_tuning_epochs"]
    assert times.groupby(["order", "fine_tuning_epochs", "batch"]).size().tolist() == [2] * 5 * 2
    medians = times[times["batch"] == 8].groupby(["order", "fine_tuning_epochs"])["seconds"].median()
    for row in found["quantized"][ran].to_dict("records"):
        assert row["int8_latency_8_s"] == medians[row["order"], row["fine_tuning_epochs"]]


def test_tables_and_metrics_tell_one_story(small):
    found, metrics = tables(small[1]), runs.read_json(small[1] / runs.METRICS)
    by = found["quantized"].set_index(["order", "fine_tuning_epochs", "quantisation"])["top1_pct"]
    assert metrics["prune_then_quantise_top1_pct"] == by[PRUNED_FIRST, 0, BOTH]
    assert metrics["quantise_then_prune_top1_pct"] == by[QUANTISED_FIRST, 0, BOTH]
    assert 0 < metrics["overlap_pct"] <= 100
    history = found["history"]
    place = history[["order", "level", "further"]].to_numpy().tolist()
    both = (PRUNED_FIRST, QUANTISED_FIRST)
    assert place == [[o, n, False] for o in both for n in range(3)] + [[o, 2, True] for o in both]
    last = history[(history["order"] == PRUNED_FIRST) & ~history["further"]].groupby("level").last()["test_top1_pct"]
    assert (by[UNPRUNED, 0, "none"], by[PRUNED_FIRST, 0, "none"]) == (last[0], last[2])
    ties = found["ties"]
    assert ties["order"].tolist() == [PRUNED_FIRST] * 2 + [QUANTISED_FIRST] * 2
    kept = found["rounding"].groupby(["order", "fine_tuning_epochs"])["kept"].sum()
    assert ties.groupby("order")["kept"].last().to_dict() == {order: kept[order, 0] for order in both}


class Killed(Exception):
    pass


def killed_in(name: str):
    """A `follow` that ends the experiment after the first epoch of the training whose name has this in it."""

    def follow(epochs, what):
        def on_epoch(row):
            if name in what:
                raise Killed

        return on_epoch

    return follow


@pytest.mark.parametrize("name", ["level 1", "quantised, level 1", "quantise, then prune, further"])
def test_a_second_call_resumes_and_gives_the_same_bits(tmp_path, name):
    data, model, calibration = start()
    settings = {"levels": 2, "epochs": 2, "further_epochs": 2, "lr": 0.01, "batch": 16, "seed": 4}
    wanted = orders.both_orders(model, data, 0.2, calibration, **settings)
    place = {"checkpoint": lambda name: tmp_path / f"{name}.pt"}
    with pytest.raises(Killed):
        orders.both_orders(model, data, 0.2, calibration, **settings, **place, follow=killed_in(name))
    trained = []
    again = {"follow": lambda epochs, what: lambda row: trained.append((what, row["epoch"]))}
    found = orders.both_orders(model, data, 0.2, calibration, **settings, **place, **again)
    assert len(set(trained)) < len(wanted["history"]), "nothing that was finished is trained again"
    for one, other in zip(found["techniques"], wanted["techniques"], strict=True):
        state = other["network"].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in one["network"].state_dict().items())
        assert all(torch.equal(mask, other["masks"][key]) for key, mask in one["masks"].items())


def test_the_notebook_goes_on_where_it_was_stopped(small, tmp_path, monkeypatch):
    """As a study does it: each attempt in a folder of its own, the state of the trainings beside them."""
    attempt = tmp_path / "study" / runs.ATTEMPTS
    with monkeypatch.context() as patch:
        patch.setattr("lib.progress.follow", lambda run, epochs, what: killed_in("quantised, level 1")(epochs, what))
        with pytest.raises(Killed):
            execute("quantized", SMALL | {"run_dir": str(attempt / "quantized.1")})
    state = tmp_path / "study" / runs.CHECKPOINTS / "quantized"
    assert (state / "levels-1.json").is_file()
    execute("quantized", SMALL | {"run_dir": str(attempt / "quantized.2")})
    found, wanted = tables(attempt / "quantized.2"), tables(small[1])
    for name in ("quantized", "rounding", "ties", "history"):
        timed = [column for column in wanted[name] if column.endswith("_s")]
        pd.testing.assert_frame_equal(found[name].drop(columns=timed), wanted[name].drop(columns=timed))
    assert state.exists()  # until the attempt is published


def test_texts_and_their_embeddings(tmp_path, monkeypatch):
    numbers = torch.randint(1, 30, (40, 6), generator=torch.Generator().manual_seed(0))
    labels_ = torch.arange(40) % 2
    made = assemble_texts("t", numbers, labels_, numbers[:20], labels_[:20], words=30, classes=2, source="Made up.")
    monkeypatch.setattr("lib.data.load", lambda *args, **options: made)
    folder = tmp_path / "s" / "q"
    changes = {"data": "sst2", "model": "mlp-1x16", "also": ["embeddings"], "qat_epochs": 0, "run_dir": str(folder)}
    execute("quantized", SMALL | changes)
    total = sum(w.numel() for w in masks.prunable(models.build("mlp-1x16", made.shape, 2), ["embeddings"]).values())
    rows = tables(folder)["quantized"]
    assert rows["fine_tuning_epochs"].eq(0).all()
    kept = masks.kept_count(total, 0.3)
    assert rows["sparsity_pct"].iloc[-1] == pytest.approx(100 * (1 - kept / total), rel=1e-12)
    assert paths.notebook("quantized").is_file()
