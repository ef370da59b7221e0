"""Which ways to make a network smaller an inference runtime can use, from measured times and sizes.

`rows` is the runtimes.csv of a run, a row a network and runtime; `timed` its latencies.csv, a row a timed pass.
"""

import re

import pandas as pd

from lib.catalog import RUNTIMES, UNPRUNED

TORCH, FLOAT32, INT8 = RUNTIMES
TOLERANCE = 1e-4  # of the largest logit: what float32 sums in another order may differ by
GAIN = 1.1  # times as fast: less is no use that can be relied on
SAME_SIZE = 0.02
ZEROS = "its kernels multiply zeros like all other numbers"
# technique -> how it is called, and where its gain lies
TECHNIQUES = {
    "unstructured": ("unstructured pruning", "the unpruned network"),
    "structured": ("structured pruning", "the unpruned network"),
    "int8": ("int8", "its float32 form"),
    "runtime": ("", "PyTorch"),
}
SAVING = [technique for technique in TECHNIQUES if technique != "runtime"]  # changes what is stored
QUANTILES = {"q1_s": 0.25, "median_s": 0.5, "q3_s": 0.75, "q95_s": 0.95}


def quantiles(timed: pd.DataFrame) -> pd.DataFrame:
    """One row a network, runtime and batch size: `q1_s`, `median_s`, `q3_s`, `q95_s`, and the number of passes `n`."""
    grouped = timed.groupby(["network", "runtime", "batch"], sort=False)["seconds"]
    found = grouped.quantile(list(QUANTILES.values())).unstack()
    found.columns = list(QUANTILES)
    return found.assign(n=grouped.count()).reset_index()


def table(rows: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """A line a network and runtime: accuracy, file, distance from PyTorch, milliseconds of a pass (quartiles), note."""
    lines = pd.DataFrame({
        "kept (%)": (100 * rows["density"]).map("{:.3g}".format),
        "top-1 (%)": _said(rows["top1_pct"], ".2f"),
        "file (MB)": _said(rows["disk_mb"], ".3f"),
        "compressed (MB)": _said(rows["compressed_mb"], ".3f"),
        "bit mask (MB)": _said(rows["bitmask_mb"], ".3f"),
        "largest difference of logits": _said(rows["max_abs_logit_difference"].where(rows["runtime"] != TORCH), ".1e"),
    })  # fmt: skip
    spread = quantiles(timed).set_index(["batch", "network", "runtime"])
    for batch in batches(timed):
        keys = zip([batch] * len(rows), rows["network"], rows["runtime"], strict=True)
        lines[f"ms a pass of {batch}"] = [_clock(spread.loc[key]) if key in spread.index else None for key in keys]
    if _notes(rows).any():
        lines["note"] = _notes(rows)
    return lines.set_index(pd.MultiIndex.from_arrays([rows["network"].map(short), rows["runtime"]]))


def sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a network: the share it keeps, its weights in three forms and its ONNX files in MB, its accuracies.

    `times smaller` is the first unpruned network's weights as they are over this one's bit mask and values.
    """
    torch, float32, int8 = (rows[rows["runtime"] == runtime].set_index("network") for runtime in RUNTIMES)
    whole = torch.loc[torch["pruning"] == UNPRUNED, "disk_mb"]
    lines = pd.DataFrame({
        "kept (%)": (100 * torch["density"]).map("{:.3g}".format),
        "zeros (MB)": _said(torch["disk_mb"], ".3f"),
        "zstd (MB)": _said(torch["compressed_mb"], ".3f"),
        "bit mask (MB)": _said(torch["bitmask_mb"], ".3f"),
        **({"times smaller": _said(whole.iloc[0] / torch["bitmask_mb"], ".2f")} if len(whole) else {}),
        "ONNX (MB)": _said(float32["disk_mb"], ".3f"),
        "int8 (MB)": _said(int8["disk_mb"], ".3f"),
        "top-1 (%)": _said(torch["top1_pct"], ".2f"),
        "int8 top-1 (%)": _said(int8["top1_pct"], ".2f"),
    })  # fmt: skip
    return lines.rename(index=short)


def times(rows: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """A line a network, a column a batch size and runtime: milliseconds of a pass, the median."""
    medians = quantiles(timed).set_index(["network", "runtime", "batch"])["median_s"]
    names = list(dict.fromkeys(rows["network"]))
    columns = {
        f"{runtime}, {batch}": [
            _milliseconds(medians[key]) if (key := (name, runtime, batch)) in medians else None for name in names
        ]
        for batch in batches(timed)
        for runtime in RUNTIMES
    }
    return pd.DataFrame(columns, index=pd.Index(map(short, names), name="network"))


def ratios(rows: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """How many times as fast each network is as what it is compared with: the median over the repeats and quartiles.

    Both sides of a ratio are of one round, so that a busy moment hits both. `technique` is unstructured or structured
    (against the first unpruned network in the same runtime), int8 (against the same network in float32) or runtime
    (ONNX Runtime against PyTorch); `network`, `runtime`, `batch`, `ratio`, `q1`, `q3`.
    """
    found, passes = [], timed.set_index(["network", "runtime", "batch", "repeat"])["seconds"].sort_index()
    for technique, own, base in pairs(rows[rows["top1_pct"].notna()]):
        for batch in batches(timed):
            ratio = passes.loc[(*base, batch)] / passes.loc[(*own, batch)]
            q1, median, q3 = ratio.quantile([0.25, 0.5, 0.75])
            found.append([technique, *own, batch, median, q1, q3])
    return pd.DataFrame(found, columns=["technique", "network", "runtime", "batch", "ratio", "q1", "q3"])


def pairs(rows: pd.DataFrame) -> list[tuple[str, tuple, tuple]]:
    """(technique, (network, runtime) with it, (network, runtime) without it), of the rows that could be made."""
    there = list(zip(rows["network"], rows["runtime"], strict=True))
    pruning = dict(zip(rows["network"], rows["pruning"], strict=True))
    whole = next((network for network, kind in pruning.items() if kind == UNPRUNED), None)
    found = [(pruning[n], (n, r), (whole, r)) for n, r in there if pruning[n] != UNPRUNED]
    found += [("int8", (n, r), (n, FLOAT32)) for n, r in there if r == INT8]
    found += [("runtime", (n, r), (n, TORCH)) for n, r in there if r == FLOAT32]
    return [pair for pair in found if pair[2] in there]


def sentences(rows: pd.DataFrame, timed: pd.DataFrame) -> list[str]:
    """What the runtimes make of the networks of one run."""
    return [*on_the_clock(rows, timed), *on_disk(rows), *missing(rows)]


def on_the_clock(rows: pd.DataFrame, timed: pd.DataFrame) -> list[str]:
    """Whether the runtimes compute what PyTorch does, and which technique pays in which of them."""
    found, said = ratios(rows, timed), [agreement(rows)]
    for technique in TECHNIQUES:
        for runtime in RUNTIMES:
            own = found[(found["technique"] == technique) & (found["runtime"] == runtime)]
            said.append(use(own) if len(own) else None)
    return [sentence for sentence in said if sentence]


def on_disk(rows: pd.DataFrame) -> list[str]:
    """What each technique saves in a file, and what int8 costs in accuracy."""
    said = [packed(rows), *(size(rows, technique) for technique in SAVING), accuracy(rows)]
    return [sentence for sentence in said if sentence]


def concluded(rows: pd.DataFrame, timed: pd.DataFrame, task: str) -> list[str]:
    """In a sentence what unstructured pruning of `task` is worth on disk, and on the clock of ONNX Runtime."""
    found, files = ratios(rows, timed), _packed(rows)
    own = found[(found["technique"] == "unstructured") & (found["runtime"] == FLOAT32)]
    if own.empty:
        return []
    times = " and ".join(_speed(part, batch) for batch, part in own.groupby("batch"))
    return [f"Unstructured-pruned, {task} is {_smaller(files)} as bit mask and values, and in {FLOAT32} {times}."]


def use(found: pd.DataFrame) -> str:
    """Whether one technique pays in one runtime: rows of `ratios` of one of each."""
    technique, runtime = found.iloc[0][["technique", "runtime"]]
    name, base = TECHNIQUES[technique]
    gains = (found["ratio"] >= GAIN) & (found["q1"] > 1)
    times = "; ".join(_speed(own, batch) for batch, own in found.groupby("batch"))
    if technique == "runtime":
        return f"{runtime} is, compared with {base} and in float32, {times}."
    every, none = gains.all(), not gains.any()
    what = f"cannot use {name}" if none else f"uses {name}" if every else _partly(name, found[gains])
    why = f": {ZEROS}" if none and technique == "unstructured" else ""
    subject = FLOAT32 if technique == "int8" else runtime
    return f"**{subject} {what}**{why}. Compared with {base} it is {times}."


def size(rows: pd.DataFrame, technique: str) -> str | None:
    """What a technique saves on disk, in the ONNX file as it is and compressed."""
    files = rows.set_index(["network", "runtime"])[["disk_mb", "compressed_mb"]]
    runtime = INT8 if technique == "int8" else FLOAT32
    made = pairs(rows[rows["top1_pct"].notna()])
    found = [files.loc[base] / files.loc[own] for name, own, base in made if name == technique and own[1] == runtime]
    if not found:
        return None
    plain, compressed = pd.DataFrame(found)["disk_mb"], pd.DataFrame(found)["compressed_mb"]
    how = f"With {TECHNIQUES[technique][0]} the ONNX file"
    return f"{how} is {_smaller(plain)} as it is, and {_smaller(compressed)} when both are compressed."


def packed(rows: pd.DataFrame) -> str | None:
    """What a bit mask and the values that are kept weigh, against the unpruned weights and against zeros with zstd."""
    ratio = _packed(rows)
    if ratio.empty:
        return None
    sparse = rows[(rows["runtime"] == TORCH) & (rows["pruning"] == "unstructured")]
    zeros = sparse["compressed_mb"] / sparse["bitmask_mb"]
    return (
        f"Compared with the file of the unpruned network, a bit mask and the values that are kept are "
        f"{_smaller(ratio)} ({_count(len(ratio), 'network')}); "
        f"compared with zeros that are compressed, {_smaller(zeros)}."
    )


def agreement(rows: pd.DataFrame) -> str | None:
    """Whether the exported networks compute what PyTorch does, and how far int8 is from it."""
    share = rows["max_abs_logit_difference"] / rows["max_abs_logit"]
    float32, int8 = (share[rows["runtime"] == runtime].dropna() for runtime in (FLOAT32, INT8))
    if float32.empty:
        return None
    within, worst = float32.max() <= TOLERANCE, rows.loc[float32.idxmax(), "network"]
    text = f"Exported, the logits over the test set differ from PyTorch's by at most {float32.max():.1g} of the largest"
    text += (
        f", within the tolerance of {TOLERANCE:g}" if within else f": **more than {TOLERANCE:g}**, in {short(worst)}"
    )
    return text + (f"; with int8 by at most {int8.max():.2g} of it." if len(int8) else ".")


def accuracy(rows: pd.DataFrame) -> str | None:
    """What int8 changes in top-1."""
    top1 = rows.pivot(index="network", columns="runtime", values="top1_pct")
    if not {FLOAT32, INT8} <= set(top1):
        return None
    change = (top1[INT8] - top1[FLOAT32]).dropna()
    if change.empty:
        return None
    low, high = (f"{value:+.2f}".replace("-", "−") for value in (change.min(), change.max()))
    span = low if low == high else f"{low} to {high}"
    return f"With int8 the top-1 accuracy changes by {span} points ({_count(len(change), 'network')})."


def remarks(rows: pd.DataFrame) -> list[str]:
    """What was noted of networks that a runtime does have, once for each runtime."""
    noted = rows.assign(note=_notes(rows))[rows["top1_pct"].notna() & (_notes(rows) != "")]
    return [f"{runtime}: {note}." for runtime, note in dict.fromkeys(zip(noted["runtime"], noted["note"], strict=True))]


def missing(rows: pd.DataFrame) -> list[str]:
    """A sentence for each network that a runtime does not have, with the reason."""
    gone = rows[rows["top1_pct"].isna()]
    return [f"Not in {row['runtime']}: {short(row['network'])} ({row['note']})." for _, row in gone.iterrows()]


def batches(timed: pd.DataFrame) -> list[int]:
    """The batch sizes that were timed, ascending."""
    return sorted(timed["batch"].unique().tolist())


def short(network: str) -> str:
    """A network's name without its study; one such as `SNIP (source s/dense) at ratio 10` has none before it."""
    return re.sub(r"^[^/ ]+/", "", network)


def _speed(own: pd.DataFrame, batch: int) -> str:
    """`1.02 times as fast at batch 1 (quartiles 0.98 to 1.05)`, or the range over several networks."""
    low, high = own["ratio"].min(), own["ratio"].max()
    many = f", {len(own)} networks" if len(own) > 1 else ""
    middle = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    return f"{middle} times as fast at batch {batch} (quartiles {own['q1'].min():.2f} to {own['q3'].max():.2f}{many})"


def _partly(name: str, gains: pd.DataFrame) -> str:
    """`uses int8 at batch 64 (2 networks), and not otherwise`."""
    where = [f"at batch {batch} ({_count(len(own), 'network')})" for batch, own in gains.groupby("batch")]
    return f"uses {name} {' and '.join(where)}, and not otherwise"


def _packed(rows: pd.DataFrame) -> pd.Series:
    """The first unpruned network's weights over the bit mask and values of each unstructured one; none without both."""
    torch = rows[rows["runtime"] == TORCH]
    whole = torch.loc[torch["pruning"] == UNPRUNED, "disk_mb"]
    sparse = torch.loc[torch["pruning"] == "unstructured", "bitmask_mb"]
    return whole.iloc[0] / sparse if len(whole) else sparse[:0]


def _smaller(ratio: pd.Series) -> str:
    """`as large`, `2.00 to 3.10 times smaller`, `1.25 times larger`."""
    if ((ratio - 1).abs() <= SAME_SIZE).all():
        return "as large"
    word, ratio = ("larger", 1 / ratio) if ratio.max() < 1 else ("smaller", ratio)
    low, high = f"{ratio.min():.2f}", f"{ratio.max():.2f}"
    return f"{low if low == high else f'{low} to {high}'} times {word}"


def _said(values: pd.Series, spec: str) -> pd.Series:
    """Numbers as text; missing ones stay missing."""
    return values.map(lambda value: format(value, spec), na_action="ignore").astype(object)


def _notes(rows: pd.DataFrame) -> pd.Series:
    return rows["note"].map(lambda note: note if isinstance(note, str) else "")  # a column without any is of numbers


def _clock(row: pd.Series) -> str:
    """Median and quartiles in milliseconds, with three significant digits of the median."""
    median, q1, q3 = (_milliseconds(row[name], row["median_s"]) for name in ("median_s", "q1_s", "q3_s"))
    return f"{median} ({q1}–{q3})"


def _milliseconds(seconds: float, like: float | None = None) -> str:
    """With the decimals of three significant digits of `like`, the time itself where that is None."""
    shown = seconds if like is None else like
    decimals = next((d for d, least in ((0, 0.1), (1, 0.01), (2, 0.001)) if shown >= least), 3)
    return f"{1000 * seconds:.{decimals}f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
