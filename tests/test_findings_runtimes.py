"""Sentences, table and figure of inference runtimes: the opposite numbers give the opposite sentence."""

import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import plots_runtimes
from lib.catalog import RUNTIMES
from lib.findings import runtimes as findings
from lib.plots import WIDTH
from lib.report import frames

TORCH, FLOAT32, INT8 = RUNTIMES
KINDS = {"s/dense": "unpruned", "s/sparse": "unstructured", "s/small": "structured"}
PACKED = {"unpruned": 4.1, "unstructured": 1.0, "structured": 4.0}  # MB


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def rows(**changes) -> pd.DataFrame:
    """Three networks in three runtimes; `changes` by column are functions of (network, runtime)."""
    found = []
    for network, kind in KINDS.items():
        for runtime in RUNTIMES:
            row = {
                "network": network, "pruning": kind, "density": 1.0 if kind == "unpruned" else 0.2, "runtime": runtime,
                "top1_pct": 90.0, "disk_mb": 4.0, "compressed_mb": 3.0, "max_abs_logit_difference": 1e-5,
                "max_abs_logit": 10.0, "bitmask_mb": PACKED[kind] if runtime == TORCH else None, "made_s": 1.0,
                "note": "",
            }  # fmt: skip
            found.append(row | {name: change(network, runtime) for name, change in changes.items()})
    return pd.DataFrame(found)


def timed(seconds, repeats: int = 20, noise: float = 0.01) -> pd.DataFrame:
    """Passes; `seconds` is a function of (network, runtime, batch). A busy moment hits all of one repeat alike."""
    draw = np.random.default_rng(0)
    busy = 1 + draw.random(repeats)
    return pd.DataFrame([
        {"network": n, "runtime": r, "batch": b, "repeat": i + 1,
         "seconds": seconds(n, r, b) * busy[i] * (1 + noise * draw.standard_normal())}
        for n in KINDS for r in RUNTIMES for b in (1, 64) for i in range(repeats)
    ])  # fmt: skip


def even(*_) -> float:
    return 0.001


def from_csv(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))


def text(found: list[str]) -> str:
    return " ".join(found)


def test_quantiles_are_those_of_numpy():
    passes = timed(even)
    found = findings.quantiles(passes)
    assert len(found) == 18
    for _, row in found.iterrows():
        own = passes[(passes[["network", "runtime", "batch"]] == row[["network", "runtime", "batch"]]).all(axis=1)]
        wanted = np.quantile(own["seconds"], [0.25, 0.5, 0.75, 0.95])
        assert np.allclose(row[["q1_s", "median_s", "q3_s", "q95_s"]].astype(float), wanted)
        assert row["n"] == 20


def test_ratios_are_of_the_same_round():
    """A busy moment doubles the times of a round, and changes no ratio by more than the noise of one pass."""
    passes = timed(lambda n, r, b: 0.001 / (2 if n == "s/small" else 1) / (3 if r == INT8 else 1), noise=0.001)
    found = findings.ratios(rows(), passes)
    by = found.set_index(["technique", "network", "runtime", "batch"])
    for batch in (1, 64):
        for runtime in RUNTIMES:
            assert by.loc[("structured", "s/small", runtime, batch), "ratio"] == pytest.approx(2, rel=0.01)
            assert by.loc[("unstructured", "s/sparse", runtime, batch), "ratio"] == pytest.approx(1, rel=0.01)
        for network in KINDS:
            assert by.loc[("int8", network, INT8, batch), "ratio"] == pytest.approx(3, rel=0.01)
            assert by.loc[("runtime", network, FLOAT32, batch), "ratio"] == pytest.approx(1, rel=0.01)
    assert len(found) == 2 * (3 + 3 + 3 + 3)
    assert (found["q3"] - found["q1"]).max() < 0.02
    sparse = passes[(passes["network"] == "s/sparse") & (passes["runtime"] == TORCH) & (passes["batch"] == 1)]
    dense = passes[(passes["network"] == "s/dense") & (passes["runtime"] == TORCH) & (passes["batch"] == 1)]
    wanted = np.quantile(dense["seconds"].to_numpy() / sparse["seconds"].to_numpy(), [0.25, 0.5, 0.75])
    assert by.loc[("unstructured", "s/sparse", TORCH, 1), ["q1", "ratio", "q3"]].tolist() == pytest.approx(wanted)


def test_what_a_runtime_cannot_use():
    said = text(findings.sentences(rows(), timed(even)))
    for runtime in (TORCH, FLOAT32, INT8):
        assert f"**{runtime} cannot use unstructured pruning**: its kernels multiply zeros" in said
        assert f"**{runtime} cannot use structured pruning**. Compared with the unpruned network it is" in said
    assert f"**{FLOAT32} cannot use int8**. Compared with its float32 form it is" in said
    assert " uses " not in said
    assert f"{FLOAT32} is, compared with PyTorch and in float32, " in said


def test_what_a_runtime_uses():
    speed = {"s/sparse": 2.0, "s/small": 3.0, "s/dense": 1.0}
    said = text(findings.sentences(rows(), timed(lambda n, r, b: 0.001 / speed[n] / (4 if r == INT8 else 1))))
    for runtime in (TORCH, FLOAT32, INT8):
        assert f"**{runtime} uses unstructured pruning**. Compared" in said
        assert f"**{runtime} uses structured pruning**. Compared with the unpruned network it is 3.0" in said
    assert f"**{FLOAT32} uses int8**. Compared with its float32 form it is 3.9" in said
    assert "cannot" not in said


def test_what_pays_at_one_batch_size_only():
    seconds = timed(lambda n, r, b: 0.001 / (2 if r == INT8 and b == 64 else 1))
    said = text(findings.sentences(rows(), seconds))
    assert f"**{FLOAT32} uses int8 at batch 64 (3 networks), and not otherwise**." in said
    assert "at batch 1 (quartiles 0.9" in said


def test_a_gain_within_the_spread_is_none():
    """1.2 times as fast in the median, and slower in a third of the rounds."""
    draw = np.random.default_rng(1)
    passes = timed(even, repeats=60)
    own = (passes["network"] == "s/small") & (passes["runtime"] == FLOAT32)
    passes.loc[own, "seconds"] *= np.where(np.arange(own.sum()) % 3 == 0, 1.5, 0.83) * (
        1 + 0.01 * draw.random(own.sum())
    )
    found = findings.ratios(rows(), passes)
    one = found[(found["technique"] == "structured") & (found["runtime"] == FLOAT32)]
    assert (one["ratio"] > findings.GAIN).all()
    assert f"**{FLOAT32} cannot use structured pruning**" in findings.use(one)


def test_sizes():
    files = {
        "disk_mb": lambda n, r: 4.0 / (2 if n == "s/small" else 1) / (4 if r == INT8 else 1),
        "compressed_mb": lambda n, r: (
            3.0 / (2 if n == "s/small" else 5 if n == "s/sparse" else 1) / (3 if r == INT8 else 1)
        ),
    }
    found = rows(**files)
    assert findings.size(found, "unstructured") == (
        "With unstructured pruning the ONNX file is as large as it is, and 5.00 times smaller when both are compressed."
    )
    assert "the ONNX file is 2.00 times smaller as it is, and 2.00 times" in findings.size(found, "structured")
    assert "4.00 times smaller as it is, and 3.00 times" in findings.size(found, "int8")
    assert findings.size(found[found["pruning"] == "unpruned"], "structured") is None


@pytest.mark.parametrize(("packed", "beside_whole", "beside_zeros"), [
    (1.0, "4.00 times smaller", "3.00 times smaller"), (5.0, "1.25 times larger", "1.67 times larger"),
    (4.0, "as large", "1.33 times larger"),
])  # fmt: skip
def test_a_bit_mask_is_compared_with_the_whole_and_with_zeros(packed, beside_whole, beside_zeros):
    made = rows(bitmask_mb=lambda n, r: (packed if n == "s/sparse" else 4.1) if r == TORCH else None)
    said = findings.packed(made)
    assert f"the values that are kept are {beside_whole} (1 network)" in said
    assert said.endswith(f"compared with zeros that are compressed, {beside_zeros}.")
    assert findings.on_disk(made)[0] == said
    (text,) = findings.concluded(made, timed(even), "Digits / FC")
    assert f"Unstructured-pruned, Digits / FC is {beside_whole} as bit mask and values" in text
    assert "1.00 times as fast at batch 1" in text
    assert findings.packed(made[made["network"] != "s/dense"]) is None
    assert findings.concluded(made[made["network"] != "s/sparse"], timed(even), "Digits / FC") == []


def test_agreement_and_accuracy():
    assert "at most 1e-06 of the largest, within the tolerance of 0.0001; with int8" in findings.agreement(rows())
    far = rows(max_abs_logit_difference=lambda n, r: 0.01 if (n, r) == ("s/small", FLOAT32) else 0.0)
    assert "at most 0.001 of the largest: **more than 0.0001**, in small" in findings.agreement(far)
    assert findings.accuracy(rows()) == "With int8 the top-1 accuracy changes by +0.00 points (3 networks)."
    worse = rows(top1_pct=lambda n, r: 88.5 if (n, r) == ("s/sparse", INT8) else 90.0)
    assert "changes by −1.50 to +0.00 points" in findings.accuracy(worse)


def failing(*failed: tuple[str, str], note: str = "cannot be exported: no") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of a run in which these (network, runtime) could not be made, as they come from disk."""
    made = rows()
    gone = [key in failed for key in zip(made["network"], made["runtime"], strict=True)]
    numbers = ["top1_pct", "disk_mb", "compressed_mb", "max_abs_logit_difference", "max_abs_logit", "made_s"]
    made.loc[gone, numbers], made.loc[gone, "note"] = np.nan, note
    passes = timed(even)
    keep = [key not in failed for key in zip(passes["network"], passes["runtime"], strict=True)]
    return from_csv(made), from_csv(passes[keep])


@pytest.mark.parametrize("failed", [
    [("s/small", INT8)], [("s/dense", FLOAT32), ("s/dense", INT8)],
    [(network, runtime) for network in KINDS for runtime in (FLOAT32, INT8)],
])  # fmt: skip
def test_what_is_missing_is_said_and_the_rest_compared(failed):
    made, passes = failing(*failed)
    said = findings.sentences(made, passes)
    for network, runtime in failed:
        assert f"Not in {runtime}: {findings.short(network)} (cannot be exported: no)." in said
    assert f"**{TORCH} cannot use structured pruning**" in text(said)
    if len(failed) == 6:
        assert FLOAT32 not in text(said).replace("Not in ONNX Runtime", "")
    if ("s/dense", FLOAT32) in failed:
        assert f"**{FLOAT32} cannot use structured pruning**" not in text(said)
    shown = findings.table(made, passes)
    assert shown.loc[(findings.short(failed[0][0]), failed[0][1]), "note"] == "cannot be exported: no"
    assert frames.style(shown).to_html().count("–") >= len(failed)
    sizes, times = findings.sizes(made), findings.times(made, passes)
    for network, runtime in failed:
        column = {FLOAT32: "ONNX (MB)", INT8: "int8 (MB)"}[runtime]
        assert pd.isna(sizes.loc[findings.short(network), column])
        assert times.loc[findings.short(network), [f"{runtime}, {b}" for b in (1, 64)]].isna().all()
    assert sizes["int8 (MB)"].notna().sum() == 3 - sum(runtime == INT8 for _, runtime in failed)
    assert times.notna().sum().sum() == 2 * (9 - len(failed))
    assert findings.remarks(made) == [], "what is missing is told by `missing`"
    plots_runtimes.latencies(findings.quantiles(passes))


def test_without_an_unpruned_network_pruning_is_not_judged():
    made, passes = rows(), timed(even)
    made, passes = (frame[frame["network"] != "s/dense"] for frame in (made, passes))
    said = text(findings.sentences(made, passes))
    assert "pruning" not in said
    assert f"**{FLOAT32} cannot use int8**" in said


def test_table():
    made, passes = from_csv(rows()), from_csv(timed(lambda n, r, b: 0.00123 * b, noise=0))
    shown = findings.table(made, passes)
    assert shown.index.tolist() == [(findings.short(n), r) for n in KINDS for r in RUNTIMES]
    assert "note" not in shown
    assert {"ms a pass of 1", "ms a pass of 64", "file (MB)", "compressed (MB)", "top-1 (%)"} <= set(shown)
    spread = findings.quantiles(passes).set_index(["network", "runtime", "batch"]).loc[("s/dense", TORCH, 1)]
    median, q1, q3 = (1000 * spread[name] for name in ("median_s", "q1_s", "q3_s"))
    assert shown.loc[("dense", TORCH), "ms a pass of 1"] == f"{median:.2f} ({q1:.2f}–{q3:.2f})"
    assert shown.loc[("sparse", TORCH), "largest difference of logits"] is np.nan
    assert shown.loc[("sparse", INT8), "kept (%)"] == "20"
    by_network = findings.times(made, passes)
    assert by_network.index.tolist() == ["dense", "sparse", "small"]
    for runtime in RUNTIMES:
        for batch in (1, 64):
            wanted = shown.xs(runtime, level="runtime")[f"ms a pass of {batch}"]
            assert by_network[f"{runtime}, {batch}"].tolist() == wanted.str.partition(" ")[0].tolist()


def test_sizes_have_a_line_a_network():
    shown = findings.sizes(from_csv(rows(top1_pct=lambda n, r: 80.0 if r == INT8 else 90.0)))
    assert shown.index.tolist() == ["dense", "sparse", "small"]
    assert shown["bit mask (MB)"].tolist() == ["4.100", "1.000", "4.000"]
    assert shown["times smaller"].tolist() == ["0.98", "4.00", "1.00"]
    assert (shown["top-1 (%)"].tolist(), shown["int8 top-1 (%)"].tolist()) == (["90.00"] * 3, ["80.00"] * 3)
    without = rows()
    assert "times smaller" not in findings.sizes(without[without["network"] != "s/dense"])


def test_remarks_are_made_once_a_runtime():
    made = rows(note=lambda n, r: "7-bit weights" if r == INT8 else "")
    assert findings.remarks(made) == [f"{INT8}: 7-bit weights."]
    assert findings.remarks(from_csv(rows())) == []


def test_a_name_of_the_report_is_no_folder():
    assert findings.short("s/accuracy-fc-snip-seed1 channels-0.5") == "accuracy-fc-snip-seed1 channels-0.5"
    assert findings.short("Mag (source s/dense) at ratio 10") == "Mag (source s/dense) at ratio 10"


def test_frames_are_left_alone():
    made, passes = rows(), timed(even)
    before = made.copy(), passes.copy()
    findings.sentences(made, passes), findings.table(made, passes)
    plots_runtimes.latencies(findings.quantiles(passes))
    assert made.equals(before[0])
    assert passes.equals(before[1])


def test_figure_shows_medians_and_quartiles():
    table = findings.quantiles(timed(lambda n, r, b: 0.001 * b))
    figure = plots_runtimes.latencies(table)
    assert figure.get_figwidth() == pytest.approx(WIDTH)
    assert [ax.get_title("left") + ax.get_title() for ax in figure.axes] == ["batch 1", "batch 64"]
    for ax, batch in zip(figure.axes, (1, 64), strict=True):
        assert ax.get_xscale() == "log"
        for bars, runtime in zip(ax.containers, RUNTIMES, strict=True):
            own = table[(table["batch"] == batch) & (table["runtime"] == runtime)]
            assert bars.get_label() == runtime
            assert np.allclose(bars[0].get_xdata(), 1000 * own["median_s"])
            ends = np.array([segment[:, 0] for segment in bars[2][0].get_segments()])
            assert np.allclose(ends, 1000 * own[["q1_s", "q3_s"]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dense", "sparse", "small"]
