"""Files as the original program writes them, made by code of our own that builds its networks from torch's layers."""

import os
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from test_models import counted
from torch import nn
from torch.func import functional_call

from lib import catalog, layer_tables, masks, models
from lib.reference_checkpoint import describe, load_reference_checkpoint

STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
VGG11, POOLS = (64, 128, 256, 256, *(512,) * 4), (1, 2, 4, 6)  # channels, and after how many of them a max-pool


class Identity(nn.Module):
    """The original's shortcut: a factor for every channel."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * self.weight


class Tree(nn.Module):
    """Modules by name, and how an image goes through them."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.through = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.through(self, x)


def convolution(inputs, outputs, size, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias)


def shortcut(inputs, outputs, stride):
    if stride == 1 and inputs == outputs:
        return Identity(inputs)
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def lottery_vgg(norm, channels=3, classes=10):
    def through(block, x):
        x = block.conv(x)
        return F.relu(block.bn(x) if norm else x)

    layers, inputs = [], channels
    for position, width in enumerate(VGG11, 1):
        parts = {"conv": convolution(inputs, width, 3, bias=True)} | ({"bn": nn.BatchNorm2d(width)} if norm else {})
        layers.append(Tree(through, **parts))
        layers += [nn.MaxPool2d(2, 2)] * (position in POOLS)
        inputs = width
    return Tree(
        lambda net, x: net.fc(F.avg_pool2d(net.layers(x), 2).view(len(x), -1)),
        layers=nn.Sequential(*layers),
        fc=nn.Linear(512, classes),
    )


def lottery_resnet(depth, width=16, channels=3, classes=10):
    def through(block, x):
        out = F.relu(block.bn1(block.conv1(x)))
        return F.relu(block.bn2(block.conv2(out)) + block.shortcut(x))

    blocks, inputs = [], width
    for outputs in (width, 2 * width, 4 * width):
        for _ in range((depth - 2) // 6):
            stride = 1 if inputs == outputs else 2
            parts = {"conv1": convolution(inputs, outputs, 3, stride), "bn1": nn.BatchNorm2d(outputs)}
            parts |= {"conv2": convolution(outputs, outputs, 3), "bn2": nn.BatchNorm2d(outputs)}
            blocks.append(Tree(through, **parts, shortcut=shortcut(inputs, outputs, stride)))
            inputs = outputs
    return Tree(
        lambda net, x: net.fc(net.blocks(F.relu(net.bn(net.conv(x)))).mean((2, 3))),
        conv=convolution(channels, width, 3),
        bn=nn.BatchNorm2d(width),
        blocks=nn.Sequential(*blocks),
        fc=nn.Linear(4 * width, classes),
    )


def small_image_resnet(depth, channels=3, classes=10):
    def path(*sizes):
        layers = []
        for inputs, outputs, size, stride in sizes:
            layers += [convolution(inputs, outputs, size, stride), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    stem = nn.Sequential(convolution(channels, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
    stages, inputs = {"conv1": stem}, 64
    for number, count in enumerate(STAGES[depth]):
        base, blocks = 64 << number, []
        for position in range(count):
            stride = 2 if number and not position else 1
            if depth < 50:
                outputs = base
                layers = path((inputs, base, 3, stride), (base, base, 3, 1))
            else:
                outputs = 4 * base
                layers = path((inputs, base, 1, 1), (base, base, 3, stride), (base, outputs, 1, 1))
            block = Tree(lambda block, x: F.relu(block.residual_function(x) + block.shortcut(x)))
            block.residual_function, block.shortcut = layers, shortcut(inputs, outputs, stride)
            blocks.append(block)
            inputs = outputs
        stages[f"conv{number + 2}_x"] = nn.Sequential(*blocks)
    body = list(stages)
    return Tree(
        lambda net, x: net.fc(nn.Sequential(*(getattr(net, name) for name in body))(x).mean((2, 3))),
        **stages,
        fc=nn.Linear(inputs, classes),
    )


def tiny_vgg(norm, channels=3, classes=10):
    layers, inputs = [], channels
    for position, width in enumerate(VGG11, 1):
        layers += [convolution(inputs, width, 3, bias=True), *[nn.BatchNorm2d(width)] * norm, nn.ReLU()]
        layers += [nn.MaxPool2d(2, 2)] * (position in (*POOLS, 8))
        inputs = width
    first, second = (nn.Linear(2048, 1024), nn.ReLU(), nn.Dropout()), (nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout())
    return Tree(
        lambda net, x: net.classifier(net.features(x).view(len(x), -1)),
        features=nn.Sequential(*layers),
        classifier=nn.Sequential(*first, *second, nn.Linear(1024, classes)),
    )


def fc(size, classes=10):
    hidden = [layer for _ in range(4) for layer in (nn.Linear(100, 100), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 100), nn.ReLU(), *hidden, nn.Linear(100, classes))


def conv(channels, side, classes=10):
    layers = convolution(channels, 32, 3, bias=True), nn.ReLU(), convolution(32, 32, 3, bias=True), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * side * side, classes))


def torchvisions(name, classes=10):
    return models.build(f"{name}-imagenet", classes=classes)


def trained(net, density=0.5, seed=0):
    """The network with masks and as if trained: no statistics, shifts and biases left neutral, removed weights too."""
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            mask = torch.ones_like(parameter)
            if isinstance(layer, nn.Conv2d | nn.Linear) and name == "weight":
                mask = (torch.rand(parameter.shape, generator=generator) < density).float()
            elif not isinstance(layer, Identity):
                parameter.data.normal_(float(name == "weight"), 0.3, generator=generator)
            layer.register_buffer(f"{name}_mask", mask)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.num_batches_tracked += 7
    return net.eval()


@torch.no_grad()
def logits(net, x):
    """As the original computes them: every parameter is multiplied by its mask at every forward."""
    state = net.state_dict()
    return functional_call(net, {name: p * state.get(f"{name}_mask", 1) for name, p in net.named_parameters()}, (x,))


def images(shape, count=2):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))


KNOWN = {
    "vgg11": (lambda: lottery_vgg(False, channels=1, classes=4), (1, 32, 32), 4),
    "vgg11-bn": (lambda: lottery_vgg(True, classes=100), (3, 32, 32), 100),
    "resnet20": (lambda: lottery_resnet(20), (3, 32, 32), 10),
    "resnet8": (lambda: lottery_resnet(8, channels=2, classes=3), (2, 32, 32), 3),
    "resnet20-w32": (lambda: lottery_resnet(20, 32), (3, 32, 32), 10),
    "resnet50-w16": (lambda: lottery_resnet(50), (3, 32, 32), 10),
    "resnet18": (lambda: small_image_resnet(18, classes=200), (3, 32, 32), 200),
    "resnet50": (lambda: small_image_resnet(50), (3, 32, 32), 10),
    "vgg11-bn-tinyimagenet": (lambda: tiny_vgg(True), (3, 64, 64), 10),
    "resnet18-imagenet": (lambda: torchvisions("resnet18"), (3, 32, 32), 10),
    "fc": (lambda: fc(784), (1, 28, 28), 10),
    "conv": (lambda: conv(3, 16), (3, 16, 16), 10),
}


def test_the_networks_made_here_have_the_sizes_that_the_original_prints():
    """For ResNet-50 and 10 classes; ours has 11,264 parameters less."""
    with torch.device("meta"):
        net = small_image_resnet(50)
    assert sum(p.numel() for p in net.parameters()) == 23_532_106
    assert sum(m.weight.numel() for m in net.modules() if isinstance(m, Identity)) == 11_264


@pytest.mark.parametrize("name", KNOWN)
def test_logits_are_those_of_the_original(name, tmp_path):
    make, shape, classes = KNOWN[name]
    original = trained(make())
    torch.save(original.state_dict(), tmp_path / "model.pt")
    assert describe(tmp_path / "model.pt") == {"name": name, "shape": shape, "classes": classes}
    model, kept = load_reference_checkpoint(tmp_path / "model.pt")
    x = images(shape)
    with torch.no_grad():
        found = model.eval()(x)
    expected = logits(original, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert type(model) is type(models.build(name, shape, classes))
    assert list(kept) == list(masks.prunable(model))
    assert masks.density_of(kept) == pytest.approx(0.5, abs=0.01)
    for key, weight in masks.prunable(model).items():
        assert kept[key].dtype == torch.bool
        assert not weight[~kept[key]].any()
    rows = layer_tables.layer_rows(model, kept, shape)
    assert sum(row["kept"] for row in rows) == sum(int(mask.sum()) for mask in kept.values())


OTHERS = ("fc", "conv", "transformer", "lenet-300-100", "vgg7")


@pytest.mark.parametrize("name", [name for name in catalog.MODELS if name not in OTHERS])
def test_every_network_is_recognised_by_names_and_sizes(name, tmp_path):
    """Of the others two have other names there, one is for texts, two are not there. One number stands for a tensor."""
    sizes = {key: tensor.shape for key, tensor in counted(name, (3, 64, 64), 12).state_dict().items()}
    torch.save({key: torch.zeros(()).expand(size) for key, size in sizes.items()}, tmp_path / "model.pt")
    side = 64 if name.endswith("-tinyimagenet") else 32
    assert describe(tmp_path / "model.pt") == {"name": name, "shape": (3, side, side), "classes": 12}


def saved(path, net, change=None, **options):
    """The file, its state dict changed by `change`."""
    state = OrderedDict(net.state_dict())
    if change:
        state = change(state) or state
    torch.save(state, path, **options)
    return path


def test_a_file_of_old_torch_with_the_prefix_of_dataparallel_in_double_precision(tmp_path):
    original = trained(lottery_resnet(8))
    plain = load_reference_checkpoint(saved(tmp_path / "a.pt", original))

    def change(state):
        return {f"module.{name}": tensor.double() for name, tensor in state.items()}

    other = load_reference_checkpoint(saved(tmp_path / "b.pt", original, change, _use_new_zipfile_serialization=False))
    for a, b in zip(plain[0].state_dict().values(), other[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(plain[1][name], other[1][name]) for name in plain[1])


def test_a_dense_classifier_has_no_masks_and_takes_no_part(tmp_path):
    for name, net, last in (("resnet8", lottery_resnet(8), "fc"), ("conv", conv(1, 8), "5"), ("fc", fc(784), "11")):

        def change(state, last=last):
            for part in ("weight", "bias"):
                del state[f"{last}.{part}_mask"]

        original = trained(net)
        with torch.no_grad():
            original.get_parameter(f"{last}.weight").mul_(original.get_buffer(f"{last}.weight_mask"))
        path = saved(tmp_path / "model.pt", original, change)
        model, kept = load_reference_checkpoint(path)
        assert list(kept) == list(masks.prunable(model, spare=["last"]))
        x = images(describe(path)["shape"])
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x), logits(original, x), rtol=1e-4, atol=1e-4)
        assert describe(path)["name"] == name


def test_a_file_without_masks_is_a_dense_network(tmp_path):
    original = trained(lottery_vgg(True), density=1)
    path = saved(tmp_path / "m.pt", original, lambda s: {k: v for k, v in s.items() if not k.endswith("_mask")})
    model, kept = load_reference_checkpoint(path)
    assert list(kept) == list(masks.prunable(model))
    assert masks.density_of(kept) == 1


@pytest.mark.parametrize(
    ("removed", "also"),
    [("layers.0.conv.bias", ["biases"]), ("layers.2.bn.weight", ["scales"]), ("layers.2.bn.bias", ["shifts"])],
)
def test_removed_biases_and_batch_norms_stay_removed_and_are_named_by_the_masks(removed, also, tmp_path):
    original = trained(lottery_vgg(True))
    original.get_buffer(f"{removed}_mask")[::2] = 0
    model, kept = load_reference_checkpoint(saved(tmp_path / "model.pt", original))
    x = images((3, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), logits(original, x), rtol=1e-4, atol=1e-3)
    assert not model.get_parameter(removed)[::2].any()
    assert kept[removed].tolist() == [False, True] * (len(kept[removed]) // 2)
    ends = {"biases": ("conv.bias", "fc.bias"), "scales": ("bn.weight",), "shifts": ("bn.bias",)}[also[0]]
    of_that_kind = [name for name, _ in model.named_parameters() if name.endswith(ends)]
    assert set(kept) == set(masks.prunable(model)) | set(of_that_kind)
    masks.apply_masks_(model, kept)  # they fit


def test_sizes_that_are_given_are_held_to(tmp_path):
    path = saved(tmp_path / "model.pt", trained(lottery_resnet(8)))
    model, _ = load_reference_checkpoint(path, "resnet8", (3, 64, 64), 10)
    assert len(masks.prunable(model)) == 10
    square = saved(tmp_path / "fc.pt", trained(fc(2 * 5 * 9)))
    assert describe(square) == {"name": "fc", "shape": None, "classes": 10}
    assert load_reference_checkpoint(square, shape=(2, 5, 9))[0](images((2, 5, 9))).shape == (2, 10)


def test_the_file_is_left_as_it_was_and_only_the_tensors_are_read(tmp_path):
    path = saved(tmp_path / "model.pt", trained(fc(784)))
    before = path.read_bytes()
    state = torch.get_rng_state()
    load_reference_checkpoint(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.pt"]
    assert torch.equal(state, torch.get_rng_state())


# Refused, in one line


def refused(path, *arguments, error=ValueError):
    with pytest.raises(error) as caught:
        load_reference_checkpoint(path, *arguments)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "PATH")


def test_no_file(tmp_path):
    assert refused(tmp_path / "model.pt", error=FileNotFoundError) == "no file PATH"
    assert refused(tmp_path, error=FileNotFoundError) == "no file PATH"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet14"], "PATH fits no resnet14: blocks.1.conv1.weight is 32x16x3x3 there, 16x16x3x3 is allowed"),
        (["vgg16"], "PATH fits no vgg16: layers.0.conv.weight is missing there, 64x3x3x3 is allowed"),
        (["fc"], "PATH fits no fc: layers.0.weight is 16x3x3x3 there, 100x3072 is allowed"),
        ([None, (1, 28, 28)], "PATH fits no resnet8: conv.weight is 16x3x3x3 there, 16x1x3x3 is allowed"),
        ([None, None, 7], "PATH fits no resnet8: fc.weight is 10x64 there, 7x64 is allowed"),
    ],
)
def test_a_checkpoint_of_another_network(arguments, said, tmp_path):
    assert refused(saved(tmp_path / "model.pt", trained(lottery_resnet(8))), *arguments).startswith(said)


def test_unknown_names_and_no_known_network(tmp_path):
    path = saved(tmp_path / "model.pt", nn.Sequential(OrderedDict(head=nn.Linear(3, 2))))
    assert refused(path) == "PATH fits no model: its first tensor is head.weight, 2x3"
    torch.save({"blocks.0.shortcut.weight": torch.ones(3, 1, 1)}, tmp_path / "identity.pt")
    assert refused(tmp_path / "identity.pt") == "PATH fits no model: its first tensor is nothing, missing"
    with pytest.raises(ValueError, match="depth of a CIFAR ResNet is 21"):
        load_reference_checkpoint(path, "resnet21")
    odd = saved(tmp_path / "odd.pt", trained(lottery_vgg(True)), lambda s: s | {"layers.9.extra": torch.ones(2)})
    assert refused(odd) == "PATH fits no vgg11-bn: layers.9.extra is 2 there, missing is allowed"


ODD = {
    "a first convolution without dimensions": {"conv.weight": ()}
    | {f"blocks.{n}.conv1.weight": (1,) for n in range(3)},
    "a VGG's convolution without dimensions": {"layers.0.conv.weight": ()},
    "a classifier of one dimension": {f"features.{n}.weight": (c, 1, 3, 3) for n, c in enumerate(VGG11)}
    | {"classifier.0.weight": (5,)},
    "stages whose first block is missing": {
        f"layer{stage}.{n}.conv1.weight": (64, 64, 1, 1)
        for stage, count in enumerate(STAGES[50], 1)
        for n in range(1, count + 1)
    },
    "identities only": {"blocks.0.shortcut.weight": (3, 1, 1)},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", [None, "fc", "conv", "vgg11"])
def test_tensors_of_other_dimensions_than_their_names_promise(odd, name, tmp_path):
    torch.save({key: torch.ones(size) for key, size in ODD[odd].items()}, tmp_path / "model.pt")
    assert refused(tmp_path / "model.pt", name).startswith(f"PATH fits no {name or 'model'}: ")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_not_run(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    torch.save({"conv.weight": Evil()}, path, _use_new_zipfile_serialization=zipped)
    name = Evil().__reduce__()[0].__module__
    assert refused(path) == f"PATH holds pickled code ({name}.mkdir), which is not run: tensors are allowed"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    assert "pickled code (torch.nn.modules.linear.Linear)" in refused(path)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_damaged_files(tmp_path):
    path = saved(tmp_path / "model.pt", trained(fc(784)))
    content = path.read_bytes()
    old = saved(tmp_path / "old.pt", trained(fc(784)), _use_new_zipfile_serialization=False).read_bytes()
    for damaged in (b"", b"nothing of the kind", content[:1000], content[:-30], old[:1000], old[:-30], content[1000:]):
        path.write_bytes(damaged)
        assert refused(path).startswith("PATH is damaged, or no checkpoint (")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([torch.ones(2)], "list"),
        (torch.ones(2), "Tensor"),
        ({}, "nothing"),
        ({"state_dict": {"fc.weight": torch.ones(2, 2)}}, "'state_dict', dict"),
        ({"fc.weight": 3.5}, "'fc.weight', float"),
        ({3: torch.ones(2)}, "3, torch.strided"),
    ],
)
def test_files_of_something_else(value, said, tmp_path):
    torch.save(value, tmp_path / "model.pt")
    assert refused(tmp_path / "model.pt") == f"PATH holds {said}: a state dict of tensors is allowed"


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), 2.0])
def test_masks_of_other_values(value, tmp_path):
    original = trained(lottery_resnet(8))
    original.get_buffer("blocks.1.conv2.weight_mask")[0, 0, 0, 0] = value
    said = f"PATH: mask blocks.1.conv2.weight_mask holds {value:g}: 0 and 1 are allowed"
    assert refused(saved(tmp_path / "model.pt", original)) == said


def test_masks_of_other_shapes_or_of_nothing(tmp_path):
    original = trained(lottery_resnet(8))
    path = saved(tmp_path / "a.pt", original, lambda s: s | {"fc.weight_mask": torch.ones(64)})
    assert refused(path) == "PATH: mask fc.weight_mask is 64: 10x64 is allowed"
    path = saved(tmp_path / "b.pt", original, lambda s: s | {"gone.weight_mask": torch.ones(64)})
    assert refused(path) == "PATH: mask gone.weight_mask is 64: missing is allowed"


@pytest.mark.parametrize(("name", "wrong"), [("weight", "trained"), ("weight_mask", "pruned")])
@pytest.mark.parametrize(("make", "block"), [(lottery_resnet, "blocks.0"), (small_image_resnet, "conv3_x.1")])
def test_shortcuts_that_are_no_identity_any_more(make, block, name, wrong, tmp_path):
    original = trained(make(8 if make is lottery_resnet else 18))
    with torch.no_grad():
        original.state_dict()[f"{block}.shortcut.{name}"][3] = 0
    said = f"PATH: identity shortcut {block}.shortcut.weight is {wrong}: all ones are allowed, ours has no weights"
    assert refused(saved(tmp_path / "model.pt", original)) == said
