import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import compact, flops, inference, masks, models, pruners
from lib.models import resnet50
from lib.models.vgg import VGG

SHAPE = (3, 8, 8)
PRUNERS = ("rand", "mag", "snip", "synflow")


def lively(model: nn.Module, seed=0) -> nn.Module:
    """The model with statistics, shifts and biases as training leaves them: nothing is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.ndim == 1:
                parameter.data.normal_(float(name == "weight"), 0.5, generator=generator)
    return model.eval()


def vgg() -> nn.Module:
    """Every operation that may stand between two layers of a plain network."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.LeakyReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(12), nn.AvgPool2d(3, 1, padding=1)),
        *(nn.Conv2d(12, 10, 3, padding=1, padding_mode="circular"), nn.GELU(), nn.Conv2d(10, 6, 3), nn.Tanh()),
        *(nn.Flatten(), nn.BatchNorm1d(24), nn.Dropout(), nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU()),
        nn.Linear(16, 10),
    )


class Functional(nn.Module):
    """The same written with functions, and sums in place as in torchvision's ResNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.third, self.head = nn.Conv2d(6, 9, 3, stride=2, padding=2, dilation=2), nn.Linear(9, 10)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        out = self.second(F.max_pool2d(F.silu(self.first(x)), 3, 1, 1))
        out += x
        x = self.third(F.dropout(out.relu_(), training=self.training))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x.sigmoid(), 1), 1))


def bottlenecks() -> nn.Module:
    """As in ResNet-50: one block with an identity shortcut, one that changes the shape."""
    blocks = resnet50.bottleneck(12, 3, 1, 1), resnet50.bottleneck(12, 4, 2, 2), resnet50.basic(16, 16, 1)
    return nn.Sequential(nn.Conv2d(3, 12, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


NARROW = (6, None, 8, 8, None, 10)  # of a VGG
OWN = {
    "vgg": vgg,
    "functional": Functional,
    "bottlenecks": bottlenecks,
    "vgg without batch norm": lambda: VGG(NARROW, False, 3, 10),
    "vgg with batch norm": lambda: VGG(NARROW, True, 3, 10),
}
NAMES = ["resnet8", "fc", *OWN]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(OWN[name]() if name in OWN else models.build(name, SHAPE))


def random_masks(model: nn.Module, density: float, dead: float, seed=0) -> masks.Masks:
    """Random single weights, then whole output and input channels of every layer removed with probability `dead`."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for name, weight in masks.prunable(model).items():
        mask = torch.rand(weight.shape, generator=generator) < density
        mask[torch.rand(weight.shape[0], generator=generator) < dead] = False
        mask[:, torch.rand(weight.shape[1], generator=generator) < dead] = False
        kept[name] = mask
    return kept


def permanent(model: nn.Module, kept: masks.Masks) -> nn.Module:
    masks.apply_masks_(model, kept)
    return model


@torch.no_grad()
def compare(name: str, kept: masks.Masks) -> tuple[nn.Module, dict]:
    """Check the logits of the compact network in both precisions, and its counts; the network and its facts."""
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        model = build(name).to(dtype)
        small, facts = compact.compact(model, kept, SHAPE)
        expected, logits = permanent(model, kept)(images.to(dtype)), small(images.to(dtype))
        assert logits.dtype == dtype
        assert inference.agreement(expected, logits)["max_abs_logit_difference"] <= tolerance * expected.abs().max()
    assert facts["why"] is None
    assert facts["macs_dense"] == flops.macs(model, SHAPE)["macs_dense"]
    assert facts["macs_compact"] <= facts["macs_dense"]
    assert facts["channels_removed"] == sum(row["removed"] for row in facts["layers"])
    assert facts["channels"] == sum(len(weight) for weight in masks.prunable(model).values())
    return small, facts


def removed(facts: dict) -> dict[str, int]:
    return {row["layer"]: row["removed"] for row in facts["layers"]}


@pytest.mark.parametrize("density", [0.3, 0.1, 0.01])
@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "fc", "vgg", "functional"])
def test_the_logits_stay(name, pruner, density):
    model = build(name).train()
    batch = (torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(2)), torch.arange(20) % 10)
    kept = pruners.prune(model, pruner, density, [batch])
    _, facts = compare(name, kept)
    if density == 0.01:
        assert facts["channels_removed"] > 0
        assert facts["macs_compact"] < facts["macs_dense"]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(NAMES),
    st.sampled_from([0.02, 0.3, 1.0]),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 2**31),
)
def test_the_logits_stay_whatever_channels_are_dead(name, density, dead, seed):
    compare(name, random_masks(build(name), density, dead, seed))


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_stay_without_any_single_layer(name):
    for empty in masks.prunable(build(name)):
        kept = masks.full(build(name))
        kept[empty][:] = False
        _, facts = compare(name, kept)
        row = next(row for row in facts["layers"] if f"{row['layer']}.weight" == empty)
        assert row["constant"]
        assert row["removed"] == row["channels"]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_weights_is_its_constant_logits_for_every_image(name):
    small, facts = compare(name, {key: torch.zeros_like(mask) for key, mask in masks.full(build(name)).items()})
    assert facts["macs_compact"] == 0
    assert facts["channels_removed"] == facts["channels"]
    assert not list(small.parameters())


def test_nothing_is_removed_from_a_dense_network():
    _, facts = compare("vgg", masks.full(build("vgg")))
    assert facts["channels_removed"] == 0
    assert facts["macs_compact"] == facts["macs_dense"]


def two_convolutions(padding: int) -> nn.Module:
    """Two channels between two 3x3 convolutions of ones, the first with biases 2 and -1."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=padding, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        model[0].bias[:] = torch.tensor([2.0, -1.0])
    return model


def test_a_constant_channel_counts_less_at_the_border_by_hand():
    """The dead channel is 2 everywhere; 9 weights see it inside, 6 at an edge, 4 in a corner."""
    kept = masks.full(two_convolutions(1))
    kept["0.weight"][0] = False
    small, facts = compact.compact(two_convolutions(1), kept, (1, 4, 4))
    edge, inside = [8.0, 12.0, 12.0, 8.0], [12.0, 18.0, 18.0, 12.0]
    assert small(torch.full((2, 1, 4, 4), -9.0)).tolist() == [[[edge, inside, inside, edge]]] * 2
    layer = small.get_submodule("2")
    assert layer.bias_map.tolist() == [[[edge, inside, inside, edge]]]
    assert layer.weight.shape == (1, 1, 3, 3)
    assert layer.bias is None
    assert removed(facts) == {"0": 1, "2": 0}
    assert (facts["macs_dense"], facts["macs_compact"]) == (36 * 16, 18 * 16)


def test_without_padding_the_constant_becomes_a_bias_by_hand():
    kept = masks.full(two_convolutions(0))
    kept["0.weight"][0] = False
    small, _ = compact.compact(two_convolutions(0), kept, (1, 4, 4))
    assert small(torch.full((1, 1, 4, 4), -9.0)).flatten().tolist() == [18.0] * 4
    assert small.get_submodule("2").bias.tolist() == [18.0]
    assert not hasattr(small.get_submodule("2"), "bias_map")


def test_a_channel_that_nothing_listens_to_goes_without_a_trace():
    kept = masks.full(two_convolutions(1))
    kept["2.weight"][:, 0] = False
    small, facts = compact.compact(two_convolutions(1), kept, (1, 4, 4))
    assert removed(facts) == {"0": 1, "2": 0}
    assert small.get_submodule("2").bias.tolist() == [0.0]
    assert small.get_submodule("0").bias.tolist() == [-1.0]


def test_one_removal_leads_to_the_next_in_both_directions():
    model = lively(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)))
    kept = masks.full(model)
    kept["1.weight"][0] = False  # unit 0 of the first layer is constant,
    kept["3.weight"][0, 1:] = False  # unit 0 of the second has no other input,
    kept["3.weight"][1:, 1] = False  # and unit 1 of the first no other output
    small, facts = compact.compact(model, kept, (1, 2, 2))
    assert removed(facts) == {"1": 2, "3": 1, "5": 0}
    x = torch.randn(3, 1, 2, 2)
    torch.testing.assert_close(small(x), permanent(model, kept)(x))


def test_in_a_residual_network_channels_within_blocks_go_and_sums_stay():
    kept = masks.full(build("resnet8"))
    kept["conv.weight"][:4] = False
    kept["blocks.0.conv1.weight"][:5] = False
    kept["blocks.1.conv2.weight"][:, :3] = False
    kept["blocks.2.conv2.weight"][:] = False
    small, facts = compare("resnet8", kept)
    gone = {"blocks.0.conv1": 5, "blocks.1.conv1": 3, "blocks.2.conv1": 64, "blocks.2.conv2": 64}
    assert {name: n for name, n in removed(facts).items() if n} == gone
    assert [row["layer"] for row in facts["layers"] if row["constant"]] == ["blocks.2.conv1", "blocks.2.conv2"]
    assert small.get_submodule("blocks.0.conv2").weight.shape == (16, 11, 3, 3)
    assert not any(name.startswith("blocks.2.conv1") for name, _ in small.named_modules())


def test_the_model_and_the_masks_are_left_alone_and_the_result_is_for_inference():
    model = build("vgg").train()
    kept = random_masks(model, 0.3, 0.3)
    tensors = [*model.state_dict().values(), *kept.values()]
    before = [tensor.clone() for tensor in tensors]
    small, _ = compact.compact(model, kept, SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in small.modules())
    assert not any(parameter.requires_grad for parameter in small.parameters())
    shared = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not any(tensor.data_ptr() in shared for tensor in small.state_dict().values())


def test_a_compact_network_can_be_made_fast_and_compact_again():
    model = build("resnet8")
    kept = random_masks(model, 0.3, 0.3)
    small, facts = compact.compact(model, kept, SHAPE)
    again, same = compact.compact(small, masks.full(small), SHAPE)
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(again(x), small(x))
    torch.testing.assert_close(inference.folded(small)(x), small(x))
    assert same["macs_compact"] == facts["macs_compact"]


class Awkward(nn.Module):
    """A shared layer, groups, a view, two users: none of it can be analysed."""

    def __init__(self):
        super().__init__()
        self.shared, self.grouped = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 6, 3, groups=3)
        self.norm, self.forked = nn.BatchNorm2d(3), nn.Conv2d(6, 4, 1)
        self.head, self.last = nn.Linear(4 * 36, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.norm(self.shared(self.norm(self.shared(x))))
        x = self.forked(torch.relu(self.grouped(x)))
        x = torch.relu(x) * torch.sigmoid(x)
        x = self.head(x.view(x.shape[0], -1))
        return self.last(torch.softmax(x, 1))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 10)

    def forward(self, x):
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(-x.flatten(1))


@pytest.mark.parametrize("model", [Awkward(), Untraceable()], ids=["awkward", "untraceable"])
def test_what_cannot_be_analysed_stays_as_it_is(model):
    model = lively(model)
    kept = random_masks(model, 0.5, 0.3)
    small, facts = compact.compact(model, kept, SHAPE)
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(small(x), permanent(model, kept)(x), rtol=1e-4, atol=1e-4)
    assert facts["channels_removed"] == 0
    assert facts["macs_compact"] == facts["macs_dense"]
    assert (facts["why"] is None) == isinstance(model, Awkward)
    assert "\n" not in (facts["why"] or "")


def test_masks_of_another_network_are_refused():
    with pytest.raises(ValueError, match="mask a.weight is"):
        compact.compact(build("vgg"), {"a.weight": torch.ones(1, dtype=torch.bool)}, SHAPE)
