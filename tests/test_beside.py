"""A user's accuracies beside the reference's: cells, differences, and sentences that follow the numbers."""

import math
from types import SimpleNamespace

import pytest
from frames import run, study

from lib.findings import beside

TASK = "MNIST / FC"
SHARES = ["ratio", "density (%)", "sparsity (%)"]


def book(*rows: dict, cpu="CPU A", versions=None, images=10000, fingerprint="sha256:1f", **parameters):
    """One side; `parameters` are recorded by every run beside those of its row."""
    done, planned = study(*rows)
    recorded = (
        "data",
        "model",
        "pruner",
        "density",
        "rounds",
        "seed",
        "epochs",
        "pre_epochs",
        "source",
        "train_images",
    )
    facts = {
        row["run"]: {
            "parameters": {name: row[name] for name in recorded} | parameters,
            "hardware": {"cpu": cpu, "cores": 2, "memory_gib": 4.0, "os": "Linux 6", "gpus": []},
            "versions": versions or {"torch": "2.0"},
            "data": {"name": "mnist", "test_images": images, "fingerprint": fingerprint},
        }
        for _, row in done.iterrows()
    }
    return SimpleNamespace(done=done, planned=planned, facts=facts, beside=None, word="compression")


def both(own, reference):
    """The shown table and the sentences as one text."""
    own.beside = reference
    cells = beside.compare(own)
    return beside.table(cells, own.word), " ".join(beside.sentences(own, cells))


def has(text: str, *parts: str) -> None:
    assert [part for part in parts if part not in text] == [], text


ROWS = [run("dense", 90, 0), run("snip", 80), run("rand", 70), run("snip", 85, 0.5)]


def test_equal_sides_agree_to_the_last_digit():
    table, text = both(book(*ROWS), book(*ROWS))
    has(text, "4 cells computed on both sides with the same settings: all equal to the last digit.")
    has(
        text,
        "Of 4 runs with the same seed on both sides, all keep exactly as many weights, and 4 exactly as many MACs.",
    )
    assert "difference" not in text
    assert table[beside.DIFFERENCE].tolist() == [0] * 4
    assert beside.OTHER not in table
    expected = [(TASK, "0", "Dense"), (TASK, "0.5", "SNIP"), (TASK, "1", "Rand"), (TASK, "1", "SNIP")]
    assert table.index.droplevel(SHARES).tolist() == expected


def test_ratio_density_and_sparsity_stand_side_by_side():
    table, _ = both(book(*ROWS), book(*ROWS))
    assert table.index.names == ["task", "compression", *SHARES, "method"]
    assert table.index.tolist()[2] == (TASK, "1", "10", "10", "90", "Rand")


def test_a_study_that_speaks_in_ratios_is_answered_in_ratios():
    ours, theirs = book(run("snip", 60), run("rand", 50)), book(run("snip", 61), run("grasp", 50))
    ours.word = "ratio"
    table, text = both(ours, theirs)
    has(text, f"SNIP at ratio 10 on {TASK}", "Only the reference has 1 cell: GraSP at ratio 10")
    assert "compression" not in text
    assert table.index.names == ["task", *SHARES, "method"]


@pytest.mark.parametrize(("top1", "said", "within"), [(83.2, "+3.20", 3), (76.8, "−3.20", 3), (80.4, "+0.40", 4)])
def test_the_largest_difference_and_how_many_are_within_the_test_set(top1, said, within):
    table, text = both(book(*ROWS[:1], run("snip", top1), *ROWS[2:]), book(*ROWS))
    has(text, f"3 equal to the last digit, {within} within 2 standard errors")
    has(text, f"**{said} points**: SNIP at compression 1 on {TASK}, yours {top1:.2f} %, the reference 80.00 %")
    shown = table.droplevel(SHARES)
    assert shown.loc[(TASK, "1", "SNIP"), beside.DIFFERENCE] == pytest.approx(top1 - 80)


def test_sides_exchanged_give_the_opposite_differences():
    ours, theirs = book(run("snip", 61), run("rand", 30)), book(run("snip", 60), run("rand", 44))
    there, back = both(ours, theirs)[0], both(theirs, ours)[0]
    assert there[beside.DIFFERENCE].tolist() == [-value for value in back[beside.DIFFERENCE]]
    assert there["yours"].tolist() == back["reference"].tolist()


def test_noise_of_seeds_is_claimed_only_where_there_are_several():
    single, several = book(run("snip", 70)), book(*(run("snip", t, seed=s) for s, t in enumerate((72, 74, 76), 1)))
    one = both(single, book(run("snip", 74)))[1]
    has(one, "of the test set alone: with one seed on each side, how far seeds differ is not known", "0 within")
    table, many = both(single, several)
    # 4 points, and a spread of 2 points: 2 * sqrt(1 + 1/3) is the standard error
    has(many, "1 within 2 standard errors of the difference (over seeds)")
    assert "test set" not in many
    assert table["reference"].tolist() == ["74.00 ± 2.00 (n = 3)"]
    has(both(book(run("snip", 60)), several)[1], "0 within 2 standard errors of the difference (over seeds)")
    mixed = book(*(run("snip", t, seed=s) for s, t in enumerate((72, 74, 76), 1)), run("rand", 50))
    has(both(mixed, book(run("snip", 74), run("rand", 51)))[1], "over seeds where a side has several, else of the test")


def test_a_test_set_of_unknown_size_gives_no_noise():
    text = both(book(run("snip", 70), images=None), book(run("snip", 74)))[1]
    assert "standard error" not in text
    has(text, "**−4.00 points**")


def test_other_settings_are_said_in_the_row_and_not_counted():
    short = book(run("snip", 60, epochs=2, train_images=100), run("rand", 70), run("mag", 50))
    table, text = both(short, book(run("snip", 80), run("rand", 70), run("mag", 60, pre_epochs=3)))
    has(text, "1 cell computed on both sides with the same settings: all equal")
    has(text, "2 cells were made with other settings", "differ by −20.00 to −10.00 points: two experiments")
    said = table[beside.OTHER].droplevel(SHARES).xs("1", level="compression")
    assert said.to_dict() == {(TASK, "Rand"): "", (TASK, "Mag"): "a", (TASK, "SNIP"): "b"}
    has(
        beside.caption(short, beside.compare(short)),
        "a: epochs 0 + 10 against 3 + 10. b: epochs 0 + 2 against 0 + 10; train images 100 against all.",
    )


@pytest.mark.parametrize(
    ("name", "mine", "other", "said"),
    [
        ("precision", "amp", "float32", "precision amp against float32"),
        ("batch", 64, 128, "batch 64 against 128"),
        ("fingerprint", "sha256:a", "sha256:b", "images sha256:a against sha256:b"),
    ],
)
def test_every_setting_counts(name, mine, other, said):
    own = book(run("snip", 60), **{name: mine})
    table, text = both(own, book(run("snip", 60), **{name: other}))
    assert table[beside.OTHER].tolist() == ["a"]
    has(beside.caption(own, beside.compare(own)), f"a: {said}.")
    has(text, f"1 cell was made with other settings than the reference's ({said}) and differs by 0.00 points")


def test_a_longer_training_before_pruning_shows_through_its_source():
    rows = [run("dense", 90, 0), run("mag", 80, source="s/fc-dense-c0-r1-s1")]
    longer = [run("dense", 90, 0, epochs=20), rows[1]]
    own = book(*rows)
    both(own, book(*longer))
    assert beside.compare(own)["other"].tolist() == ["epochs 0 + 10 against 0 + 20", "epochs 10 + 10 against 20 + 10"]


def test_a_training_that_started_from_a_file_has_unknown_epochs_before():
    filed, own = book(run("mag", 80, source="s/checkpoint-fc")), book(run("mag", 80, pre_epochs=5))
    both(filed, own)
    assert beside.compare(filed)["other"].tolist() == ["epochs ? + 10 against 5 + 10"]


def test_a_parameter_that_one_side_has_not_recorded_is_no_difference():
    table, text = both(book(run("snip", 60), compiled="auto"), book(run("snip", 60)))
    assert beside.OTHER not in table
    has(text, "Recorded on one side only, so not compared: `compiled`.")


def test_missing_cells_of_both_sides():
    ours = book(run("snip", 60), run("rand", None), run("grasp", 50))
    table, text = both(ours, book(run("snip", 60), run("rand", 40)))
    has(text, f"Only the reference has 1 cell: Rand at compression 1 on {TASK}.")
    has(text, f"Only you have 1 cell: GraSP at compression 1 on {TASK}.", "1 cell computed on both sides")
    assert table["yours"].tolist() == ["missing", "60.00", "50.00"]
    assert [math.isnan(value) for value in table[beside.DIFFERENCE]] == [True, False, True]
    assert [beside.signed(value) for value in (math.nan, -0.001, 1.5, -2)] == ["–", "0.00", "+1.50", "−2.00"]


def test_sides_without_an_accuracy_run():
    nothing = book(run("snip", None))
    assert both(book(run("snip", None)), nothing)[1] == ""
    has(both(book(run("snip", 60)), nothing)[1], "Only you have 1 cell")


def test_kept_weights_must_agree_and_macs_need_not():
    text = both(book(*ROWS[:2], run("rand", 70, weights_kept=101)), book(*ROWS))[1]
    has(
        text,
        "Of 3 runs",
        "2 keep exactly as many weights, and 3 exactly",
        f"not so for Rand at compression 1 on {TASK}",
    )
    text = both(book(run("snip", 60, macs_kept=7)), book(run("snip", 60)))[1]
    has(text, "Of 1 run with", "all keep exactly as many weights, and 0 exactly as many MACs")
    assert "**Equal" not in text
    has(both(book(run("snip", 60, seed=2)), book(run("snip", 60)))[1], "No run has its seed on the other side")


def test_hardware_and_versions_of_both_sides():
    own = book(run("snip"), cpu="CPU B", versions={"torch": "2.1", "numpy": "1"})
    text = both(own, book(run("snip"), versions={"torch": "2.0", "numpy": "1"}))[1]
    has(text, "Versions that differ: torch 2.1 against 2.0.")
    said = beside.caption(own, beside.compare(own))
    has(said, "Your hardware: no GPU; CPU B, 2 cores", "The reference's: no GPU; CPU A")
    assert "settings" not in said
    own.beside = own
    has(beside.caption(own, beside.compare(own)), "Hardware of both: no GPU; CPU B")
