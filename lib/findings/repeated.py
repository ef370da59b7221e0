"""What repeated pruning does to accuracy, to the file on disk, and to the time of a pass."""

import pandas as pd

from lib.markup import code

MB = 1e6  # bytes
BUSY = 1.5  # upper over lower quartile of the ratio of two passes from which on it says nothing
SAME = 0.05  # ratios nearer to 1 are called equal


def same_masks(different: int, step: float) -> str:
    """Whether torch.nn.utils.prune and the workbench removed the same weights."""
    if different:
        return f"**The masks of torch.nn.utils.prune and ours differ** in {different:,.0f} weights at {step:.0%}."
    return f"torch.nn.utils.prune and the workbench remove the same weights at {step:.0%}, all of them."


def iterations(rows: pd.DataFrame, files: pd.DataFrame, latencies: pd.DataFrame) -> pd.DataFrame:
    """One row an iteration: `rows` (iterations.csv) with its sizes and times.

    `disk_mb` is the state dict with zeros in place of what is removed, `smallest_mb` the smallest of all forms in
    `files` and `smallest` its name, `times_smaller` what the dense network of iteration 0 weighs over that. From
    `latencies` the median and the quartiles of a pass, `latency_<batch>_s`, `_q1_s` and `_q3_s`, and `ratio_<batch>`,
    `_q1` and `_q3`, how long it takes in times of the dense network's in the same round; none without rows.
    """
    named = files.assign(name=files["form"] + files["compressed"].map({True: " + zstd", False: ""}))
    dense = named[(named["name"] == "dense")].set_index("iteration")["bytes"] / MB
    least = named.loc[named.groupby("iteration")["bytes"].idxmin()].set_index("iteration")
    table = rows.set_index("iteration").assign(
        disk_mb=dense, smallest_mb=least["bytes"] / MB, smallest=least["name"],
        times_smaller=dense.loc[0] / (least["bytes"] / MB),
    )  # fmt: skip
    for batch, part in latencies.groupby("batch") if len(latencies) else []:
        quartiles = part.groupby("network")["seconds"].quantile([0.25, 0.5, 0.75]).unstack()
        table[f"latency_{batch}_s"] = quartiles[0.5]
        table[f"latency_{batch}_q1_s"], table[f"latency_{batch}_q3_s"] = quartiles[0.25], quartiles[0.75]
        rounds = part.pivot(index="repeat", columns="network", values="seconds")
        ratios = rounds.div(rounds[0], axis=0).quantile([0.25, 0.5, 0.75])
        table[f"ratio_{batch}"], table[f"ratio_{batch}_q1"], table[f"ratio_{batch}_q3"] = (
            ratios.loc[share] for share in (0.5, 0.25, 0.75)
        )
    return table.reset_index()


def batches(table: pd.DataFrame) -> list[int]:
    """The batch sizes that were timed, ascending."""
    return sorted(int(c.split("_")[1]) for c in table if c.startswith("latency_") and c.count("_") == 2)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`iterations` in print: times in ms with their quartiles, sizes in MB."""
    wide = {
        "sparsity (%)": table["sparsity_pct"].map("{:.2f}".format),
        "weights left": table["weights_kept"].map("{:,.0f}".format),
        "top-1 (%)": table["top1_pct"].map("{:.2f}".format),
    }
    for batch in batches(table):
        name = f"latency_{batch}"
        cells = zip(table[f"{name}_s"], table[f"{name}_q1_s"], table[f"{name}_q3_s"], strict=True)
        wide[f"ms a pass of {batch}"] = [f"{1e3 * m:.3g} ({1e3 * a:.3g} to {1e3 * b:.3g})" for m, a, b in cells]
    wide |= {
        "state dict (MB)": table["disk_mb"].map("{:.3f}".format),
        "smallest file (MB)": table["smallest_mb"].map("{:.3f}".format),
        "times smaller": table["times_smaller"].map("{:.2f}".format),
    }
    return pd.DataFrame(wide).set_index(pd.Index(table["iteration"], name="iteration"))


def forms(files: pd.DataFrame, iteration: int) -> pd.DataFrame:
    """One row a form: its file in MB plain and compressed, and how many times smaller than the dense network's."""
    chosen = files[files["iteration"] == iteration].pivot(index="form", columns="compressed", values="bytes") / MB
    chosen = chosen.reindex(list(dict.fromkeys(files["form"])))
    whole = files[(files["iteration"] == 0) & (files["form"] == "dense") & ~files["compressed"]]["bytes"].iloc[0] / MB
    return pd.DataFrame({
        "plain (MB)": chosen[False].map("{:.3f}".format), "times smaller": (whole / chosen[False]).map("{:.2f}".format),
        "zstd (MB)": chosen[True].map("{:.3f}".format),
        "times smaller with zstd": (whole / chosen[True]).map("{:.2f}".format),
    })  # fmt: skip


def what_pays(files: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """From which iteration on each form is smaller than the dense file, why, which is the smallest, and what loads."""
    plain = files[~files["compressed"]].pivot(index="iteration", columns="form", values="bytes")
    sparsity = rows.set_index("iteration")["sparsity_pct"]
    said = [_from_where(name, plain, sparsity) for name in WHY if name in plain]
    final = files[files["iteration"] == files["iteration"].max()]
    for name, part in (("uncompressed", final[~final["compressed"]]), ("of all", final)):
        best = part.loc[part["bytes"].idxmin()]
        form = best["form"] + (" with zstd" if best["compressed"] else "")
        said.append(f"At {sparsity.iloc[-1]:.1f} % the smallest file {name} is {form}, {best['bytes'] / MB:.3f} MB.")
    lost = files[~files["loads"]]
    if len(lost):
        said.append(f"**{len(lost)} of {len(files)} files did not give the same weights back.**")
    else:
        said.append(f"All {len(files)} files gave the same weights back, bit for bit.")
    return said


# What a form costs beside the dense file's 4 bytes a weight, and from where on it pays.
WHY = {
    "coo": "it stores 8 bytes for every dimension and 4 for the value of a weight that is left, so that it pays from "
    "80 % on for a matrix and from 88.9 % on for a convolution",
    "csr": "it stores 8 bytes for the column and 4 for the value of a weight that is left, and 8 a row, so that it "
    "pays from about 66.7 % on",
    "bitmask": "it stores one bit a weight and 4 bytes for one that is left, so that it pays from 3.1 % on",
    "masked": "it stores a mask of 4 bytes beside each weight, and never pays",
}


def _from_where(form: str, plain: pd.DataFrame, sparsity: pd.Series) -> str:
    """At which iterations a form is larger than the dense file, from where on smaller, and the reason."""
    larger, smaller = (plain.index[part] for part in (plain[form] > plain["dense"], plain[form] < plain["dense"]))
    name = form.upper() if form in ("coo", "csr") else f"The form {form}"
    parts = []
    if len(larger):
        at = larger.max()
        sizes = f"{plain.loc[at, form] / MB:.2f} against {plain.loc[at, 'dense'] / MB:.2f} MB"
        parts.append(f"larger than the dense file up to {sparsity[at]:.1f} % ({sizes})")
    if len(smaller):
        at = smaller.min()
        sizes = f"{plain.loc[at, form] / MB:.2f} MB"
        parts.append(f"smaller from {sparsity[at]:.1f} % on ({sizes})")
    return f"{name} is {' and '.join(parts) or 'as large as the dense file'}: {WHY[form]}."


def sentences(table: pd.DataFrame) -> list[str]:
    """How accuracy and times change from the dense network to the last iteration."""
    if len(table) < 2:
        return []
    first, last = table.iloc[0], table.iloc[-1]
    said = [
        f"From {first['sparsity_pct']:.1f} to {last['sparsity_pct']:.2f} % sparsity the accuracy goes from "
        f"{first['top1_pct']:.2f} to {last['top1_pct']:.2f} %; the best is iteration "
        f"{table.loc[table['top1_pct'].idxmax(), 'iteration']} ({table['top1_pct'].max():.2f} %)."
    ]
    return [text for text in (*said, collapse(table), *(_time(table, batch) for batch in batches(table))) if text]


def _time(table: pd.DataFrame, batch: int) -> str:
    """The last iteration's passes beside the dense network's of the same rounds, or that they say nothing."""
    low, middle, high = (table[f"ratio_{batch}{part}"].iloc[-1] for part in ("_q1", "", "_q3"))
    said = (
        f"A pass of {batch} takes {middle:.2f} times as long at the last iteration as dense (quartiles {low:.2f} to "
        f"{high:.2f}, both in the same round)"
    )
    if high / low > BUSY:
        return f"{said}: the machine was too busy to tell them apart."
    if abs(middle - 1) <= SAME or low <= 1 <= high:
        return f"{said}: no gain, zeros are multiplied like other numbers."
    return f"{said}: {'faster' if middle < 1 else 'slower'}, though the kernels are the same."


def collapse(table: pd.DataFrame) -> str | None:
    """The first iteration that left a layer without a weight; None where none did."""
    # in a CSV file no name is not-a-number; runs of an earlier state have no such column
    written = table["collapsed_layers"] if "collapsed_layers" in table else pd.Series("", index=table.index)
    empty = written.map(lambda names: names if isinstance(names, str) else "")
    if not (empty != "").any():
        return None
    first = table[empty != ""].iloc[0]
    names = empty[first.name].split()
    rest = "a path is left" if first["connected"] else "no input reaches the output any more"
    return (
        f"**From iteration {first['iteration']} ({first['sparsity_pct']:.2f} %) on {len(names)} "
        f"layer{'s have' if len(names) > 1 else ' has'} no weight left** "
        f"({', '.join(code(name) for name in names)}): {rest}. Their scores are lower than those of the other layers, "
        "and one ranking over all of them removes them first."
    )


def beside(tables: dict[str, pd.DataFrame]) -> list[str]:
    """The gap in accuracy between two ways, such as `without retraining` and `rewound and retrained`, by sparsity."""
    if len(tables) < 2:
        return []
    (one, a), (other, b) = list(tables.items())[:2]
    joined = a.merge(b, on="iteration", suffixes=("_a", "_b"))
    joined = joined[joined["iteration"] > 0]
    gaps = joined["top1_pct_b"] - joined["top1_pct_a"]
    if gaps.empty:
        return []
    most = gaps.abs().idxmax()
    at = f"{joined.loc[most, 'sparsity_pct_a']:.2f} % sparsity"
    return [
        f"{other[0].upper()}{other[1:]}, the accuracy is {gaps[most]:+.2f} points from that {one} at {at}, where they "
        f"differ most, and {gaps.iloc[0]:+.2f} after the first iteration."
    ]
