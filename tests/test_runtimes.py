"""Networks exported to ONNX and run by ONNX Runtime, in float32 and int8, against PyTorch and against arithmetic."""

import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lib import masks, models, pruners, quantise, runtimes, storage, structured
from lib.catalog import RUNTIMES, UNPRUNED
from lib.data import assemble, assemble_texts, normalise
from lib.runtimes import compared, int8, sources
from lib.runtimes.session import ERRORS
from lib.train import evaluate

TORCH, FLOAT32, INT8 = RUNTIMES


def of_images(size: int = 8):
    draw = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 256, (n, 1, size, size), generator=draw, dtype=torch.uint8) for n in (60, 70))
    return assemble("noise", train, torch.arange(60) % 3, test, torch.arange(70) % 3, source="Noise.")


def of_texts():
    draw = torch.Generator().manual_seed(0)
    train, test = (torch.randint(1, 30, (n, 6), generator=draw) for n in (60, 70))
    train[:, 4:] = test[::2, 3:] = 0  # texts of several lengths
    labels = torch.arange(60) % 2, torch.arange(70) % 2
    return assemble_texts("words", train, labels[0], test, labels[1], words=30, classes=2, source="Words.")


def built(name: str, data, seed: int = 0) -> nn.Module:
    """A network whose batch norms are no identity."""
    made = models.build(name, data.shape, data.classes, seed).eval()
    draw = torch.Generator().manual_seed(seed)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.2)
    return made


class Branching(nn.Module):
    """Its way depends on the values that come in: no graph has both."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Name -> (data, model, ONNX file)."""
    found, folder = {}, tmp_path_factory.mktemp("onnx")
    for name, data in {"resnet8": of_images(), "mlp-1x16": of_images(), "transformer": of_texts()}.items():
        model = built(name, data)
        runtimes.export(model, data.shape, folder / f"{name}.onnx")
        found[name] = data, model, folder / f"{name}.onnx"
    return found


NAMES = ("resnet8", "mlp-1x16", "transformer")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 3, 64])
def test_onnx_runtime_computes_what_torch_does(exported, name, count):
    data, model, path = exported[name]
    x = normalise(data, data.test_x[:count])
    with torch.no_grad():
        wanted = model(x)
    found = runtimes.session(path)(x)
    assert found.shape == wanted.shape == (count, data.classes)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_file_holds_the_network_and_nothing_of_this_machine(exported):
    for _, model, path in exported.values():
        made = onnx.load(path)
        onnx.checker.check_model(made)
        stored = sum(numpy_helper.to_array(tensor).size for tensor in made.graph.initializer)
        assert stored >= sum(p.numel() for p in masks.prunable(model).values())
        assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        assert b"site-packages" not in path.read_bytes()
        assert b"/lib/" not in path.read_bytes()


def test_export_leaves_the_model_alone(tmp_path):
    data = of_images()
    model = models.build("mlp-1x16", data.shape, data.classes).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    runtimes.export(model, data.shape, tmp_path / "a.onnx")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_sessions_compute_with_as_many_threads_as_torch(exported, monkeypatch):
    seen = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: seen.append(options))
    runtimes.session(exported["mlp-1x16"][2])
    assert seen[0].intra_op_num_threads == torch.get_num_threads()


def test_weights_of_int8_are_those_of_the_simulation(exported, tmp_path):
    data, model, path = exported["mlp-1x16"]
    calibration = quantise.calibration_batches(data, 30, seed=0)
    runtimes.quantise(path, tmp_path / "int8.onnx", calibration)
    stored = [numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    stored = [array for array in stored if array.dtype == np.int8 and array.ndim == 2]
    if int8.narrow():
        pytest.skip("7 bits on a processor without VNNI")
    assert len(stored) == 2
    for array, layer in zip(stored, model.layers, strict=True):
        integers = quantise.integers(layer.weight)[0].numpy().astype(int)
        array = array if array.shape == integers.shape else array.T
        assert np.abs(array - integers).max() <= 1  # a value halfway may be rounded either way
        assert (array != integers).mean() < 0.01
    simulated = quantise.calibrated(model, calibration)
    # on the test images both clip what is beyond the ranges of the calibration: alike, and far from float32
    for x, clipped in ((calibration[0][0], False), (normalise(data, data.test_x), True)):
        with torch.no_grad():
            wanted, simulation = model(x), simulated(x)
        found = runtimes.session(tmp_path / "int8.onnx")(x)
        assert (found - simulation).abs().max() < 0.02 * wanted.abs().max()
        assert (found - wanted).abs().max() > 0
        assert clipped or (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_ranges_come_from_the_calibration(exported, tmp_path):
    data, _, path = exported["mlp-1x16"]
    batches = [(torch.full((2, *data.shape), -1.5), None), (torch.full((2, *data.shape), 3.6), None)]
    runtimes.quantise(path, tmp_path / "int8.onnx", batches)
    made = onnx.load(tmp_path / "int8.onnx")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    first = next(node for node in made.graph.node if node.op_type == "QuantizeLinear")
    assert values[first.input[1]] == pytest.approx(5.1 / 255)
    assert values[first.input[2]] == 75


@pytest.mark.parametrize(("name", "kernels"), [
    ("resnet8", {"QLinearConv": 9, "QGemm": 1}), ("mlp-1x16", {"QGemm": 2}),
    ("transformer", {"QGemm": 1}),
])  # fmt: skip
def test_int8_is_computed_in_integers(exported, tmp_path, name, kernels):
    """What ONNX Runtime makes of the file when it loads it: no layer is left in float32."""
    data, _, path = exported[name]
    runtimes.quantise(path, tmp_path / "int8.onnx", quantise.calibration_batches(data, 30, seed=0))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node)
    assert (
        found["Conv"] == found["FusedConv"] == found["Gemm"] == found["FusedGemm"] == found["BatchNormalization"] == 0
    )
    assert {kernel: found[kernel] for kernel in kernels} == kernels
    assert (tmp_path / "int8.onnx").stat().st_size < path.stat().st_size


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(data, networks, rows, functions) of a whole, a sparse and a smaller network."""
    data, folder = of_images(), tmp_path_factory.mktemp("files")
    networks = runtimes.examples("mlp-2x32", data, 0.1, 0.5, seed=1)
    calibration = quantise.calibration_batches(data, 30, seed=0)
    rows, functions = runtimes.measured(networks, "mlp-2x32", data, folder, calibration)
    return data, networks, rows, functions


def test_there_is_a_row_for_every_network_and_runtime(whole):
    data, networks, rows, functions = whole
    assert [(row["network"], row["runtime"]) for row in rows] == [(n, r) for n in networks for r in RUNTIMES]
    assert list(functions) == [(n, r) for n in networks for r in RUNTIMES]
    by = {(row["network"], row["runtime"]): row for row in rows}
    for name, (network, _) in networks.items():
        wanted = evaluate(network, data)["top1_pct"]
        assert by[name, TORCH]["top1_pct"] == pytest.approx(wanted)
        assert by[name, TORCH]["max_abs_logit_difference"] == 0
        assert by[name, FLOAT32]["top1_pct"] == pytest.approx(wanted)
        assert by[name, FLOAT32]["max_abs_logit_difference"] <= 1e-5 * by[name, FLOAT32]["max_abs_logit"]
        assert 0 < by[name, INT8]["max_abs_logit_difference"] < 0.1 * by[name, INT8]["max_abs_logit"]
        right = runtimes.logits(functions[name, INT8], data).argmax(1) == data.test_y
        assert by[name, INT8]["top1_pct"] == pytest.approx(100 * right.double().mean().item())
    assert all(row["disk_mb"] > row["compressed_mb"] > 0 for row in rows)
    assert all(row["note"] in ("", compared.NARROW) for row in rows)


def test_zeros_make_no_smaller_file_unless_compressed(whole):
    _, networks, rows, _ = whole
    by = {(row["pruning"], row["runtime"]): row for row in rows}
    for runtime in RUNTIMES:
        sparse, dense, smaller = (by[kind, runtime] for kind in ("unstructured", "unpruned", "structured"))
        assert sparse["disk_mb"] == pytest.approx(dense["disk_mb"], rel=0.02)
        assert sparse["compressed_mb"] < 0.6 * dense["compressed_mb"]
        assert smaller["disk_mb"] < 0.8 * dense["disk_mb"]
    assert [by[kind, TORCH]["density"] for kind in ("unpruned", "unstructured")] == [1, pytest.approx(0.1, abs=1e-3)]
    # 64 inputs, 2 x 32 units, 3 classes; half of the units of both layers are gone
    kept = (64 * 16 + 16 * 16 + 16 * 3) / (64 * 32 + 32 * 32 + 32 * 3)
    assert by["structured", TORCH]["density"] == pytest.approx(kept)
    network, kept = networks["unstructured 0.1"]
    assert all(torch.count_nonzero(network.get_parameter(name)[~mask]) == 0 for name, mask in kept.items())


def test_all_networks_and_runtimes_take_turns(whole):
    data, _, _, functions = whole
    rows = runtimes.latencies(functions, data, [1, 64], repeats=3, warmup=1)
    assert {tuple(row) for row in rows} == {("network", "batch", "repeat", "seconds", "runtime")}
    assert Counter((row["network"], row["runtime"], row["batch"]) for row in rows) == {
        (*label, batch): 3 for label in functions for batch in (1, 64)
    }
    assert all(row["seconds"] > 0 for row in rows)


def test_every_timed_pass_follows_one_of_another_network_in_its_runtime(whole, monkeypatch):
    data, seen = whole[0], []
    labels = [(network, runtime) for network in "abc" for runtime in RUNTIMES]
    functions = {label: lambda x, label=label: seen.append((*label, len(x))) for label in labels}
    monkeypatch.setattr(compared.time, "sleep", lambda _: seen.append("rest"))
    rows = runtimes.latencies(functions, data, [1, 64], repeats=20, warmup=1)
    assert len(rows) == 20 * len(labels) * 2
    size = 2 * (len(labels) + 3)  # of a round; the next one begins one turn later, so what follows its end is another
    rounds = [seen[start : start + size] for start in range(0, len(seen), size)]
    for turns in rounds:
        for before, own in pairwise(turns):
            changed = "rest" in (before, own) or (before[1] == TORCH) != (own[1] == TORCH) or before[2] != own[2]
            # what follows a change of runtimes or of the batch is an untimed pass, and that network has another one
            assert not changed or own == "rest" or turns.count(own) == 2
    assert seen.count("rest") == 21 * 2


@pytest.mark.parametrize("batches", [[], [0], [1, 71]])
def test_batches_that_the_test_set_does_not_hold(whole, batches):
    with pytest.raises(ValueError, match="1 to 70, all test inputs, are allowed"):
        runtimes.latencies(whole[3], whole[0], batches)


def fails(error: Exception):
    def function(*_, **__):
        raise error

    return function


def one(tmp_path, model: nn.Module | None = None) -> tuple[dict, dict]:
    """Row by runtime, and functions, of one network."""
    data = of_images()
    network = model or built("mlp-1x16", data)
    networks = {"a": (network, {})}
    rows, functions = runtimes.measured(
        networks, "mlp-1x16", data, tmp_path / "files", [(torch.zeros(2, 1, 8, 8), None)]
    )
    return {row["runtime"]: row for row in rows}, functions


def check_missing(row: dict, note: str):
    assert note in row["note"]
    assert "\n" not in row["note"]
    assert all(row[name] is None for name in (*compared.MEASURED, "made_s"))


def test_a_network_that_cannot_be_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(compared, "kept_of", lambda *_: {"pruning": "unpruned", "density": 1.0})
    rows, functions = one(tmp_path, Branching())
    assert list(functions) == [("a", TORCH)]
    assert rows[TORCH]["top1_pct"] >= 0
    check_missing(rows[FLOAT32], "cannot be exported: ")
    assert "data-dependent" in rows[FLOAT32]["note"]
    check_missing(rows[INT8], "cannot be quantised: there is no ONNX file of it")
    assert runtimes.latencies(functions, of_images(), [2], repeats=2, warmup=0)


def test_the_package_of_the_exporter_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", fails(ModuleNotFoundError("No module named 'onnxscript'")))
    rows, _ = one(tmp_path)
    check_missing(rows[FLOAT32], "cannot be exported: No module named 'onnxscript'")


def test_the_runtime_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    rows, functions = one(tmp_path)
    assert list(functions) == [("a", TORCH)]
    for runtime in (FLOAT32, INT8):
        check_missing(rows[runtime], "onnxruntime is not installed")


def unknown_operation(path) -> None:
    """A network of one operation that no runtime has."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "logits")]
    graph = helper.make_graph([helper.make_node("Nothing", ["x"], ["logits"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def test_the_runtime_lacks_an_operation(tmp_path, monkeypatch):
    monkeypatch.setattr(compared, "export", lambda model, shape, path: unknown_operation(path))
    rows, functions = one(tmp_path)
    assert list(functions) == [("a", TORCH)]
    check_missing(rows[FLOAT32], "op not supported: ")
    assert "Nothing" in rows[FLOAT32]["note"]
    check_missing(rows[INT8], "cannot be quantised: ")


def test_a_file_that_is_no_network(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="^cannot be run: ") as caught:
        runtimes.session(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_static_quantisation_is_not_possible(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fails(RuntimeError("no ranges\nmore")))
    rows, functions = one(tmp_path)
    assert list(functions) == [("a", TORCH), ("a", FLOAT32)]
    assert rows[FLOAT32]["note"] == ""
    check_missing(rows[INT8], "cannot be quantised: no ranges")


@pytest.mark.parametrize(("known", "wanted"), [
    ({"architecture": "x86_64", "avx2": True}, True), ({"architecture": "x86_64", "avx_vnni": True}, False),
    ({"architecture": "x86_64", "avx512_vnni": True}, False), ({"architecture": "aarch64"}, False), ({}, False),
])  # fmt: skip
def test_seven_bits_only_where_products_of_eight_overflow(monkeypatch, known, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert int8.narrow() is wanted


@pytest.mark.parametrize(
    ("name", "structure"), [("resnet8", "channels"), ("resnet14", "blocks"), ("transformer", "heads")]
)
def test_smaller_networks_come_back_from_disk(tmp_path, name, structure):
    data = of_texts() if name == "transformer" else of_images()
    _, smaller, _ = structured.remove(built(name, data), data.shape, structure, 0.5)
    sources.save(tmp_path, {f"{structure} 0.5": smaller})
    given = {"study/run": (tmp_path, {"data": data.name, "model": name})}
    found = runtimes.load(given, {"data": data.name, "model": name}, data)
    (key, (network, kept)) = found.popitem()
    assert (key, kept, found) == (f"study/run {structure}-0.5", {}, {})
    x = normalise(data, data.test_x)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), smaller.eval()(x))
    described = compared.kept_of(network, kept, models.build(name, data.shape, data.classes))
    assert described["pruning"] == "structured"


def test_the_unpruned_network_is_not_stored_again(tmp_path):
    data = of_images()
    whole = built("mlp-2x16", data)
    smaller = structured.remove(whole, data.shape, "neurons", 0.5)[1]
    sources.save(tmp_path, {UNPRUNED: whole, "neurons 0.5": smaller})
    assert [path.name for path in (tmp_path / sources.FOLDER).iterdir()] == ["neurons-0.5.safetensors"]


def test_ordinary_runs_are_read_with_their_masks(tmp_path):
    data = of_images()
    network = built("mlp-1x16", data)
    kept = pruners.prune(network, "mag", 0.2, [])
    storage.save_weights(tmp_path / "weights.safetensors", network)
    storage.save_masks(tmp_path / "masks.safetensors", kept)
    wanted = {"data": "noise", "model": "mlp-1x16"}
    found = runtimes.load({"study/run": (tmp_path, wanted)}, wanted, data)
    assert masks.density_of(found["study/run"][1]) == masks.density_of(kept)
    for other in ({"data": "digits"}, {"model": "fc"}):
        with pytest.raises(ValueError, match="source study/run has (data|model) '.*': only '.*' is allowed here"):
            runtimes.load({"study/run": (tmp_path, wanted | other)}, wanted, data)
    (tmp_path / sources.FOLDER).mkdir()
    (tmp_path / sources.FOLDER / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        runtimes.load({"study/run": (tmp_path, wanted)}, wanted, data)


def test_no_sources_are_no_networks():
    assert runtimes.load({}, {"data": "noise", "model": "fc"}, of_images()) == {}


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_examples(rate):
    data = of_images()
    found = runtimes.examples("resnet8", data, 0.1, rate, seed=1)
    assert list(found) == ["unpruned", "unstructured 0.1", "channels 0.25"][: 3 if rate else 2]
    assert masks.density_of(found["unstructured 0.1"][1]) == pytest.approx(0.1, abs=1e-3)
