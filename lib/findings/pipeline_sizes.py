"""Sizes of compressed networks beside what they are compared with: two ways to count, coders, a published result.

Chains are those of `lib.findings.pipeline.chains`.
"""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lib import frames, summary, tables
from lib.findings.pipeline import finished, mean
from lib.findings.pipeline_said import points_of

LINEAR = "linear"
ENTROPY, HUFFMAN, ANS = "entropy", "huffman", "ans"
GAP, LEAST_LINEAR = 0.05, 1.0  # points, and % of the original file, below which both ways of counting agree
GAPS = "gaps"  # between kept weights
CODERS = {ENTROPY: "entropy (bound)", HUFFMAN: "Huffman", "ans": "ANS", "zstd": "zstd"}
# Row LeNet-300-100 of table 1 of Han et al. 2016, arXiv 1510.00149; errors in % of the MNIST test images.
PAPER = {"original_bytes": 1_070_000, "bytes": 27_000, "times": 40.0, "error_before_pct": 1.64, "error_pct": 1.58}


def counted(book: SimpleNamespace, chain: SimpleNamespace) -> dict | None:
    """The last file beside the original's, counted whole and without linear layers: bytes and shares (%), of one seed.

    None unless both are there and it makes a difference: the network has convolutions, and linear layers of at least
    LEAST_LINEAR, and the shares are GAP apart. Positions, tables and biases of a layer count with it.
    """
    done = finished(chain)
    if len(done) < 2 or done[0] is not chain.stages[0]:
        return None
    first, last = (frames.table(book.study, stage.rows["run"].iloc[:1], "parts") for stage in (done[0], done[-1]))
    if not {"convolution", LINEAR} <= set(first["holder"]):
        return None
    whole, rest = ([part["bytes"].sum() for part in pair] for pair in ((first, last), map(_without, (first, last))))
    found = {
        "linear_pct": 100 * (1 - rest[0] / whole[0]),
        "without_bytes": rest[1],
        "without_pct": 100 * rest[1] / rest[0],
        "whole_bytes": whole[1],
        "whole_pct": 100 * whole[1] / whole[0],
    }
    agree = abs(found["whole_pct"] - found["without_pct"]) < GAP
    return None if agree or found["linear_pct"] < LEAST_LINEAR else found


def _without(parts: pd.DataFrame) -> pd.DataFrame:
    """All but the weights of linear layers and the biases of these."""
    layer = parts["tensor"].fillna("").str.rpartition(".")[0]
    linear = parts["holder"] == LINEAR
    return parts[~linear & ~((parts["holder"] == "bias") & layer.isin(layer[linear]))]


def counting_table(found: dict[str, dict]) -> pd.DataFrame:
    """A line a chain: both ways to count, and the difference in points."""
    rows = [
        {
            "chain": name,
            "linear layers of the original (%)": f"{one['linear_pct']:.2f}",
            "without them (bytes)": f"{one['without_bytes']:,.0f}",
            "of the same of the original (%)": f"{one['without_pct']:.2f}",
            "whole file (bytes)": f"{one['whole_bytes']:,.0f}",
            "of the original's whole file (%)": f"{one['whole_pct']:.2f}",
            "difference (points)": _signed(one["whole_pct"] - one["without_pct"]),
        }
        for name, one in found.items()
    ]
    return pd.DataFrame(rows).set_index("chain")


def counting_sentence(one: dict) -> str:
    """What leaving out the linear layers would have made of the size."""
    gap = one["whole_pct"] - one["without_pct"]
    said = (
        f"Without its linear layers and their biases, which hold {one['linear_pct']:.1f} % of the original file, the "
        f"compressed network has {one['without_pct']:.2f} % of the original's size, with them {one['whole_pct']:.2f} %"
    )
    if gap > 0:
        return f"{said}: leaving them out would flatter it by {gap:.2f} points."
    return f"{said}: leaving them out would hide {-gap:.2f} points of what was saved."


def coded(book: SimpleNamespace, chain: SimpleNamespace) -> SimpleNamespace | None:
    """`coders` and `codes`, tables of the chain's last finished stage `coded` (its first seed); None without one."""
    found = [stage for stage in finished(chain) if stage.notebook == "coded"]
    if not found:
        return None
    run = found[-1].rows["run"].iloc[:1]
    both = {name: frames.table(book.study, run, name) for name in ("coders", "codes")}
    return SimpleNamespace(stage=found[-1], **both) if all(map(len, both.values())) else None


def coder_table(coders: pd.DataFrame, codes: pd.DataFrame) -> pd.DataFrame:
    """A line a coder: bytes of each group and of all, bits a weight, how far all are above the bound, seconds each way.

    `coders` has `group`, `coder`, `bytes`, `encode_s`, `decode_s`; the group GAPS are positions, others weights, which
    `codes` counts.
    """
    groups = coders.pivot_table(index="coder", columns="group", values="bytes", aggfunc="sum", sort=False)
    total = _totals(coders)
    # the bound takes no time: nothing is coded
    times = {
        f"{way} (s)": total[f"{way}_s"].where(total.index != ENTROPY).map(_seconds) for way in ("encode", "decode")
    }
    apart = {f"{name} (bytes)": _whole(groups[name]) for name in groups} if groups.shape[1] > 1 else {}
    table = pd.DataFrame({
        **apart,
        "all (bytes)": _whole(total["bytes"]),
        "bits a weight": _bits(coders, codes).map("{:.3f}".format),
        "above the bound (%)": (100 * (total["bytes"] / total.loc[ENTROPY, "bytes"] - 1)).map("{:.2f}".format),
        **times,
    }).loc[total.index]  # fmt: skip
    return table.rename(index=CODERS).rename_axis("coder")


def coder_sentences(coders: pd.DataFrame, codes: pd.DataFrame) -> list[str]:
    """How far Huffman's code is from the bound, and whether another coder comes closer; of weights alone."""
    bits = _bits(coders, codes)
    said = [
        f"Huffman's code takes {bits[HUFFMAN]:.3f} bits a weight, tables included, "
        f"{bits[HUFFMAN] - bits[ENTROPY]:.3f} more than the entropy ({bits[ENTROPY]:.3f})."
    ]
    if bits.min() < bits[ENTROPY]:
        below = ", ".join(CODERS.get(name, name) for name in bits.index[bits < bits[ENTROPY]])
        said.append(f"Below the entropy, which bounds codes of single values: {below}.")
    others = bits.drop([ENTROPY, HUFFMAN])
    if len(others):
        best = others.idxmin()
        less = 100 * (1 - others[best] / bits[HUFFMAN])
        side = f"{less:.2f} % smaller" if less > 0 else f"{-less:.2f} % larger" if less < 0 else "just as large"
        said.append(f"Of the other coders {CODERS.get(best, best)} is best, {side} than Huffman's.")
    if ANS in bits and bits[HUFFMAN] < bits[ANS]:
        said.append(_behind(codes, bits[ANS], bits[HUFFMAN]))
    return [text for text in said if text]


def _behind(codes: pd.DataFrame, ans: float, huffman: float) -> str | None:
    """That ANS, given in bits a weight, is larger for its table of counts, where it would be smaller without."""
    largest = [own.max() for _, own in codes.groupby("tensor")["count"]]
    each = codes.groupby("tensor").size().to_numpy()
    counts = int(sum(number * np.min_scalar_type(most).itemsize for number, most in zip(each, largest, strict=True)))
    if ans - 8 * counts / codes["count"].sum() >= huffman:
        return None
    return (
        f"ANS is larger than Huffman's code because of its table: the counts of all values, {counts:,} bytes, take "
        "more than parts of a bit save."
    )


def _seconds(value: float) -> str | float:
    return value if math.isnan(value) else f"{value:,.{tables.decimals(value, 2)}f}"


def _bits(coders: pd.DataFrame, codes: pd.DataFrame) -> pd.Series:
    """Bits a weight of each coder, without those of positions."""
    return 8 * _totals(coders[coders["group"] != GAPS])["bytes"] / codes["count"].sum()


def _whole(sizes: pd.Series) -> pd.Series:
    return sizes.map("{:,.0f}".format)


def _totals(coders: pd.DataFrame) -> pd.DataFrame:
    total = coders.groupby("coder")[["bytes", "encode_s", "decode_s"]].sum()
    return total.loc[[*(name for name in CODERS if name in total.index), *total.index.difference(list(CODERS))]]


def published(chains: dict[str, SimpleNamespace]) -> list[SimpleNamespace]:
    """The chains on the network and the data of the paper's row, of which the original and another stage are there."""
    wanted = summary.DEEP_COMPRESSION
    found = [chain for chain in chains.values() if {name: getattr(chain, name) for name in wanted} == wanted]
    return [chain for chain in found if len(done := finished(chain)) > 1 and done[0] is chain.stages[0]]


def published_table(found: list[SimpleNamespace]) -> pd.DataFrame:
    """The paper's row and a line a chain, in its units: KB of 1,000 bytes, and the test error in %."""
    rows = {"Han et al. 2016": PAPER} | {
        f"chain {chain.name}, {finished(chain)[-1].short}": _ours(chain) for chain in found
    }
    lines = {
        name: {
            "original (KB)": f"{one['original_bytes'] / 1000:,.1f}",
            "compressed (KB)": f"{one['bytes'] / 1000:,.2f}",
            "times smaller": f"{one['times']:.1f}",
            "error before (%)": f"{one['error_before_pct']:.2f}",
            "error after (%)": f"{one['error_pct']:.2f}",
        }
        for name, one in rows.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("result")


def published_sentence(chain: SimpleNamespace) -> str:
    """Whether a chain reaches the paper's factor, and how its errors differ from the paper's."""
    one = _ours(chain)
    reached = "reaches" if one["times"] >= PAPER["times"] else "does not reach"
    change = one["error_pct"] - one["error_before_pct"]
    theirs = PAPER["error_pct"] - PAPER["error_before_pct"]
    beside = one["error_pct"] - PAPER["error_pct"]
    left = "" if chain.stages[-1] is finished(chain)[-1] else " (its last stages are missing)"
    return (
        f"Chain {chain.name} {reached} the {PAPER['times']:.0f} times of the paper: its file is {one['times']:.1f} "
        f"times smaller{left}. Compression changes its error by {_signed(change)} points, the paper's by "
        f"{_signed(theirs)}; the compressed network errs on {one['error_pct']:.2f} % of the test images, "
        f"{points_of(beside)} than the paper's."
    )


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _ours(chain: SimpleNamespace) -> dict:
    done = finished(chain)
    sizes = [mean(stage, "file_bytes") for stage in (done[0], done[-1])]
    errors = [100 - mean(stage, "top1_pct") for stage in (done[0], done[-1])]
    return dict(zip(PAPER, (*sizes, sizes[0] / sizes[1], *errors), strict=True))
