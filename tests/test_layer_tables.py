import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import flops, layer_tables, masks, models


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))


def magnitudes(model: nn.Module) -> masks.Scores:
    return {name: weight.detach().abs() for name, weight in masks.prunable(model).items()}


def test_layer_rows_by_hand():
    model = small_net()
    kept = masks.full(model)
    kept["4.weight"][:] = False
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 0, :2] = torch.tensor([1.0, 3.0])
    kept["0.weight"][:] = False
    kept["0.weight"][0, 0, 0, :2] = True
    conv, linear = layer_tables.layer_rows(model, kept, (2, 4, 4))
    assert conv == {
        "layer": "0",
        "kind": "conv",
        "shape": "3x2x3x3",
        "weights": 54,
        "kept": 2,
        "density": 2 / 54,
        "macs_dense": 54 * 16,
        "macs_kept": 2 * 16,
        "mean": 2.0,
        "std": 1.0,
        "min": 1.0,
        "max": 3.0,
    }
    assert (linear["kind"], linear["shape"], linear["kept"], linear["macs_kept"]) == ("linear", "4x48", 0, 0)
    assert all(linear[key] is None for key in ("mean", "std", "min", "max"))


@settings(deadline=None)
@given(st.integers(1, 80), st.floats(0.05, 1))
def test_histograms_count_every_weight_once(bins, density):
    model = small_net()
    kept = masks.keep_top(magnitudes(model), density)
    rows = layer_tables.histogram_rows(model, kept, bins)
    for name, mask in kept.items():
        own = [row for row in rows if f"{row['layer']}.weight" == name]
        assert len(own) == bins
        assert sum(row["kept"] for row in own) == int(mask.sum())
        assert sum(row["removed"] for row in own) == int((~mask).sum())
        assert all(a["right"] == b["left"] for a, b in zip(own[:-1], own[1:], strict=True))


def test_removed_weights_stand_at_their_reference_values():
    model = small_net()
    reference = {name: weight.detach().clone() for name, weight in masks.prunable(model).items()}
    kept = masks.keep_top(magnitudes(model), 0.5)
    dense = layer_tables.histogram_rows(model, kept)
    masks.apply_masks_(model, kept)
    assert layer_tables.histogram_rows(model, kept, reference=reference) == dense
    at_zero = [row["removed"] for row in layer_tables.histogram_rows(model, kept) if row["layer"] == "4"]
    assert [count for count in at_zero if count] == [int((~kept["4.weight"]).sum())], (
        "without a reference they are all in the bin of zero"
    )


def test_statistics_agree_with_numpy_however_masks_lie_in_memory():
    model = models.build("resnet8")
    kept = masks.keep_top(magnitudes(model), 0.3)
    rows = layer_tables.layer_rows(model, kept, (3, 32, 32))
    for (name, mask), row in zip(kept.items(), rows, strict=True):
        values = model.get_parameter(name).detach().double().numpy()[mask.numpy()]
        for key, function in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
            assert row[key] == pytest.approx(function(values), rel=1e-12, abs=1e-15)
    other = {name: mask.contiguous() for name, mask in kept.items()}
    assert layer_tables.layer_rows(model, other, (3, 32, 32)) == rows
    assert layer_tables.histogram_rows(model, other) == layer_tables.histogram_rows(model, kept)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5]) | st.floats(-3, 3, width=32), min_size=1, max_size=60),
    st.integers(1, 20),
    st.data(),
)
def test_histograms_agree_with_numpy_also_on_the_edges(values, bins, data):
    layer = nn.Sequential(nn.Linear(len(values), 1, bias=False))
    layer[0].weight.data = torch.tensor([values])
    inside = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    rows = layer_tables.histogram_rows(layer, {"0.weight": torch.from_numpy(inside)[None]}, bins)
    array = np.array(values, dtype=np.float32)
    edges = np.histogram_bin_edges(array, bins)
    assert [row["left"] for row in rows] + [rows[-1]["right"]] == edges.tolist()
    assert [row["kept"] for row in rows] == np.histogram(array[inside], edges)[0].tolist()
    assert [row["removed"] for row in rows] == np.histogram(array[~inside], edges)[0].tolist()


def test_there_is_a_row_for_everything_that_takes_part_and_for_nothing_else():
    model, shape = models.build("vgg11-bn"), (3, 32, 32)
    whole = flops.macs(model, shape)["macs_dense"]
    more = masks.full(model, also=("biases", "norms"))
    rows = layer_tables.layer_rows(model, more, shape)
    assert [row["weights"] for row in rows] == [mask.numel() for mask in more.values()]
    kinds = {row["layer"]: row["kind"] for row in rows}
    assert sum(kind == "conv" for kind in kinds.values()) == 8
    assert kinds["fc"] == "linear"
    assert kinds["fc.bias"] == "bias"
    assert set(kinds.values()) == {"conv", "linear", "norm", "bias"}
    assert sum(row["macs_dense"] for row in rows) == whole
    assert {row["macs_dense"] for row in rows if row["kind"] in ("norm", "bias")} == {0}
    assert {row["layer"] for row in layer_tables.histogram_rows(model, more, 3)} == set(kinds)

    fewer = masks.full(model, spare=("last",))
    rows = layer_tables.layer_rows(model, fewer, shape)
    assert [row["layer"] for row in rows] == [name for name in kinds if kinds[name] == "conv"]
    assert sum(row["macs_dense"] for row in rows) == whole - 512 * 10
    assert flops.macs(model, shape, fewer) == {"macs_dense": whole, "macs_kept": whole}
