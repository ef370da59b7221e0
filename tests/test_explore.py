import torch

from lib import catalog, explore, masks, models, pruners

SHAPE = (1, 8, 8)
BATCH = [(torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(8))]


PRUNERS = [name for name in catalog.PRUNERS if name not in ("dense", *catalog.TRAINED)]


def test_a_panel_shows_what_pruning_does_for_every_pruner():
    model = models.build("resnet8", SHAPE)
    view = explore.viewer(model, BATCH, SHAPE, seed=3)
    for pruner in PRUNERS:
        layers, histograms = view(pruner, 0.2)
        kept = pruners.prune(model, pruner, 0.2, BATCH, seed=3)
        assert layers == masks.layer_rows(model, kept, SHAPE)
        assert histograms == masks.histogram_rows(model, kept)


def test_a_panel_follows_what_takes_part():
    model, chosen = models.build("resnet8", SHAPE), {"also": ("biases", "norms"), "spare": ("last",)}
    view = explore.viewer(model, BATCH, SHAPE, 0, **chosen)
    for pruner in PRUNERS:
        layers, _ = view(pruner, 0.5)
        kept = pruners.prune(model, pruner, 0.5, BATCH, seed=0, **chosen)
        assert [row["kept"] for row in layers] == [int(mask.sum()) for mask in kept.values()]


def test_scores_are_computed_once_and_only_of_the_pruner_that_is_looked_at(monkeypatch):
    asked = []
    real = catalog.load
    monkeypatch.setattr(catalog, "load", lambda kind, name: asked.append(name) or real(kind, name))
    view = explore.viewer(models.build("resnet8", SHAPE), BATCH, SHAPE, 0)
    asked.clear()
    for density in (0.5, 0.1):
        view("mag", density)
    assert asked == ["mag"]
