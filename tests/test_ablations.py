import pytest
import torch

from lib import ablations, masks, models, pruners

SHAPE = (1, 8, 8)


def test_shuffling_keeps_the_counts_and_nothing_else():
    model = models.build("resnet8", SHAPE)
    kept = pruners.prune(model, "mag", 0.3, [], also=("norms",))
    before = {name: mask.clone() for name, mask in kept.items()}
    shuffled = ablations.shuffled(kept, seed=1)
    assert list(shuffled) == list(kept)
    for name, mask in shuffled.items():
        assert torch.equal(kept[name], before[name])
        assert mask.shape == kept[name].shape
        assert mask.count_nonzero() == kept[name].count_nonzero()
    name = "blocks.2.conv2.weight"
    overlap = (shuffled[name] & kept[name]).sum() / kept[name].sum()
    density = kept[name].float().mean()
    assert abs(overlap - density) < 5 * (density * (1 - density) / kept[name].sum()) ** 0.5, "chance decides"
    masks.apply_masks_(model, shuffled)


def test_the_seed_decides_the_order():
    kept = pruners.prune(models.build("fc", SHAPE), "rand", 0.3, [])
    first, again, other = (ablations.shuffled(kept, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in kept)
    assert not any(torch.equal(first[name], other[name]) for name in kept)


def test_every_place_is_as_likely_as_any_other():
    mask = {"a.weight": torch.tensor([[True, False], [False, False]])}
    found = sum(ablations.shuffled(mask, seed)["a.weight"].int() for seed in range(400))
    assert found.sum() == 400
    assert ((found - 100).abs() < 45).all()  # five standard deviations of 8.7


def test_redrawn_weights_are_initial_ones_of_no_other_seed():
    network, trained = models.build("resnet8", SHAPE, seed=1), models.build("resnet8", SHAPE, seed=1)
    parameters = list(trained.parameters())
    with torch.no_grad():
        trained.conv.weight.fill_(7)
        trained.bn.running_mean.fill_(3)
    ablations.redraw_(trained, "resnet8", SHAPE, 10, seed=1)
    assert all(a is b for a, b in zip(parameters, trained.parameters(), strict=True))
    assert not trained.bn.running_mean.any()
    assert trained.conv.weight.std().item() == pytest.approx(network.conv.weight.std().item(), rel=0.3)
    for other in range(3):
        assert not torch.equal(models.build("resnet8", SHAPE, seed=other).conv.weight, trained.conv.weight)
    again = models.build("resnet8", SHAPE, seed=5)
    ablations.redraw_(again, "resnet8", SHAPE, 10, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), trained.parameters(), strict=True))


def test_a_network_of_another_kind_is_not_redrawn():
    with pytest.raises(ValueError, match=r"weights of fc for \(1, 8, 8\) and 10 classes do not fit"):
        ablations.redraw_(models.build("fc", (1, 4, 4)), "fc", SHAPE, 10, seed=1)
