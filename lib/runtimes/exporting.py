"""A network as an ONNX file."""

from pathlib import Path

import torch
from torch import nn

from lib.compiling import first_line
from lib.data import blank
from lib.files import replacing
from lib.masks import evaluating

INPUT, OUTPUT = "x", "logits"


def export(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write `model`, in evaluation mode and with its weights as they are, to `path` as ONNX.

    The file takes a batch of any size of inputs of `shape` as `x` and gives their `logits`. The model is on the CPU and
    is left as it was. ValueError in one line where it cannot be exported.

    torch's exporter of graphs from torch.export; the one of TorchScript takes a tenth of the time and is about to be
    removed. On one core 1 s for a feed-forward network, 2 to 3 s for ResNet-20, and 4 to 6 s before the first one.
    """
    batch = ({0: torch.export.Dim("batch")},)
    try:
        with evaluating(model):
            # two inputs: a batch of one would be taken for a constant
            program = torch.onnx.export(
                *(model, (blank(shape, 2),)),
                dynamo=True, dynamic_shapes=batch, input_names=[INPUT], output_names=[OUTPUT], verbose=False,
            )  # fmt: skip
        content = _without_notes(program.model_proto).SerializeToString()
    except Exception as error:  # whatever torch.export meets in a forward, or a missing package
        raise ValueError(f"cannot be exported: {first_line(error.__cause__ or error)}") from error
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _without_notes(proto):
    """The same without the exporter's notes on where in the code a node comes from: up to a third of a small file."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto
