import errno
import json
from pathlib import Path

from lib import progress, runs


def row(epoch: int, seconds: float) -> dict:
    return {"epoch": epoch, "train_loss": 0.51234, "test_top1_pct": 43.219, "train_s": seconds, "test_s": 1.0}


def test_file_and_line_follow_the_epochs(tmp_path, capsys):
    run = runs.Run("accuracy", tmp_path, {}, 0.0)
    assert progress.of(tmp_path) is None
    told = progress.follow(run, 4, "after pruning")
    assert progress.of(tmp_path) is None
    told(row(1, 9.0))
    assert progress.of(tmp_path) == "after pruning: epoch 1 of 4, loss 0.512, test top-1 43.22 %, 30 s left"
    told(row(2, 19.0))  # 10 and 20 s: two more take 15 each
    assert json.loads((tmp_path / runs.PROGRESS).read_text())["left_s"] == 30.0
    told(row(4, 9.0))
    assert progress.of(tmp_path) == "after pruning: epoch 4 of 4, loss 0.512, test top-1 43.22 %"


def test_a_resumed_training_counts_the_epochs_that_are_left(tmp_path):
    told = progress.follow(runs.Run("accuracy", tmp_path, {}, 0.0), 10, "training")
    told(row(8, 59.0))
    assert progress.of(tmp_path).endswith("2 min left")


def test_no_epochs_show_nothing(tmp_path, capsys):
    progress.follow(runs.Run("accuracy", tmp_path, {}, 0.0), 0)
    assert capsys.readouterr().out == ""


def test_durations():
    assert [progress.duration(s) for s in (0.4, 89, 90, 3600, 5400)] == ["0 s", "89 s", "2 min", "60 min", "1.5 h"]


def test_a_file_that_another_host_replaces_is_none(tmp_path, monkeypatch):
    progress.follow(runs.Run("accuracy", tmp_path, {}, 0.0), 4, "training")(row(1, 9.0))

    def stale(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "read_text", stale)
    assert progress.of(tmp_path) is None
