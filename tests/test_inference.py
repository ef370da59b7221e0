import pytest
import torch
from test_compact import Untraceable, build, lively
from torch import nn
from torch._dynamo.utils import counters

from lib import compact, compiling, inference, masks

SHAPE = (3, 8, 8)
BATCH = 6


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        yield


def small(seed: int = 0) -> nn.Module:
    """Quickly compiled: a convolution with batch norm and pooling, and a linear layer."""
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    tail = (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    return lively(nn.Sequential(convolution, *tail), seed)


def images(count: int = BATCH) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def reference(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x)


# bfloat16 has 8 significant bits: an error of 2 ** -9 a rounding, of which a few layers make some per cent
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_compiled_logits_agree_also_for_the_last_batch_and_nothing_is_compiled_twice(precision, tolerance):
    model = small()
    network, facts = inference.fast(model, precision=precision, sample=images())
    assert (facts["precision"], facts["folded"], facts["compiled"], facts["why"]) == (precision, 1, True, None)
    assert facts["compile_s"] > 0
    graphs = counters["stats"]["unique_graphs"]
    for x in (images(), images(BATCH - 1), images(1), images(2 * BATCH), images()):
        expected, logits = reference(model, x), network(x)
        assert (logits.shape, logits.dtype) == (expected.shape, torch.float32)
        found = inference.agreement(expected, logits)
        assert found["max_abs_logit_difference"] <= tolerance * found["max_abs_logit"]
        assert precision != "float32" or found["equal_predictions"] == 1
    assert counters["stats"]["unique_graphs"] == graphs


def test_networks_stay_compiled_beside_each_other_and_right_once_torch_compile_has_forgotten_them():
    """One of them without its dead channels, and with a bias map."""
    dense, pruned = small(), small(seed=1)
    kept = masks.full(pruned)
    kept["0.0.weight"][:6] = False
    smaller, _ = compact.compact(pruned, kept, SHAPE)
    assert any(name.endswith("bias_map") for name, _ in smaller.named_buffers())
    made = [(model, *inference.fast(model, sample=images())) for model in (dense, smaller)]
    assert all(facts["compiled"] for _, _, facts in made)
    graphs = counters["stats"]["unique_graphs"]
    for _ in range(2):
        for model, network, _ in made:
            torch.testing.assert_close(network(images()), reference(model, images()), rtol=1e-4, atol=1e-4)
        torch.compiler.reset()
    assert counters["stats"]["unique_graphs"] == graphs


def test_the_model_is_left_alone(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_missing", lambda: "not here")
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network, _ = inference.fast(model, precision="bfloat16", sample=images())
    network(images())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model[1].weight.is_contiguous()


def test_without_a_compiler_the_folded_network_runs_and_the_reason_is_one_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    model = build("resnet8")
    network, facts = inference.fast(model, sample=images())
    assert not facts["compiled"]
    assert facts["why"] == "no C++ compiler (no-such-compiler) was found"
    assert facts["folded"] == 9
    found = inference.agreement(reference(model, images(4)), network(images(4)))
    assert found["max_abs_logit_difference"] <= 1e-5 * found["max_abs_logit"]


def test_a_compiler_that_fails_is_named_in_one_line(monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("no registers left\nand much more")

    monkeypatch.setattr(torch, "compile", fails)
    network, facts = inference.fast(build("fc"), sample=images())
    assert (facts["compiled"], facts["why"]) == (False, "no registers left")
    assert network(images(2)).shape == (2, 10)


def test_a_network_that_cannot_be_traced_still_runs(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_missing", lambda: "not here")
    model = Untraceable().eval()
    network, facts = inference.fast(model, sample=images())
    assert facts["folded"] == 0
    torch.testing.assert_close(network(images()), reference(model, images()))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_precisions_of_a_cpu(precision):
    with pytest.raises(ValueError, match=f"unknown precision '{precision}' on cpu: one of float32, bfloat16"):
        inference.fast(build("fc"), precision=precision, sample=images())


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in model.modules())


def test_folding_keeps_logits_and_names():
    for name, left in (("resnet8", 0), ("fc", 0), ("vgg", 2), ("vgg with batch norm", 0), ("bottlenecks", 0)):
        model = build(name)
        found = inference.folded(model)
        torch.testing.assert_close(found(images()), model(images()), rtol=1e-4, atol=1e-4)
        assert norms(found) == left
    assert inference.folded(build("resnet8")).get_submodule("blocks.0.conv1").bias is not None


def test_folding_without_affine_parameters_and_with_shared_layers():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4, affine=False))
    shared = nn.Conv2d(3, 3, 3, padding=1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU(), shared, nn.BatchNorm2d(3))
    for model, left in ((plain, 0), (twice, 2)):
        found = inference.folded(lively(model))
        torch.testing.assert_close(found(images()), model(images()), rtol=1e-4, atol=1e-4)
        assert norms(found) == left


def test_agreement_by_hand():
    reference_logits = torch.tensor([[1.0, -4.0], [0.5, 0.25]])
    logits = torch.tensor([[1.0, -4.5], [0.25, 0.5]], dtype=torch.bfloat16)
    assert inference.agreement(reference_logits, logits) == {
        "max_abs_logit_difference": 0.5,
        "max_abs_logit": 4.0,
        "equal_predictions": 0.5,
    }
