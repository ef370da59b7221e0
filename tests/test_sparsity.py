"""The three questions about sparsity, against numpy."""

import numpy as np
import pytest

from lib import masks, models, pruners, sparsity


def test_the_three_answers():
    model = models.build("mlp-2x32", (1, 8, 8), 10, seed=1)
    kept = pruners.prune(model, "mag", 0.4, [], seed=1)
    masks.apply_masks_(model, kept)
    arrays = {name: p.detach().numpy() for name, p in model.named_parameters()}
    for name in kept:
        assert sparsity.of_parameter(model.get_parameter(name)) == pytest.approx(np.mean(arrays[name] == 0))
    pruned = np.concatenate([arrays[name].ravel() for name in kept])
    everything = np.concatenate([array.ravel() for array in arrays.values()])
    assert sparsity.of_parameters(model, kept) == pytest.approx(np.mean(pruned == 0)) == pytest.approx(0.6, abs=1e-3)
    assert sparsity.of_model(model) == pytest.approx(np.mean(everything == 0))
    table = sparsity.by_parameter(model, kept).set_index("parameter")
    assert list(table.index) == [*kept, "these together", "whole model"]
    assert table.loc["these together", "sparsity_pct"] == pytest.approx(100 * sparsity.of_parameters(model, kept))
    assert table.loc["whole model", "zeros"] == np.sum(everything == 0)
    assert table.loc["layers.0.weight", "shape"] == "32x64"


def test_unknown_parameters_are_refused():
    model = models.build("mlp-1x8", (1, 4, 4), 10)
    for names in ([], ["weight"]):
        with pytest.raises(ValueError, match=r"one or more of layers\.0\.weight, .* are allowed"):
            sparsity.of_parameters(model, names)
