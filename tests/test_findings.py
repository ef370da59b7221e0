"""Each rule with data in both directions: opposite numbers, opposite sentence; and no sentence without numbers."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from frames import bars, histories, layers, run, study, timings

from lib import summary
from lib.findings import accuracy, conclusions, cost, precision, settings
from lib.findings import layers as where

TASK = "MNIST / FC"
DENSE = run("dense", 90.0, compression=0)


def one(sentences) -> str:
    """The single sentence, which must hold a number."""
    (said,) = [sentences] if isinstance(sentences, str) else sentences
    assert re.search(r"\d", said)
    return said


def both(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, (part, text)


def winner(*rows, images=10_000) -> str:
    done, _ = study(*rows)
    return accuracy.winner(done, TASK, 1.0, images)


# accuracy


@pytest.mark.parametrize(
    ("snip", "rand", "first", "last"), [(80.0, 70.0, "SNIP", "Rand"), (70.0, 80.0, "Rand", "SNIP")]
)
def test_winner_and_lead(snip, rand, first, last):
    said = one(winner(run("snip", snip), run("rand", rand)))
    both(said, f"**{first}**", "80.00 %", f"10.00 points ahead of {last} (70.00 %)", "density 10 %")


def test_a_lead_of_one_seed_is_measured_by_the_test_set():
    lead, p = 1.0, 0.8
    error = math.sqrt(2 * 100**2 * p * (1 - p) / 10_000)  # about
    clear = winner(run("snip", 80 + lead), run("rand", 80), images=1_000_000)
    unclear = winner(run("snip", 80 + lead), run("rand", 80), images=1_000)
    assert 2 * error > lead > 2 * error / 10
    both(clear, "beyond 2 standard errors")
    both(unclear, "within 2 standard errors", "one seed")
    assert "within" not in clear
    both(winner(run("snip", 81), run("rand", 80), images=None), "no known uncertainty")


def test_a_lead_of_several_seeds_is_measured_by_their_spread():
    def rows(noise):
        return [
            run(p, v + noise * d, seed=s) for p, v in (("snip", 81), ("rand", 80)) for s, d in enumerate((-1, 0, 1))
        ]

    close, far = winner(*rows(5)), winner(*rows(0.1))
    both(far, "beyond", "3 seeds", f"{math.sqrt(2 * 0.1**2 / 3):.2f} points")
    both(close, "within", "3 seeds", f"{math.sqrt(2 * 5**2 / 3):.2f} points")


def test_equal_methods_have_no_winner():
    both(
        winner(run("snip", 80), run("rand", 80), run("mag", 70)),
        "equally the most accurate with 80.00 %",
        "last is Mag",
    )
    assert "all 2 methods have the same accuracy, 10.00 %" in one(winner(run("snip", 10), run("rand", 10)))


def test_one_method_has_no_winner():
    assert winner(run("snip")) is None


def test_standard_error_against_numpy():
    values = pd.Series([70.0, 72.0, 77.0])
    assert accuracy.standard_error(values, None) == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
    draws = np.random.default_rng(0).binomial(500, 0.7, 20_000) / 5
    assert accuracy.standard_error(pd.Series([70.0]), 500) == pytest.approx(draws.std(), rel=0.02)
    assert math.isnan(accuracy.standard_error(pd.Series([70.0]), None))


@pytest.mark.parametrize(("top1", "word"), [(85.0, "5.00 points below"), (95.0, "5.00 points above")])
def test_against_dense(top1, word):
    done, _ = study(run("snip", top1), run("rand", 20.0))
    dense, _ = study(DENSE)
    both(one(accuracy.against_dense(done, dense)), word, "90.00 %")
    assert accuracy.against_dense(done, dense[:0]) is None


def test_guessing():
    done, _ = study(run("snip", 11.0), run("rand", 50.0))
    said = one(accuracy.untrained(done, 200))
    both(said, "SNIP (11.00 %)")
    assert "Rand" not in said
    # one point is much on 10,000 images, and nothing on 200
    assert accuracy.untrained(done, 10_000) is None
    assert accuracy.untrained(study(run("snip", 60.0))[0], 200) is None


@pytest.mark.parametrize(("once", "often", "word"), [(50.0, 60.0, "better"), (60.0, 50.0, "worse")])
def test_rounds(once, often, word):
    done, _ = study(run("synflow", once, collapsed_layers="a b"), run("synflow", often, rounds=100))
    said = one(accuracy.rounds_matter(done, 10_000))
    both(said, "100 rounds", f"10.00 points {word}", f"{often:.2f} against {once:.2f} %", "empties 2 layers")
    assert "empties" not in accuracy.rounds_matter(study(run("synflow", once), run("synflow", often, rounds=100))[0], 9)
    assert accuracy.rounds_matter(study(run("synflow", once))[0], 10_000) is None


def test_magnitude_is_charged_for_what_it_was_trained_for():
    mag = run("mag", source=f"study/{DENSE['run']}")
    done, plan = study(DENSE | {"epochs": 30}, mag, run("snip"))
    said = one(accuracy.magnitude_costs(done[done["pruner"] != "dense"], plan))
    both(said, "30 epochs before", "10 after", "4.0 times")
    free, plan = study(run("mag"), run("snip"))
    both(accuracy.magnitude_costs(free, plan), "0 epochs")
    assert accuracy.magnitude_costs(study(run("snip"))[0], plan) is None
    two, plan = study(run("mag", pre_epochs=20), run("lamp", pre_epochs=20), run("snip"))
    both(
        accuracy.magnitude_costs(two, plan), "Mag and LAMP were trained for 20 epochs", "their accuracy costs 3.0 times"
    )


def test_by_compression_names_winners_and_falls():
    rows = [run("snip", 80, 0.5), run("rand", 70, 0.5), run("snip", 40, 1), run("rand", 60, 1), DENSE]
    done, plan = study(*rows)
    said = " ".join(accuracy.by_compression(done, plan, TASK))
    both(said, "SNIP at compression 0.5 (80.00 %)", "Rand at compression 1 (60.00 %)", "Rand -10.0", "SNIP -40.0")
    both(said, "From compression 0.5 to compression 1")
    assert accuracy.by_compression(done[:0], plan, TASK) == []
    rising = " ".join(accuracy.by_compression(*study(run("snip", 1, 0.5), run("rand", 1, 0.5), run("snip", 9), run("rand", 5)), TASK))  # fmt: skip  # noqa: E501
    both(rising, "SNIP +8.0", "Rand +4.0")
    equal = " ".join(accuracy.by_compression(*study(run("snip", 40, 0.5), run("rand", 10, 0.5), run("snip", 10), run("rand", 10.04)), TASK))  # fmt: skip  # noqa: E501
    both(equal, "SNIP at compression 0.5 (40.00 %)", "Rand +0.0", "SNIP -30.0")
    equal = " ".join(accuracy.by_compression(*study(run("snip", 20), run("rand", 20), run("erk", 19)), TASK))
    both(equal, "Rand and SNIP at compression 1 (20.00 %)")
    equal = " ".join(accuracy.by_compression(*study(run("snip", 20), run("rand", 20)), TASK))
    both(equal, "The most accurate method of MNIST / FC: all at compression 1 (20.00 %)")
    both(
        conclusions.conclusions(book(run("snip", 20), run("rand", 20)), [], []),
        "all 2 methods compared on MNIST / FC have",
    )


def test_collapses_are_named_one_by_one():
    done, _ = study(
        run("synflow", collapsed_layers="layers.0.weight layers.1.weight", connected=False),
        run("snip", collapsed_layers="fc.weight", seed=2), run("rand"), run("grasp", collapsed_layers=math.nan),
        run("mag", compression=2, collapsed_layers="fc.weight"),
    )  # fmt: skip
    first, second = accuracy.collapses(done, [1.0])
    both(first, "SynFlow at compression 1", "2 layers", "`layers.0`, `layers.1`", "no input reaches the output")
    both(second, "SNIP", "seed 2", "1 layer without", "`fc`", "a path from input to output remains")
    assert accuracy.collapses(done, [0.5]) == []
    assert accuracy.collapses(done[:0], [1.0]) == []


def test_many_collapses_are_told_together():
    empty = {"collapsed_layers": "fc.weight", "connected": False}
    rows = [run(name, compression=at, **empty) for name in ("snip", "rand") for at in (1.5, 1.0, 2.0)]
    rows += [run("mag", compression=2.0, **empty | {"connected": True})]
    done, _ = study(
        *rows, run("rand", compression=0.5), run("erk", model="conv", **empty), run("snip", model="conv", **empty)
    )
    assert len(done) - 1 == accuracy.ONE_BY_ONE + 1
    fc, conv = accuracy.collapses(done, [0.5, 1.0, 1.5, 2.0])
    both(fc, "On MNIST / FC, 7 runs left layers without a weight, of SNIP (first at compression 1), ")
    both(fc, "Rand (first at compression 1), Mag (first at compression 2); in 6 of them no input reaches the output")
    both(conv, "On MNIST / Conv at compression 1, 2 runs left layers without a weight, of ERK, SNIP; in 2 of them")
    each = accuracy.collapses(done[:-1], [0.5, 1.0, 1.5, 2.0])
    assert len(each) == accuracy.ONE_BY_ONE


def test_epochs_that_suffice_and_that_do_not():
    _, plan = study(run("snip"), run("rand"))
    flat, _ = accuracy.epochs_sufficed(
        histories({n: [10, 50, 60, 70, 70, 70, 70, 70, 70, 70] for n in plan["run"]}), plan
    )
    both(flat, "sufficed", "last 2 of 10 epochs")
    rising = histories({plan["run"][0]: [float(n) for n in range(10)], plan["run"][1]: [5.0] * 10}, gap=10)
    said, length = accuracy.epochs_sufficed(rising, plan)
    both(said, "1 of 2 methods", "SNIP +2.0", "did not suffice", "10.0 points above", "over-fitting")
    both(length, "From epoch 5 to 10", "SNIP +5.0, Rand +0.0", "SNIP depends most", "SNIP went from place 2 to 1")
    under, length = accuracy.epochs_sufficed(histories({n: [5.0] * 10 for n in plan["run"]}, gap=-2), plan)
    both(under, "2.0 points below")
    assert "over-fitting" not in under
    assert "depends" not in length
    assert "place" not in length
    assert accuracy.epochs_sufficed(histories({n: [5.0] for n in plan["run"]}), plan) == []


def test_at_compression_of_nothing():
    done, plan = study(run("snip", None), run("rand", None))
    assert accuracy.at_compression(done, plan, TASK, 1.0, 10_000) == []
    assert accuracy.at_compression(pd.DataFrame(), plan, TASK, 1.0, 10_000) == []


def test_at_compression_joins_what_applies():
    done, plan = study(run("snip", 80), run("rand", 10.1), DENSE)
    said = accuracy.at_compression(done, plan, TASK, 1.0, 10_000)
    assert len(said) == 3
    for sentence in said:
        assert one(sentence)


# cost


def test_macs_at_equal_density():
    done, _ = study(run("snip", macs_kept=500), run("rand", macs_kept=200), DENSE, run("snip", compression=2))
    said = one(cost.macs(done))
    both(said, "10.0% (Rand)", "25.0% (SNIP)", "2,000 MACs", "same 100 weights")
    assert cost.macs(pd.DataFrame()) == []


@pytest.mark.parametrize(("slow", "verdict"), [(1.05, "within"), (3.0, "beyond")])
def test_time_against_noise(slow, verdict):
    said = cost.time(timings(("dense", 0, 1.0, None, 0.1, 2000), ("snip", 1, slow, None, 0.1, 200)))
    both(
        one(said), f"{slow:.2f} times as long", "2 networks (SNIP at compression 1)", f"{verdict} three times the noise"
    )
    reverse = cost.time(timings(("dense", 0, slow, None, 0.1, 2000), ("snip", 1, 1.0, None, 0.1, 200)))
    both(one(reverse), "slowest of 2 networks (Dense)")


@pytest.mark.parametrize(
    ("masked", "words"), [(2.0, "cost of the implementation"), (0.5, "saves"), (1.01, "no cost beyond the noise")]
)
def test_masks_in_each_forward(masked, words):
    _, said = cost.time(timings(("rand", 1, 1.0, masked, 0.05, 2000), ("snip", 1, 1.0, masked, 0.05, 200)))
    both(one(said), f"{masked:.2f} times as long", words)


def test_one_network_has_nothing_to_compare():
    assert cost.time(timings(("snip", 1, 1.0, 1.0, 0.1, 200))) == cost.time(pd.DataFrame()) == []
    assert cost.paper_against_clock(timings(("snip", 1, 1.0, 1.0, 0.1, 200))) is None
    assert cost.paper_against_clock(timings(("dense", 0, 1.0, 1.0, 0.1, 200))) is None


@pytest.mark.parametrize(
    ("measured", "words"), [(1.0, "multiply the zeros too"), (0.12, "Part of the saving reaches the clock")]
)
def test_paper_against_clock(measured, words):
    frame = timings(
        ("dense", 0, 1.0, None, 0.1, 2000), ("snip", 1, measured, 2.0, 0.1, 200), ("rand", 1, 9.0, 9.0, 0.1, 900)
    )
    said = one(cost.paper_against_clock(frame))
    both(said, "SNIP at compression 1", "10.0 times as fast", f"{1 / measured:.2f} times as fast", words)


# layers


@pytest.mark.parametrize(("kept", "side"), [(90, "more"), (10, "less")])
def test_block_against_the_whole(kept, side):
    frame = layers("x", {"blocks.0.conv1.weight": kept, "blocks.0.conv2.weight": kept, "fc.weight": 50})
    said = one(where.block(frame, ["blocks.0.conv1.weight", "blocks.0.conv2.weight"]))
    both(said, f"{kept:.1f} % of `blocks.0.conv1`", f"{side} than the {(2 * kept + 50) / 3:.1f} %")
    assert where.block(frame, []) is None


def test_extremes():
    both(
        one(where.extremes(layers("x", {"a.weight": 90, "b": 50, "c": 0}))),
        "fullest layer is `a` (90.0%",
        "`c` (0.0% of 100)",
    )
    assert where.extremes(layers("x", {"a": 90})) is None


def test_parts_add_up():
    table = where.parts(layers("x", {"a": 90, "b": 50, "c": 10}), ["a", "b"])
    assert table.iloc[-1].to_dict() == {"layer": "together", "weights": 200, "kept": 140, "density_pct": 70.0}


def test_size_of_kept_weights():
    tails = pd.concat([bars("a", [5, 0, 0, 5], [0, 5, 5, 0]), bars("b", [0, 1, 1, 0], [0, 0, 0, 0])])
    middle = bars("a", [0, 5, 5, 0], [5, 0, 0, 5])
    both(one(where.kept_are_large(tails)), "1 of 1 layers", "3.00 times")
    both(one(where.kept_are_large(middle)), "0 of 1 layers", "0.33 times")
    assert where.kept_are_large(bars("a", [1, 1], [0, 0])) is None
    # a network from a file: its removed weights are zeros, and what they were is not known
    assert where.kept_are_large(bars("a", [5, 0, 0, 5], [0, 0, 10, 0])) is None


# mixed precision


def amp(time: dict, memory: dict, top1: dict, epochs: int = 3) -> pd.DataFrame:
    return pd.DataFrame([
        {"seed": 1, "density": density, "precision": p, "epoch": e, "train_s": 100.0 if e == 1 else time[p] * e,
         "peak_memory_mib": memory[p], "memory_before_mib": 10.0, "test_top1_pct": top1[p] + e, "memory_of": "GPU"}
        for density in (1.0, 0.1) for p in ("float32", "amp") for e in range(1, epochs + 1)
    ])  # fmt: skip


def test_amp_summary_leaves_the_first_epoch_out():
    table = precision.summary(
        amp({"float32": 2.0, "amp": 1.0}, {"float32": 100.0, "amp": 60.0}, {"float32": 50, "amp": 49})
    )
    assert table["compression"].tolist() == [0, 0, 1, 1]
    row = table[(table["compression"] == 1) & (table["precision"] == "float32")].iloc[0]
    assert row["epoch_s"] == np.median([4.0, 6.0])
    assert row["epoch_sd_s"] == pytest.approx(np.std([4.0, 6.0], ddof=1))
    assert (row["peak_memory_mib"], row["added_memory_mib"], row["top1_pct"], row["epochs_timed"]) == (100, 90, 53, 2)
    single = precision.summary(
        amp({"float32": 2.0, "amp": 1.0}, {"float32": 1.0, "amp": 1.0}, {"float32": 0, "amp": 0}, 1)
    )
    assert single["epoch_s"].eq(100).all()
    assert single["epoch_sd_s"].eq(0).all()
    assert precision.summary(pd.DataFrame()).empty


@pytest.mark.parametrize(
    ("loses", "verdict"), [((0.5, -0.5, 0.1), "within twice its standard error"), ((3.0, 3.2, 3.1), "more than twice")]
)
def test_accuracy_of_mixed_precision_over_seeds(loses, verdict):
    """The mean difference by hand, and a verdict that follows it."""
    parts = [
        amp({"float32": 2.0, "amp": 1.0}, {"float32": 1.0, "amp": 1.0}, {"float32": 50 + s, "amp": 50 + s - lost})
        for s, lost in enumerate(loses)
    ]
    table = precision.summary(pd.concat([part.assign(seed=number) for number, part in enumerate(parts)]))
    row = table[(table["compression"] == 1) & (table["precision"] == "amp")].iloc[0]
    assert (row["n"], row["epochs_timed"]) == (3, 6)
    assert row["difference_pct"] == pytest.approx(-np.mean(loses))
    said = " ".join(precision.sentences(table, "GPU"))
    assert verdict in said
    assert "3 seeds each" in said
    assert "another seed alone changes it by 1.00" in said  # 50, 51, 52


@pytest.mark.parametrize(("seconds", "words"), [(1.0, "2.00 times faster"), (4.0, "2.00 times slower")])
def test_amp_sentences(seconds, words):
    table = precision.summary(
        amp({"float32": 2.0, "amp": seconds}, {"float32": 100.0, "amp": 60.0}, {"float32": 50, "amp": 49})
    )
    said = precision.sentences(table, "GPU")
    both(" ".join(said), words, "0.60 times", "-1.00 to -1.00 points", "2 timed epochs")
    assert len(precision.sentences(table, "process")) == len(said) + 1
    assert precision.sentences(table[table["precision"] == "amp"], "GPU") == []
    assert precision.sentences(pd.DataFrame(), "GPU") == []


# settings and conclusions


def book(*rows, gaps=None) -> SimpleNamespace:
    done, plan = study(*rows)
    facts = {
        "git": {"commit": "abc", "dirty": False}, "versions": {"python": "3.11", "torch": "2"},
        "hardware": {"cpu": "CPU A", "cores": 2, "memory_gib": 4.0, "os": "Linux 6", "gpus": []},
    }  # fmt: skip
    extra = {
        "optimizer": "adam",
        "lr": 0.001,
        "weight_decay": 0.0,
        "batch": 64,
        "precision": "float32",
        "train_images": 0,
        "schedule": "exponential",
        "scope": "global",
    }
    return SimpleNamespace(
        study="s", name="s", reference=False, title="Title", question="Which one? And why? In short.",
        done=done, planned=plan.assign(**extra), everything=done.assign(notebook="accuracy"), involved=plan,
        gaps=gaps or {}, facts=dict.fromkeys(done["run"], facts),
        data=[{"name": "mnist", "source": "MNIST, the files.", "test_images": 10000,
                        "fingerprint": "sha256:1f", "altered_train": 90, "altered_test": 2}],
        staged=summary.staged({"runs": []}),
    )  # fmt: skip


def test_title_has_question_numbers_and_methods():
    text = conclusions.title(
        book(run("snip", 80, 0.5), run("rand", 70, 0.5), run("snip", 60), run("rand", 50), DENSE, gaps={"x": "y"})
    )
    both(text, "# Title", "Which one?", "5 of 6 runs", "Rand, SNIP on MNIST / FC", "At compression 1", "SNIP (60.0 %)")


def test_conclusions_follow_the_numbers():
    rows = [run("snip", 80, 0.5), run("rand", 70, 0.5), run("snip", 60), run("rand", 65)]
    clock = timings(("dense", 0, 2.0, None, 0.1, 2000), ("snip", 1, 1.0, None, 0.1, 200))
    text = conclusions.conclusions(book(*rows), [clock], ["extra 1."])
    both(
        text,
        "Rand loses least (5.0 points)",
        "SNIP most (20.0 points)",
        "Rand (65.0 %)",
        "90% of the MACs",
        "2.00 times as fast",
        "- Extra 1.",
    )
    both(text, "No run was left with an empty layer")
    other = conclusions.conclusions(book(*rows[:3], run("rand", 65, collapsed_layers="fc.weight")), [clock[:0]], [])
    both(other, "1 of 4 networks lost whole layers (Rand)")
    assert "MACs" not in other
    opposite = conclusions.conclusions(
        book(run("snip", 80, 0.5), run("rand", 70, 0.5), run("snip", 79), run("rand", 20)), [], []
    )
    both(opposite, "SNIP loses least (1.0 points)", "Rand most (50.0 points)")
    unknown = conclusions.conclusions(book(*rows), [clock.assign(macs_kept=math.nan)], [])
    assert "MACs" not in unknown, "examples of the notebook timing have none counted"


def test_guessing_is_no_merit():
    """What guesses at both compressions loses nothing, and of methods that all guess none is the best."""
    rows = [run("synflow", 10, 0.5), run("snip", 80, 0.5), run("rand", 70, 0.5), run("synflow", 10), run("snip", 10)]
    said = conclusions.conclusions(book(*rows, run("rand", 10.1)), [], [])
    both(said, "At compression 1 none of the 3 methods compared on MNIST / FC is clearly better than guessing.")
    both(said, "Rand loses least (59.9 points) and SNIP most (70.0 points)")
    said = conclusions.conclusions(book(*rows, run("rand", 60)), [], [])
    both(said, "the most accurate method on MNIST / FC is Rand (60.0 %)", "Rand loses least (10.0 points)")
    said = conclusions.conclusions(book(*rows[:2], *rows[3:5]), [], [])
    assert "loses least" not in said
    equal = [run("snip", 80, 0.5), run("rand", 80, 0.5), run("erk", 80, 0.5), run("snip", 50), run("rand", 50)]
    said = conclusions.conclusions(book(*equal, run("erk", 70)), [], [])
    both(said, "ERK loses least (10.0 points) and Rand and SNIP most (30.0 points)")
    done, plan = study(*rows, run("rand", 10.1))
    said = " ".join(accuracy.by_compression(done, plan, TASK, images=10000))
    both(said, "SNIP at compression 0.5 (80.00 %).", "At compression 1 none is clearly better than guessing.")


def test_without_an_accuracy_run_there_is_nothing_to_conclude_from_them():
    nothing = book(run("snip", None))
    assert conclusions.conclusions(nothing, [], []) == ""
    assert conclusions.conclusions(nothing, [], ["The step takes 3 ms."]) == "- The step takes 3 ms."
    nothing.involved = nothing.involved[:0]
    nothing.question = "What is it?"
    said = conclusions.title(nothing)
    both(said, "# Title", "0 of 0 runs")
    assert "Abstract" not in said
    assert "seed" not in said


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([run("snip"), run("mag")], "Compared are Mag, SNIP on MNIST / FC."),
        ([run("snip")], "The pruning method is SNIP on MNIST / FC."),
        ([run("dense", compression=0)], "It looks at MNIST / FC."),
    ],
)
def test_the_abstract_says_what_the_study_is_about(rows, said):
    both(conclusions.title(book(*rows)), said)


def test_settings_come_from_the_runs():
    table = settings.settings(book(run("snip"), run("snip", seed=2))).set_index("setting")["value"]
    both(table["Data: MNIST"], "92 images differ from the original", "10,000", "sha256:1f")
    both(table[f"Network: {TASK}"], "1,000 prunable weights", "2,000")
    both(table[f"Training: {TASK}"], "optimizer adam", "lr 0.001", "batch 64", "after 10")
    both(table["Seeds"], "1, 2")
    both(table["Hardware"], "no GPU", "CPU A", "2 cores")


def test_settings_say_what_the_options_were():
    def of(*rows):
        return settings.settings(book(*rows)).set_index("setting")["value"]

    plain = of(run("snip"))
    both(plain["Training: all"], "the learning rate is constant;")
    both(plain["Scoring"], "evaluation mode;")
    assert "Taking part" not in plain
    rates = {"lr_schedule": "steps", "lr_drops": [3, 5], "lr_drop_factor": 0.1, "lr_warmup": 2}
    other = of(run("snip", train_mode=True, also=["biases"], spare=[], pretrained=True, **rates))
    both(
        other["Training: all"],
        "multiplied by 0.1 after epochs 3, 5 after a warm-up of 2 epochs",
        "torchvision's weights",
    )
    both(other["Scoring"], "training mode;")
    assert "evaluation" not in other["Scoring"]
    both(other["Taking part"], "besides weights: biases", "left whole: nothing")
    both(of(run("snip", lr_schedule="cosine"))["Training: all"], "the learning rate is cosine")


def test_machines_that_differ_are_a_warning():
    ours = book(run("snip"), run("rand"))
    assert settings.mixed_machines(ours) is None
    first, second = ours.facts
    ours.facts[second] = ours.facts[first] | {"hardware": ours.facts[first]["hardware"] | {"cpu": "CPU B"}}
    both(settings.mixed_machines(ours), "2 different machines", "CPU A", "CPU B")


def test_progress_and_gaps():
    both(settings.progress(book(run("snip"), run("rand"))), "All 2 planned runs are finished")
    missing = book(run("snip"), gaps={"x": "E: no", "y": "not executed yet"})
    both(settings.progress(missing), "1 of 3 planned runs")
    theirs = SimpleNamespace(**vars(missing) | {"reference": True, "study": "reference/s"})
    both(settings.progress(theirs), "reference results that come with the workbench, not yours", "1 of 3", "STUDY=s`")
    both(conclusions.title(theirs), "Reference results of study s, 1 of 3 runs")
    assert settings.gaps(missing).to_numpy().tolist() == [["x", "E: no"], ["y", "not executed yet"]]


def test_timing_conditions():
    row = pd.Series({"notebook": "timing", "neighbours": 2, "cpu_busy_pct": 12.4, "threads": 1, "device": "cpu"})
    both(settings.timing_conditions(row), "When the timing run began, 2 other run", "12 %", "1 thread on cpu")
    both(settings.timing_conditions(pd.Series({**row, "neighbours": 0, "threads": 4})), "no other run", "4 threads")


def test_the_first_block_is_the_first_part_with_several_layers():
    resnet = ["conv", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "fc"]
    assert where.first_block(resnet) == ["blocks.0.conv1", "blocks.0.conv2"]
    bottleneck = ["conv1.0", "conv2_x.0.a.0", "conv2_x.0.a.3", "conv2_x.1.a.0", "conv2_x.1.a.3"]
    assert where.first_block(bottleneck) == ["conv2_x.0.a.0", "conv2_x.0.a.3"]
    assert where.first_block(["layers.0.conv", "layers.1.conv", "fc"]) == ["layers.0.conv"]


def test_methods_beyond_the_equation_are_explained_where_they_are_planned():
    def said(*rows):
        return settings.further_methods(SimpleNamespace(involved=study(*rows)[1]))

    both(said(run("lamp"), run("erk"), run("snip", rounds=3)), "LAMP divides", "ERK keeps", "iterative SNIP")
    assert "ERK" not in said(run("lamp"))
    assert said(run("snip"), run("mag"), run("synflow", rounds=100)) is None
