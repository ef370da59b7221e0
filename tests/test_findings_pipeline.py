"""What the report of compression pipelines says, from made numbers."""

import re
from itertools import count

import pandas as pd
import pytest
import stub_pipeline
from stub_pipeline import ALL, IMAGES, Pipeline

from lib import files, frames, paths, runs, summary
from lib.findings import pipeline, pipeline_methods, pipeline_rounding, pipeline_said, pipeline_sizes, settings

NUMBERS = count()  # of studies that a test makes beside each other
SOURCE = "whole-1-pretrained-seed{seed}"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)


def chain(notebooks=ALL, **more):
    """A chain of a study that has no other, read back from disk."""
    made = Pipeline(f"study{next(NUMBERS)}")
    made.chain("whole", notebooks, **more)
    return pipeline.chains(summary.load(made.save()))["whole"]


def test_stages_come_in_order_and_missing_ones_are_named():
    made = Pipeline()
    made.chain("whole", ALL, missing=(4, 5))
    made.plan["runs"].reverse()
    files.write_json(paths.RUNS / "p" / "whole-4-fine_tune-seed1" / runs.ERROR, {"error": "no space left"})
    book = summary.load(made.save())
    (one,) = pipeline.chains(book).values()
    assert [stage.notebook for stage in one.stages] == list(ALL)
    assert [stage.number for stage in pipeline.finished(one)] == [1, 2, 3, 6]
    assert [(a.number, b.number) for a, b in pipeline.steps(one)] == [(1, 2), (2, 3)]
    assert one.images == IMAGES
    said = pipeline.gaps(one)
    assert "stage 4 (fine-tuned; `whole-4-fine_tune-seed1`: no space left)" in said
    assert "stage 5 (quantised; `whole-5-quantise-seed1`: not executed yet)" in said
    table = pipeline.size_table(one)
    assert table.index.get_level_values("no.").tolist() == [1, 2, 3, 4, 5, 6]
    names = table.index.get_level_values("stage")
    assert [name for name in names if "missing" in name] == ["fine-tuned (missing)", "quantised (missing)"]
    assert table.isna().all(axis=1).tolist() == [False, False, False, True, True, False]
    assert pipeline.gaps(chain()) is None


def test_a_chain_that_branches_has_the_stages_before_it():
    made = Pipeline()
    made.chain("whole", ALL, seeds=(1, 2))
    made.chain("short", ["quantise", "coded"], seeds=(1, 2), source="whole-2-prune_weights-seed{seed}")
    found = pipeline.chains(summary.load(made.save()))
    assert [stage.notebook for stage in found["short"].stages] == ["pretrained", "prune_weights", "quantise", "coded"]
    assert [len(stage.rows) for stage in found["short"].stages] == [2, 2, 2, 2]


def test_two_runs_of_one_stage_and_seed_are_not_averaged():
    made = Pipeline()
    made.chain("whole", ["pretrained"])
    made.add("again", "pretrained", {"seed": 1}, "", chain="whole", stage=1)
    book = summary.load(made.save())
    with pytest.raises(ValueError, match="'whole' has several runs of stage 1 and one seed: one is allowed"):
        pipeline.chains(book)


def test_what_a_run_does_not_name_is_that_of_its_source():
    made = Pipeline()
    made.chain("whole", ["pretrained", "coded"])
    del made.plan["runs"][1]["parameters"]["data"]
    rows = summary.staged(made.plan)
    assert rows["task"].tolist() == ["MNIST / Conv"] * 2
    assert rows["source"].tolist() == ["", "whole-1-pretrained-seed1"]
    assert summary.staged({"runs": [{"notebook": "accuracy"}]}).empty


def test_sizes_are_of_the_whole_original_file():
    one = chain()
    table = pipeline.size_table(one)
    row = one.stages[1].rows.iloc[0]
    first = one.stages[0].rows["file_bytes"].iloc[0]
    shown = table.iloc[1]
    assert shown.name == (2, "weights pruned: element-l1, local, density 0.2")
    assert shown["file (bytes)"] == f"{row['file_bytes']:,}"
    assert shown["weights kept (%)"] == "20.00"
    assert float(shown["parameters kept (%)"]) == pytest.approx(100 * (1300 - 960) / 1300, abs=0.005)
    assert float(shown["of the original (%)"]) == pytest.approx(100 * row["file_bytes"] / first, abs=0.005)
    assert float(shown["times smaller"]) == pytest.approx(first / row["file_bytes"], abs=0.005)


def test_parts_add_up_and_empty_ones_are_left_out():
    one = chain()
    table = pipeline.part_table(one).map(lambda text: int(text.replace(",", "")))
    assert table.sum(axis=1).tolist() == [stage.rows["file_bytes"].iloc[0] for stage in one.stages]
    assert "batch norm" not in table
    assert pipeline_said.sums(one) is None
    one.stages[1].rows["header_bytes"] += 1
    assert "do not add up to it:** stage 2 (1,575 of 1,574 bytes)" in pipeline_said.sums(one)


def test_operations_are_told_apart_by_what_is_left_out():
    shown = pipeline.operation_table(chain()).iloc[2]
    macs = [shown[f"{name} (thousand)"] for name in ("MACs, dense", "after weight masks", "after natural zeros")]
    assert macs == ["50.00", "10.00", "6.00"]
    assert shown["stage (s)"] == "1.5"
    assert (shown["natural zeros (%)"], shown["pruned zeros (%)"], shown["top-1 (%)"]) == ("40.00", "6.00", "84.00")


def test_several_seeds_are_mean_deviation_and_number():
    one = chain(seeds=(1, 2, 3))
    made = Pipeline("q")
    made.chain("whole", ALL, seeds=(1, 2))
    made.plan["runs"][-1]["id"] = "not-there"
    less = pipeline.chains(summary.load(made.save()))["whole"]
    shown = pipeline.operation_table(one)
    assert shown["top-1 (%)"].iloc[0] == "90.10 ± 0.10"
    assert shown["natural zeros (%)"].iloc[0] == "40.00", "seeds that agree"
    assert shown["n"].tolist() == ["3"] * 6
    assert pipeline.size_table(less)["n"].tolist() == ["2"] * 5 + ["1 of 2"]
    assert "n" not in pipeline.size_table(chain())


def test_zeros_that_were_not_counted_are_no_number():
    one = chain()
    for stage in one.stages:
        stage.rows["zeros_natural_pct"] = None
    assert pipeline.operation_table(one)["natural zeros (%)"].isna().all()


def test_zeros_enter_linear_layers_where_there_are_no_convolutions():
    made = Pipeline()
    made.convolutions = False
    made.chain("whole", ALL)
    assert "40.00 % of what enters linear layers" in pipeline_said.activations(study(made)[1]["whole"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "stage 2 (weights pruned) made the file smallest in proportion: from 5,264 to 1,574 bytes, 3.34 times"),
        ({"prune_weights": {"kept": 0.95}, "quantise": {"bits": 1}}, "stage 5 (quantised) made the file smallest"),
        ({"coded": {"bits": 30}}, "The file grew at stage 6 (coded) ("),
    ],
)
def test_the_stage_that_gained_most(changed, words):
    assert words in pipeline_said.gained(chain(**changed))


def test_growth_is_told_by_the_part_that_grew():
    one = chain(["pretrained", "quantise", "fine_tune"])
    rows = one.stages[2].rows
    more = {"file_bytes": rows["file_bytes"] + 72, "header_bytes": rows["header_bytes"] + 72}
    one.stages[2].rows = rows.assign(**more)
    assert pipeline_said.gained(one).endswith("The file grew at stage 3 (fine-tuned) (72 bytes, its header).")
    one.stages[2].rows = rows.assign(**more | {"file_bytes": rows["file_bytes"] + 80, "bias_bytes": 408})
    assert pipeline_said.gained(one).endswith("(80 bytes, most of it its header).")
    assert pipeline_said.gained(chain(["pretrained", "coded"])).startswith("Stage 2 (coded) made the file smaller: ")


def test_no_stage_gained():
    assert pipeline_said.gained(chain(["pretrained", "fine_tune"])) == "No stage made the file smaller."
    assert pipeline_said.gained(chain(["pretrained"])) is None


def test_the_end_beside_the_original():
    said = pipeline_said.overall(chain())
    assert "After stage 6 (coded) the file has 15.27 % of the original's bytes" in said
    assert "88.00 % where the original has 90.00 %: 2.00 points less, beyond 2 standard errors" in said
    better = {name: {"top1": 90.1} for name in ("quantise", "coded")}
    assert "0.10 points more, within 2 standard errors" in pipeline_said.overall(chain(**better))
    assert "After stage 4 (fine-tuned, 2 before the end of the chain)" in pipeline_said.overall(chain(missing=(5, 6)))
    assert pipeline_said.overall(chain(missing=(1,))) is None, "there is nothing to compare with"


def test_stages_that_cost_accuracy_are_named():
    said = pipeline_said.cost(chain())
    assert "stage 2 (weights pruned) 5.00 (0.47), stage 5 (quantised) 1.00 (0.45)." in said
    assert "fine-tuned" not in said
    even = {name: {"top1": 89.9} for name in ALL[1:]}
    assert "No stage clearly cost accuracy; stage 2 (weights pruned) cost most, 0.10" in pipeline_said.cost(
        chain(**even)
    )
    rising = {name: {"top1": 90.0} for name in ALL[1:]}
    assert pipeline_said.cost(chain(**rising)) == "No stage lowered the accuracy."


@pytest.mark.parametrize(
    ("top1", "words"),
    [
        (87.0, "by +3.00 points, beyond 2 standard errors of the difference (0.50 points each): it brought back 50 %"),
        (91.0, "it brought back all of the 6.00 points"),
        (82.0, "by −2.00 points, beyond 2 standard errors of the difference (0.53 points each): it brought back noth"),
        (
            84.5,
            "by +0.50 points, within 2 standard errors of the difference (0.52 points each): whether it brought back"
            " any of the 6.00 points that the stages before it had cost cannot be told.",
        ),
    ],
)
def test_what_fine_tuning_brought_back(top1, words):
    (said,) = pipeline_said.tuned(chain(fine_tune={"top1": top1}))
    assert words in said
    lossless = chain(["pretrained", "prune_weights", "fine_tune"], prune_weights={"top1": 91.0})
    assert "the stages before it had cost none" in pipeline_said.tuned(lossless)[0]


def test_zeros_that_were_there_are_not_pruned_ones():
    said = pipeline_said.activations(chain())
    assert "40.00 % of what enters convolutions is zero without being pruned (natural sparsity)" in said
    assert "pruning adds 6.00 %, less than there was" in said
    assert "(ReLU's, and the padding of convolutions) make 40.0 % superfluous and pruned ones 6.0 %" in said
    more = chain(prune_activations={"natural": 4.0, "pruned": 6.0})
    assert "adds 6.00 %, more than there was" in pipeline_said.activations(more)
    none = chain(prune_activations={"pruned": 0.0})
    assert pipeline_said.activations(none).endswith("pruning removed nothing that was not zero already.")
    assert pipeline_said.activations(chain(["pretrained", "coded"])) is None


def test_weights_that_come_back_are_told():
    assert pipeline_said.masks(chain()) == "No stage brought a pruned weight back."
    # as many are kept as before, but others
    back = chain(fine_tune={"back": 7}, quantise={"back": 0})
    assert pipeline_said.masks(back) == "**Pruned weights came back:** 7 by stage 4 (fine-tuned)."
    assert pipeline_said.masks(chain(["pretrained"])) is None
    older = chain()
    older.stages[3].rows = older.stages[3].rows.drop(columns="brought_back")
    assert pipeline_said.masks(older).endswith("brought a pruned weight back; not counted: 4.")


def test_what_rounding_did_is_told():
    made = Pipeline(f"study{next(NUMBERS)}")
    made.chain("whole", ALL, coded={"kept": 0.15})
    book, chains = study(made)
    rows = pipeline_rounding.effects(book, chains["whole"])
    shown = pipeline_rounding.table(rows)
    assert shown.index.tolist() == [(5, "quantised")]
    assert shown.iloc[0].tolist() == ["240", "24", "10.00", "3", "33 to 65"]
    first, dropped = pipeline_rounding.sentences(rows, chains["whole"])
    assert first.startswith("Rounding (stage 5) made 10.00 % of the kept weights zero and clipped 3 weights and biases")
    assert "drops 60 kept weights that are zero, 25.00 % of those kept" in dropped
    assert "25.00 % of the MACs of kept weights fall there is rounding's doing" in dropped
    none = [row | {"zeroed": 0, "clipped": 0} for row in rows]
    said, dropped = pipeline_rounding.sentences(none, chain())
    assert "made no kept weight zero and clipped none" in said
    assert dropped == "Stage 6 (coded) found no kept weight that is zero, and so dropped none."
    assert pipeline_rounding.effects(book, chain(["pretrained", "coded"])) == []


def test_the_abstract_names_the_smallest_file_and_conclusions_the_rest():
    one = {"whole": chain(coded={"bits": 30})}
    (said,) = pipeline_said.abstract(one)
    assert said.startswith("Chain whole: the smallest file, that of stage 5 (quantised), is ")
    assert "at 2.00 points of accuracy less, beyond 2 standard errors" in said
    assert said.endswith("stage 2 (weights pruned) gained most, 3.34 times.")
    concluded = pipeline_said.conclusions(one)
    assert not set(concluded) & {said}
    assert any("points of accuracy lost beyond" in text for text in concluded)
    assert not any("**" in text for text in concluded)
    assert any(
        "**Pruned weights came back" in text for text in pipeline_said.conclusions({"a": chain(coded={"back": 1})})
    )
    grown = {"a": chain(["pretrained", "fine_tune"])}
    assert pipeline_said.abstract(grown) == ["Chain a: no file is smaller than the original's."]


def test_coding_is_checked_by_what_the_decoded_network_does():
    assert pipeline_said.decoded(chain()).endswith("coding lost nothing.")
    other = pipeline_said.decoded(chain(coded={"top1": 87.5}))
    assert other.startswith("**Coding is not lossless:** the decoded network has a top-1 accuracy of 87.50 %")
    assert pipeline_said.decoded(chain(missing=(5,))) is None


def test_where_chains_of_a_task_end():
    one, other = chain(), chain(["pretrained", "prune_weights"])
    other.name = "other"
    said = pipeline_said.beside([one, other])
    assert said.startswith(
        "Of 2 chains whole ends (804 bytes, 88.00 %) with the smallest file and the highest accuracy"
    )
    better = chain(["pretrained", "prune_weights"], prune_weights={"top1": 89.0})
    better.name = "other"
    assert "smallest file, and other ends (1,574 bytes, 89.00 %) with the" in pipeline_said.beside([one, better])
    assert pipeline_said.beside([one]) is None


def test_layers_are_told_by_bytes_and_kept_weights():
    even = stub_pipeline.layer_rows({"kept": 0.2})
    said = pipeline_said.by_layer(even)
    assert said == "`fc` takes 83.3 % of the bytes of all layers. Every layer keeps about 20 % of its weights."
    uneven = pipeline_said.by_layer(even.assign(kept=[100, 0]))
    assert "Most is kept of `conv` (50.0 %), least of `fc` (0.0 %). **No weight is left** in `fc`." in uneven
    assert "Most is kept of `fc` (10.0 %), least of `conv` (0.0 %)." in pipeline_said.by_layer(
        even.assign(kept=[0, 100])
    )


def study(made: Pipeline):
    book = summary.load(made.save())
    return book, pipeline.chains(book)


def test_both_ways_to_count():
    book, chains = study(stub_pipeline.typical())
    found = pipeline_sizes.counted(book, chains["whole"])
    first, last = (chains["whole"].stages[at].rows.iloc[0] for at in (0, -1))
    tables = [frames.table("p", [row["run"]], "parts") for row in (first, last)]
    whole = [table["bytes"].sum() for table in tables]
    linear = [table.loc[table["tensor"].isin(["fc.weight", "fc.bias"]), "bytes"].sum() for table in tables]
    assert found["whole_pct"] == pytest.approx(100 * last["file_bytes"] / first["file_bytes"])
    assert found["without_bytes"] == whole[1] - linear[1]
    assert found["without_pct"] == pytest.approx(100 * (whole[1] - linear[1]) / (whole[0] - linear[0]))
    shown = pipeline_sizes.counting_table({"whole": found}).loc["whole"]
    assert shown["difference (points)"] == f"{found['whole_pct'] - found['without_pct']:+.2f}".replace("-", "−")


def test_the_opposite_difference_gives_the_opposite_sentence():
    one = {"linear_pct": 66.0, "without_pct": 7.34, "whole_pct": 9.0}
    assert "leaving them out would flatter it by 1.66 points." in pipeline_sizes.counting_sentence(one)
    assert "would hide 2.34 points" in pipeline_sizes.counting_sentence(one | {"whole_pct": 5.0})


def test_ways_that_agree_are_left_out(monkeypatch):
    book, chains = study(stub_pipeline.typical())
    assert pipeline_sizes.counted(book, chains["whole"])["linear_pct"] < 90
    monkeypatch.setattr(pipeline_sizes, "LEAST_LINEAR", 90)
    assert pipeline_sizes.counted(book, chains["whole"]) is None
    same = {"tensor": ["a.weight", "b.weight"], "holder": ["convolution", "linear"], "part": "values"}
    files = {"one": pd.DataFrame(same | {"bytes": [100, 100]}), "two": pd.DataFrame(same | {"bytes": [50, 50]})}
    monkeypatch.setattr(pipeline_sizes, "LEAST_LINEAR", 1)
    pair = iter(files.values())
    monkeypatch.setattr(pipeline_sizes.frames, "table", lambda *_: next(pair))
    assert pipeline_sizes.counted(book, chains["whole"]) is None


@pytest.mark.parametrize("gone", ["linear", "convolutions"])
def test_one_kind_of_layer_is_counted_one_way(gone):
    made = Pipeline()
    setattr(made, gone, False)
    made.chain("whole", ALL)
    book, chains = study(made)
    assert pipeline_sizes.counted(book, chains["whole"]) is None


def test_coders_stand_beside_the_bound():
    codes = stub_pipeline.codes()
    table = pipeline_sizes.coder_table(stub_pipeline.coders(), codes)
    assert table.index.tolist() == ["entropy (bound)", "Huffman", "ANS", "zstd"]
    assert float(table.loc["Huffman", "bits a weight"]) == pytest.approx(8 * 110 / codes["count"].sum(), abs=5e-4)
    assert float(table.loc["zstd", "above the bound (%)"]) == pytest.approx(100 * (130 / 101.3 - 1), abs=0.005)
    assert pd.isna(table.loc["entropy (bound)", "encode (s)"])
    assert table.loc["ANS", ["encode (s)", "decode (s)"]].tolist() == ["0.010", "0.020"]
    halves = stub_pipeline.coders().assign(group="a"), stub_pipeline.coders().assign(group="b")
    assert pipeline_sizes.coder_table(pd.concat(halves), codes).loc["ANS"].iloc[:3].tolist() == ["102", "102", "204"]
    gaps = pd.concat([stub_pipeline.coders(), stub_pipeline.coders().assign(group="gaps")])
    assert pipeline_sizes.coder_table(gaps, codes)["bits a weight"].equals(table["bits a weight"]), "positions are none"


def test_coders_are_told_from_their_bytes():
    codes = stub_pipeline.codes()
    said = " ".join(pipeline_sizes.coder_sentences(stub_pipeline.coders(), codes))
    assert "Huffman's code takes 1.467 bits a weight, tables included, 0.116 more than the entropy (1.351)." in said
    assert "ANS is best, 7.27 % smaller than Huffman's." in said
    assert "Below" not in said
    assert "ANS is best, 9.09 % larger than" in " ".join(
        pipeline_sizes.coder_sentences(stub_pipeline.coders(ans=120), codes)
    )
    assert "because of its table: the counts of all values, 12 bytes, take more than parts of a bit save" in " ".join(
        pipeline_sizes.coder_sentences(stub_pipeline.coders(ans=120), codes)
    ), "four values a tensor, of which one has counts of two bytes"
    assert "because" not in " ".join(pipeline_sizes.coder_sentences(stub_pipeline.coders(ans=150), codes)) + said
    lower = " ".join(pipeline_sizes.coder_sentences(stub_pipeline.coders(ans=90), codes))
    assert "Below the entropy, which bounds codes of single values: ANS." in lower


def test_coded_is_the_last_finished_stage_of_that_kind():
    book, chains = study(stub_pipeline.typical())
    assert pipeline_sizes.coded(book, chains["short"]).stage.number == 3
    made = Pipeline("q")
    made.chain("open", ALL, missing=(6,))
    book, chains = study(made)
    assert pipeline_sizes.coded(book, chains["open"]) is None


def test_the_published_row_is_for_its_network_and_data_only():
    for name, about, number in (
        ("a", {"model": "lenet-300-100"}, 1), ("b", {"model": "lenet-300-100", "data": "digits"}, 0), ("c", {}, 0),
    ):  # fmt: skip
        made = Pipeline(name, **about)
        made.chain("whole", ALL)
        book, chains = study(made)
        assert len(pipeline_sizes.published(chains)) == number
        assert ("deep-compression" in book.parts) == bool(number)


@pytest.mark.parametrize(
    ("bytes_", "top1", "words"),
    [
        (5264 / 41, 90.1, ["reaches the 40 times", "41.0 times smaller", "by −0.10 points", "8.32 points more than"]),
        (5264 / 39, 88.0, ["does not reach the 40 times", "39.0 times", "by +2.00 points", "10.42 points more than"]),
        (5264 / 39, 98.6, ["errs on 1.40 % of the test images, 0.18 points less than the paper's."]),
    ],
)
def test_the_published_factor_is_reached_or_not(bytes_, top1, words):
    one = chain()
    one.stages[-1].rows = one.stages[-1].rows.assign(file_bytes=bytes_, top1_pct=top1)
    said = pipeline_sizes.published_sentence(one)
    assert all(word in said for word in words), said
    table = pipeline_sizes.published_table([one])
    assert table.index.tolist() == ["Han et al. 2016", "chain whole, coded"]
    assert table.iloc[0].tolist() == ["1,070.0", "27.00", "40.0", "1.64", "1.58"]
    assert table.iloc[1]["original (KB)"] == "5.3"


def branches(*rows: tuple, notebook: str = "prune_weights") -> pd.DataFrame:
    """Runs beside a chain: (method, share, top-1), then the digest of the masks, seed, parameters."""
    made = Pipeline(f"study{next(NUMBERS)}")
    made.chain("whole", ["pretrained"], seeds=(1, 2))
    for method, share, top1, *rest in rows:
        digest, seed, more = (*rest, *("", 1, {})[len(rest) :])
        at = {"method": method, "share_kept": share, "pruning_scope": "local"}
        if notebook == "prune_activations":
            at = {"activation_method": method, "activation_share": share, "calibrated": False}
        made.branch(notebook, SOURCE, top1, seed, digest, **at, **more)
    of = pipeline_methods.WEIGHTS if notebook == "prune_weights" else pipeline_methods.INPUTS
    (found,) = pipeline_methods.branches(summary.load(made.save()), of).values()
    return found


L1, L2 = "element-l1", "element-l2"
TWINS = [(L1, 0.5, 80, "a"), (L2, 0.5, 80, "a"), (L1, 0.1, 70, "b"), (L2, 0.1, 70, "b"), ("random", 0.1, 20, "c")]


def test_equal_masks_are_one_method():
    rows = branches(*TWINS)
    said = pipeline_methods.same_sentence(rows)
    assert said.startswith("element-l2 keeps the very same weights as element-l1 in all 2 cases that both were run in")
    table = pipeline_methods.weight_table(rows)
    assert table.index.get_level_values("method").tolist() == ["element-l1 = element-l2", "random"]
    assert table.iloc[0]["top-1 at 10 % (%)"] == "70.00"
    assert table.iloc[1]["top-1 at 50 % (%)"] == ""
    assert table.iloc[0]["weights kept (%)"] == "10.00"


def test_different_masks_are_two_methods():
    rows = branches(*TWINS[:3], (L2, 0.1, 71, "other"))
    said = pipeline_methods.same_sentence(rows)
    assert said == "element-l2 and element-l1 keep different weights in 1 of 2 cases, though both rank by magnitude."
    assert pipeline_methods.weight_table(rows).index.get_level_values("method").tolist() == [L1, L2]
    apart = branches((L1, 0.5, 80, "a"), ("random", 0.5, 60, "b"))
    assert pipeline_methods.same_sentence(apart) is None


def test_masks_that_keep_everything_say_nothing():
    rows = branches((L1, 1.0, 80, "a"), ("random", 1.0, 80, "a"), (L1, 0.5, 80, "b"), ("random", 0.5, 60, "c"))
    assert pipeline_methods.same(rows) == {}


def test_seeds_are_averaged_and_other_settings_are_not():
    rows = branches((L1, 0.5, 80, "a", 1), (L1, 0.5, 82, "b", 2))
    assert pipeline_methods.weight_table(rows)["top-1 at 50 % (%)"].tolist() == ["81.00 ± 1.41 (n = 2)"]
    rows = branches((L1, 0.5, 80, "a", 1, {"rounds": 1}), (L1, 0.5, 60, "b", 1, {"rounds": 3}))
    table = pipeline_methods.weight_table(rows)
    assert table["top-1 at 50 % (%)"].tolist() == ["80.00", "60.00"]
    assert table.index.get_level_values("variant").tolist() == ["rounds 1", "rounds 3"]


def test_the_best_method_is_that_of_the_numbers():
    rows = pipeline_methods.merged(branches(*TWINS))
    said = pipeline_methods.best(rows, IMAGES)
    assert said.startswith("With 10 % kept element-l1 = element-l2 is the most accurate of 2, 70.00 %, 50.00 points")
    assert "the last" not in said, "of two"
    assert "20.00 points below the network that was pruned, beyond" in said
    turned = pipeline_methods.best(branches((L1, 0.1, 90.2, "a"), ("random", 0.1, 90.4, "b")), IMAGES)
    assert "random is the most accurate of 2, 90.40 %, 0.20 points ahead of element-l1, within" in turned
    assert "0.40 points above the network that was pruned, within" in turned
    assert pipeline_methods.best(branches((L1, 0.1, 90, "a")), IMAGES) is None
    unknown = pipeline_methods.best(branches((L1, 0.1, 90.2, "a"), ("random", 0.1, 90.4, "b")), None)
    assert "with no known uncertainty" in unknown


def test_methods_of_activations():
    rows = branches((L1, 0.1, 89), (L1, 0.3, 80), ("map-l1", 0.3, 60), notebook="prune_activations")
    table = pipeline_methods.input_table(rows)
    assert table.columns[:2].tolist() == ["top-1 at 10 % (%)", "top-1 at 30 % (%)"]
    assert table.loc[(L1, "each image"), "pruned zeros (%)"] == "18.00"
    assert "With 30 % removed element-l1 is the most accurate" in pipeline_methods.best(rows, IMAGES)
    assert table.loc[(L1, "each image"), "MACs left (thousand)"] == "21.00"


def test_zeros_of_unlike_methods_are_not_averaged():
    rows = branches((L1, 0.3, 80), ("map-l1", 0.3, 60, "", 1, LESS), notebook="prune_activations")
    said = pipeline_methods.zeros(rows)
    assert said.startswith("Of what enters convolutions in the network that was pruned 40.00 % is zero anyway, ")
    assert "with pruning 35.00 % (map-l1) to 40.00 % (element-l1) without being pruned" in said
    assert "the 30 % that pruning removes of the rest are 9.00 % (map-l1) to 18.00 % (element-l1) of all" in said
    assert said.endswith("less than was zero anyway.")
    assert "more than was zero anyway" in pipeline_methods.zeros(rows.assign(zeros_natural_pct=1.0))
    assert "only by element-l1 more than was" in pipeline_methods.zeros(rows.assign(zeros_natural_pct=10.0))
    assert "nothing beyond that" in pipeline_methods.zeros(rows.assign(zeros_pruned_pct=0.0))
    assert "network that was pruned" not in pipeline_methods.zeros(rows.assign(original_zeros_pct=float("nan")))


LESS = {"other": {"zeros_natural_pct": 35.0, "zeros_pruned_pct": 9.0}}


def test_methods_that_remove_another_share_are_not_compared():
    rows = branches((L1, 0.3, 80), (L2, 0.3, 79.5), ("map-l1", 0.3, 85, "", 1, LESS), notebook="prune_activations")
    said = pipeline_methods.best(rows, IMAGES)
    assert said.startswith("With 30 % removed element-l1 is the most accurate of 2 that remove 18 % of what enters")
    assert said.endswith("as another share is removed: map-l1 85.00 % (removes 9 % of what enters layers).")
    alone = rows[rows["name"] != L2]
    assert pipeline_methods.best(alone, IMAGES) is None, "no two methods remove the same"


def test_multi_is_not_called_worse_for_keeping_less():
    kept = {"other": {"weights_kept": 12}}
    rows = branches((L1, 0.1, 70, "a"), ("random", 0.1, 60, "b"), ("channel-l1", 0.1, 50, "c"),
                    ("multi-l1", 0.1, 20, "d", 1, kept), ("multi-l2", 0.1, 30, "e", 1, kept))  # fmt: skip
    said = pipeline_methods.best(rows, IMAGES)
    assert "of 3 that keep 10 % of the weights, 70.00 %" in said
    assert "the last is channel-l1 with 50.00 %" in said
    assert said.endswith("as another share is kept: multi-l2 30.00 %, multi-l1 20.00 % (keep 1 % of the weights).")


def test_equal_activation_methods_are_one():
    rows = branches((L1, 0.3, 80), (L2, 0.3, 80), ("map-l1", 0.3, 60), notebook="prune_activations")
    said = pipeline_methods.same_sentence(rows)
    assert said == (
        "element-l2 has the very same accuracy, test loss and MACs as element-l1 in the one case that both were run "
        "in: they are one method, and share a line."
    )
    assert pipeline_methods.input_table(rows).index.get_level_values("method").tolist() == [f"{L1} = {L2}", "map-l1"]
    other = branches((L1, 0.3, 80), (L2, 0.3, 80, "", 1, {"other": {"macs_active": 1.0}}), notebook="prune_activations")
    assert pipeline_methods.same(other) == {}
    assert "differ in accuracy, test loss or MACs in the one case" in pipeline_methods.same_sentence(other)


def test_runs_of_chains_are_no_branches():
    made = Pipeline()
    made.chain("whole", ALL)
    assert pipeline_methods.branches(summary.load(made.save()), pipeline_methods.WEIGHTS) == {}


def test_settings_name_the_recipe_of_each_stage():
    made = stub_pipeline.typical()
    made.chain("third", ["prune_weights"], source=SOURCE)
    for entry in made.plan["runs"]:
        if entry["notebook"] == "prune_weights" and entry.get("chain") in ("whole", "short"):
            shares = {"last": 0.3, "layers.0": 1} if entry["chain"] == "whole" else {}
            place = paths.RUNS / "p" / entry["id"] / runs.RUN
            facts = files.read_json(place)
            files.write_json(place, facts | {"parameters": facts["parameters"] | {"layer_shares": shares}})
    rows = settings.settings(summary.load(made.save())).set_index("setting")["value"]
    assert "1,300 parameters, 1,200 of them prunable weights, 50,000 MACs" in rows["Network: MNIST / Conv"]
    assert rows["Stage: prune_weights"] == "none in common"
    assert "share kept 0.5 or 0.1" in rows["Stage: prune_weights, beside the chains"]
    assert rows["Stage: prune_weights, chain whole"] == "layer shares last 0.3 and layers.0 1"
    assert rows["Stage: prune_weights, chain short"] == "layer shares none"
    assert rows["Seeds of the stages"] == "1"
    assert not re.search("nan|{", " ".join(rows.drop("Hardware")))


def test_what_is_reported_has_sections():
    book = summary.load(stub_pipeline.typical().save())
    assert summary.unreported(book, summary.PIPELINE) is None
    assert "`coded`" in summary.unreported(book)
    assert book.parts >= {"chains", "weight-methods", "input-methods", "coded"}
    assert "deep-compression" not in book.parts
    assert book.done.empty, "a study without the notebook accuracy"
