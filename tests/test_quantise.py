"""8-bit weights and activations, beside torch's own rounding, whole-number arithmetic, and files of int8."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_train import tiny
from torch import nn

from lib import formats, formats_int8, masks, models, pruners, quantise, train
from lib.data import normalise

TEXTS = (7, 30)
CASES = {"mlp-2x16": (3, 8, 8), "resnet8": (3, 8, 8), "mlp-1x16": TEXTS, "transformer": TEXTS}
cases = pytest.mark.parametrize(("name", "shape"), CASES.items(), ids=lambda value: str(value))


def inputs(shape, images: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    if len(shape) == 2:
        return torch.randint(0, shape[1], (images, shape[0]), generator=draw).sort(1, descending=True).values
    return torch.randn(images, *shape, generator=draw)


def pruned(name: str, shape, density: float = 0.3, seed: int = 1):
    model = models.build(name, shape, 10, seed=seed).eval()
    kept = pruners.prune(model, "mag", density, [], seed=1)
    masks.apply_masks_(model, kept)
    return model, kept


def batches(shape, images: int = 20):
    return [(inputs(shape, images, seed), torch.zeros(images)) for seed in (1, 2)]


def random_weight(*shape) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=draw) * torch.rand(shape[0], *[1] * (len(shape) - 1), generator=draw)


# Weights


@pytest.mark.parametrize("shape", [(40, 300), (20, 8, 3, 3)])
def test_weights_and_gradients_are_those_of_torch(shape):
    weight = random_weight(*shape)
    ours, theirs = (weight.clone().requires_grad_() for _ in range(2))
    zero = torch.zeros(shape[0], dtype=torch.int32)
    found = quantise.rounded(ours)
    wanted = torch.fake_quantize_per_channel_affine(theirs, quantise.scales(weight), zero, 0, -127, 127)
    assert torch.equal(found, wanted)
    pull = torch.randn(shape)
    for value in (found, wanted):
        value.backward(pull)
    assert torch.equal(ours.grad, theirs.grad)


def test_scales_are_those_of_torch_up_to_their_bits():
    weight = random_weight(500, 20)
    observer = torch.ao.quantization.PerChannelMinMaxObserver(
        ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127
    )
    observer(weight)
    wanted, _ = observer.calculate_qparams()
    ratio = quantise.scales(weight) / wanted
    assert ratio.min() > 1 - 1e-6  # rounded up: the largest weight is not clipped
    assert ratio.max() < 1 + 2**-14


def test_rounding_is_to_the_nearest_of_255_values_and_idempotent_bit_for_bit():
    weight = random_weight(20_000, 5)
    once, scale = quantise.rounded(weight), quantise.scales(weight)
    assert ((once - weight).abs() <= 0.5 * scale[:, None] * (1 + 1e-5)).all()
    assert torch.equal(quantise.rounded(once), once)
    assert torch.equal(quantise.scales(once), scale)
    values, same = quantise.integers(weight)
    assert (values.dtype, values.abs().amax(1).unique().tolist()) == (torch.int8, [127])
    assert torch.equal(values * same[:, None], once)


def test_zero_stays_zero_also_a_channel_of_it():
    weight = random_weight(6, 50)
    weight[2], weight[:, ::2] = 0, 0
    found = quantise.rounded(weight)
    assert found.isfinite().all()
    assert not found[2].any()
    assert not found[:, ::2].any()
    assert found[0].any()
    values, _ = quantise.integers(weight)
    assert not values[2].any()


# Activations


@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-1.5, 2.5), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_activations_are_those_of_torch(low, high):
    x = torch.linspace(-4, 4, 10_001)
    x[5000] = 0  # not to rounding only
    least, most = min(low, 0), max(high, 0)
    scale = torch.tensor(max((most - least) / 255, quantise.SMALLEST))
    zero = torch.tensor(round(-least / scale.item()), dtype=torch.int32)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    found = quantise.Inputs(low, high).eval()(ours)
    wanted = torch.fake_quantize_per_tensor_affine(theirs, scale, zero, 0, 255)
    assert torch.equal(found, wanted)
    assert len(found.unique()) <= 256
    assert found[5000] == 0
    for value in (found, wanted):
        value.sum().backward()
    step = scale.item()
    clear = torch.stack([(x - edge).abs() > step for edge in (least, most)]).all(
        0
    )  # at the very edge torch rounds first
    assert torch.equal(ours.grad[clear], theirs.grad[clear])
    assert ours.grad[clear].unique().tolist() == ([0.0, 1.0] if most > least else [0.0])


def test_ranges_follow_the_batches_in_training_only():
    layer, x = quantise.Inputs(-1.0, 2.0), torch.tensor([-3.0, 0.5, 12.0])
    layer.eval()(x)
    assert (layer.low, layer.high) == (-1, 2)
    layer.train()(x)
    assert (layer.low.item(), layer.high.item()) == (pytest.approx(-1.2), pytest.approx(3.0))


def test_calibration_sees_what_enters_every_layer():
    shape = CASES["mlp-2x16"]
    model = models.build("mlp-2x16", shape, 10, seed=1)
    found = quantise.ranges_of(model, batches(shape))
    seen = torch.cat([x for x, _ in batches(shape)]).flatten(1)
    for name, layer in zip(("layers.0", "layers.1", "layers.2"), model.layers, strict=True):
        least, most = seen.min().item(), seen.max().item()
        assert found[name] == (pytest.approx(min(least, 0), rel=1e-6), pytest.approx(most, rel=1e-6))
        seen = torch.relu(layer(seen).detach())
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no batches to calibrate with: at least one"):
        quantise.ranges_of(model, [])


def test_calibration_images_are_balanced():
    data = tiny(classes=4)
    ((x, labels),) = quantise.calibration_batches(data, 10, seed=3)
    assert labels.bincount().tolist() == [3, 3, 2, 2]
    known = {tuple(image.flatten().tolist()) for image in normalise(data, data.train_x)}
    assert {tuple(image.flatten().tolist()) for image in x} <= known
    with pytest.raises(ValueError, match="3 images to calibrate with: at least one of each of 4 classes"):
        quantise.calibration_batches(data, 3, seed=3)


# Networks


def test_a_layer_is_what_integers_compute():
    """Equation 7 of Jacob et al. 2018: the sum of whole numbers, scaled once."""
    layer = nn.Linear(30, 7)
    x = torch.randn(5, 30)
    made = quantise.quantised(nn.Sequential(layer), {"0": (-1.25, 2.0)}).eval()
    scale_x, zero = 3.25 / 255, round(1.25 / (3.25 / 255))
    whole_x = (x / scale_x).round().add(zero).clamp(0, 255).long()
    whole_w, scale_w = quantise.integers(layer.weight)
    sums = (whole_x - zero) @ whole_w.long().T
    wanted = sums * scale_x * scale_w.double() + layer.bias
    assert torch.allclose(made(x).double(), wanted.double(), atol=1e-5)


@cases
def test_a_quantised_copy_leaves_the_model_and_keeps_its_names(name, shape):
    model, kept = pruned(name, shape)
    before = copy.deepcopy(model.state_dict())
    x = inputs(shape, 5)
    logits = model(x)
    made = quantise.calibrated(model, batches(shape))
    assert not made.training
    assert dict(made.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert masks.prunable(made).keys() == kept.keys()
    assert torch.equal(model(x), logits)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not torch.equal(made(x), logits)
    assert torch.allclose(made(x), logits, atol=0.05 * logits.abs().max().item() + 0.02)
    weights = quantise.quantised(model)
    assert torch.equal(quantise.plain(made)(x), weights(x))  # the same weights, of ordinary layers
    assert torch.equal(quantise.quantised(quantise.plain(made))(x), weights(x))
    assert type(quantise.plain(made)) is type(model)
    assert quantise.plain(made).state_dict().keys() == model.state_dict().keys()


def test_the_gradient_is_that_at_the_rounded_weights():
    shape = CASES["mlp-2x16"]
    model, _ = pruned("mlp-2x16", shape)
    made, x, labels = quantise.quantised(model), inputs(shape, 8), torch.arange(8)
    at = quantise.plain(made)
    for network in (made, at):
        F.cross_entropy(network(x), labels).backward()
    for ours, theirs in zip(made.parameters(), at.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_removed_weights_stay_zero_in_training_and_the_rounded_ones_learn():
    data = tiny(augmented=False)
    model, kept = pruned("resnet8", data.shape)
    made = quantise.calibrated(model, [(normalise(data, data.train_x), data.train_y)])
    rows = train.train(made, data, epochs=4, masks=kept, batch=16, lr=0.01)
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    for network in (made, quantise.plain(made)):
        assert not any(network.get_parameter(name)[~mask].any() for name, mask in kept.items())
    assert any(network.get_parameter(name)[mask].any() for name, mask in kept.items())


def test_a_range_that_is_missing_is_named():
    model, _ = pruned("mlp-2x16", CASES["mlp-2x16"])
    with pytest.raises(ValueError, match=r"no range for the inputs of layers\.1: one is needed, layers\.0 have"):
        quantise.quantised(model, {"layers.0": (0.0, 1.0)})


# Files


@pytest.mark.parametrize("form", formats_int8.INT8_FORMS)
@pytest.mark.parametrize("end", ["safetensors", "safetensors.zst"])
@pytest.mark.parametrize("activations", [True, False])
@cases
def test_a_fresh_network_has_the_same_logits(tmp_path, name, shape, activations, end, form):
    model, kept = pruned(name, shape)
    made = quantise.calibrated(model, batches(shape)) if activations else quantise.quantised(model)
    path = tmp_path / f"model.{end}"
    assert formats_int8.save_int8(form, path, made, kept) == path.stat().st_size
    fresh = formats_int8.load_int8(path, models.build(name, shape, 10, seed=2).eval())
    x = inputs(shape, 6, seed=5)
    assert torch.equal(fresh(x), made(x))
    again = copy.deepcopy(fresh)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(x), made(x))
    assert not any(fresh.get_parameter(key)[~mask].any() for key, mask in kept.items())


@pytest.mark.parametrize(("name", "also"), [("resnet8", ["biases", "norms"]), ("mlp-1x16", ["embeddings"])])
def test_what_else_is_pruned_comes_back_too(tmp_path, name, also):
    model = models.build(name, CASES[name], 10, seed=1).eval()
    kept = pruners.prune(model, "rand", 0.3, [], seed=1, also=also)
    masks.apply_masks_(model, kept)
    made = quantise.quantised(model)
    sizes = [formats_int8.save_int8(form, tmp_path / form, made, kept) for form in formats_int8.INT8_FORMS]
    assert sizes[1] < sizes[0]
    for form in formats_int8.INT8_FORMS:
        fresh = formats_int8.load_int8(tmp_path / form, models.build(name, CASES[name], 10, seed=2).eval())
        x = inputs(CASES[name], 3)
        assert torch.equal(fresh(x), made(x))
        assert not any(fresh.get_parameter(key)[~mask].any() for key, mask in kept.items())


def test_sizes_are_a_byte_a_weight(tmp_path):
    model, kept = pruned("mlp-1x256", (1, 20, 20), 0.1)
    made = quantise.calibrated(model, batches((1, 20, 20)))
    weights, left = (sum(int(count(mask)) for mask in kept.values()) for count in (torch.numel, torch.sum))
    rest = 4 * 266 + 4 * 266 + 4 * 4  # biases, scales, ranges
    assert formats_int8.save_int8("dense", tmp_path / "a", made, kept) == pytest.approx(weights + rest, abs=1500)
    size = formats_int8.save_int8("bitmask", tmp_path / "b", made, kept)
    assert size == pytest.approx(weights / 8 + left + rest, abs=1500)
    assert size < formats.save_as("bitmask", tmp_path / "c", model, kept) / 2
    header = 1500 + rest
    assert formats_int8.save_int8("bitmask", tmp_path / "d.zst", made, kept) < size + header


def test_damaged_and_strange_files_are_named(tmp_path):
    shape = CASES["mlp-2x16"]
    model, kept = pruned("mlp-2x16", shape)
    made, path = quantise.quantised(model), tmp_path / "model.safetensors"
    formats_int8.save_int8("bitmask", path, made, kept)
    with pytest.raises(ValueError, match=r"is of another network: layers\.0\."):
        formats_int8.load_int8(path, models.build("mlp-2x17", shape, 10))
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-4]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors holds no network"):
            formats_int8.load_int8(path, model)
    formats.save_as("bitmask", path, model, kept)
    with pytest.raises(ValueError, match="holds no quantised network"):
        formats_int8.load_int8(path, model)
    with pytest.raises(ValueError, match="unknown form 'coo': one of dense, bitmask"):
        formats_int8.save_int8("coo", path, made, kept)
    with pytest.raises(ValueError, match="mask layers fits no parameter"):
        formats_int8.save_int8("dense", path, made, {"layers": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        formats_int8.load_int8(tmp_path / "nowhere", model)
