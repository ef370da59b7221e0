"""Which values and maps go: exact counts, against sorting and a greedy list of pairs written out in Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.catalog import ACTIVATION_METHODS
from lib.pipeline import activations

MAPS = [name for name in ACTIVATION_METHODS if name.startswith("map-")]
shares = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
methods = st.sampled_from(ACTIVATION_METHODS)


@st.composite
def inputs(draw) -> torch.Tensor:
    """Up to three images of up to five maps; zeros, equal values and maps of zeros are frequent on purpose."""
    images, channels, height, width = (draw(st.integers(1, most)) for most in (3, 5, 3, 2))
    value = st.sampled_from([0.0, -0.0, 0.0, 0.5, -1.0, 2.0]) | st.floats(-(2.0**40), 2.0**40, width=32)
    count = images * channels * height * width
    x = torch.tensor(draw(st.lists(value, min_size=count, max_size=count))).view(images, channels, height, width)
    empty = draw(st.lists(st.booleans(), min_size=images * channels, max_size=images * channels))
    x[torch.tensor(empty).view(images, channels) & draw(st.booleans())] = 0
    return x.to(memory_format=torch.channels_last) if draw(st.booleans()) else x


def present(x: torch.Tensor, method: str) -> torch.Tensor:
    """What is there of each image, values or maps: bool (N, things)."""
    return (x != 0).flatten(1) if method.startswith("element-") else (x != 0).flatten(2).any(2)


@given(inputs(), methods, shares)
def test_the_share_of_what_is_not_zero_is_exact(x, method, share):
    gone = activations.removed(x, method, share).flatten(1)
    before = present(x, method)
    wanted = [round(share * n) for n in before.sum(1).tolist()]
    assert (gone & before).sum(1).tolist() == wanted


@given(inputs(), st.sampled_from([name for name in ACTIVATION_METHODS if name != "map-similarity"]), shares)
def test_the_smallest_go_and_of_equal_ones_the_last(x, method, share):
    gone, before = activations.removed(x, method, share).flatten(1), present(x, method)
    things = x.flatten(1)[..., None] if method.startswith("element-") else x.flatten(2)
    for image, there, removed in zip(things.tolist(), before, gone, strict=True):
        norms = [math.hypot(*map(float, v)) if "l2" in method else math.fsum(map(abs, v)) for v in image]
        norms = torch.tensor(norms, dtype=torch.float64).float().tolist()
        order = sorted(there.nonzero().flatten().tolist(), key=lambda i: (norms[i], -i))
        assert sorted(order[: round(share * len(order))]) == (removed & there).nonzero().flatten().tolist()


@given(inputs(), methods, shares, st.sampled_from([torch.contiguous_format, torch.channels_last]))
def test_an_image_does_not_depend_on_the_others_nor_on_the_layout(x, method, share, layout):
    together = activations.removed(x, method, share)
    for i in range(len(x)):
        alone = activations.removed(x[i : i + 1].clone().contiguous(memory_format=layout), method, share)
        assert torch.equal(alone[0], together[i])


def test_random_images_alone_and_among_others():
    x = torch.randn(33, 24, 6, 6, generator=torch.Generator().manual_seed(0)).relu()
    for method in ACTIVATION_METHODS:
        together = activations.removed(x, method, 0.4)
        apart = [activations.removed(part, method, 0.4) for part in x.split([1, 2, 30])]
        assert torch.equal(torch.cat(apart), together)


def test_both_norms_of_a_value_are_its_magnitude():
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    first, second = (activations.removed(x, method, 0.3) for method in ("element-l1", "element-l2"))
    assert torch.equal(first, second)
    assert not torch.equal(first, activations.removed(x, "element-l1", 0.4))


def test_values_that_are_no_numbers_are_not_hidden():
    x = torch.tensor([[1.0, math.nan, 2.0, 3.0]])
    assert activations.removed(x, "element-l1", 0.75).tolist() == [[True, False, True, True]]


@st.composite
def pairs(draw):
    """Cosines (1, C, C) and norms (1, C), most of them equal to others."""
    count = draw(st.integers(1, 6))
    value = st.sampled_from([-0.5, 0.0, 0.5, 1.0]) | st.floats(-1, 1, width=32)
    upper = torch.tensor(draw(st.lists(value, min_size=count**2, max_size=count**2))).view(count, count).triu(1)
    norms = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=count, max_size=count))
    return (upper + upper.T)[None], torch.tensor([norms])


@given(pairs(), shares)
def test_of_the_most_similar_pair_the_smaller_goes_again_and_again(described, share):
    cosines, norms = described
    like, size = cosines[0].tolist(), norms[0].tolist()
    left = [i for i in range(len(size)) if size[i] > 0]

    def smaller(i: int, j: int) -> int:
        return min(i, j, key=lambda k: (size[k], -k))

    wanted = []
    for _ in range(round(share * len(left))):
        found = [(like[i][j], -size[k], k) for i in left for j in left if i < j for k in [smaller(i, j)]]
        wanted.append(max(found)[2] if found else left[0])
        left.remove(wanted[-1])
    gone = activations.similar(cosines, norms, share)[0] & (norms[0] > 0)
    assert gone.nonzero().flatten().tolist() == sorted(wanted)


@given(inputs())
def test_similarity_is_the_cosine_of_two_maps(x):
    cosines, norms = activations.described(x, "map-similarity")
    maps = x.flatten(2).double()
    dots, lengths = torch.einsum("nip,njp->nij", maps, maps), maps.square().sum(2).sqrt()
    products = lengths[:, :, None] * lengths[:, None, :]
    wanted = torch.where(products > 0, dots / products, 0)
    assert torch.allclose(cosines.double(), wanted, atol=1e-6)
    assert torch.allclose(norms.double(), maps.abs().sum(2))


def test_two_maps_alike_lose_the_smaller_one():
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0, 0], x[0, 1, 0], x[0, 2, 1] = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]), torch.tensor([0.1, 0.0])
    assert activations.removed(x, "map-similarity", 1 / 3).tolist() == [[True, False, False]]
    assert activations.removed(-x, "map-similarity", 1 / 3).tolist() == [[True, False, False]]


@pytest.mark.parametrize("method", MAPS)
def test_many_maps_go_in_parts(monkeypatch, method):
    x = torch.randn(7, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = activations.removed(x, method, 0.5)
    monkeypatch.setattr(activations, "SIMILARITIES", 40)
    assert len(activations.portions(x, "map-similarity")) == 7
    assert torch.equal(activations.removed(x, method, 0.5), whole)
