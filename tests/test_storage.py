from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import masks, models, pruners, storage


def test_weights_come_back_bit_for_bit(tmp_path):
    saved, loaded = models.build("resnet8", seed=1), models.build("resnet8", seed=2)
    saved.bn.running_mean.uniform_()
    storage.save_weights(tmp_path / "weights.safetensors", saved)
    storage.load_weights(tmp_path / "weights.safetensors", loaded)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert loaded.conv.weight.is_contiguous(memory_format=torch.channels_last), "the layout in memory stays"


def test_masks_come_back_in_order_at_one_bit_a_weight(tmp_path):
    model = models.build("resnet20")
    kept = pruners.prune(model, "rand", 0.1, [])
    storage.save_masks(tmp_path / "masks.safetensors", kept)
    found = storage.load_masks(tmp_path / "masks.safetensors")
    assert list(found) == list(kept)
    assert all(torch.equal(found[name], kept[name]) and found[name].dtype == torch.bool for name in kept)
    assert (tmp_path / "masks.safetensors").stat().st_size < 270_896 / 8 + 6000


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_masks_of_any_shape(tmp_path_factory, shape, seed):
    path = tmp_path_factory.mktemp("masks") / "masks.safetensors"
    kept = {"a.weight": torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5}
    storage.save_masks(path, kept)
    assert torch.equal(storage.load_masks(path)["a.weight"], kept["a.weight"])


def test_a_run_comes_back_as_a_pruned_network(tmp_path):
    model = models.build("fc", (1, 8, 8))
    kept = pruners.prune(model, "mag", 0.5, [])
    masks.apply_masks_(model, kept)
    storage.save_weights(tmp_path / "weights.safetensors", model)
    storage.save_masks(tmp_path / "masks.safetensors", kept)
    loaded, found = storage.load_pruned(tmp_path, models.build("fc", (1, 8, 8), seed=9))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_masks_of_biases_and_norms_come_back_without_those_of_spared_layers(tmp_path):
    model = models.build("vgg11-bn")
    kept = pruners.prune(model, "rand", 0.3, [], also=masks.ALSO, spare=masks.SPARE)
    masks.apply_masks_(model, kept)
    storage.save_weights(tmp_path / "weights.safetensors", model)
    storage.save_masks(tmp_path / "masks.safetensors", kept)
    loaded, found = storage.load_pruned(tmp_path, models.build("vgg11-bn", seed=9))
    assert list(found) == list(kept)
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    masks.apply_masks_(loaded, found)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_nothing_but_the_file_is_left_behind(tmp_path):
    storage.save_weights(tmp_path / "weights.safetensors", models.build("resnet8"))
    storage.save_weights(tmp_path / "weights.safetensors", models.build("resnet8", seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "masks.safetensors"
    storage.save_masks(path, {"a.weight": torch.ones(3, dtype=torch.bool)})
    before = path.read_bytes()

    def full_disk(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(storage, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        storage.save_masks(path, {"a.weight": torch.zeros(3, dtype=torch.bool)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["masks.safetensors"]


def test_missing_damaged_and_other_files_are_named(tmp_path):
    model, path = models.build("resnet8"), tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no file .*weights.safetensors"):
        storage.load_weights(path, model)
    storage.save_weights(path, model)
    with pytest.raises(ValueError, match=r"of another network: conv.weight is \(16, 3, 3, 3\) there, \(16, 1, 3, 3\)"):
        storage.load_weights(path, models.build("resnet8", (1, 28, 28)))
    with pytest.raises(ValueError, match=r"blocks.1.conv1.weight is .* there"):
        storage.load_weights(path, models.build("resnet14"))
    with pytest.raises(ValueError, match="holds no masks"):
        storage.load_masks(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged \(.*\)") as caught:
        storage.load_weights(path, model)
    assert "\n" not in str(caught.value)


def test_a_mask_with_too_few_bits_is_refused(tmp_path):
    path = tmp_path / "masks.safetensors"
    storage._write(path, {"a.weight": torch.zeros(1, dtype=torch.uint8)}, {"shapes": '{"a.weight": [3, 3]}'})
    with pytest.raises(ValueError, match=r"1 bytes for a mask of shape \[3, 3\]"):
        storage.load_masks(path)
