import pytest
import torch

from lib import catalog, masks, models
from lib.models.resnet import ResNet


@pytest.mark.parametrize("name", catalog.MODELS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_model_maps_images_of_any_shape_to_logits(name, shape):
    if name == "resnet110" and shape[0] == 1:
        pytest.skip("one shape is enough for the deepest network")
    model = models.build(name, shape, classes=7).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "prunable"),
    [
        ("resnet20", (3, 32, 32), 272_474, 270_896),
        ("fc", (1, 28, 28), 119_910, 119_400),
        ("fc", (3, 32, 32), 348_710, 348_200),
    ],
)
def test_sizes_are_those_of_the_papers_code(name, shape, parameters, prunable):
    model = models.build(name, shape)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(w.numel() for w in masks.prunable(model).values()) == prunable


def test_parameter_names_are_those_of_the_papers_code():
    names = set(dict(models.build("resnet20").named_parameters()))
    assert {"conv.weight", "bn.weight", "blocks.0.conv1.weight", "blocks.3.shortcut.0.weight", "fc.bias"} <= names
    assert not any(name.startswith("blocks.0.shortcut") for name in names), "identity shortcuts carry no weights"
    assert "layers.5.weight" in dict(models.build("fc", (1, 28, 28)).named_parameters())


def test_resnet20_has_twenty_weighted_layers_and_two_shortcuts():
    assert len(masks.prunable(models.build("resnet20"))) == 20 + 2


@pytest.mark.parametrize("name", ["fc", "resnet8"])
def test_only_the_seed_decides_the_weights(name):
    torch.manual_seed(1)
    first = models.build(name, seed=3).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = models.build(name, seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state()), "torch's own generator is not touched"
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = models.build(name, seed=4).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_resnet_weights_are_kaiming_normal():
    weight = models.build("resnet20").blocks[8].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_unknown_model_and_impossible_depth():
    with pytest.raises(ValueError, match="unknown model 'resnet21': one of fc, resnet8"):
        models.build("resnet21")
    with pytest.raises(ValueError, match="depth of a CIFAR ResNet is 21"):
        ResNet(21, channels=3, classes=10)


@pytest.mark.parametrize("name", ["fc", "resnet8"])
def test_a_last_batch_of_one_image_can_be_trained_on(name):
    model = models.build(name, (1, 28, 28)).train()
    model(torch.randn(1, 1, 28, 28)).sum().backward()
