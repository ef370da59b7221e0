import pytest
import torch
from torch import nn

from lib import masks, models

SHAPE = (3, 32, 32)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))


def magnitudes(model: nn.Module) -> masks.Scores:
    return {name: weight.detach().abs() for name, weight in masks.prunable(model).items()}


def total(kept: masks.Masks) -> int:
    return sum(int(mask.sum()) for mask in kept.values())


def flat(tensors: dict) -> list:
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()]).tolist()


def test_only_convolution_and_linear_weights_are_prunable():
    assert list(masks.prunable(small_net())) == ["0.weight", "4.weight"]


def test_biases_and_norms_may_be_added():
    model = small_net()
    assert list(masks.prunable(model, also=["biases"])) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert list(masks.prunable(model, also=["norms"])) == ["0.weight", "1.weight", "1.bias", "4.weight"]
    everything = masks.prunable(model, also=("norms", "biases"))
    assert list(everything) == [name for name, _ in model.named_parameters()]
    assert all(everything[name] is parameter for name, parameter in model.named_parameters())
    without = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3, affine=False), nn.Flatten())
    assert list(masks.prunable(without, masks.ALSO)) == ["0.weight"]


@pytest.mark.parametrize(("name", "shortcuts"), [("resnet20", 2), ("resnet50", 4), ("vgg16", 0), ("fc", 0)])
def test_shortcuts_and_the_classifier_may_be_spared(name, shortcuts):
    model = models.build(name)
    weights = list(masks.prunable(model))
    spared = [name for name in weights if name not in masks.prunable(model, spare=["shortcuts"])]
    assert len(spared) == shortcuts
    assert all(model.get_parameter(name).shape[2:] == (1, 1) for name in spared)
    assert list(masks.prunable(model, spare=["last"])) == weights[:-1]
    assert model.get_parameter(weights[-1]).shape[0] == 10
    dense = set(masks.prunable(model, masks.ALSO)) - set(masks.prunable(model, masks.ALSO, masks.SPARE))
    of_norms = {f"{name[:-8]}1.{part}" for name in spared for part in ("weight", "bias")}  # shortcut.0 and shortcut.1
    assert dense == {*spared, *of_norms, weights[-1], weights[-1].replace("weight", "bias")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"also": ["bias"]}, r"also is \['bias'\]: a list of some of biases, norms, embeddings is allowed"),
        ({"also": "biases"}, "also is 'biases': a list of some of biases, norms, embeddings is allowed, or an empty"),
        ({"spare": ["last", "first"]}, r"spare is \['last', 'first'\]: a list of some of shortcuts, last is allowed"),
    ],
)
def test_unknown_words_are_named_in_one_line(words, message):
    with pytest.raises(ValueError, match=message) as caught:
        masks.full(small_net(), **words)
    assert "\n" not in str(caught.value)


def test_applying_masks_zeroes_exactly_the_removed_weights():
    model = models.build("resnet8")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kept = masks.keep_top(magnitudes(model), 0.3)
    masks.apply_masks_(model, kept)
    after = model.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value * kept[name] if name in kept else value)
    assert masks.density_of(kept) == pytest.approx(0.3, abs=1e-4)
    assert masks.density_of(masks.full(model)) == 1


def test_no_masks_remove_nothing():
    model = models.build("resnet8").eval()
    before, x = {key: value.clone() for key, value in model.state_dict().items()}, torch.randn(2, *SHAPE)
    masks.apply_masks_(model, {})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(masks.masked_forward(model, {})(x), model(x))
    assert masks.collapsed(model, {}, SHAPE) == {"layers": [], "connected": True}


def test_masks_that_do_not_fit_are_refused():
    model = small_net()
    with pytest.raises(ValueError, match=r"mask 1.running_mean is .* one of 0.weight, 0.bias, 1.weight, 1.bias, 4.wei"):
        masks.apply_masks_(model, {"1.running_mean": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"mask 4.weight is \(4, 4\)"):
        masks.apply_masks_(model, {"4.weight": torch.ones(4, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match="torch.float32"):
        masks.apply_masks_(model, {"4.weight": torch.ones(4, 48)})


@pytest.mark.parametrize("also", [(), ("biases",), ("norms",), ("biases", "norms")])
@pytest.mark.parametrize("spare", [(), ("shortcuts", "last")])
def test_masked_forward_equals_permanent_masks_and_leaves_the_weights_dense(also, spare):
    model = models.build("resnet8").eval()
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # biases and shifts are zero at first
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    whole = masks.full(model, also, spare)
    kept = masks.keep_top({name: torch.rand(mask.shape, generator=draw) for name, mask in whole.items()}, 0.2)
    assert total(kept) == masks.kept_count(total(whole), 0.2)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        forward = masks.masked_forward(model, kept)
        masked = forward(x)
        assert not torch.equal(masked, model(x))
        masks.apply_masks_(model, kept)
        assert torch.equal(masked, model(x))


def test_nothing_has_collapsed_in_a_dense_network():
    for name in ("fc", "resnet20"):
        model = models.build(name, SHAPE)
        assert masks.collapsed(model, masks.full(model), SHAPE) == {"layers": [], "connected": True}


def test_an_empty_layer_cuts_a_chain_but_not_a_shortcut():
    chain, residual = models.build("fc", SHAPE), models.build("resnet8")
    cut = masks.full(chain)
    cut["layers.2.weight"][:] = False
    assert masks.collapsed(chain, cut, SHAPE) == {"layers": ["layers.2"], "connected": False}
    bridged = masks.full(residual)
    bridged["blocks.1.conv2.weight"][:] = False
    assert masks.collapsed(residual, bridged, SHAPE) == {"layers": ["blocks.1.conv2"], "connected": True}
    bridged["blocks.1.shortcut.0.weight"][:] = False
    assert masks.collapsed(residual, bridged, SHAPE)["connected"] is False


def test_a_chain_can_be_cut_without_an_empty_layer():
    model = models.build("fc", SHAPE)
    kept = masks.full(model)
    kept["layers.1.weight"][50:] = False  # only units 0 to 49 get input
    kept["layers.2.weight"][:, :50] = False  # and only 50 to 99 are listened to
    assert masks.collapsed(model, kept, SHAPE) == {"layers": [], "connected": False}


def test_layers_without_a_mask_are_dense_when_paths_are_sought():
    model = models.build("resnet110")
    kept = {name: torch.zeros_like(mask) for name, mask in masks.full(model).items() if ".conv1." in name}
    found = masks.collapsed(model, kept, SHAPE)
    assert found == {"layers": [name.removesuffix(".weight") for name in kept], "connected": True}
    kept["blocks.18.shortcut.0.weight"] = torch.zeros(32, 16, 1, 1, dtype=torch.bool)
    assert masks.collapsed(model, kept, SHAPE)["connected"] is False
    kept["blocks.18.conv1.weight"][:] = True
    assert masks.collapsed(model, kept, SHAPE)["connected"] is True


def test_a_removed_scale_cuts_its_channel_and_a_removed_bias_nothing():
    model, shape = small_net(), (2, 4, 4)
    kept = masks.full(model, masks.ALSO)
    for name in ("0.bias", "1.bias", "4.bias"):
        kept[name][:] = False
    kept["1.weight"][:2] = False
    assert masks.collapsed(model, kept, shape) == {"layers": [], "connected": True}
    kept["4.weight"][:, 32:] = False  # what the only channel left would have reached
    assert masks.collapsed(model, kept, shape) == {"layers": [], "connected": False}
    kept["1.weight"][:] = False
    assert masks.collapsed(model, kept, shape) == {"layers": ["1"], "connected": False}


def test_one_weight_a_layer_of_the_deepest_network_is_still_a_path():
    model = models.build("resnet110")
    kept = {name: torch.zeros_like(mask) for name, mask in masks.full(model).items()}
    for mask in kept.values():
        mask[0, 0] = True
    assert masks.collapsed(model, kept, SHAPE) == {"layers": [], "connected": True}


def test_looking_for_a_collapse_leaves_the_model_alone():
    model = models.build("resnet8").train()
    model.bn.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    masks.collapsed(model, masks.full(model), SHAPE)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert not model.bn.training


def test_masks_from_elsewhere_must_keep_what_is_said():
    kept = {"a": torch.tensor([True, False, False, False]), "b": torch.tensor([True, False, False, False])}
    masks.check_kept(kept, 0.25)
    masks.check_kept(kept, 0.2501)
    with pytest.raises(ValueError, match=r"density is 0.3 and the masks keep 0.25"):
        masks.check_kept(kept, 0.3)
