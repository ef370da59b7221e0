"""Networks for texts: embeddings take part, or do not; what is collapsed; scores that need images."""

import pytest
import torch

from lib import data as datasets
from lib import flops, masks, models, multishot, parameters, pruners, storage

SHAPE = (6, 40)


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    """Texts of one to six words, whose class is that of their most telling word."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(2, 40, (60, 6), generator=draw)
    x[torch.arange(6) > torch.randint(0, 6, (60, 1), generator=draw)] = 0
    y = (x.max(1).values > 30).long()
    y[:2] = torch.tensor([0, 1])
    return datasets.assemble_texts("t", x[:40], y[:40], x[40:], y[40:], words=40, classes=2, source="Drawn.")


def network(name="mlp-3x256", seed=0):
    return models.build(name, SHAPE, 2, seed=seed)


def scoring(data) -> list:
    return [(datasets.normalise(data, data.train_x), data.train_y)]


@pytest.mark.parametrize("name", ["mlp-3x256", "transformer"])
def test_embeddings_take_part_when_asked_for(name):
    model = network(name)
    assert "embedding.weight" not in masks.prunable(model)
    assert "embedding.weight" not in masks.prunable(model, ["biases", "norms"])
    found = masks.prunable(model, ["embeddings"])
    assert list(found) == ["embedding.weight", *masks.prunable(model)]
    assert found["embedding.weight"] is model.embedding.weight
    assert list(masks.prunable(models.build("fc"), ["embeddings"])) == list(masks.prunable(models.build("fc")))


@pytest.mark.parametrize("pruner", ["rand", "mag", "lamp", "erk", "snip", "grasp", "obd", "woodfisher", "wanda"])
@pytest.mark.parametrize("name", ["mlp-3x256", "transformer"])
def test_every_score_of_texts(data, name, pruner):
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for also in ([], ["embeddings"]):
        kept = pruners.prune(model, pruner, 0.3, scoring(data), also=also)
        weights = sum(w.numel() for w in masks.prunable(model, also).values())
        assert sum(int(mask.sum()) for mask in kept.values()) == masks.kept_count(weights, 0.3)
        assert ("embedding.weight" in kept) == bool(also)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_words_that_never_occur_have_no_score(data):
    """Their gradients are zero, and so is their count."""
    unseen = [n for n in range(1, 40) if not (data.train_x == n).any()]
    assert unseen
    for pruner in ("snip", "obd", "wanda"):
        kept = masks.full(network(), ["embeddings"])
        score = getattr(pruners, pruner)(network(), scoring(data), masks=kept)["embedding.weight"]
        assert [n for n in range(1, 40) if not score[n - 1].any()] == unseen


def test_synflow_refuses_texts_in_one_line(data):
    with pytest.raises(ValueError, match="^pruner synflow with texts, .*: images are allowed$"):
        pruners.prune(network(), "synflow", 0.3, scoring(data))
    for given in ({}, {"also": ["embeddings"]}):
        with pytest.raises(ValueError, match="pruner synflow with data sst2: .*images are allowed"):
            parameters.resolve("accuracy", {"pruner": "synflow", "data": "sst2", "model": "mlp-3x256"} | given)
    assert parameters.resolve("accuracy", {"also": ["embeddings"]})["also"] == ["embeddings"]


@pytest.mark.parametrize("pruner", ["mag", "movement"])
def test_levels_of_texts_with_their_embeddings(data, pruner, tmp_path):
    model = network("mlp-2x8")
    found = multishot.multishot(
        *(model, data, pruner, 0.2, scoring(data)), levels=2, epochs=1, also=["embeddings"], batch=8, seed=1
    )
    assert [row["connected"] for row in found["levels"]][0]
    rows = masks.layer_rows(model, found["masks"], SHAPE)
    assert [(row["layer"], row["kind"]) for row in rows][:2] == [("embedding", "embedding"), ("layers.0", "linear")]
    assert rows[0]["weights"] == 39 * 8
    assert rows[0]["macs_dense"] == 0
    assert sum(row["macs_kept"] for row in rows) == flops.macs(model, SHAPE, found["masks"])["macs_kept"]
    assert not model.embedding.weight[~found["masks"]["embedding.weight"]].any()
    storage.save_masks(tmp_path / "masks.safetensors", found["masks"])
    back = storage.load_masks(tmp_path / "masks.safetensors", torch.device("cpu"))
    assert all(torch.equal(back[name], mask) for name, mask in found["masks"].items())


@pytest.mark.parametrize("name", ["mlp-3x256", "transformer"])
def test_a_collapse_of_texts(name):
    model = network(name)
    kept = masks.full(model, ["embeddings"])
    assert masks.collapsed(model, kept, SHAPE) == {"layers": [], "connected": True}
    kept["embedding.weight"][:] = False
    assert masks.collapsed(model, kept, SHAPE) == {"layers": ["embedding"], "connected": False}
    kept["embedding.weight"][17, 5] = True  # one number of one word
    assert masks.collapsed(model, kept, SHAPE)["connected"] is True
    last = list(kept)[-1]
    kept[last][:, :] = False
    assert masks.collapsed(model, kept, SHAPE)["connected"] is False
    assert not any(module._forward_hooks for module in model.modules())


def test_a_collapse_of_texts_between_layers():
    model = network("mlp-2x8")
    kept = masks.full(model, ["embeddings"])
    kept["embedding.weight"][:, 4:] = False
    kept["layers.0.weight"][:, :4] = False
    assert masks.collapsed(model, kept, SHAPE) == {"layers": [], "connected": False}
    del kept["embedding.weight"]  # dense then
    assert masks.collapsed(model, kept, SHAPE)["connected"] is True


def test_attention_without_queries_still_passes_values_on():
    model = network("transformer")
    kept = masks.full(model)
    for block in range(2):
        for layer in ("attention.query", "attention.key", "wide"):
            kept[f"blocks.{block}.{layer}.weight"][:] = False
    assert masks.collapsed(model, kept, SHAPE)["connected"] is True
