"""Which weights compete: those of an output, or each four of its inputs (2:4), against orders by hand."""

import pytest
import torch
from torch import nn

from lib import masks, models, parameters, pruners, semi_structured
from lib.ranking import in_rows, keep_top, kept_count
from lib.rounds import densities

SHAPES = [(5, 8), (3, 10), (4, 3), (6, 4, 3, 3), (4, 3, 3, 3), (5, 2, 1, 1), (7,), (8, 1)]


def drawn(shape, ties=False, seed=0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 3, shape, generator=draw).float() if ties else torch.randn(shape, generator=draw)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def groups(shape, size: int) -> list[list[int]]:
    """The positions, in a flat parameter of `shape`, of the weights that compete: of outputs (size 0), or of fours."""
    places = torch.arange(torch.Size(shape).numel()).view(shape)
    rows = [places.tolist()] if len(shape) == 1 else []
    for output in places if not rows else ():
        if output.ndim == 3:  # at each place of the kernel the input channels
            rows.append(
                [int(output[i, r, c]) for r in range(shape[2]) for c in range(shape[3]) for i in range(shape[1])]
            )
        else:
            rows.append(output.tolist())
    return [row[start : start + (size or len(row))] for row in rows for start in range(0, len(row), size or len(row))]


def by_hand(score: torch.Tensor, density: float, size: int, within=None) -> torch.Tensor:
    flat, kept = score.contiguous().flatten(), torch.zeros(score.numel(), dtype=torch.bool)
    allowed = torch.ones_like(kept) if within is None else within.contiguous().flatten()
    for group in groups(score.shape, size):
        ranked = sorted((q for q in group if allowed[q]), key=lambda q: -flat[q])  # stable: the first of equal ones
        kept[ranked[: kept_count(len(group), density)]] = True
    return kept.view(score.shape)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("scope", "size"), [("output", 0), ("fours", 4)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_group_keeps_its_best(shape, scope, size, ties):
    score, within = drawn(shape, ties), None
    for density in (0.75, 0.5, 0.25):  # nested
        kept = keep_top({"a": score}, density, scope=scope, within=within)
        assert torch.equal(kept["a"], by_hand(score, density, size, within and within["a"]))
        assert kept["a"].stride() == score.stride()
        within, score = kept, -score  # the worst of before are the best now, but what is removed stays so
    assert torch.equal(keep_top({"a": score}, 1.0, scope=scope)["a"], torch.ones(shape, dtype=torch.bool))


def test_outputs_keep_any_density():
    score = drawn((6, 11))
    for density in (0.9, 0.37, 0.01):
        kept = keep_top({"a": score}, density, scope="output")["a"]
        assert torch.equal(kept, by_hand(score, density, 0))
        assert kept.sum(1).tolist() == [kept_count(11, density)] * 6


def test_more_than_is_left_of_a_group_cannot_be_kept():
    within = {"a": torch.ones(2, 8, dtype=torch.bool)}
    within["a"][1, 4:7] = False
    with pytest.raises(ValueError, match=r"2 of 4 weights are to be kept: 1 to 1 \(those not yet removed\)"):
        keep_top({"a": drawn((2, 8))}, 0.5, scope="fours", within=within)
    with pytest.raises(ValueError, match="6 of 8 weights are to be kept: 1 to 5"):
        keep_top({"a": drawn((2, 8))}, 0.75, scope="output", within=within)


# 2:4


@pytest.mark.parametrize("density", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("name", ["fc", "resnet8", "mlp-2x16"])
def test_any_score_is_kept_in_the_pattern(name, density):
    model, n = models.build(name, (3, 8, 8)), round(4 * density)
    for pruner in ("mag", "rand"):
        for mask in pruners.prune(model, pruner, density, [], scope="fours").values():
            assert semi_structured.follows(mask, n)
            assert not semi_structured.follows(mask, n - 1)
            if mask.shape[1] % 4 == 0:
                assert int(mask.sum()) == density * mask.numel()


def test_the_pattern_is_that_of_torch():
    from torch.ao.pruning import WeightNormSparsifier

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8))
    kept = pruners.prune(model, "mag", 0.5, [], scope="fours")
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(model, [{"tensor_fqn": name} for name in kept])
    sparsifier.step()
    sparsifier.squash_mask()
    assert all(torch.equal(model.get_parameter(name) != 0, mask) for name, mask in kept.items())


def test_three_rounds_go_from_3_4_by_2_4_to_1_4():
    assert densities(0.25, 3, "linear") == [0.75, 0.5, 0.25]
    model = models.build("mlp-2x16", (1, 8, 8))
    once, thrice = (
        pruners.prune(model, "mag", 0.25, [], rounds=rounds, schedule="linear", scope="fours") for rounds in (1, 3)
    )
    assert all(torch.equal(once[name], thrice[name]) for name in once)


@pytest.mark.parametrize(
    ("density", "options"), [(0.6, {}), (0.1, {}), (0.5, {"rounds": 3}), (0.25, {"rounds": 4, "schedule": "linear"})]
)
def test_other_densities_are_refused_before_anything_is_done(density, options):
    message = r"density is 0\.[0-9]+ with scope fours: 0.25, 0.5, 0.75 and 1 are allowed, in every round$"
    with pytest.raises(ValueError, match=message):
        pruners.prune(models.build("fc"), "snip", density, None, scope="fours", **options)
    with pytest.raises(ValueError, match=message):
        parameters.resolve("accuracy", {"density": density, "scope": "fours", **options})
    levels = {"levels" if name == "rounds" else name: value for name, value in ({"rounds": 1} | options).items()}
    with pytest.raises(ValueError, match=message):
        parameters.resolve("multishot", {"density": density, "scope": "fours", **levels})


def test_what_follows_a_pattern():
    mask = torch.tensor([[1, 1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0, 0]], dtype=torch.bool)
    assert semi_structured.follows(mask)
    assert not semi_structured.follows(mask, 1)
    assert semi_structured.follows(mask, 4, 6)
    mask[0, 2] = True
    assert not semi_structured.follows(mask)
    assert semi_structured.follows(torch.tensor([0.5, 0.0, 0.0, -1.0]))
    kernel = torch.zeros(1, 4, 2, 1)
    kernel[0, :2] = 1  # both places of two input channels
    assert semi_structured.follows(kernel)
    kernel[0, :3, 0] = 1
    assert not semi_structured.follows(kernel)


def test_rows_are_outputs_and_columns_input_channels():
    weight = torch.arange(2 * 3 * 2 * 1).view(2, 3, 2, 1)
    assert in_rows(weight).tolist() == [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]


def test_sparse_kernels_are_of_gpus(monkeypatch):
    assert not semi_structured.has_sparse_kernel("cpu")
    for capability, has in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert semi_structured.has_sparse_kernel(torch.device("cuda", 0)) is has


@pytest.mark.parametrize(("density", "most"), [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_the_most_of_four_that_any_parameter_keeps(density, most):
    network = models.build("mlp-2x16", (1, 8, 8))
    kept = pruners.prune(network, "mag", 0.25, [], scope="fours")
    first = next(iter(kept))
    kept[first] = keep_top({first: network.get_parameter(first).abs()}, density, scope="fours")[first]
    assert semi_structured.facts(network, kept) == {
        "most_of_four": most, "device": "cpu", "sparse_kernel_speedup": None,
    }  # fmt: skip


def test_only_a_pattern_that_the_kernel_takes_is_timed(monkeypatch):
    network = models.build("mlp-2x16", (1, 8, 8))
    monkeypatch.setattr(semi_structured, "has_sparse_kernel", lambda device: True)
    monkeypatch.setattr(semi_structured, "speedup", lambda *given: 1.5)
    for density, timed in ((0.25, 1.5), (0.5, 1.5), (0.75, None)):
        kept = pruners.prune(network, "mag", density, [], scope="fours")
        assert semi_structured.facts(network, kept)["sparse_kernel_speedup"] == timed


def test_layers_whose_sides_the_kernel_does_not_take_have_no_speedup():
    network = models.build("mlp-2x16", (1, 8, 8))
    assert semi_structured.speedup(network, pruners.prune(network, "mag", 0.5, [], scope="fours")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_on_a_gpu_with_the_kernel_it_is_timed():
    network = models.build("mlp-2x128", (1, 8, 8)).to("cuda")
    kept = pruners.prune(network, "mag", 0.5, [], scope="fours")
    found = semi_structured.facts(network, kept)["sparse_kernel_speedup"]
    assert (found is not None and found > 0) == semi_structured.has_sparse_kernel("cuda")


def test_masks_stay_within_layers_that_take_part():
    model = models.build("fc", (3, 8, 8))
    kept = pruners.prune(model, "mag", 0.5, [], scope="fours", also=["biases"], spare=["last"])
    assert list(kept) == list(masks.prunable(model, ["biases"], ["last"]))
    assert kept["layers.0.bias"].view(-1, 4).sum(1).tolist() == [2] * 25
