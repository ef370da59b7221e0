"""Every form on disk gives the network back, and weighs what its layout says."""

import pytest
import torch

from lib import formats, masks, models, pruners

SHAPE = (1, 20, 20)


def pruned(name: str, density: float):
    model = models.build(name, SHAPE, 10, seed=1)
    kept = pruners.prune(model, "mag", density, [], seed=1)
    masks.apply_masks_(model, kept)
    return model, kept


def values(kept) -> tuple[int, int]:
    """(weights, kept weights) of what is pruned."""
    return sum(m.numel() for m in kept.values()), sum(int(m.sum()) for m in kept.values())


@pytest.mark.parametrize("form", formats.FORMS)
@pytest.mark.parametrize("end", ["safetensors", "safetensors.zst"])
@pytest.mark.parametrize(("name", "density"), [("mlp-1x16", 0.3), ("resnet8", 0.05), ("resnet8", 1.0)])
def test_a_fresh_network_gives_the_same_logits(tmp_path, form, end, name, density):
    model, kept = pruned(name, density)
    path = tmp_path / f"model.{end}"
    size = formats.save_as(form, path, model, kept)
    assert size == path.stat().st_size
    fresh = models.build(name, SHAPE, 10, seed=2)
    formats.load_from(path, fresh)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), model.eval()(x))
    for key, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], tensor), key


def test_removed_weights_are_not_stored_whatever_they_are(tmp_path):
    model = models.build("mlp-1x16", SHAPE, 10, seed=1)
    kept = pruners.prune(model, "mag", 0.3, [], seed=1)
    for form in formats.FORMS:
        formats.save_as(form, tmp_path / form, model, kept)
        fresh = models.build("mlp-1x16", SHAPE, 10, seed=2)
        formats.load_from(tmp_path / form, fresh)
        for name, mask in kept.items():
            assert not fresh.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_sizes_are_those_of_the_layout(tmp_path, density):
    model, kept = pruned("mlp-1x256", density)
    rest = sum(t.numel() for name, t in model.state_dict().items() if name not in kept) * 4
    weights, left = values(kept)
    rows = sum(len(m) for m in kept.values())
    wanted = {
        "dense": 4 * weights, "masked": 8 * weights, "coo": (2 * 8 + 4) * left, "csr": 12 * left + 8 * (rows + 2),
        "bitmask": weights / 8 + 4 * left,
    }  # fmt: skip
    for form, size in wanted.items():
        found = formats.save_as(form, tmp_path / form, model, kept)
        assert found == pytest.approx(size + rest, abs=1500), form  # the header, and bits to the byte


@pytest.mark.parametrize(("name", "even"), [("mlp-1x256", 0.2), ("conv", 1 / 9)])
def test_coo_pays_from_four_fifths_for_matrices_and_eight_ninths_for_convolutions(tmp_path, name, even):
    for density, smaller in ((0.97 * even, True), (1.03 * even, False)):
        model, kept = pruned(name, density)
        if name == "conv":  # the convolutions alone: its linear layer is a matrix
            kept = {key: pruners.prune(model, "mag", density, [], scope="layer")[key] for key in list(kept)[:2]}
        sizes = {form: formats.save_as(form, tmp_path / form, model, kept) for form in ("dense", "coo")}
        assert (sizes["coo"] < sizes["dense"]) == smaller


def test_compression_pays_for_zeros(tmp_path):
    model, kept = pruned("mlp-1x256", 0.1)
    plain = formats.save_as("dense", tmp_path / "a", model, kept)
    packed = formats.save_as("dense", tmp_path / "a.zst", model, kept)
    assert packed < 0.25 * plain


@pytest.mark.parametrize("form", formats.FORMS)
def test_damaged_and_strange_files_are_named(tmp_path, form):
    model, kept = pruned("mlp-1x16", 0.3)
    path = tmp_path / "model.safetensors"
    formats.save_as(form, path, model, kept)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-4], b"x" * 300):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors holds no network"):
            formats.load_from(path, model)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"of another network: layers\.0\."):
        formats.load_from(path, models.build("mlp-1x17", SHAPE, 10))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        formats.load_from(tmp_path / "nowhere", model)
    with pytest.raises(ValueError, match="unknown form 'zip': one of dense, masked, coo, csr, bitmask"):
        formats.save_as("zip", path, model, kept)
    with pytest.raises(ValueError, match="mask layers fits no parameter"):
        formats.save_as(form, path, model, {"layers": torch.ones(2, dtype=torch.bool)})


def test_the_same_contents_give_the_same_bytes(tmp_path):
    tensors, header = {"a": torch.ones(2), "b": torch.zeros(3)}, {name: [name] for name in "zyxwv"}
    path, found = tmp_path / "f.safetensors.zst", set()
    for _ in range(20):
        formats.write(path, tensors, header)
        found.add(path.read_bytes())
    assert len(found) == 1
    assert formats.read(path)[1] == header
