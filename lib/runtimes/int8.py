"""8-bit weights and activations in ONNX Runtime: static quantisation, computed in integers."""

import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import onnx
import torch
from torch import Tensor

from lib.compiling import first_line
from lib.runtimes.exporting import INPUT, OUTPUT
from lib.runtimes.session import imported

# What has weights. Activations and sums between two of these become integer operations too when the file is loaded.
OPERATIONS = ["Conv", "Gemm", "MatMul", "Gather"]


def quantise(source: Path, path: Path, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Write the network of the ONNX file `source` with 8-bit weights and activations to `path`.

    Batch norm is folded into the convolution before it. Weights are int8 (7 bits where `narrow()`), symmetric, one
    scale an output channel; activations uint8, one scale and zero point a tensor, from the least and the largest value
    that they take on `batches`; logits stay in float32. Jacob et al. 2018 (arXiv 1712.05877); written as pairs of
    QuantizeLinear and DequantizeLinear, which ONNX Runtime turns into integer kernels. ValueError in one line where
    this is not possible.
    """
    imported()
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        # it asks for nothing but the next batch, None at the end
        reader = SimpleNamespace(get_next=partial(next, iter([{INPUT: x.cpu().numpy()} for x, _ in batches]), None))
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(
                *(prepared, path, reader),
                quant_format=QuantFormat.QDQ, op_types_to_quantize=OPERATIONS, nodes_to_exclude=_products(prepared),
                per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8, reduce_range=narrow(),
            )  # fmt: skip
        _keep_logits(path)
    except Exception as error:  # of many classes, for a graph that the quantiser does not know
        raise ValueError(f"cannot be quantised: {first_line(error)}") from error


def _products(path: Path) -> list[str]:
    """The nodes that multiply two activations, as in attention: these stay in float32, as in `lib.quantise`."""
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and not weights & {*node.input}]


def _keep_logits(path: Path) -> None:
    """Take the rounding of the logits to 8 bits out of the file: two classes could become equal."""
    made = onnx.load(path)
    makers = {output: node for node in made.graph.node for output in node.output}
    back = makers[OUTPUT]
    if back.op_type == "DequantizeLinear":
        rounding = makers[back.input[0]]
        layer = makers[rounding.input[0]]
        layer.output[0] = OUTPUT
        made.graph.node.remove(rounding)
        made.graph.node.remove(back)
        onnx.save(made, path)


def narrow() -> bool:
    """Whether this processor needs weights of 7 bits: x86 without VNNI adds products of 8 bits in 16 and overflows."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return known.get("architecture") == "x86_64" and not (known.get("avx512_vnni") or known.get("avx_vnni"))
