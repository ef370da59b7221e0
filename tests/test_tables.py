"""Tables of the report against numpy, and their gaps."""

import re

import numpy as np
import pandas as pd
import pytest
from frames import layers, run, study, timings

from lib import tables


def test_cells_are_mean_and_standard_deviation_over_seeds():
    values = [50.0, 53.5, 49.25]
    done, plan = study(*(run("snip", v, seed=s) for s, v in enumerate(values)), run("rand", 20.0))
    table = tables.grid(done, plan, "top1_pct", "task")
    assert list(table.columns) == ["Rand", "SNIP"]
    assert table.loc["MNIST / FC", "SNIP"] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} (n = 3)"
    assert table.loc["MNIST / FC", "Rand"] == "20.00"


def test_gaps_are_marked_and_what_was_not_planned_is_empty():
    done, plan = study(
        run("snip", 50.0, seed=1), run("snip", 52.0, seed=2), run("snip", None, seed=3),
        run("rand", None, seed=1), run("rand", None, seed=2),
        run("grasp", 40.0, compression=2),
        run("mag", 33.0, seed=1), run("mag", None, seed=2),
    )  # fmt: skip
    table = tables.grid(done, plan, "top1_pct", "compression")
    assert table.loc[1.0].to_dict() == {
        "Rand": tables.MISSING, "Mag": "33.00 (n = 1 of 2)", "SNIP": "51.00 ± 1.41 (n = 2 of 3)", "GraSP": "",
    }  # fmt: skip
    assert table.loc[2.0].to_dict() == {"Rand": "", "Mag": "", "SNIP": "", "GraSP": "40.00"}
    nothing = tables.grid(done[:0], plan, "top1_pct", "compression")
    assert set(nothing.to_numpy().ravel()) == {tables.MISSING, ""}
    assert tables.grid(pd.DataFrame(), plan, "top1_pct", "compression").equals(nothing)


@pytest.mark.parametrize(
    ("values", "planned", "text"),
    [([], 2, "missing"), ([None], 1, "missing"), ([1.0], None, "1.0"), ([1234.56], 1, "1,234.6"), ([1, 3], 2, "2.0 ± 1.4 (n = 2)")],  # noqa: E501
)  # fmt: skip
def test_spread(values, planned, text):
    assert tables.spread(values, 1, planned) == text


def test_order_is_that_of_the_catalogue_whatever_the_runs_are():
    rows = [run(p) for p in ("synflow", "grasp", "rand", "snip", "mag")] + [
        run("synflow", rounds=100),
        run("dense", compression=0),
    ]
    wanted = ["Dense", "Rand", "Mag", "SNIP", "GraSP", "SynFlow", "SynFlow (100 rounds)"]
    for order in (rows, rows[::-1]):
        assert tables.methods(study(*order)[1]) == wanted


def test_compression_is_readable():
    _, plan = study(run("snip", compression=0.2), run("snip", compression=0.5), run("dense", compression=0))
    assert plan["compression"].tolist() == [0.2, 0.5, 0.0]
    assert not np.signbit(plan["compression"]).any()  # no -0
    assert len(tables.described(pd.DataFrame())) == 0


def test_epochs_count_what_the_source_was_trained_for():
    dense = run("dense", compression=0, epochs=20, pre_epochs=3)
    mag = run("mag", epochs=10, source=f"study/{dense['run']}")
    _, plan = study(dense, mag, run("snip"), run("rand", pre_epochs=7))
    assert tables.epochs_grid(plan).loc["MNIST / FC"].to_dict() == {
        "Dense": "3 + 20", "Rand": "7 + 10", "Mag": "23 + 10", "SNIP": "0 + 10",
    }  # fmt: skip


def test_epochs_before_a_start_from_elsewhere_are_not_known():
    filed = run("mag", epochs=10, pre_epochs=5, source="study/checkpoint-fc")
    again = run("snip", epochs=2, source=f"study/{filed['run']}")
    done, plan = study(filed, again, run("rand"))
    assert np.isnan(tables.pre_epochs(plan, plan.iloc[0]))
    shown = tables.epochs_grid(plan)
    assert shown.loc["MNIST / FC"].to_dict() == {"Rand": "0 + 10", "Mag": "? + 10", "SNIP": "? + 2"}
    assert "?" in tables.unknown(tables.accuracy(done, plan, 1.0))
    assert tables.unknown(tables.accuracy(*study(run("rand")), 1.0)) == ""


def test_accuracy_has_top1_top5_and_epochs_of_every_task():
    done, plan = study(
        run("snip", 50.0), run("snip", None, model="resnet20", run="r"), run("dense", 60.0, compression=0)
    )
    table = tables.accuracy(done, plan, 1.0)
    assert list(table.index.get_level_values("task").unique()) == ["MNIST / ResNet-20", "MNIST / FC"]
    assert table.loc[("MNIST / FC", "top-1 (%)")].to_dict() == {"Dense": "60.00", "SNIP": "50.00"}
    assert table.loc[("MNIST / FC", "top-5 (%)")].to_dict() == {"Dense": "65.00", "SNIP": "55.00"}
    assert table.loc[("MNIST / ResNet-20", "top-1 (%)")].to_dict() == {"Dense": "", "SNIP": "missing"}


def test_the_dense_network_fills_the_row_where_nothing_is_pruned():
    done, plan = study(
        run("snip", 50.0), run("snip", 55.0, compression=0.5), run("rand", 5.0), run("dense", 60.0, compression=0)
    )
    table = tables.by_compression(done, plan, "top1_pct", "MNIST / FC")
    assert list(table.columns) == ["Rand", "SNIP"]
    assert table["SNIP"].tolist() == ["60.00", "55.00", "50.00"]
    assert table["Rand"].tolist() == ["60.00", "", "5.00"]
    assert table.index.names == ["compression", "ratio", "density (%)", "sparsity (%)"]
    assert table.index.tolist() == [("0", "1", "100", "0"), ("0.5", "3.16", "31.6", "68.4"), ("1", "10", "10", "90")]
    assert tables.by_compression(done[:0], plan, "top1_pct", "MNIST / FC")["SNIP"].tolist() == ["missing"] * 3
    alone = study(run("snip", 50.0))
    assert tables.by_compression(*alone, "top1_pct", "MNIST / FC")["SNIP"].tolist() == ["50.00"]


def test_a_pruner_that_was_run_unpruned_keeps_its_own_value():
    done, plan = study(run("snip", 58.0, compression=0), run("rand", 5.0), run("dense", 60.0, compression=0))
    table = tables.by_compression(done, plan, "top1_pct", "MNIST / FC")
    assert table.iloc[0].to_dict() == {"Rand": "60.00", "SNIP": "58.00"}


@pytest.mark.parametrize(("name", "value", "words"), [
    ("scope", "layer", "scope layer"),
    ("schedule", "linear", "schedule linear"),
    ("also", ["biases", "norms"], "also biases and norms"),
    ("train_mode", True, "scored in training mode"),
    ("lr", 0.01, "lr 0.01"),
    ("source", "s/accuracy-mnist-fc-dense-lr0.01-seed1", "source s/accuracy-mnist-fc-dense-lr0.01"),
])  # fmt: skip
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(name, value, words):
    plain = {"scope": "global", "schedule": "exponential", "also": [], "train_mode": False, "lr": 0.001, "source": ""}
    rows = [run("snip", 40.0 + seed, seed=seed, **plain) for seed in (1, 2)]
    rows += [run("snip", 60.0, **(plain | {name: value})) | {"run": "another"}]
    done, plan = study(*rows)
    table = tables.grid(done, plan, "top1_pct", "task")
    assert table.loc["MNIST / FC"].to_dict() == {"SNIP": "41.50 ± 0.71 (n = 2)", f"SNIP ({words})": "60.00"}


def test_an_option_is_named_though_all_runs_share_it_and_a_training_parameter_is_not():
    _, plan = study(run("snip", scope="layer", lr=0.1), run("synflow", scope="layer", lr=0.1, rounds=5))
    assert list(plan["method"]) == ["SNIP (scope layer)", "SynFlow (5 rounds, scope layer)"]


def test_the_dense_row_is_trained_as_its_column():
    done, plan = study(*(
        run(pruner, top1 + 100 * lr, compression=compression, lr=lr) | {"run": f"{pruner}-{lr}"}
        for pruner, top1, compression in (("dense", 80.0, 0), ("snip", 60.0, 1)) for lr in (0.001, 0.01)
    ))  # fmt: skip
    table = tables.by_compression(done, plan, "top1_pct", "MNIST / FC")
    assert table["SNIP"].tolist() == ["80.10", "60.10"]
    assert table["SNIP (lr 0.01)"].tolist() == ["81.00", "61.00"]


def test_the_dense_network_fills_the_row_of_a_single_method():
    done, plan = study(run("snip", 50.0), run("snip", None, compression=0), run("dense", 60.0, compression=0))
    assert tables.by_compression(done, plan, "top1_pct", "MNIST / FC")["SNIP"].tolist() == ["missing", "50.00"]


def test_short_times_keep_three_digits():
    clock = timings(("snip", 1, 0.000812, None, 0.0000345, 200), ("rand", 1, 0.0123, None, 0.001, 200))
    (row,) = tables.time_grid(clock, "permanent").to_dict("records")
    assert row == {"Rand": "0.012300 ± 0.001000", "SNIP": "0.000812 ± 0.000034"}


def test_passes_are_median_and_interquartile_range():
    seconds = [1.0, 5.0, 2.0, 4.0, 10.0]
    frame = pd.DataFrame({"network": "s/a", "form": "permanent", "seconds": seconds})
    row = tables.passes(frame).iloc[0]
    assert row["median_s"] == np.median(seconds)
    assert row["spread_s"] == np.subtract(*np.percentile(seconds, [75, 25]))
    assert row["n"] == 5


def test_time_grid_is_laid_out_like_the_accuracies():
    clock = timings(
        ("dense", 0, 1.0, None, 0.1, 2000), ("snip", 1, 0.9, 1.4, 0.05, 200), ("rand", 0.5, 0.8, 1.2, 0.02, 600),
    )  # fmt: skip
    table = tables.time_grid(clock, "permanent")
    assert list(table.columns) == ["Rand", "SNIP"]
    assert table.index.get_level_values("ratio").tolist() == ["1", "3.16", "10"]
    assert table["SNIP"].tolist() == ["1.000 ± 0.100", "", "0.900 ± 0.050"]
    masked = tables.time_grid(clock, "masked forward")
    assert masked["SNIP"].tolist() == ["", "1.400 ± 0.050"]


def test_several_networks_of_one_cell_are_all_timed():
    clock = timings(
        ("dense", 0, 1.0, None, 0.1, 2000), ("dense", 0, 3.0, None, 0.3, 2000), ("snip", 1, 0.9, 1.4, 0.05, 200),
        ("snip", 1, 0.7, 1.2, 0.15, 200),
    )  # fmt: skip
    assert tables.time_grid(clock, "permanent")["SNIP"].tolist() == ["2.000 ± 0.200 (n = 2)", "0.800 ± 0.100 (n = 2)"]
    (alone,) = tables.time_grid(clock[clock["pruner"] == "dense"], "permanent").to_dict("records")
    assert alone == {"Dense": "2.000 ± 0.200 (n = 2)"}


def test_names_of_timed_networks_tell_them_apart():
    done, _ = study(run("snip", seed=1), run("snip", seed=2), run("rand"), run("dense", compression=0))
    passes = pd.DataFrame({"network": "s/" + done["run"], "form": "permanent", "seconds": 1.0})
    named = tables.timing_summary(passes, done).set_index("run")["network"]
    twice = [f"SNIP at compression 1, {name}" for name in done["run"][:2]]
    assert named.loc[done["run"]].tolist() == [*twice, "Rand at compression 1", "Dense"]


def test_layers_that_took_no_part_are_whole():
    _, plan = study(run("snip"), run("rand"))
    frame = pd.concat([layers(plan["run"][0], {"a": 10, "fc": 20}), layers(plan["run"][1], {"a": 50})])
    assert tables.layer_densities(frame, plan).loc["fc", ["Rand", "SNIP"]].tolist() == [100, 20]
    counted = tables.layer_macs(frame, plan)
    assert counted.loc["fc"].to_dict() == {"Dense": 200, "Rand": 200, "SNIP": 40}
    assert counted.loc["all layers", "Rand"] == 300


def test_layer_densities_are_means_over_seeds_in_the_network_order():
    done, plan = study(run("snip", seed=1), run("snip", seed=2), run("rand"), run("dense", compression=0))
    frame = pd.concat([
        layers(done["run"][0], {"z": 10, "a": 90}), layers(done["run"][1], {"z": 20, "a": 70}),
        layers(done["run"][2], {"z": 50, "a": 50}),
    ])  # fmt: skip
    table = tables.layer_densities(frame, plan)
    assert list(table.index) == ["z", "a"]
    assert list(table.columns) == ["shape", "weights", "MACs", "Rand", "SNIP"]
    np.testing.assert_allclose(table["SNIP"], [15, 80])
    np.testing.assert_allclose(table["Rand"], [50, 50])


def test_common_compression_is_the_highest_that_all_tasks_have():
    rows = [run("snip", compression=c) for c in (0.2, 0.5, 1, 2)]
    rows += [run("snip", compression=c, model="resnet20") for c in (0.2, 1)] + [run("dense", compression=0)]
    assert tables.common_compression(study(*rows)[1]) == 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([run("dense", compression=0)], 0), ([run("snip"), run("snip", compression=2, model="resnet8")], 2)],
)
def test_no_common_compression(rows, expected):
    assert tables.common_compression(study(*rows)[1]) == expected


def test_swept_tasks_have_the_most_compressions():
    rows = [run("snip", compression=c) for c in (0.2, 0.5, 1)] + [run("snip", model="resnet20")]
    assert tables.swept_tasks(study(*rows)[1]) == ["MNIST / FC"]
    rows += [run("snip", compression=c, model="resnet20") for c in (0.2, 0.5)]
    assert tables.swept_tasks(study(*rows)[1]) == ["MNIST / ResNet-20", "MNIST / FC"]
    single = [run("snip"), run("snip", model="resnet20")]
    assert tables.swept_tasks(study(*single)[1]) == ["MNIST / ResNet-20"]


def test_macs_by_layer_add_up():
    _, plan = study(run("snip", seed=1), run("snip", seed=2), run("rand"), run("dense", compression=0))
    frame = pd.concat([
        layers(plan["run"][0], {"z": 10, "a": 91}), layers(plan["run"][1], {"z": 20, "a": 71}),
        layers(plan["run"][2], {"z": 50, "a": 50}),
    ])  # fmt: skip
    table = tables.layer_macs(frame, plan)
    assert list(table.columns) == ["Dense", "Rand", "SNIP"]
    assert table["SNIP"].to_dict() == {"z": 30, "a": 162, "all layers": 192}
    assert table.loc["all layers", "Dense"] == 400


def test_run_metrics_add_up():
    history = [{"train_s": 1.5}, {"train_s": 2.0, "test_top1_pct": 1.0, "test_top5_pct": 2.0, "test_loss": 3.0, "train_top1_pct": 4.0, "train_loss": 5.0}]  # fmt: skip  # noqa: E501
    rows = layers("x", {"a": 10, "b": 5}).to_dict("records")
    macs = {"macs_dense": 500, "macs_kept": 130}  # more than those of the layers: a spared one has no row
    found = tables.run_metrics(history, rows, {"layers": ["a", "b"], "connected": False}, macs)
    assert found["train_s"] == 3.5
    assert (found["weights"], found["weights_kept"], found["macs_dense"], found["macs_kept"]) == (200, 15, 500, 130)
    assert (found["collapsed_layers"], found["connected"]) == ("a b", False)
    assert found["top1_pct"] == 1.0


def test_tables_leave_the_frames_alone():
    done, plan = study(run("snip", 50.0), run("mag", 20.0), run("dense", 60.0, compression=0))
    before = done.copy(deep=True), plan.copy(deep=True)
    tables.accuracy(done, plan, 1.0)
    tables.by_compression(done, plan, "macs_kept", "MNIST / FC", 0)
    tables.panels(done, timings(("snip", 1, 1.0, 1.0, 0.1, 1)), "MNIST / FC")
    pd.testing.assert_frame_equal(done, before[0])
    pd.testing.assert_frame_equal(plan, before[1])


def test_whole_numbers_have_separators():
    done, plan = study(run("snip", macs_kept=1234567))
    cell = tables.grid(done, plan, "macs_kept", "task", digits=0).iloc[0, 0]
    assert re.fullmatch("1,234,567", cell)


def test_one_compression_makes_no_line():
    done, _ = study(run("dense", compression=0.0), run("snip"), run("rand"))
    assert tables.panels(done, pd.DataFrame(), "MNIST / FC") == []
    done, _ = study(run("dense", compression=0.0), run("snip"), run("rand", compression=2.0))
    assert [unit for *_, unit, _ in tables.panels(done, pd.DataFrame(), "MNIST / FC")] == [
        "top-1 accuracy (%)", "MACs of one image (million)",
    ]  # fmt: skip
