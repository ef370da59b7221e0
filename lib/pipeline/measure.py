"""What a network between two stages is: its size on disk, its operations, its accuracy."""

import hashlib

import pandas as pd

from lib.data import Dataset, normalise
from lib.masks import Masks
from lib.pipeline import inputs, operations
from lib.pipeline.network import Network
from lib.sensitivity import fewer_tests

# holder of values -> the metric that they count for; positions, tables and the header count for themselves
VALUES = {
    "convolution": "convolution_bytes",
    "linear": "linear_bytes",
    "bias": "bias_bytes",
    "norm": "norm_bytes",
    "other": "other_bytes",
}
REST = {"indices": "index_bytes", "table": "table_bytes", "header": "header_bytes"}


def measured(
    network: Network, parts: pd.DataFrame, dataset: Dataset, validation: Dataset, images: int
) -> tuple[dict, list[dict]]:
    """The metrics of a stage, and a row a layer.

    `parts` are those of the model file (see `lib.pipeline.stored.save`), `images` the test images over which zeros of
    activations and the operations that they save are counted, spread evenly over all; 0 takes all. Accuracies are
    those on all test images and on the images of `validation`.
    """
    some = fewer_tests(dataset, images)
    totals, layers = operations.count(network, normalise(some, some.test_x))
    test, held_out = (inputs.evaluated(network, part) for part in (dataset, validation))
    masks = network.masks
    metrics = {
        "parameters": sum(p.numel() for p in network.model.parameters()),
        "prunable": sum(mask.numel() for mask in masks.values()),
        "weights_kept": sum(int(mask.count_nonzero()) for mask in masks.values()),
        "masks_digest": digest(masks),
        **sizes(parts),
        **totals,
        "top1_pct": test["top1_pct"],
        "test_loss": test["loss"],
        "validation_top1_pct": held_out["top1_pct"],
    }
    return metrics, with_bytes(layers, parts)


def sizes(parts: pd.DataFrame) -> dict[str, int]:
    """`file_bytes` and what it consists of: values of convolutions, of linear layers ..., positions, tables, header."""
    found = {"file_bytes": int(parts["bytes"].sum())} | dict.fromkeys([*VALUES.values(), *REST.values()], 0)
    for row in parts.itertuples():
        found[VALUES[row.holder] if row.part == "values" else REST[row.part]] += int(row.bytes)
    return found


def with_bytes(layers: list[dict], parts: pd.DataFrame) -> list[dict]:
    """The rows with `bytes`, all that the file spends on the layer's weight: values, positions, tables."""
    spent = parts.groupby("tensor")["bytes"].sum()
    return [{**row, "bytes": int(spent.get(f"{row['layer']}.weight", 0))} for row in layers]


def digest(masks: Masks) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all masks: equal for equal masks."""
    found = hashlib.sha256()
    for name, mask in masks.items():
        found.update(name.encode())
        found.update(mask.cpu().contiguous().numpy())
    return found.hexdigest()[:16]
