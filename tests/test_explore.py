import torch

from lib import catalog, explore, masks, models, pruners

SHAPE = (1, 8, 8)
BATCH = [(torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(8))]


def test_a_panel_shows_what_pruning_does_for_every_pruner():
    model = models.build("resnet8", SHAPE)
    scored = explore.scores(model, BATCH, seed=3)
    assert set(scored) == set(catalog.PRUNERS) - {"dense"}
    for pruner in scored:
        layers, histograms = explore.view(model, scored, SHAPE, pruner, 0.2)
        kept = pruners.prune(model, pruner, 0.2, BATCH, seed=3)
        assert layers == masks.layer_rows(model, kept, SHAPE)
        assert histograms == masks.histogram_rows(model, kept)


def test_a_panel_follows_what_takes_part():
    model, chosen = models.build("resnet8", SHAPE), {"also": ("biases", "norms"), "spare": ("last",)}
    scored = explore.scores(model, BATCH, 0, **chosen)
    names = list(masks.prunable(model, **chosen))
    for pruner in scored:
        assert list(scored[pruner]) == names
        layers, _ = explore.view(model, scored, SHAPE, pruner, 0.5)
        kept = pruners.prune(model, pruner, 0.5, BATCH, seed=0, **chosen)
        assert [row["kept"] for row in layers] == [int(mask.sum()) for mask in kept.values()]
