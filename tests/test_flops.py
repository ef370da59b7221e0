import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib import flops, masks, models


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["fc", "conv", "resnet8", "resnet20", "vgg11-bn", "resnet18"])
def test_dense_macs_agree_with_torchs_own_counter(name, shape):
    model = models.build(name, shape).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    assert 2 * flops.macs(model, shape)["macs_dense"] == counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "macs"), [("resnet20", 40_813_184), ("vgg16", 313_201_664), ("resnet50", 1_297_829_888)]
)
def test_macs_on_cifar10(name, macs):
    assert flops.macs(models.build(name), (3, 32, 32)) == {"macs_dense": macs, "macs_kept": macs}


def test_grouped_and_strided_convolution_by_hand():
    model = nn.Conv2d(4, 8, kernel_size=3, stride=2, padding=1, groups=2)
    assert flops.positions(nn.Sequential(model), (4, 10, 6)) == {"0.weight": 5 * 3}
    assert flops.macs(nn.Sequential(model), (4, 10, 6))["macs_dense"] == 8 * 2 * 3 * 3 * 15


def test_kept_macs_are_kept_weights_times_positions():
    model = models.build("resnet8")
    kept = masks.full(model)
    kept["conv.weight"][:] = False
    kept["conv.weight"][0, 0, 0, 0] = True
    dense = flops.macs(model, (3, 32, 32))["macs_dense"]
    assert flops.macs(model, (3, 32, 32), kept) == {
        "macs_dense": dense,
        "macs_kept": dense - (16 * 3 * 9 - 1) * 32 * 32,
    }


def test_counting_leaves_the_model_alone():
    model = models.build("resnet8").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flops.macs(model, (3, 32, 32))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_layers_without_a_mask_count_as_dense():
    model, shape = models.build("resnet8"), (3, 32, 32)
    dense = flops.macs(model, shape)["macs_dense"]
    nothing = {name: ~mask for name, mask in masks.full(model, also=masks.ALSO, spare=masks.SPARE).items()}
    shortcuts, classifier = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8, 64 * 10
    assert flops.macs(model, shape, nothing) == {"macs_dense": dense, "macs_kept": shortcuts + classifier}
    assert flops.macs(model, shape, {}) == {"macs_dense": dense, "macs_kept": dense}
