"""Huffman codes: optimal within their bounds, without a prefix in common, and decoded exactly or not at all."""

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lib.pipeline import bits, huffman

SKEWED = st.lists(st.integers(-40_000, 40_000), max_size=20).flatmap(
    lambda values: st.lists(st.integers(1, 300), min_size=len(values), max_size=len(values)).map(
        lambda counts: np.repeat(np.array(values, np.int64), counts)
    )
)
SYMBOLS = SKEWED | arrays.arrays(np.int8, st.integers(0, 3000)) | arrays.arrays(np.uint16, st.integers(0, 300))


def coded(symbols):
    code = huffman.code_of(symbols)
    return huffman.encode(symbols, code), code


def bits_of(symbols, code) -> int:
    lengths = dict(zip(code.symbols.tolist(), huffman.lengths_of(code).tolist(), strict=True))
    return sum(lengths[symbol] for symbol in symbols.tolist())


def entropy(symbols) -> float:
    """Bits a symbol."""
    shares = np.unique(symbols, return_counts=True)[1] / max(len(symbols), 1)
    return float(-(shares * np.log2(shares)).sum())


def spelled(code) -> dict[int, str]:
    """The codes as text, counted up as in the definition of the canonical form."""
    found, number, before = {}, 0, 0
    for symbol, length in zip(code.symbols.tolist(), huffman.lengths_of(code).tolist(), strict=True):
        number <<= length - before
        found[symbol] = format(number, f"0{length}b") if length else ""
        number, before = number + 1, length
    return found


@settings(deadline=None)
@given(SYMBOLS)
def test_what_is_decoded_is_what_was_encoded(symbols):
    stream, code = coded(symbols)
    assert np.array_equal(huffman.decode(stream, code), symbols)
    assert len(stream.data) == math.ceil(bits_of(symbols, code) / 8)


@settings(deadline=None)
@given(SYMBOLS)
def test_mean_length_is_within_one_bit_of_the_entropy(symbols):
    _, code = coded(symbols)
    mean = bits_of(symbols, code) / max(len(symbols), 1)
    assert entropy(symbols) - 1e-9 <= mean <= entropy(symbols) + 1


@settings(deadline=None)
@given(SYMBOLS)
def test_no_code_is_the_beginning_of_another(symbols):
    codes = sorted(spelled(huffman.code_of(symbols)).values())
    assert not any(after.startswith(before) for before, after in zip(codes, codes[1:], strict=False))
    assert sum(2.0 ** -len(code) for code in codes) == (1 if codes else 0)


@settings(deadline=None)
@given(SKEWED)
def test_bits_are_the_canonical_codes_one_after_the_other(symbols):
    stream, code = coded(symbols)
    codes = spelled(code)
    text = "".join(codes[symbol] for symbol in symbols.tolist())
    assert "".join(format(byte, "08b") for byte in stream.data)[: len(text)] == text


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_no_prefix_code_is_shorter(counts):
    """The total of an optimal code is the sum of all nodes that are made by joining the two rarest."""
    heap, total = sorted(counts), 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, joined)
        total += joined
    symbols = np.repeat(np.arange(len(counts)), counts)
    assert bits_of(symbols, huffman.code_of(symbols)) == total


@pytest.mark.parametrize("symbols", [[], [7], [-3] * 5000], ids=["none", "one", "one value"])
def test_no_value_and_a_lone_one_take_no_bits(symbols):
    stream, code = coded(np.array(symbols, np.int64))
    assert len(stream.data) == 0
    assert huffman.decode(stream, code).tolist() == symbols


def test_values_that_are_equally_often_there_have_equal_codes():
    _, code = coded(np.tile(np.arange(-128, 128), 40))
    assert set(huffman.lengths_of(code)) == {8}


def test_codes_longer_than_a_window_of_32_bits():
    """Codes of as many bits as there are symbols, which no sample that fits in a memory would give."""
    code = huffman.Code(np.arange(61), np.array([0] + [1] * 59 + [2]))
    symbols = np.random.default_rng(0).integers(0, 61, 5000)
    stream = huffman.encode(symbols, code)
    assert np.array_equal(huffman.decode(stream, code), symbols)


def test_extremely_skewed():
    symbols = np.repeat(np.arange(22), [1, 1, *(2**n for n in range(1, 21))])
    stream, code = coded(np.random.default_rng(0).permutation(symbols))
    assert huffman.lengths_of(code).max() == 21
    assert np.array_equal(np.sort(huffman.decode(stream, code)), symbols)


@pytest.mark.parametrize("count", [huffman.BLOCK - 1, huffman.BLOCK, huffman.BLOCK + 1, 3 * bits.CHUNK + 5])
def test_borders_of_blocks_and_chunks(count):
    symbols = np.random.default_rng(1).geometric(0.3, count).astype(np.uint8)
    stream, code = coded(symbols)
    assert np.array_equal(huffman.decode(stream, code), symbols)
    assert int(stream.blocks.sum(dtype=np.int64)) == bits_of(symbols, code)


@pytest.mark.parametrize(
    ("counts", "said"),
    [([0, 1, 1], "Kraft sum is 0.75"), ([0, 3], "2 symbols"), ([0, 0, 2], "Kraft sum is 0.5"), ([2], "Kraft sum is 2")],
)
def test_a_table_that_does_not_decode_is_refused(counts, said):
    stream, _ = coded(np.array([0, 1, 1]))
    broken = huffman.Code(np.arange(2), np.array(counts))
    for refused in (lambda: huffman.decode(stream, broken), lambda: huffman.encode(np.array([0]), broken)):
        with pytest.raises(ValueError, match=said) as caught:
            refused()
        assert "\n" not in str(caught.value)


def test_tables_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="1 codes for 2 symbols|one for each"):
        huffman.check(huffman.Code(np.array([3, 3]), np.array([0, 2])))
    with pytest.raises(ValueError, match="codes of 64 bits"):
        huffman.check(huffman.Code(np.arange(65), np.array([0] + [1] * 63 + [2])))


def test_a_symbol_without_a_code_is_refused():
    code = huffman.code_of(np.array([1, 3, 3, 9]))
    for symbol in (0, 2, 10):
        with pytest.raises(ValueError, match=f"symbol {symbol} has no code"):
            huffman.encode(np.array([3, symbol]), code)
    with pytest.raises(ValueError, match="symbol 4 has no code"):
        huffman.encode(np.array([4]), huffman.code_of(np.zeros(0, int)))


def test_a_stream_that_ends_too_early_or_elsewhere_is_refused():
    symbols = np.random.default_rng(2).geometric(0.4, 3000)
    stream, code = coded(symbols)
    moved = stream.blocks + np.array([1, -1, 0]).astype(np.uint16)
    for changed, said in [
        (stream._replace(data=stream.data[:-1]), "bytes"),
        (stream._replace(blocks=stream.blocks[:-1]), "2 blocks"),
        (stream._replace(count=5000), "3 blocks"),
        (stream._replace(blocks=moved), "symbols end elsewhere"),
        (stream._replace(data=~stream.data), "symbols end elsewhere"),
    ]:
        with pytest.raises(ValueError, match=said):
            huffman.decode(changed, code)
    with pytest.raises(ValueError, match="no symbols"):
        huffman.decode(stream, huffman.code_of(symbols[:0]))
    with pytest.raises(ValueError, match="a code of one symbol has none"):
        huffman.decode(stream, huffman.code_of(symbols[:1]))


@pytest.mark.parametrize("symbols", [np.array([0.5]), np.array([[1]]), np.array([0, 1 << 24])], ids=str)
def test_what_is_no_array_of_small_integers_is_refused(symbols):
    with pytest.raises(ValueError, match="is allowed"):
        huffman.code_of(symbols)


@settings(deadline=None)
@given(st.integers(1, 16), st.lists(st.integers(0, 65535), max_size=200))
def test_symbols_of_a_fixed_width(width, values):
    symbols = np.array(values, np.uint16) >> (16 - width)
    data = bits.packed_fixed(symbols, width)
    assert "".join(format(byte, "08b") for byte in data).startswith(
        "".join(format(symbol, f"0{width}b") for symbol in symbols.tolist())
    )
    assert np.array_equal(bits.unpacked_fixed(data, width, len(symbols)), symbols)
    with pytest.raises(ValueError, match="are needed"):
        bits.unpacked_fixed(np.append(data, np.uint8(0)), width, len(symbols))
