import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib import flops, masks, models


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["fc", "resnet8", "resnet20"])
def test_dense_macs_agree_with_torchs_own_counter(name, shape):
    model = models.build(name, shape).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    assert 2 * flops.macs(model, shape)["macs_dense"] == counter.get_total_flops()


def test_resnet20_on_cifar10():
    assert flops.macs(models.build("resnet20"), (3, 32, 32)) == {"macs_dense": 40_813_184, "macs_kept": 40_813_184}


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
