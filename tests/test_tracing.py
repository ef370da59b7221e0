"""Recording: one inference step in a file that the analysis understands."""

import gzip
import json

import pytest
import torch
from torch import nn
from torch.func import functional_call

from lib.traces import analyse
from lib.tracing import record


class Net(nn.Module):
    """Calls its convolutions in another order than it declares them."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 8, 3)
        self.first = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.second(self.first(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    torch.manual_seed(0)
    model = Net().eval()
    path = tmp_path_factory.mktemp("trace") / "deep" / "trace.json.gz"
    weights = {n: p.detach() for n, p in model.named_parameters() if p.ndim > 1}
    batches = ((torch.rand(2, 3, 12, 12), torch.zeros(2)) for _ in range(5))

    def forward(x):
        return functional_call(model, {n: w * (w > 0) for n, w in weights.items()}, (x,))

    record(forward, batches, path, model=model, about={"processor": "Test CPU"})
    return path, analyse(path), model, batches


def test_one_step_with_its_scopes(recorded):
    _, found, *_ = recorded
    assert found["steps"].name.tolist() == ["ProfilerStep#2"]
    assert found["scopes"].name.tolist() == ["data loading", "copy to device", "forward"]
    assert not found["gpu"]
    assert found["hardware"]["processor"] == "Test CPU"
    assert found["hardware"]["versions"]["torch"] == torch.__version__


def test_layers_are_named_in_the_order_of_their_calls(recorded):
    found = recorded[1]
    assert found["layers"].layer.tolist() == ["first", "second"]
    assert found["layers"].weight_shape.tolist() == ["4x3x3x3", "8x4x3x3"]


def test_masks_are_found_by_shape(recorded):
    assert recorded[1]["masks"]["evidence"] == {"shape": 3}


def test_three_batches_are_taken_and_no_hooks_stay(recorded):
    _, _, model, batches = recorded
    assert len(list(batches)) == 2
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_the_file_is_a_chrome_trace_and_alone(recorded):
    path = recorded[0]
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert {"traceEvents", "layers", "processor"} <= set(content)
    assert [p.name for p in path.parent.iterdir()] == ["trace.json.gz"]


def test_plain_json_and_bare_tensors(tmp_path):
    path = record(lambda x: x * 2, [torch.ones(2)] * 2, tmp_path / "t.json", warmup=1)
    assert "aten::mul" in set(analyse(path)["calls"].name)


@pytest.mark.parametrize(
    ("name", "batches", "warmup", "message"),
    [
        ("t.json", 3, 0, "warmup is 0: 1 or more"),
        ("t.txt", 3, 2, "no name for a trace"),
        ("t.json", 2, 2, "ended after 2: 3 are needed"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, name, batches, warmup, message):
    with pytest.raises(ValueError, match=message):
        record(lambda x: x, [torch.ones(1)] * batches, tmp_path / name, warmup=warmup)
    assert list(tmp_path.iterdir()) == []
