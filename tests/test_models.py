import os
import urllib.error
from unittest import mock

import pytest
import torch
from torch import nn

from lib import catalog, masks, models
from lib import data as datasets
from lib.models import imagenet
from lib.models.resnet import ResNet
from lib.models.vgg import VGG


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def prunable(model: nn.Module) -> int:
    return sum(weight.numel() for weight in masks.prunable(model).values())


def undrawn():
    """Weights are whatever lay in memory: drawing 140 million of them takes seconds, and shapes need none."""
    names = ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_")
    return mock.patch.multiple(nn.init, **dict.fromkeys(names, lambda tensor, *arguments, **options: tensor))


def counted(name: str, *settings) -> nn.Module:
    """The network without values: nothing is drawn and no memory is filled."""
    with undrawn(), torch.device("meta"):
        return catalog.load("model", name)(*settings)


@pytest.mark.parametrize("name", [name for name in catalog.MODELS if name != "transformer"])
def test_every_model_maps_images_to_logits(name):
    with undrawn(), torch.inference_mode():
        model = models.build(name, (3, 32, 32), classes=7).eval()
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert len(masks.prunable(model)) >= 3


@pytest.mark.parametrize("name", ["transformer", "mlp-1x8", "mlp-3x256"])
def test_models_for_texts_map_words_to_logits(name):
    model = models.build(name, (9, 50), classes=3).eval()
    assert model(datasets.blank((9, 50), 4)).shape == (4, 3)
    assert model.embedding.weight.shape[0] == 49, "what stands where a text has ended has no embedding"


def test_texts_and_images_are_told_apart():
    with pytest.raises(ValueError, match="model fc with texts: transformer and mlp-HxW are allowed"):
        models.build("fc", (9, 50), classes=3)
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\) for transformer: \(length, words\) of texts"):
        models.build("transformer", (3, 8, 8), classes=3)


@pytest.mark.parametrize("name", ["mlp-0x8", "mlp-3x0", "mlp-3", "mlp-03x8", "mlp-3x8x8"])
def test_mlps_have_layers(name):
    with pytest.raises(ValueError, match="unknown model .*mlp-HxW for H hidden layers of width W"):
        models.build(name)


SHAPES = {
    "fc": [(1, 28, 28), (3, 64, 64), (2, 5, 9)],
    "conv": [(1, 28, 28), (3, 64, 64), (2, 5, 9)],
    "resnet8": [(1, 28, 28), (3, 64, 64), (2, 5, 9)],
    "resnet18": [(1, 28, 28), (3, 64, 64), (2, 5, 9)],
    "lenet-300-100": [(1, 28, 28), (3, 64, 64), (2, 5, 9)],
    "vgg7": [(1, 28, 28), (3, 64, 64), (2, 8, 17)],
    "vgg11": [(1, 28, 28), (3, 64, 64), (2, 16, 37)],
    "vgg11-bn": [(1, 28, 28), (3, 64, 64), (2, 16, 37)],
    "vgg11-tinyimagenet": [(1, 32, 32), (3, 64, 64), (2, 32, 70)],
    "resnet18-imagenet": [(3, 64, 64), (3, 28, 40)],
    "vgg11-bn-imagenet": [(3, 64, 64), (3, 32, 70)],
}


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes])
def test_a_network_of_each_kind_takes_images_of_many_shapes(name, shape):
    with undrawn(), torch.inference_mode():
        assert models.build(name, shape, classes=3).eval()(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "shape", "allowed"),
    [
        ("vgg7", (3, 7, 32), "images for this VGG are 7x32: 8x8 or more is allowed"),
        ("vgg16", (3, 15, 32), "images for this VGG are 15x32: 16x16 or more is allowed"),
        ("vgg16-bn-tinyimagenet", (1, 28, 28), "images for this VGG are 28x28: 32x32 or more is allowed"),
        ("vgg16-imagenet", (3, 31, 31), "images for this VGG are 31x31: 32x32 or more is allowed"),
        ("resnet18-imagenet", (1, 28, 28), "images for resnet18-imagenet have 1 channels: 3 is allowed"),
    ],
)
def test_images_that_a_network_is_not_for(name, shape, allowed):
    with pytest.raises(ValueError, match=f"^{allowed}$"):
        models.build(name, shape)


@pytest.mark.parametrize(
    ("name", "shape", "count", "pruned"),
    [
        ("resnet20", (3, 32, 32), 272_474, 270_896),
        ("fc", (1, 28, 28), 119_910, 119_400),
        ("fc", (3, 32, 32), 348_710, 348_200),
        ("vgg16", (3, 32, 32), 14_719_818, 14_715_584),
        ("vgg16-bn", (3, 32, 32), 14_728_266, 14_715_584),
        ("resnet50", (3, 32, 32), 23_520_842, 23_467_712),
        ("vgg7", (3, 32, 32), 14_029_450, 14_022_016),
        ("lenet-300-100", (1, 28, 28), 266_610, 266_200),
    ],
)
def test_sizes_are_those_of_the_papers_code(name, shape, count, pruned):
    model = counted(name, shape, 10)
    assert (parameters(model), prunable(model)) == (count, pruned)


# the paper's table 6 in millions, for option A: it has no weights where option B has two 1x1 convolutions with
# batch norm of (16 x 32 + 64) + (32 x 64 + 128) weights
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_sizes_of_cifar_resnets_are_those_of_the_paper(depth, millions):
    count = parameters(counted(f"resnet{depth}", (3, 32, 32), 10)) - 2_752
    assert count / 1e6 == pytest.approx(millions, abs=0.06 if millions > 1 else 0.0051)


# published on torchvision's pages, for 1000 classes
IMAGENET = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "wide-resnet50": 68_883_240, "wide-resnet101": 126_886_696,
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11-bn": 132_868_840, "vgg13-bn": 133_053_736, "vgg16-bn": 138_365_992, "vgg19-bn": 143_678_248,
}  # fmt: skip


def test_all_shapes_for_imagenet_have_a_published_size():
    assert {f"{name}-imagenet" for name in IMAGENET} == {name for name in catalog.MODELS if name.endswith("-imagenet")}


@pytest.mark.parametrize("name", IMAGENET)
def test_sizes_for_imagenet_are_those_that_torchvision_publishes(name):
    assert parameters(counted(f"{name}-imagenet", (3, 224, 224), 1000)) == IMAGENET[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide-resnet50",
                                  "wide-resnet101"])  # fmt: skip
def test_small_image_resnets_are_torchvisions_but_for_the_stem(name):
    """The stem is 3x3 where torchvision's is 7x7; all other weights are of the same sizes, in the same order."""
    ours = [tuple(p.shape) for p in counted(name, (3, 64, 64), 200).parameters()]
    theirs = [tuple(p.shape) for p in counted(f"{name}-imagenet", (3, 64, 64), 200).parameters()]
    assert (ours.pop(0), theirs.pop(0)) == ((64, 3, 3, 3), (64, 3, 7, 7))
    assert ours == theirs


def renamed(theirs: nn.Module, ours: nn.Module) -> dict:
    """The state of `theirs` under the names of `ours`, tensor after tensor."""
    return dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))


def lively(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_small_image_resnets_compute_what_torchvisions_do_with_their_stem(name):
    ours, theirs = models.build(name), lively(models.build(f"{name}-imagenet", seed=1))
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours.load_state_dict(renamed(theirs, ours))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg11", "vgg16-bn"])
def test_vggs_compute_what_the_convolutions_of_torchvisions_do(name):
    """torchvision's has a fifth max-pool, and another classifier."""
    from torchvision.models import get_model

    theirs = lively(get_model(name.replace("-", "_"), weights=None, init_weights=False).features[:-1])
    linear = nn.Linear(512, 10)
    ours = models.build(name)
    ours.load_state_dict(renamed(nn.Sequential(theirs, linear), ours))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = nn.functional.avg_pool2d(theirs(x), 2)  # as in the original: 2x2 positions are left of 32x32
        expected = linear(pooled.flatten(1))
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["vgg11", "vgg13-bn"])
def test_vggs_for_tiny_imagenet_are_torchvisions_with_a_smaller_classifier(name):
    ours = counted(f"{name}-tinyimagenet", (3, 64, 64), 200)
    theirs = counted(f"{name}-imagenet", (3, 64, 64), 200)
    sizes = {key: tuple(tensor.shape) for key, tensor in ours.state_dict().items()}
    expected = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    weights = {"0.weight": (1024, 2048), "3.weight": (1024, 1024), "6.weight": (200, 1024)}
    small = {f"classifier.{key}": size for key, size in (weights | {"0.bias": (1024,), "3.bias": (1024,)}).items()}
    assert sizes == expected | small
    assert [str(layer) for layer in ours.classifier[2::3]] == ["Dropout(p=0.5, inplace=False)"] * 2


def test_parameter_names_are_those_of_the_papers_code():
    names = set(dict(models.build("resnet20").named_parameters()))
    assert {"conv.weight", "bn.weight", "blocks.0.conv1.weight", "blocks.3.shortcut.0.weight", "fc.bias"} <= names
    assert not any(name.startswith("blocks.0.shortcut") for name in names), "identity shortcuts carry no weights"
    assert "layers.5.weight" in dict(models.build("fc", (1, 28, 28)).named_parameters())
    names = set(dict(counted("vgg16-bn", (3, 32, 32), 10).named_parameters()))
    assert {"layers.0.conv.bias", "layers.0.bn.weight", "layers.16.conv.weight", "fc.weight"} <= names
    names = set(dict(counted("resnet50", (3, 32, 32), 10).named_parameters()))
    assert {"conv1.0.weight", "conv1.1.bias", "conv2_x.0.residual_function.6.weight", "fc.weight"} <= names
    assert {"conv5_x.0.shortcut.0.weight", "conv5_x.2.residual_function.0.weight"} <= names
    assert not any(name.startswith("conv5_x.1.shortcut") for name in names), "identity shortcuts carry no weights"


@pytest.mark.parametrize(
    ("name", "layers", "shortcuts"), [("resnet20", 20, 2), ("resnet18", 18, 3), ("resnet50", 50, 4), ("vgg16", 14, 0)]
)
def test_names_count_the_weighted_layers_without_shortcuts(name, layers, shortcuts):
    """VGG-16 has three linear layers in the paper, and one here."""
    assert len(masks.prunable(counted(name, (3, 32, 32), 10))) == layers + shortcuts


@pytest.mark.parametrize("name", ["fc", "conv", "resnet8", "vgg11", "resnet18", "resnet18-imagenet"])
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


@pytest.mark.parametrize(
    ("name", "weight", "fan"),
    [
        ("resnet20", "blocks.8.conv2.weight", 64 * 9),
        ("vgg11-bn", "layers.2.conv.weight", 64 * 9),  # 64 inputs, 128 outputs
        ("vgg11", "fc.weight", 512),
        ("vgg11-tinyimagenet", "features.3.weight", 128 * 9),
        ("resnet18", "conv3_x.0.residual_function.0.weight", 128 * 9),
        ("resnet18-imagenet", "layer2.0.conv1.weight", 128 * 9),
    ],
)
def test_weights_are_kaiming_normal_by_inputs_or_outputs(name, weight, fan):
    weight = models.build(name).get_parameter(weight).flatten()
    assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.03)
    assert (weight**4).mean().item() == pytest.approx(3 * (2 / fan) ** 2, rel=0.2), "normal, not uniform (1.8)"


def test_linear_weights_of_the_larger_vggs_and_zero_biases():
    model = models.build("vgg11-tinyimagenet")
    assert model.classifier[3].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))
    model = models.build("vgg11")
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("name", "depth", "width"),
    [("resnet20-w32", 20, 32), ("wide-resnet20", 20, 32), ("resnet26", 26, 16), ("resnet50-w16", 50, 16),
     ("resnet8-w1", 8, 1), ("wide-resnet32", 32, 32)],
)  # fmt: skip
def test_cifar_resnets_of_any_depth_and_width_by_name(name, depth, width):
    assert catalog.check("model", name) == name
    model = counted(name, (3, 32, 32), 10)
    assert isinstance(model, ResNet)
    assert len(masks.prunable(model)) == depth + 2
    channels = [len(weight) for weight in masks.prunable(model).values()]
    assert (channels[0], channels[-2], set(channels[:-1])) == (width, 4 * width, {width, 2 * width, 4 * width})


@pytest.mark.parametrize("name", ["resnet50", "resnet152", "wide-resnet50", "wide-resnet152"])
def test_names_that_mean_bottlenecks_though_a_cifar_resnet_may_have_that_depth(name):
    assert hasattr(counted(name, (3, 32, 32), 10), "conv5_x")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet21", "depth of a CIFAR ResNet is 21: 6n \\+ 2 is allowed \\(8, 14, 20, ...\\)"),
        ("resnet2", "depth of a CIFAR ResNet is 2: "),
        ("wide-resnet18", "depth of a CIFAR ResNet is 18: "),
        ("resnet22-w32", "depth of a CIFAR ResNet is 22: "),
        ("resnet20-w0", "width of a CIFAR ResNet is 0: 1 or more is allowed"),
        ("resnet020", "unknown model 'resnet020': one of fc, conv, lenet-300-100, vgg7, vgg11"),
        ("wide-resnet20-w8", "unknown model 'wide-resnet20-w8': one of fc"),
        ("resnet20-w-1", "unknown model 'resnet20-w-1': one of fc"),
        ("vgg12", "unknown model 'vgg12': one of fc"),
        ("vgg16_bn", ".*and resnetD-wW for any depth D = 6n \\+ 2 and width W$"),
    ],
)
def test_unknown_models_and_impossible_sizes(name, said):
    for refuses in (catalog.check, catalog.load):
        with pytest.raises(ValueError, match=f"^{said}") as caught:
            refuses("model", name)
        assert "\n" not in str(caught.value)


def test_impossible_sizes_of_the_class_itself():
    with pytest.raises(ValueError, match="depth of a CIFAR ResNet is 21"):
        ResNet(21, channels=3, classes=10)
    with pytest.raises(ValueError, match="width of a CIFAR ResNet is -4"):
        ResNet(20, channels=3, classes=10, width=-4)


def test_names_as_papers_write_them():
    spelled = {
        "vgg16": "VGG-16", "vgg16-bn": "VGG-16-BN", "resnet20": "ResNet-20", "resnet20-w32": "ResNet-20-w32",
        "wide-resnet50": "Wide-ResNet-50", "resnet50-imagenet": "ResNet-50-ImageNet", "fc": "FC", "conv": "Conv",
        "vgg11-bn-imagenet": "VGG-11-BN-ImageNet", "wide-resnet101-imagenet": "Wide-ResNet-101-ImageNet",
        "vgg7": "VGG-7", "lenet-300-100": "LeNet-300-100",
        "vgg13-tinyimagenet": "VGG-13-TinyImageNet", "wide-resnet20": "Wide-ResNet-20", "something": "something",
    }  # fmt: skip
    assert {name: catalog.label(name) for name in spelled} == spelled
    assert len({catalog.label(name) for name in catalog.MODELS}) == len(catalog.MODELS)


def test_two_thirds_of_vgg7_are_in_its_linear_layers():
    model = counted("vgg7", (3, 32, 32), 10)
    layers = [(type(m), tuple(m.weight.shape)) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [shape[:2] for kind, shape in layers if kind is nn.Conv2d] == [
        (128, 3), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512),
    ]  # fmt: skip
    assert [shape for kind, shape in layers if kind is nn.Linear] == [(1024, 8192), (1024, 1024), (10, 1024)]
    assert sum(a * b for a, b in [(1024, 8192), (1024, 1024), (10, 1024)]) / prunable(model) > 2 / 3


@pytest.mark.parametrize("name", ["fc", "conv", "resnet8", "lenet-300-100", "vgg7"])
def test_a_last_batch_of_one_image_can_be_trained_on(name):
    model = models.build(name, (1, 28, 28)).train()
    model(torch.randn(1, 1, 28, 28)).sum().backward()


def test_every_weight_of_a_narrow_vgg_and_of_a_bottleneck_learns():
    for model in (VGG((4, None, 6, 8), True, 3, 10), models.build("resnet50")):
        model.train()(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).square().sum().backward()
        assert all(weight.grad.any() for weight in masks.prunable(model).values())


@pytest.mark.parametrize("norm", [False, True])
def test_an_empty_layer_cuts_a_vgg_and_nothing_else_does(norm):
    model = VGG((4, None, 6, 8), norm, 3, 10)
    assert masks.collapsed(model, masks.full(model), (3, 8, 8)) == {"layers": [], "connected": True}
    for name in masks.prunable(model):
        kept = masks.full(model)
        kept[name][:] = False
        assert masks.collapsed(model, kept, (3, 8, 8)) == {"layers": [name[:-7]], "connected": False}


def test_a_bottleneck_is_bridged_by_its_shortcut():
    model, inner = models.build("resnet50"), "conv4_x.{}.residual_function.3"
    kept = masks.full(model)
    for block in (0, 1):
        kept[f"{inner.format(block)}.weight"][:] = False
    empty = [inner.format(0), inner.format(1)]
    assert masks.collapsed(model, kept, (3, 8, 8)) == {"layers": empty, "connected": True}
    kept["conv4_x.0.shortcut.0.weight"][:] = False
    assert masks.collapsed(model, kept, (3, 8, 8))["connected"] is False


# Pretrained weights


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """torchvision's cache in an empty folder; nothing can be downloaded."""

    def refuse(url, *arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


FILE = "resnet18-f37072fd.pth"  # torchvision's IMAGENET1K_V1


def test_pretrained_weights_are_the_files_and_another_head_is_the_seeds(cached):
    trained = models.build("resnet18-imagenet", classes=1000, seed=7)
    torch.save(trained.state_dict(), cached / FILE)
    whole = models.build("resnet18-imagenet", classes=1000, pretrained=True).state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in trained.state_dict().items())
    drawn = models.build("resnet18-imagenet", classes=10, seed=3)
    fresh = models.build("resnet18-imagenet", classes=10, seed=3, pretrained=True)
    for name, tensor in fresh.state_dict().items():
        source = drawn if name.startswith("fc.") else trained
        assert torch.equal(tensor, source.state_dict()[name]), name
    assert fresh.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_head_of_a_vgg_is_its_last_linear_layer_alone():
    head = [name for name in counted("vgg11-imagenet", (3, 32, 32), 10).state_dict() if name.startswith(imagenet.HEADS)]
    assert head == ["classifier.6.weight", "classifier.6.bias"]


def test_without_network_one_line_says_what_to_do(cached):
    with pytest.raises(FileNotFoundError) as caught:
        models.build("resnet18-imagenet", pretrained=True)
    url = f"https://download.pytorch.org/models/{FILE}"
    reason = "<urlopen error no route to host>"
    assert str(caught.value) == f"{url} could not be downloaded ({reason}): put the file at {cached / FILE}"


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("content", ["nothing", "code"])
def test_a_damaged_file_or_one_with_code_is_refused_in_one_line(cached, content, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if content == "code":
        torch.save({"fc.weight": Evil()}, cached / FILE)
    else:
        (cached / FILE).write_bytes(b"")
    with pytest.raises(ValueError, match="resnet18-f37072fd.pth is damaged .*: delete it") as caught:
        models.build("resnet18-imagenet", pretrained=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize("name", ["resnet20", "vgg16", "wide-resnet50"])
def test_most_models_have_no_pretrained_weights(name):
    with pytest.raises(ValueError, match=f"no pretrained weights for model '{name}': one of resnet18-imagenet, "):
        models.build(name, pretrained=True)


@pytest.mark.parametrize("name", [name for name in catalog.MODELS if name.endswith("-imagenet")])
def test_every_shape_for_imagenet_has_pretrained_weights_to_ask_for(name, cached):
    file = name.removesuffix("-imagenet").replace("-", "_")
    with pytest.raises(FileNotFoundError, match=f"^https://download.pytorch.org/models/{file}.* could not be downl"):
        imagenet.pretrained(name)
