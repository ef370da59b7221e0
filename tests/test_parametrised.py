"""torch.nn.utils.prune and our masks: the same weights removed, and back and forth without loss."""

import copy

import pytest
import torch
from test_train import tiny
from torch.nn.utils import prune

from lib import masks, models, parametrised, pruners, storage, train


def parameters(model):
    """What torch.nn.utils.prune calls the parameters that are prunable."""
    return [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in masks.prunable(model)]


@pytest.mark.parametrize("name", ["mlp-2x64", "resnet8"])
@pytest.mark.parametrize("steps", [1, 3])
def test_global_l1_pruning_removes_the_same_weights(name, steps):
    model = models.build(name, (1, 20, 20), 10, seed=3)
    theirs = parametrised.copied(model)
    kept = masks.full(model)
    for _ in range(steps):
        prune.global_unstructured(parameters(theirs), pruning_method=prune.L1Unstructured, amount=0.33)
        left = sum(int(mask.sum()) for mask in kept.values())
        scores = pruners.mag(model, [], masks=kept)
        kept = masks.keep_top(scores, keep=left - round(0.33 * left), within=kept)
    found = parametrised.from_torch(theirs)
    assert list(found) == list(kept)
    for name, mask in kept.items():
        assert torch.equal(found[name], mask), name


def test_there_and_back_changes_nothing():
    model = models.build("resnet8", (1, 16, 16), 10, seed=1)
    before = copy.deepcopy(model.state_dict())
    kept = pruners.prune(model, "rand", 0.3, [], seed=1)
    parametrised.to_torch_(model, kept)
    assert {name for name, _ in model.named_parameters() if name.endswith("_orig")} == {f"{name}_orig" for name in kept}
    for name in kept:
        assert torch.equal(model.get_parameter(f"{name}_orig"), before[name])
    back = parametrised.remove_(model)
    assert all(torch.equal(back[name], mask) for name, mask in kept.items())
    masks.apply_masks_(reference := models.build("resnet8", (1, 16, 16), 10, seed=1), kept)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert parametrised.from_torch(model) == {}


def test_a_network_in_their_form_computes_as_ours():
    model = models.build("resnet8", (1, 16, 16), 10, seed=1).eval()
    kept = pruners.prune(model, "rand", 0.3, [], seed=1)
    x = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = masks.masked_forward(model, kept)(x)
        parametrised.to_torch_(model, kept)
        assert torch.equal(model(x), ours)


def test_strange_masks_are_refused():
    model = models.build("mlp-1x8", (1, 4, 4), 10, seed=1)
    for name in ("nowhere.weight", "layers.9.weight", "layers.0.weights"):
        with pytest.raises(ValueError, match=f"mask {name} .*fits no parameter: one of layers.0.weight"):
            parametrised.to_torch_(model, {name: torch.ones(8, 16, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"\(3, 3\) fits no parameter"):
        parametrised.to_torch_(model, {"layers.0.weight": torch.ones(3, 3, dtype=torch.bool)})
    prune.custom_from_mask(model.layers[0], "weight", torch.full((8, 16), 0.5))
    with pytest.raises(ValueError, match=r"layers\.0\.weight_mask is not of zeros and ones"):
        parametrised.from_torch(model)


@pytest.mark.parametrize("name", ["mlp-2x16", "resnet8"])
def test_copies_and_files_work_before_between_and_after_three_rounds(name, tmp_path):
    """Of a network that is trained and pruned in turns, and of the same in torch's form."""
    data, model = tiny(augmented=False), models.build(name, (3, 8, 8), 10, seed=1)
    x, kept = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), masks.full(model)
    for stage in range(4):
        if stage:
            train.train(model, data, epochs=1, batch=20, masks=kept, seed=stage)
            kept = pruners.prune(model, "mag", 0.6**stage, [])
            masks.apply_masks_(model, kept)
        storage.save_weights(tmp_path / "weights.safetensors", model)
        storage.save_masks(tmp_path / "masks.safetensors", kept)
        read = models.build(name, (3, 8, 8), 10, seed=2)
        storage.load_weights(tmp_path / "weights.safetensors", read)
        loaded = storage.load_masks(tmp_path / "masks.safetensors", torch.device("cpu"))
        assert all(torch.equal(loaded[key], mask) for key, mask in kept.items())
        theirs = copy.deepcopy(model)
        parametrised.to_torch_(theirs, loaded)
        torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
        parametrised.to_torch_(again := models.build(name, (3, 8, 8), 10, seed=3), loaded)
        again.load_state_dict(torch.load(tmp_path / "theirs.pt", weights_only=True))
        with torch.no_grad():
            for one in (copy.deepcopy(model), read, theirs, again):
                assert torch.equal(one.eval()(x), model.eval()(x)), stage
        back = parametrised.remove_(again)
        assert all(torch.equal(back[key], mask) for key, mask in kept.items())
