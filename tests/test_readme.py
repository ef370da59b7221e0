"""The README's examples of a pruner, a model and a data set work as they stand there."""

import re
import sys
import types

import numpy as np
import pytest
import torch

from lib import catalog, flops, layer_tables, masks, models, paths, pruners, train
from lib import data as datasets

BLOCKS = re.findall(r"^```python\n(.*?)^```", (paths.ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
HERE = "lib.of_the_readme"


@pytest.fixture
def readme(monkeypatch):
    """The module that the README's functions make, each registered in the catalogue under its name."""
    module = types.ModuleType(HERE)
    module.prunable, module.draw = masks.prunable, _draw
    monkeypatch.setitem(sys.modules, HERE, module)
    for kind, table, name in (("def relative", "PRUNERS", "relative"), ("def lenet", "MODELS", "lenet")):
        exec(next(block for block in BLOCKS if kind in block), vars(module))
        monkeypatch.setitem(getattr(catalog, table), name, f"{HERE}:{name}")
    exec(next(block for block in BLOCKS if "def stripes" in block), vars(module))
    monkeypatch.setitem(catalog.DATA, "stripes", f"{HERE}:stripes")
    return module


def _draw():
    """What the README leaves to the reader: (N, 1, 16, 16) images of upright and lying stripes, and their labels."""
    labels = np.arange(120) % 2
    images = np.random.default_rng(0).integers(0, 60, (120, 1, 16, 16), dtype=np.uint8)
    images[labels == 0, :, ::4] += 150
    images[labels == 1, :, :, ::4] += 150
    return images[:80], labels[:80], images[80:], labels[80:]


@pytest.mark.parametrize("pruner", ["relative", *(p for p in catalog.PRUNERS if p not in catalog.TRAINED)])
def test_a_model_of_one_s_own_is_pruned_by_every_method(readme, pruner):
    data = datasets.load("stripes", seed=1)
    model = models.build("lenet", data.shape, data.classes, seed=1)
    density = 1 if pruner == "dense" else 0.3
    kept = pruners.prune(model, pruner, density, datasets.scoring_batches(data, seed=1), seed=1)
    rows = layer_tables.layer_rows(model, kept, data.shape)
    total = sum(row["weights"] for row in rows)
    assert total == sum(m.weight.numel() for m in model.modules() if hasattr(m, "weight"))
    assert sum(row["kept"] for row in rows) == total - int((1 - density) * total)
    assert flops.macs(model, data.shape, kept)["macs_kept"] == sum(row["macs_kept"] for row in rows)


def test_a_model_of_one_s_own_learns(readme):
    data = datasets.load("stripes", seed=1)
    model = models.build("lenet", data.shape, data.classes, seed=1)
    history = train.train(model, data, epochs=6, batch=16, seed=1)
    assert history[-1]["test_top1_pct"] > 90
    again = models.build("lenet", data.shape, data.classes, seed=1)
    assert not torch.equal(next(again.parameters()), next(model.parameters()))
