"""Sensitivity: one layer at a time, against the same done by hand."""

import copy

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from test_train import tiny

from lib import data as datasets
from lib import masks, models, plots_sensitivity, sensitivity, train
from lib.findings import sensitivity as findings


@pytest.fixture(scope="module")
def trained():
    data = tiny()
    model = models.build("mlp-2x16", data.shape, data.classes, seed=1)
    train.train(model, data, epochs=3, batch=16, lr=0.01, seed=1)
    return model, data


def test_weights_of_one_layer_are_removed_and_no_others(trained):
    model, data = trained
    before = copy.deepcopy(model.state_dict())
    rows = pd.DataFrame(sensitivity.sensitivity(model, data, "mag", [], [0.0, 0.5, 0.9], batch=16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    whole = train.evaluate(model, data, batch=16)["top1_pct"]
    assert rows.loc[rows["sparsity_pct"] == 0, "top1_pct"].tolist() == [whole] * (1 + 3 + 2)
    for number in range(3):
        one = copy.deepcopy(model)
        weight = one.layers[number].weight
        lowest = weight.detach().abs().flatten().argsort()[: int(0.9 * weight.numel())]
        with torch.no_grad():
            weight.view(-1)[lowest] = 0
        row = rows[(rows["layer"] == f"layers.{number}") & (rows["kind"] == "weights") & (rows["sparsity_pct"] == 90)]
        assert row["top1_pct"].item() == train.evaluate(one, data, batch=16)["top1_pct"]
        assert row["removed_pct"].item() == pytest.approx(90, abs=100 / weight.numel())


def test_neurons_of_one_layer_are_silent(trained):
    model, data = trained
    rows = pd.DataFrame(sensitivity.sensitivity(model, data, "mag", [], [0.5], batch=16))
    neurons = rows[rows["kind"] == "neurons"]
    assert neurons["layer"].tolist() == ["layers.0", "layers.1"], "classes are not neurons to remove"
    for number in (0, 1):
        one = copy.deepcopy(model)
        layer = one.layers[number]
        least = layer.weight.detach().abs().sum(1).argsort()[:8]
        with torch.no_grad():
            layer.weight[least], layer.bias[least] = 0, 0
        assert neurons["top1_pct"].iloc[number] == train.evaluate(one, data, batch=16)["top1_pct"]


def test_layers_that_meet_in_a_sum_are_one():
    data = tiny()
    model = models.build("resnet8", data.shape, data.classes, seed=1)
    rows = pd.DataFrame(sensitivity.sensitivity(model, data, "mag", [], [0.5]))
    assert any("more" in layer for layer in rows.loc[rows["kind"] == "channels", "layer"])
    assert len(rows[rows["kind"] == "weights"]) == 1 + len(masks.prunable(model))


def test_impossible_numbers_are_refused(trained):
    model, data = trained
    for wrong in ([], [1.0], [-0.1]):
        with pytest.raises(ValueError, match="sparsities are .* from 0 to below 1 are allowed"):
            sensitivity.sensitivity(model, data, "mag", [], wrong)
    with pytest.raises(ValueError, match="test_images is 99999: 0 .all. to"):
        sensitivity.fewer_tests(data, 99999)
    assert len(sensitivity.fewer_tests(data, 3).test_x) == 3
    assert sensitivity.fewer_tests(data, 0) is data


def test_fewer_test_images_are_of_every_class():
    data = datasets.load("digits")  # class after class
    few = sensitivity.fewer_tests(data, 50)
    assert few.test_y.bincount().tolist() == [5] * 10
    assert torch.equal(few.test_x, data.test_x[::20])


ROWS = pd.DataFrame(
    [("", "weights", 0, 90.0)]
    + [("a", "weights", s, top1) for s, top1 in ((50, 89.5), (70, 88.0), (90, 89.6))]
    + [("b", "weights", s, top1) for s, top1 in ((50, 90.0), (70, 89.9), (90, 89.2))]
    + [("a", "neurons", s, top1) for s, top1 in ((50, 60.0), (70, 50.0), (90, 20.0))],
    columns=["layer", "kind", "sparsity_pct", "top1_pct"],
)


def test_what_a_layer_bears_ends_at_the_first_clear_fall():
    images = 14_400  # of 90 %: 0.707 points are two standard errors of a difference
    assert findings.allowed(ROWS, images) == pytest.approx(0.7071, abs=1e-3)
    found = findings.tolerated(ROWS, images).set_index(["kind", "layer"])
    assert found.loc[("weights", "a"), "tolerated_pct"] == 50, "a later recovery does not count"
    assert found.loc[("weights", "b"), "tolerated_pct"] == 70
    assert findings.tolerated(ROWS, 100)["tolerated_pct"].tolist() == [90, 90, 0], "little is clear with few images"
    assert found.loc[("neurons", "a"), "tolerated_pct"] == 0
    assert found.loc[("neurons", "a"), "cost_points"] == pytest.approx(70)
    most, ends, clear = findings.sentences(ROWS, images)
    assert (
        "`b` leaves the lowest accuracy (0.80 points less; no clear loss up to 70 %) and `a` the highest (0.40" in most
    )
    assert "the first of these layers, `a`, it is 0.40 points less and" in ends
    assert ends.endswith("of the last, `b`, 0.80 points less.")
    assert "clear above 0.71 points" in clear
    assert list(findings.table(ROWS, images).index) == ["a", "b"]
    assert findings.table(ROWS, images)["weights: points at 90 %"].tolist() == ["−0.40", "−0.80"]


def test_the_figure_has_a_panel_a_kind_and_a_line_a_layer():
    figure = plots_sensitivity.layers(ROWS)
    assert [ax.get_title("left") + ax.get_title() for ax in figure.axes] == ["weights", "neurons"]
    assert [len(ax.lines) - 1 for ax in figure.axes] == [2, 1]
    plt.close(figure)
