"""What the report of the pruning lab says of several runs at once, from made numbers."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from lib import files, paths, runs
from lib.findings import lab

IMAGES = 10_000
TASK = "MNIST-20x20 / MLP-2x1024"
SHAPE = {"data": "mnist-20x20", "model": "mlp-2x1024", "also": (), "seed": 1}


def table(*top1: float, timed: bool = True, step: float = 30.0) -> pd.DataFrame:
    """Of iterations, as `findings.repeated.iterations` makes it: 0, 30, 60 % sparsity."""
    numbers = range(len(top1))
    made = pd.DataFrame({
        "iteration": numbers, "sparsity_pct": [step * n for n in numbers], "top1_pct": top1, "parameters": 1_500_000,
        "disk_mb": 6.0, "smallest_mb": [6.0 / (n + 1) for n in numbers], "times_smaller": [1.0 + n for n in numbers],
    })  # fmt: skip
    return (
        made.assign(**{f"latency_{n}{q}_s": 0.01 * n for n in (1, 64) for q in ("", "_q1", "_q3")}) if timed else made
    )


def one(*top1: float, pruner: str = "mag", retrain: str = "rewind", task: str = TASK, method: str = "Mag", **more):
    row = pd.Series(SHAPE | {"pruner": pruner})
    made = {"task": task, "method": method, "retrain": retrain, "images": IMAGES, "row": row}
    return SimpleNamespace(**made, table=table(*top1, **more))


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A study as `lib.summary.load` reads it, whose runs `add` writes."""
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    made = SimpleNamespace(study="s", everything=pd.DataFrame(columns=["notebook"]))
    made.involved = pd.DataFrame([{"task": TASK, "data": SHAPE["data"]}])
    made.data = [{"name": SHAPE["data"], "test_images": IMAGES, "classes": 10}]

    def add(notebook: str, tables: dict[str, pd.DataFrame], **parameters) -> None:
        name = f"{notebook}-{len(made.everything)}"
        row = SHAPE | {"run": name, "notebook": notebook} | parameters
        made.everything = pd.concat([made.everything, pd.DataFrame([row])], ignore_index=True)
        (tmp_path / "s" / name).mkdir(parents=True)
        for file, frame in tables.items():
            frame.to_csv(tmp_path / "s" / name / f"{file}.csv", index=False)

    made.add = add
    return made


def pruned(*top1: float, timed: bool = False) -> dict[str, pd.DataFrame]:
    """The tables of a run of the notebook repeated."""
    sizes = [("dense", False, 4e6), ("dense", True, 3e6), ("bitmask", True, 1e6)]
    numbers = range(len(top1))
    times = [{"network": n, "batch": 1, "repeat": 1, "seconds": 0.5} for n in numbers]
    return {
        "iterations": pd.DataFrame({"iteration": numbers, "sparsity_pct": 30.0, "top1_pct": top1}),
        "files": pd.DataFrame(
            [(n, *size, True) for n in numbers for size in sizes],
            columns=["iteration", "form", "compressed", "bytes", "loads"],
        ),
        "latencies": pd.DataFrame(times if timed else []),
        "sparsities": sparsities(),
    }


def sparsities(embedding: int | None = None) -> pd.DataFrame:
    """sparsities.csv of two layers, and of an embedding that has lost so many weights."""
    rows = [("layers.0.weight", 600, 150), ("layers.1.weight", 400, 100)]
    rows = ([] if embedding is None else [(lab.EMBEDDING, 3000, embedding)]) + rows
    weights, zeros = (sum(row[at] for row in rows) for at in (1, 2))
    rows += [("these together", weights, zeros), ("whole model", weights + 10, zeros)]
    made = pd.DataFrame(rows, columns=["parameter", "weights", "zeros"])
    return made.assign(sparsity_pct=100 * made["zeros"] / made["weights"])


def test_runs_are_read_and_those_with_embeddings_told_apart(book):
    book.add("accuracy", {}, pruner="dense")
    book.add("repeated", pruned(90, 80, timed=True), pruner="mag", retrain="none")
    book.add("repeated", pruned(90, 70), pruner="wanda", retrain="rewind", also=("embeddings",))
    plain, embedded = lab.runs(book)
    assert (plain.task, plain.method, plain.retrain, plain.images) == (TASK, "Mag", "none", IMAGES)
    assert (embedded.task, embedded.method) == (f"{TASK} with embeddings", "Wanda")
    assert embedded.images == IMAGES, "the test set is the same"
    assert plain.table["top1_pct"].tolist() == [90, 80]
    assert plain.table["latency_1_s"].tolist() == [0.5, 0.5]
    assert "latency_1_s" not in embedded.table, "nothing was timed there"
    assert plain.table["times_smaller"].tolist() == [4, 4]
    assert len(plain.files) == 6
    assert len(plain.sparsities) == 4


def test_a_study_of_other_notebooks_has_none(book):
    book.add("accuracy", {}, pruner="dense")
    assert lab.runs(book) == []
    assert lab.patterns(book) == {}


def test_by_task_takes_magnitudes_and_the_first_seed():
    first, second = one(90, 85, retrain="none"), one(91, 86, retrain="none")
    rewound, other = one(90, 89), one(80, 70, pruner="obd", method="OBD")
    embedded = one(88, 60, task="T with embeddings")
    chosen = lab.by_task([other, first, second, rewound, embedded])
    assert chosen == {
        TASK: {"without retraining": first, "rewound and retrained": rewound},
        "T with embeddings": {"rewound and retrained": embedded},
    }
    assert lab.by_task([other]) == {}


def test_the_dense_network_is_iteration_0():
    chosen = lab.by_task([one(97.5, 50, retrain="none"), one(60, 50, task="other", timed=False)])
    found = lab.base(chosen)
    assert found.loc[TASK].to_dict() == {
        "iteration": 0, "sparsity (%)": "0.00", "top-1 (%)": "97.50", "s a pass of 1": "0.01", "s a pass of 64": "0.64",
        "state dict (MB)": "6.000", "times smaller": "1.00", "parameters": "1,500,000",
    }  # fmt: skip
    assert found.index.tolist() == [TASK, "other"]
    assert lab.base({}).empty


def test_the_code_shown_is_that_which_was_executed(tmp_path):
    cells = [("shown", "prune(it)"), ("", "secret()"), ("shown", "again()")]
    book = {"cells": [{"metadata": {"tags": [tag]} if tag else {}, "source": [text]} for tag, text in cells]}
    (tmp_path / runs.NOTEBOOK).write_text(json.dumps(book))
    said = lab.code(SimpleNamespace(directory=tmp_path))
    assert said == "```python\nprune(it)\n```\n```python\nagain()\n```\n"
    files.write_json(tmp_path / runs.NOTEBOOK, {"cells": []})
    assert lab.code(SimpleNamespace(directory=tmp_path)) == ""
    (tmp_path / runs.NOTEBOOK).unlink()
    assert "prune.global_unstructured" in lab.code(SimpleNamespace(directory=tmp_path)), "the workbench's own"


@pytest.mark.parametrize(("gone", "share"), [(0, "0.00"), (2700, "90.00")])
def test_what_went_of_the_embedding(gone, share):
    said = lab.embeddings(sparsities(gone))
    assert said.startswith("The embedding holds 3,000 of the 4,000 weights that are pruned")
    assert f"{share} % of them are zero; of those of the other layers 25.00 %." in said


def test_nothing_of_an_embedding_that_took_no_part():
    assert lab.embeddings(sparsities()) is None
    alone = sparsities(5)
    assert lab.embeddings(alone[~alone["parameter"].str.startswith("layers")]) is None, "nothing to compare with"


def test_scores_are_compared_where_there_are_several():
    mag, wanda, again = one(90, 80), one(90, 85, pruner="wanda", method="Wanda"), one(10, 10)
    alone = one(90, 80, task="other")
    unfair = one(90, 80, task="other", pruner="obd", method="OBD", retrain="none")
    assert lab.scored([mag, wanda, again, alone, unfair]) == {TASK: {"Mag": mag, "Wanda": wanda}}


def test_a_score_is_shown_at_iterations_that_another_has():
    methods = {"Mag": one(90, 80, 70, 60), "Wanda": one(91, 85, 75), "OBD": one(92, 86)}
    found = lab.methods(methods)
    assert found.columns.tolist() == ["sparsity (%)", "Mag", "Wanda", "OBD"]
    assert found.index.tolist() == [0, 1, 2], "only Mag has iteration 3"
    assert found["sparsity (%)"].tolist() == [0, 30, 60]
    assert found.loc[2, "Wanda"] == 75
    assert pd.isna(found.loc[2, "OBD"])


def test_opposite_numbers_give_the_opposite_sentence():
    def said(wanda: float, obd: float = 40.0) -> str:
        return lab.best_score({
            "OBD": one(90, obd), "Mag": one(90, 80, 10), "Wanda": one(90, wanda, pruner="wanda", method="Wanda"),
        })  # fmt: skip

    assert "At 30.00 % sparsity Wanda has the best" in said(85), "the last iteration that all have"
    assert "85.00 %: 5.00 points above that of Mag (80.00 %), beyond 2 standard errors" in said(85)
    assert "75.00 %: 5.00 points below that of Mag (80.00 %), beyond 2 standard errors" in said(75)
    assert "80.10 %: 0.10 points above that of Mag (80.00 %), within 2 standard errors" in said(80.1)
    assert said(85).endswith("The lowest is that of OBD, 40.00 %.")
    assert "OBD has the best" in said(85, obd=86)
    assert said(85, obd=86).endswith("The lowest is that of Wanda, 85.00 %.")


def test_one_other_score_is_not_also_the_lowest():
    assert "lowest" not in lab.best_score({"Mag": one(90, 80), "Wanda": one(90, 70)})


def test_without_magnitude_no_score_is_the_best():
    assert lab.best_score({"OBD": one(90, 80), "Wanda": one(90, 70)}) is None
    assert lab.best_score({"Mag": one(90, 80)}) is None


LEVELS = pd.DataFrame({
    "density": [1.0, 0.75, 0.5, 0.25], "sparsity": [0.0, 0.25, 0.5, 0.75], "top1_pct": [95.0, 94.0, 93.0, 80.0],
})  # fmt: skip


def pattern(two: float = 93.0, most: float = 1.0, **row) -> SimpleNamespace:
    levels = LEVELS.assign(top1_pct=[95.0, 94.0, two, 80.0])
    return SimpleNamespace(levels=levels, images=IMAGES, row=pd.Series({"most_of_four": most, "device": "cpu"} | row))


def test_patterns_are_runs_of_the_scope_fours(book):
    book.add("multishot", {"levels": LEVELS}, scope="global")
    book.add("multishot", {"levels": LEVELS}, scope="fours")
    book.add("multishot", {"levels": LEVELS}, scope="fours", seed=2)
    (found,) = lab.patterns(book).items()
    assert (found[0], found[1].run, found[1].images) == (TASK, "multishot-1", IMAGES)
    assert found[1].levels.equals(LEVELS)


def test_a_pattern_stands_beside_magnitude_without_one():
    free = one(95, 90, 80)  # at 0, 30 and 60 %
    found = lab.pattern_table(pattern(), free)
    assert found.index.tolist() == ["dense", "3:4", "2:4", "1:4"]
    assert found["top-1 (%)"].tolist() == [95, 94, 93, 80]
    between = found["without a pattern (%, interpolated)"]
    assert between.iloc[:3].tolist() == pytest.approx([95, 95 - 5 * 25 / 30, 90 - 10 * 20 / 30], abs=0.006)
    assert pd.isna(between.iloc[3]), "nothing is known beyond the last iteration"
    assert lab.pattern_table(pattern(), None).columns.tolist() == ["sparsity (%)", "top-1 (%)"]


@pytest.mark.parametrize(
    ("two", "words"),
    [
        (93.0, "2.00 points below the dense network's, beyond 2 standard errors"),
        (97.0, "2.00 points above the dense network's, beyond 2 standard errors"),
        (95.2, "0.20 points above the dense network's, within 2 standard errors"),
    ],
)
def test_what_a_pattern_costs(two, words):
    said = lab.pattern_sentences(pattern(two))[0]
    assert said.startswith(f"With 2 of each four weights the accuracy is {two:.2f} %, {words}")


def test_a_broken_pattern_is_said():
    assert "are more than 1 kept, as checked" in lab.pattern_sentences(pattern())[1]
    broken = lab.pattern_sentences(pattern(most=3.0))[1]
    assert broken == "**The pattern does not hold:** of some four weights 3 are kept, where 1 are allowed."


def test_the_kernel_that_is_there_or_not():
    assert "(cpu) has no kernel" in lab.pattern_sentences(pattern())[2]
    assert lab.pattern_sentences(pattern(sparse_kernel_speedup=None))[2] == lab.pattern_sentences(pattern())[2]
    for speedup, share in ((2.0, "0.50"), (0.5, "2.00")):
        said = lab.pattern_sentences(pattern(device="cuda:0", sparse_kernel_speedup=speedup))[2]
        assert f"takes {share} of the time of the dense one" in said


def test_contributions_are_left_to_the_authors():
    found = lab.contributions()
    assert found["part"].is_unique
    assert (found[["who", "what"]] == "").all(axis=None)


def test_conclusions_are_a_sentence_a_task_and_the_best_scores():
    none, rewound = one(97, 60, 20, retrain="none"), one(97, 96, 95)
    wanda = one(97, 96, pruner="wanda", method="Wanda")
    chosen = lab.by_task([none, rewound, one(80, 70, task="other")])
    first, second, third = lab.conclusions(chosen, {TASK: {"Mag": rewound, "Wanda": wanda}})
    assert first.startswith(f"{TASK} has a top-1 accuracy of 97.00 % dense, and at 60.00 % sparsity 20.00 % without")
    assert "20.00 % without retraining (smallest file 3.00 times smaller) and 95.00 % rewound and retrained" in first
    assert "sparsity 70.00 % rewound and retrained (smallest file 2.00 times smaller)." in second
    assert third.startswith(f"{TASK}: at 30.00 % sparsity Wanda has")
    assert len(lab.conclusions(chosen, {TASK: {"OBD": rewound, "Wanda": wanda}})) == 2
    assert lab.conclusions({}, {}) == []
