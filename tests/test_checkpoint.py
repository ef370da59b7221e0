"""A training that is killed and goes on equals one that was never interrupted, bit for bit."""

import os
import warnings

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from test_train import dropping, network, same, tiny

from lib import catalog, checkpoint, compiling, files, masks, paths, pruners, runs, train

RECIPE = {"epochs": 3, "batch": 16, "seed": 4, "lr_schedule": "steps", "lr_drops": (1,), "lr": 0.01}


class Killed(BaseException):
    pass


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)


def kill_after(monkeypatch, steps: int) -> None:
    """The training dies in the step after the given number of them."""
    count = 0
    original = train._Totals.add

    def add(totals, *values):
        nonlocal count
        if count == steps:
            raise Killed
        count += 1
        original(totals, *values)

    monkeypatch.setattr(train._Totals, "add", add)


def test_somebody_asks_for_the_state(tmp_path, monkeypatch):
    """Once for each time that the file beside it is touched, be it before the training began."""
    monkeypatch.setattr(checkpoint, "ASK_EVERY_S", 0.0)
    asked = tmp_path / files.SAVE_NOW
    state = checkpoint.Checkpoint(tmp_path / "state.pt", {}, {}, {})
    assert not state.due()
    asked.touch()
    for second in (1, 2):
        state = checkpoint.Checkpoint(tmp_path / "state.pt", {}, {}, {})
        assert state.due()
        state.save((second,))
        assert not state.due()
        later = (tmp_path / "state.pt").stat().st_mtime + 1
        os.utime(asked, (later, later))
    assert state.due()
    asked.unlink()
    assert not state.due()
    assert state.load() == (2,)


def test_what_was_asked_before_the_state_on_disk_was_written_has_its_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ASK_EVERY_S", 0.0)
    (tmp_path / files.SAVE_NOW).touch()
    checkpoint.Checkpoint(tmp_path / "state.pt", {}, {}, {}).save((1,))
    later = (tmp_path / files.SAVE_NOW).stat().st_mtime + 1
    os.utime(tmp_path / "state.pt", (later, later))
    assert not checkpoint.Checkpoint(tmp_path / "state.pt", {}, {}, {}).due()


def test_a_training_that_is_asked_saves_before_its_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ASK_EVERY_S", 0.0)
    file = tmp_path / "state.pt"
    original = train._Totals.add

    def add(totals, *values):
        if file.is_file():
            raise Killed
        (tmp_path / files.SAVE_NOW).touch()
        original(totals, *values)

    monkeypatch.setattr(train._Totals, "add", add)
    with pytest.raises(Killed):
        train.train(network(), tiny(), checkpoint=file, **RECIPE)
    assert file.is_file()


def untimed(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if not name.endswith("_s")} for row in rows]


@pytest.mark.parametrize("precision", train.PRECISIONS)
@pytest.mark.parametrize("optimizer", catalog.OPTIMIZERS)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, often, optimizer, precision):
    data, recipe = tiny(), RECIPE | {"optimizer": optimizer, "precision": precision}
    whole = network()
    kept = pruners.prune(whole, "rand", 0.3, [])
    expected = train.train(whole, data, masks=kept, **recipe)
    file = tmp_path / "folder" / "state.pt"
    for steps in (1, 4, 2):  # of nine; in the middle of an epoch, in the next, and again
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            # the notebook builds and prunes anew after a kill
            with pytest.raises(Killed):
                train.train(network(), data, masks=kept, checkpoint=file, **recipe)
    resumed = network()
    rows = train.train(resumed, data, masks=kept, checkpoint=file, **recipe)
    assert same(resumed, whole)
    assert untimed(rows) == untimed(expected)
    assert all(row["train_s"] > 0 for row in rows)


@pytest.mark.parametrize("schedule", [{"lr_schedule": "cosine", "lr_warmup": 1}, {"lr_warmup": 2}], ids=str)
def test_a_resumed_training_goes_on_at_the_right_rate(tmp_path, monkeypatch, often, schedule):
    recipe = {"epochs": 3, "batch": 16, "seed": 4, "lr": 0.01, "before": 1} | schedule
    whole, resumed, file = network(), network(), tmp_path / "state.pt"
    expected = train.train(whole, tiny(), **recipe)
    for steps in (2, 3):
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                train.train(network(), tiny(), checkpoint=file, **recipe)
    assert untimed(train.train(resumed, tiny(), checkpoint=file, **recipe)) == untimed(expected)
    assert same(resumed, whole)
    assert train.train(network(), tiny(), checkpoint=file, **recipe)[-1]["epoch"] == 4  # complete, and known to be


@pytest.mark.parametrize("graph", [False, True])
def test_dropout_goes_on_where_it_was_killed(tmp_path, monkeypatch, often, graph):
    monkeypatch.setattr(compiling, "compiler_missing", lambda: None)
    monkeypatch.setattr(compiling, "compiled", lambda function: torch.compile(function, backend="aot_eager"))
    recipe = RECIPE | {"graph": graph}
    whole, resumed, file = dropping(), dropping(), tmp_path / "state.pt"
    expected = train.train(whole, tiny(), **recipe)
    for steps in (1, 4):
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                train.train(dropping(), tiny(), checkpoint=file, **recipe)
        torch.manual_seed(steps)  # what a new process has drawn is another matter
    rows = train.train(resumed, tiny(), checkpoint=file, **recipe)
    assert {row["step"] for row in rows} == {"compiled" if graph else "eager"}
    assert untimed(rows) == untimed(expected)
    assert same(resumed, whole)


def test_what_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    file = tmp_path / "state.pt"
    first = network()
    rows = train.train(first, tiny(), checkpoint=file, **RECIPE)
    kill_after(monkeypatch, 0)
    second = network()
    assert train.train(second, tiny(), checkpoint=file, **RECIPE) == rows
    assert same(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, "is of a training with lr 0.01, not 0.02"),
        ({"seed": 5}, "is of a training with seed 4, not 5"),
        ({"masks": masks.full(network())}, "is of a training with masks"),
    ],
)
def test_another_trainings_checkpoint_is_not_used(tmp_path, change, message):
    file = tmp_path / "state.pt"
    train.train(network(), tiny(), checkpoint=file, **RECIPE)
    model, alone = network(), network()
    with pytest.warns(RuntimeWarning, match=message) as caught:
        train.train(model, tiny(), checkpoint=file, **RECIPE | change)
    assert "\n" not in str(caught[0].message)
    train.train(alone, tiny(), **RECIPE | change)
    assert same(model, alone)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_said_and_not_used(tmp_path, content):
    file = tmp_path / "state.pt"
    file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert len(train.train(network("fc"), tiny(), checkpoint=file, **RECIPE)) == 3


def test_a_checkpoint_holds_no_code(tmp_path):
    """What torch.load would have to run is refused, not run."""

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    file = tmp_path / "state.pt"
    torch.save({"settings": Evil()}, file)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        train.train(network("fc"), tiny(), checkpoint=file, **RECIPE)


def test_a_full_disk_costs_the_checkpoint_only(tmp_path, often):
    file = tmp_path / "file" / "state.pt"
    file.parent.write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="was not written"):
        rows = train.train(network("fc"), tiny(), checkpoint=file, **RECIPE)
    assert len(rows) == 3


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch, often):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.train(network("fc"), tiny(), **RECIPE)
    assert not list(tmp_path.iterdir())


@plt.rc_context()  # `show.setup` must not change what other tests draw
def execute(notebook: str, **parameters) -> dict:
    """The code cells of a notebook up to the end of its run, in this process; returns what they defined."""
    namespace: dict = {}
    for cell in nbformat.read(paths.notebook(notebook), as_version=4).cells[1:]:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= parameters
        if "runs.finish" in cell.source:
            return namespace


def test_an_accuracy_run_goes_on_after_a_kill_in_either_training(tmp_path, monkeypatch, often):
    """As a study does it: each attempt in a folder of its own, the state of the trainings beside them."""
    study = tmp_path / "study"
    settings = {"pruner": "mag", "pre_epochs": 2, "epochs": 2, "train_images": 100, "batch": 50}
    attempt = {"run_dir": str(study / runs.ATTEMPTS / "mag-seed1.101"), **settings}
    whole = execute("accuracy", run_dir=str(tmp_path / "other" / "mag-seed1"), **settings)
    for steps in (1, 3):  # before pruning, and after it: four steps each
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                execute("accuracy", **attempt)
        assert list((study / runs.CHECKPOINTS / "mag-seed1").iterdir())
        attempt["run_dir"] = str(study / runs.ATTEMPTS / f"mag-seed1.{200 + steps}")
    resumed = execute("accuracy", **attempt)
    assert same(resumed["network"], whole["network"])
    assert untimed(resumed["before"]) == untimed(whole["before"])
    assert untimed(resumed["history"]) == untimed(whole["history"])
    assert (study / runs.CHECKPOINTS / "mag-seed1").exists()  # until the attempt is published
    assert not (resumed["run"].directory / runs.PROGRESS).exists()
