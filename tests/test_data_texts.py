"""Texts as word numbers: vocabulary of the training split, padding, unknown words, both published forms."""

import os
from pathlib import Path

import pytest
import torch

from lib import data as datasets
from lib import models, train
from lib.data import texts

REAL = Path(os.environ.get("WORKBENCH_DATA", "nowhere"))


def written(folder: Path, train: list[str], dev: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, lines in (("train", train), ("dev", dev)):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]), encoding="utf-8")
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    good = [f"a good film {i}\t1" for i in range(30)]
    bad = [f"a Bad film\t{0}" for _ in range(30)]
    return written(tmp_path / "sst2", good + bad, ["good unseen\t1", "bad\t0"])


def test_words_are_numbered_by_how_often_they_are_used():
    words = texts.vocabulary([["b", "a", "c"], ["c", "b"], ["c"]])
    assert words == {"c": 2, "b": 3, "a": 4}
    assert texts.vocabulary([["z", "y"]]) == {"y": 2, "z": 3}


def test_unknown_words_are_one_and_padding_is_zero():
    assert texts.numbered([["c", "x"], ["a"]], {"c": 2, "a": 3}, 3).tolist() == [[2, 1, 0], [3, 0, 0]]
    with pytest.raises(ValueError, match="2 words: at most 1"):
        texts.numbered([["c", "x"]], {"c": 2}, 1)


def test_a_folder_becomes_a_data_set(small):
    data = datasets.load("sst2")
    assert data.shape == (4, 36)  # padding, unknown, a, film, bad, good, 30 numbers: no word of the development split
    assert data.test_x[0].tolist()[1] == 1, "unseen"
    assert data.train_x[0, 0] == data.train_x[40, 0], "case does not matter"
    assert "60 training texts" in data.info["source"]
    assert data.info["original"] is False
    assert datasets.normalise(data, data.test_x).dtype == torch.int64


@pytest.mark.parametrize("name", ["mlp-3x16", "transformer"])
def test_networks_learn_from_texts(small, name):
    data = datasets.load("sst2", train_images=40, seed=1)
    network = models.build(name, data.shape, data.classes, seed=1)
    history = train.train(network, data, epochs=8, batch=8, lr=0.01, seed=1)
    assert history[-1]["test_top1_pct"] == 100


@pytest.mark.parametrize("name", ["mlp-3x16", "transformer"])
def test_padding_changes_nothing(small, name):
    data = datasets.load("sst2")
    network = models.build(name, data.shape, 2, seed=1).eval()
    text = torch.tensor([[3, 4, 2]])
    torch.testing.assert_close(network(torch.nn.functional.pad(text, (0, 1))), network(text), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("line", "said"), [
    ("no label here", "line 5"), ("a film\t2", "line 5"), ("\t1", "line 5"),
])  # fmt: skip
def test_damaged_files_are_named(tmp_path, monkeypatch, line, said):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    written(tmp_path / "sst2", ["a\t1", "b\t0", "c\t1", line], ["a\t1", "b\t0"])
    with pytest.raises(ValueError, match=f"train.tsv is damaged .*{said}"):
        datasets.load("sst2")


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"sst2.train\.tsv .*set WORKBENCH_DATA"):
        datasets.load("sst2")
    (written(tmp_path / "sst2", ["a\t1", "b\t0"], []) / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv: train\.tsv and dev\.tsv"):
        datasets.load("sst2")


def test_texts_that_fit_nothing_are_refused():
    good = torch.ones(2, 3, dtype=torch.int32), torch.tensor([0, 1])
    more = {"words": 5, "classes": 2, "source": "None."}
    with pytest.raises(ValueError, match="from 9 to 9: integers"):
        datasets.assemble_texts("x", *good, torch.full((2, 3), 9), good[1], **more)
    with pytest.raises(ValueError, match=r"\(2, 4\).*of one L"):
        datasets.assemble_texts("x", *good, torch.ones(2, 4, dtype=torch.int32), good[1], **more)


def test_an_archive_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setattr(datasets.places, "DOWNLOADS", tmp_path)
    monkeypatch.setattr(texts, "FORMS", {(2, 2): "two sentences"})
    asked = []

    def fetch(folder):
        asked.append(folder)
        written(folder / "SST-2", ["a\t1", "b\t0"], ["a\t1", "b\t0"])

    monkeypatch.setattr(texts, "_download", fetch)
    for _ in range(2):
        assert "two sentences" in datasets.load("sst2").info["source"]
    assert asked == [tmp_path]


@pytest.mark.skipif(not (REAL / "sst2" / "train.tsv").is_file(), reason="no SST-2 in WORKBENCH_DATA")
def test_the_real_sentences():
    data = datasets.load("sst2")
    assert (len(data.train_x), len(data.test_x)) == (6920, 872)
    assert data.info["original"]
    assert data.train_y.bincount().tolist() == [3310, 3610]  # published counts
    assert (
        sum(p.numel() for p in models.build("mlp-3x256", data.shape, 2).parameters())
        == 14_829 * 256 + 3 * (256 * 256 + 256) + 2 * 257
    )
