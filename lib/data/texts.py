"""SST-2: sentences of film reviews, positive or negative (Socher et al. 2013), as numbers of words.

A text is a row of word numbers: 0 is padding, 1 a word that is not in the vocabulary, and from 2 on its words, the
most frequent first. The vocabulary is that of the training texts alone.
"""

import io
import shutil
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.data.dataset import Dataset, assemble_texts
from lib.data.places import damaged, find_or_download
from lib.files import replacing

GLUE = "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"  # 7 MB
# Texts of the training and the development split -> what the published form with so many is.
FORMS = {
    (6920, 872): "the sentences alone",
    (67349, 872): "the form of GLUE (Wang et al. 2018), whose training texts are phrases of the sentences",
}
FOLDERS = {"sst2": ("sst2", "SST-2", "sst2-glue"), "sst2-glue": ("sst2-glue", "SST-2")}


def sst2() -> Dataset:
    """SST-2 of whichever form is in the folder, the one of sentences first; without a folder GLUE's, downloaded."""
    return _load("sst2")


def sst2_glue() -> Dataset:
    """SST-2 in the form of GLUE: 67,349 phrases to train on, and the same 872 sentences to test on."""
    return _load("sst2-glue")


def _load(name: str) -> Dataset:
    def read(root: Path) -> Dataset:
        return _read(root, name)

    return find_or_download("SST-2", read, _download)


def _read(root: Path, name: str) -> Dataset:
    places = [root / folder for folder in FOLDERS[name]]
    place = next((p for p in places if (p / "train.tsv").is_file()), None)
    if place is None:
        raise FileNotFoundError(
            f"no data file {' or '.join(str(p / 'train.tsv') for p in places)}: set WORKBENCH_DATA to the folder "
            "that holds it"
        )
    splits = {split: _rows(place / f"{split}.tsv") for split in ("train", "dev")}
    counts = tuple(len(texts) for texts, _ in splits.values())
    form = FORMS.get(counts)
    words = vocabulary(splits["train"][0])
    longest = max(len(text) for texts, _ in splits.values() for text in texts)
    (train, train_y), (dev, dev_y) = splits.values()
    return assemble_texts(
        name,
        *(numbered(train, words, longest), torch.tensor(train_y), numbered(dev, words, longest), torch.tensor(dev_y)),
        words=len(words) + 2,
        classes=2,
        source=f"SST-2 (Socher et al. 2013), {form or 'of no published size'}: {counts[0]:,} training texts and "
        f"{counts[1]:,} of the development split, on which accuracy is measured; {len(words):,} words, lower case, of "
        "the training texts.",
        facts={"original": form is not None, "altered_train": None, "altered_test": None},
    )


def _rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """The words of each text, lower case, and its label, from lines `sentence<tab>label` under a heading."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8 text") from error
    except FileNotFoundError:
        raise FileNotFoundError(f"no data file {path}: train.tsv and dev.tsv of SST-2 belong together") from None
    if lines[0].split("\t")[:2] != ["sentence", "label"]:
        raise damaged(path, f"its first line is {lines[0][:40]!r}, not sentence and label")
    texts, labels = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        text, _, label = line.rpartition("\t")
        if label.strip() not in ("0", "1") or not text.split():
            raise damaged(path, f"line {number} is {line[:40]!r}, not a text, a tab, and 0 or 1")
        texts.append(text.lower().split())
        labels.append(int(label))
    if len(set(labels)) < 2:
        raise damaged(path, f"its {len(labels)} texts are not of two classes")
    return texts, labels


def vocabulary(texts: list[list[str]]) -> dict[str, int]:
    """Word -> its number from 2 on; the more frequent first, equally frequent ones in the order of the alphabet."""
    counts = Counter(word for text in texts for word in text)
    return {word: number for number, word in enumerate(sorted(counts, key=lambda w: (-counts[w], w)), 2)}


def numbered(texts: list[list[str]], words: dict[str, int], length: int) -> Tensor:
    """int32 (texts, length): each text's word numbers, 1 for words that are not in `words`, then zeros.

    ValueError for a text longer than that.
    """
    lengths = np.array([len(text) for text in texts])
    if lengths.max() > length:
        raise ValueError(f"a text has {lengths.max()} words: at most {length} are allowed")
    table = np.zeros((len(texts), length), dtype=np.int32)
    # row by row and from the left, as the words come
    table[np.arange(length) < lengths[:, None]] = [words.get(word, 1) for text in texts for word in text]
    return torch.from_numpy(table)


def _download(folder: Path) -> None:
    """GLUE's archive into `folder`/SST-2."""
    with urllib.request.urlopen(GLUE, timeout=60) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    for split in ("train", "dev"):
        target = folder / "SST-2" / f"{split}.tsv"
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(f"SST-2/{split}.tsv") as file, replacing(target) as temporary, open(temporary, "wb") as out:
            shutil.copyfileobj(file, out)
