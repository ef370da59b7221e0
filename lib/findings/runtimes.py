"""Which ways to make a network smaller an inference runtime can use, from measured times and sizes.

`rows` is the runtimes.csv of a run, a row a network and runtime; `timed` its latencies.csv, a row a timed pass.
"""

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
        "largest difference of logits": _said(rows["max_abs_logit_difference"].where(rows["runtime"] != TORCH), ".1e"),
    })  # fmt: skip
    spread = quantiles(timed).set_index(["batch", "network", "runtime"])
    for batch in batches(timed):
        keys = zip([batch] * len(rows), rows["network"], rows["runtime"], strict=True)
        lines[f"ms a pass of {batch}"] = [_clock(spread.loc[key]) if key in spread.index else None for key in keys]
    if _notes(rows).any():
        lines["note"] = _notes(rows)
    return lines.set_index(pd.MultiIndex.from_arrays([rows["network"].map(short), rows["runtime"]]))


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
    found = ratios(rows, timed)
    said = [agreement(rows)]
    for technique in TECHNIQUES:
        for runtime in RUNTIMES:
            own = found[(found["technique"] == technique) & (found["runtime"] == runtime)]
            said.append(use(own) if len(own) else None)
        said.append(size(rows, technique) if technique != "runtime" else None)
    return [sentence for sentence in [*said, accuracy(rows), *missing(rows)] if sentence]


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
    return f"The ONNX file is {_smaller(plain)} as it is, and {_smaller(compressed)} when both are compressed."


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


def missing(rows: pd.DataFrame) -> list[str]:
    """A sentence for each network that a runtime does not have, with the reason."""
    gone = rows[rows["top1_pct"].isna()]
    return [f"Not in {row['runtime']}: {short(row['network'])} ({row['note']})." for _, row in gone.iterrows()]


def batches(timed: pd.DataFrame) -> list[int]:
    """The batch sizes that were timed, ascending."""
    return sorted(timed["batch"].unique().tolist())


def short(network: str) -> str:
    """A network's name without its study."""
    return network.rpartition("/")[2]


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


def _smaller(ratio: pd.Series) -> str:
    if ((ratio - 1).abs() <= SAME_SIZE).all():
        return "as large"
    low, high = f"{ratio.min():.2f}", f"{ratio.max():.2f}"
    return f"{low if low == high else f'{low} to {high}'} times smaller"


def _said(values: pd.Series, spec: str) -> pd.Series:
    """Numbers as text; missing ones stay missing."""
    return values.map(lambda value: format(value, spec), na_action="ignore").astype(object)


def _notes(rows: pd.DataFrame) -> pd.Series:
    return rows["note"].map(lambda note: note if isinstance(note, str) else "")  # a column without any is of numbers


def _clock(row: pd.Series) -> str:
    """Median and quartiles in milliseconds, with three significant digits of the median."""
    decimals = next((d for d, least in ((0, 0.1), (1, 0.01), (2, 0.001)) if row["median_s"] >= least), 3)
    median, q1, q3 = (f"{1000 * row[name]:.{decimals}f}" for name in ("median_s", "q1_s", "q3_s"))
    return f"{median} ({q1}–{q3})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
