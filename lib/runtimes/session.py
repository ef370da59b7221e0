"""ONNX files run by ONNX Runtime on the CPU."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lib.compiling import first_line
from lib.runtimes.exporting import INPUT

ERRORS = 3  # severity from which ONNX Runtime writes to the terminal
UNSUPPORTED = ("NOT_IMPLEMENTED", "is not a registered function/op", "No Op registered")


def session(path: Path) -> Callable[[Tensor], Tensor]:
    """A function from inputs (N, ...) on the CPU to logits (N, classes): the network in the file, by ONNX Runtime.

    It computes with as many threads as torch. ValueError in one line where ONNX Runtime is not installed, lacks an
    operation of the network, or does not take the file.
    """
    runtime = imported()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ERRORS
    # between passes its threads sleep: those that wait actively would take the cores from whoever is timed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        made = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own in common
        raise ValueError(_why(error)) from error

    def network(x: Tensor) -> Tensor:
        return torch.from_numpy(made.run(None, {INPUT: x.numpy()})[0])

    return network


def imported():
    """The package onnxruntime; ValueError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("onnxruntime is not installed") from error
    return onnxruntime


def _why(error: Exception) -> str:
    text = first_line(error)
    kind = "op not supported" if any(sign in str(error) for sign in UNSUPPORTED) else "cannot be run"
    return f"{kind}: {re.sub(r'^.ONNXRuntimeError. : [0-9]+ : [A-Z_]+ : ', '', text)}"
