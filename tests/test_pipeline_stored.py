"""A file of a stage gives the network back bit for bit, says what its parts weigh, and notices every change."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lib import formats, masks, models, quantise
from lib.pipeline import coders, huffman, stored
from lib.pipeline import positions as places
from lib.pipeline.network import Network

SHAPES = {"mlp-1x12": (1, 8, 8), "resnet8": (3, 8, 8), "transformer": (12, 30), "vgg11-bn": (3, 32, 32)}
GRIDS = [
    {},
    {"kind": "fixed", "bits": 8, "fraction": 4},
    {"kind": "fixed", "bits": 12, "fraction": 9},
    {"kind": "int8"},
    {"kind": "shared", "bits": 3},
]
FORMS = [(positions, coding) for positions in stored.POSITIONS for coding in stored.CODINGS]
DENSITIES = [0, 0.06, 0.5, 1]


def ids(value):
    return "-".join(map(str, value.values())) or "float32" if isinstance(value, dict) else str(value)


@torch.no_grad()
def on_grid(weight, grid, kept):
    """A weight rounded to a grid, in the plainest way, and 0 where it is removed."""
    if grid.get("kind") == "fixed":
        most = 2 ** (grid["bits"] - 1)
        weight = (weight * 2 ** grid["fraction"]).round().clamp(-most, most - 1) / 2 ** grid["fraction"]
    elif grid.get("kind") == "int8":
        weight = quantise.rounded(weight)
    elif grid.get("kind") == "shared":
        codebook = torch.linspace(-0.7, 0.9, 2 ** grid["bits"])
        weight = codebook[(weight[..., None] - codebook).abs().argmin(-1)]
    return torch.where(kept, weight, 0)


@torch.no_grad()
def network(name="mlp-1x12", grid=GRIDS[0], density=0.5, inputs=None) -> Network:
    """Weights wide enough that grids are used; what is kept is drawn by chance, so that kept ones may be zero."""
    model = models.build(name, SHAPES[name], 10, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    kept = {n: torch.rand(m.shape, generator=generator) < density for n, m in masks.full(model).items()}
    for n, parameter in model.named_parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        if n in kept:
            parameter.copy_(on_grid(parameter, grid, kept[n]))
        elif grid.get("kind") == "fixed":
            parameter.copy_(on_grid(parameter, grid, torch.ones_like(parameter, dtype=torch.bool)))
    return Network(model, kept, grid, inputs or {})


def fresh(net_name="mlp-1x12"):
    return models.build(net_name, SHAPES[net_name], 10, seed=3)


def assert_same(found: Network, net: Network):
    assert (found.grid, list(found.masks)) == (net.grid, list(net.masks))
    for name, mask in net.masks.items():
        assert torch.equal(found.masks[name], mask), name
    state = found.model.state_dict()
    for name, tensor in net.model.state_dict().items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype
        assert not (torch.signbit(state[name]) & (state[name] == 0)).any() or name not in net.masks


@pytest.mark.parametrize("grid", GRIDS, ids=ids)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("positions", "coding"), FORMS)
def test_it_comes_back_bit_for_bit_and_parts_sum_to_the_file(tmp_path, grid, density, positions, coding):
    net, path = network(grid=grid, density=density), tmp_path / "net"
    parts = stored.save(path, net, positions=positions, coding=coding)
    assert_same(stored.load(path, fresh()), net)
    assert parts["bytes"].sum() == path.stat().st_size
    assert parts["bytes"].min() >= 0
    assert set(parts["holder"]) <= {"convolution", "linear", "bias", "norm", "other"}
    assert set(parts["part"]) <= {"values", "indices", "table", "header"}


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[1], GRIDS[3]], ids=ids)
def test_any_model(tmp_path, name, grid):
    net = network(name, grid, 0.3)
    parts = stored.save(tmp_path / "net", net, positions="relative", coding="huffman")
    loaded = stored.load(tmp_path / "net", fresh(name))
    assert_same(loaded, net)
    assert not any(module.training for module in loaded.model.modules())
    held = parts.groupby(["holder", "part"])["bytes"].sum()
    values = {holder: held.get((holder, "values"), 0) for holder in ("bias", "norm", "other")}
    sizes = dict.fromkeys(values, 0)
    for module in net.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            sizes["bias"] += module.bias.numel() * (1 if grid.get("kind") == "fixed" else 4)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            sizes["norm"] += sum(tensor.nbytes for tensor in module.state_dict().values())
        elif isinstance(module, nn.Embedding):
            sizes["other"] += 4 * module.weight.numel()
    sizes["other"] += 4 * sum(p.numel() for n, p in net.model.named_parameters() if n == "positions")
    assert values == sizes


@pytest.mark.parametrize(("grid", "bits"), list(zip(GRIDS, (32, 8, 16, 8, 3), strict=True)), ids=ids)
def test_values_and_positions_take_the_bits_of_the_layout(tmp_path, grid, bits):
    net = network("resnet8", grid, 0.25)
    whole, kept = (sum(int(part(m)) for m in net.masks.values()) for part in (torch.numel, torch.count_nonzero))
    found = {}
    for positions in stored.POSITIONS:
        parts = stored.save(tmp_path / positions, net, positions=positions)
        parts = parts[parts["holder"].isin(["convolution", "linear"])].groupby("part")["bytes"].sum()
        found[positions] = parts.to_dict()
    rounding = len(net.masks)
    assert found["bitmask"]["values"] == found["relative"]["values"] == pytest.approx(kept * bits / 8, abs=rounding)
    more = grid.get("kind") == "shared"  # zero on top of a full codebook
    assert whole * bits / 8 <= found["none"]["values"] <= whole * (bits + more) / 8 + rounding
    assert found["bitmask"]["indices"] == pytest.approx(whole / 8, abs=rounding)
    flat = [mask.numpy().ravel() for mask in net.masks.values() if not mask.all()]
    gaps = [min(places.relative(mask, width).size * width for width in range(3, 9)) for mask in flat]
    assert found["relative"]["indices"] == sum(-(-size // 8) for size in gaps)


@pytest.mark.parametrize("grid", GRIDS[1:], ids=ids)
@pytest.mark.parametrize("positions", stored.POSITIONS)
def test_coding_makes_no_part_of_a_tensor_larger(tmp_path, grid, positions):
    net = network("resnet8", grid, 0.2)
    plain, coded = (
        stored.save(tmp_path / coding, net, positions=positions, coding=coding).query("part != 'header'")
        for coding in stored.CODINGS
    )
    assert (coded.groupby("tensor")["bytes"].sum() <= plain.groupby("tensor")["bytes"].sum()).all()
    assert coded["bytes"].sum() < plain["bytes"].sum()


@pytest.mark.parametrize("grid", GRIDS, ids=ids)
@pytest.mark.parametrize(("positions", "coding"), FORMS)
@torch.no_grad()
def test_layers_of_zeros_and_of_one_value(tmp_path, grid, positions, coding):
    net = network(grid=grid, density=1)
    names = list(net.masks)
    value = net.model.get_parameter(names[1]).abs().max()
    net.model.get_parameter(names[0]).zero_()  # kept, and zero all the same
    net.model.get_parameter(names[1]).fill_(float(value))
    net.masks[names[1]][0] = False
    net.model.get_parameter(names[1])[0] = 0.0
    if grid.get("kind") == "shared":
        net.model.get_parameter(names[1])[net.masks[names[1]]] = -0.7
    stored.save(tmp_path / "net", net, positions=positions, coding=coding)
    assert_same(stored.load(tmp_path / "net", fresh()), net)


@torch.no_grad()
def test_zero_is_never_negative(tmp_path):
    net = network()
    for name, mask in net.masks.items():
        net.model.get_parameter(name)[~mask] = -0.0
    for positions in stored.POSITIONS:
        stored.save(tmp_path / "net", net, positions=positions)
        assert_same(stored.load(tmp_path / "net", fresh()), net)


@torch.no_grad()
def test_int8_weights_whose_largest_were_pruned_afterwards(tmp_path):
    net = network("resnet8", {"kind": "int8"}, 1)
    for name, mask in net.masks.items():
        weight = net.model.get_parameter(name)
        mask &= weight.abs() < 0.6 * weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1))
        weight.mul_(mask)
    stored.save(tmp_path / "net", net)
    assert_same(stored.load(tmp_path / "net", fresh("resnet8")), net)


def inputs() -> dict:
    kept = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(4)) < 0.5
    prune = {
        "method": "element-l1",
        "share": 0.1,
        "fixed": True,
        "sets": {"stem": kept, "fc": torch.ones(11, dtype=bool)},
    }
    return {"prune": prune, "round": {"kind": "int8", "ranges": {"fc": [-0.1, 1 / 3]}}}


def test_what_happens_to_inputs_comes_back(tmp_path):
    given = inputs()
    net = network(inputs=given)
    parts = stored.save(tmp_path / "net", net)
    found = stored.load(tmp_path / "net", fresh()).inputs
    sets = found["prune"].pop("sets")
    assert {name: torch.equal(sets[name], kept) for name, kept in given["prune"]["sets"].items()} == {
        "stem": True,
        "fc": True,
    }
    assert found == {"prune": {k: v for k, v in given["prune"].items() if k != "sets"}, "round": given["round"]}
    assert given["prune"]["sets"], "what was given is not changed"
    stored_sets = parts[parts["tensor"].str.startswith("sets::")]
    assert dict(zip(stored_sets["tensor"], stored_sets["bytes"], strict=True)) == {"sets::stem": 14, "sets::fc": 2}
    assert set(zip(stored_sets["holder"], stored_sets["part"], strict=True)) == {("other", "indices")}


@pytest.mark.parametrize(("positions", "coding"), [("relative", "huffman"), ("bitmask", "none")])
def test_a_changed_bit_of_any_byte_and_every_cut_is_noticed(tmp_path, positions, coding):
    net, path, damaged = network(grid=GRIDS[1], inputs=inputs()), tmp_path / "net", tmp_path / "damaged"
    stored.save(path, net, positions=positions, coding=coding)
    content, model = path.read_bytes(), fresh()
    before = copy.deepcopy(model.state_dict())
    drawn = np.random.default_rng(0).integers(0, 8, len(content))
    changes = [
        content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :] for at, bit in enumerate(drawn.tolist())
    ]
    cuts = [content[:at] for at in range(0, len(content), 7)]
    for changed in [*changes, *cuts, content + b"\0", b"", content[8:]]:
        damaged.write_bytes(changed)
        with pytest.raises(ValueError, match="damaged") as caught:
            stored.load(damaged, model)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not list(tmp_path.glob(".*"))


def test_other_files_and_networks_are_refused(tmp_path):
    net = network()
    stored.save(tmp_path / "net", net)
    formats.save_as("dense", tmp_path / "dense", net.model, net.masks)
    with pytest.raises(ValueError, match="is missing"):
        stored.load(tmp_path / "dense", fresh())
    with pytest.raises(ValueError, match="of another network: .* is None, not"):
        stored.load(tmp_path / "net", fresh("resnet8"))
    with pytest.raises(ValueError, match=r"of another network: .* is \[12, 64\], not \[12, 81\]"):
        stored.load(tmp_path / "net", models.build("mlp-1x12", (1, 9, 9), 10, seed=1))
    with pytest.raises(FileNotFoundError):
        stored.load(tmp_path / "nothing", fresh())


@torch.no_grad()
def test_what_cannot_be_stored_exactly_is_refused(tmp_path):
    path = tmp_path / "net"
    for grid, said in [
        (GRIDS[1], "weight: .* is not on its grid: multiples of 1/16 from -128 to 127"),
        (GRIDS[3], "weight: channel 0 is not on its grid"),
        (GRIDS[4], "weight: .* values are not on its grid: up to 8 are shared"),
        ({"kind": "fixed", "bits": 17, "fraction": 4}, "17 bits: 1 to 16 are allowed"),
        ({"kind": "log"}, "of kind 'log': one of fixed, int8, shared"),
    ]:
        with pytest.raises(ValueError, match=said):
            stored.save(path, network()._replace(grid=grid))
    net = network(grid=GRIDS[1])
    for value, said in [(8.0, "8 is not on its grid"), (float("nan"), "nan is not on its grid")]:
        changed = copy.deepcopy(net)
        changed.model.get_parameter(next(iter(net.masks)))[net.masks[next(iter(net.masks))]] = value
        with pytest.raises(ValueError, match=said):
            stored.save(path, changed)
    with pytest.raises(ValueError, match="removed weights of .* are not 0"):
        stored.save(path, network()._replace(masks=network(density=0.1).masks))
    with pytest.raises(ValueError, match="fits no parameter"):
        stored.save(path, net._replace(masks={"nothing": torch.ones(1, dtype=bool)}))
    for words in ({"positions": "csr"}, {"coding": "zip"}):
        with pytest.raises(ValueError, match="is allowed"):
            stored.save(path, net, **words)
    assert not path.exists()


@pytest.mark.parametrize("grid", GRIDS[1:], ids=ids)
@pytest.mark.parametrize("density", [0, 0.2, 1])
def test_coders_are_compared_on_the_same_symbols(grid, density):
    net = network("resnet8", grid, density)
    found = coders.compared(net, gaps=True)
    sizes = found.set_index(["group", "coder"])["bytes"]
    kept = dict.fromkeys(("convolution", "linear"), 0)
    for name, holder in stored.holders(net.model).items():
        if name in net.masks:
            kept[holder] += int(net.masks[name].count_nonzero())
    for group, count in kept.items():
        many = sum(holder == group for holder in stored.holders(net.model).values())
        assert sizes[group, "entropy"] <= sizes[group, "huffman"]
        assert sizes[group, "huffman"] <= sizes[group, "entropy"] + count / 8 + 4000 * many, "one bit, and the tables"
        assert sizes[group, "entropy"] * 0.999 - many <= sizes[group, "ans"] or not count
    seconds = found[found["coder"] != "entropy"][["encode_s", "decode_s"]]
    assert (seconds >= 0).all(axis=None)


def test_codes_say_what_each_value_costs():
    net = network("resnet8", GRIDS[1], 0.3)
    rows = coders.codes(net)
    for name, table in rows.groupby("tensor"):
        values = net.model.get_parameter(name).detach()[net.masks[name]].numpy()
        distinct, counts = np.unique(values, return_counts=True)
        assert dict(zip(table["value"], table["count"], strict=True)) == dict(zip(distinct, counts, strict=True))
        assert (2.0 ** -table["length"]).sum() == 1
        whole = np.rint(values * 16).astype(int)
        coded = huffman.encode(whole, huffman.code_of(whole))
        assert (table["count"] * table["length"]).sum() == coded.blocks.sum(dtype=int)
    assert coders.codes(network()).empty, "float32 weights have no symbols"
    assert coders.compared(network()).empty
