"""Pruning and 8-bit quantisation in both orders: what each costs, why the order matters, what the files weigh."""

import pandas as pd

from lib.catalog import PRUNED_FIRST, QUANTISED_FIRST, UNPRUNED
from lib.findings.accuracy import CLEAR, difference

NONE, WEIGHTS, BOTH = "none", "weights", "weights and activations"


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a technique, quantisation and rate; `rows` is quantized.csv of a run."""
    return pd.DataFrame({
        "technique": rows["order"],
        "8 bits for": rows["quantisation"].replace({NONE: None, BOTH: "weights, activations"}),
        "further epochs": rows["fine_tuning_epochs"],
        "sparsity (%)": rows["sparsity_pct"],
        "zeros (%)": rows["zeros_pct"],
        "top-1 (%)": rows["top1_pct"],
        "file (MB)": rows["disk_mb"],
        "bit mask (MB)": rows["bitmask_mb"],
        "compressed (MB)": rows["compressed_mb"],
    })  # fmt: skip


def integers(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a network that ONNX Runtime runs in integers, or should; `rows` is quantized.csv of a run."""
    tried = rows[rows["quantisation"] == BOTH].reset_index(drop=True)
    shown = {
        "technique": tried["order"],
        "further epochs": tried["fine_tuning_epochs"],
        "top-1, simulated (%)": tried["top1_pct"],
        "top-1, int8 (%)": tried["int8_top1_pct"].astype(float),
        "ONNX file (MB)": tried["int8_disk_mb"].astype(float),
    }
    shown |= {f"ms a pass of {n}": 1e3 * tried[f"int8_latency_{n}_s"].astype(float) for n in timed(rows)}
    return pd.DataFrame(shown)


def timed(rows: pd.DataFrame) -> list[int]:
    """The batch sizes of the passes that were timed, ascending."""
    return sorted(int(name.split("_")[2]) for name in rows if name.startswith("int8_latency_"))


def steps(ties: pd.DataFrame) -> pd.DataFrame:
    """A line a pruning step of either order; `ties` is ties.csv of a run."""
    shown = {
        "technique": ties["order"], "step": ties["level"] + 1, "weights before": ties["left"], "kept": ties["kept"],
        "already zero": ties["zeros"], "different magnitudes": ties["magnitudes"], "at the threshold": ties["tied"],
        "kept of these": ties["tied_kept"],
    }  # fmt: skip
    return pd.DataFrame(shown).reset_index(drop=True)


def metrics(rows: pd.DataFrame) -> dict:
    """The flat metrics of a run: top-1 without and with quantisation, of either order with 8-bit activations too."""
    by = rows[rows["fine_tuning_epochs"] == 0].set_index(["order", "quantisation"])
    return {
        "dense_top1_pct": by.loc[(UNPRUNED, NONE), "top1_pct"],
        "pruned_top1_pct": by.loc[(PRUNED_FIRST, NONE), "top1_pct"],
        "prune_then_quantise_top1_pct": by.loc[(PRUNED_FIRST, BOTH), "top1_pct"],
        "quantise_then_prune_top1_pct": by.loc[(QUANTISED_FIRST, BOTH), "top1_pct"],
        "sparsity_pct": by.loc[(PRUNED_FIRST, BOTH), "sparsity_pct"],
        "compressed_mb": by.loc[(PRUNED_FIRST, BOTH), "compressed_mb"],
    }


def sentences(rows: pd.DataFrame, images: int) -> list[str]:
    """What quantisation alone costs, both orders beside each other, and files; `images` is the size of the test set."""
    found = [alone(rows, images), after_pruning(rows, images)]
    found += [orders(rows, images, epochs) for epochs in sorted(rows["fine_tuning_epochs"].unique())]
    return [sentence for sentence in [*found, size(rows)] if sentence]


def why(rounding: pd.DataFrame, ties: pd.DataFrame, overlap_pct: float, density: float) -> list[str]:
    """Why the order matters: what rounding does to kept weights, what pruning chooses among, which weights stay.

    `rounding` and `ties` are rounding.csv and ties.csv of a run, `overlap_pct` the share of the weights kept by
    pruning first that pruning second keeps too.
    """
    found = [emptied(rounding), zeroed(rounding), reach(rounding, ties), chosen(ties), shared(overlap_pct, density)]
    return [sentence for sentence in found if sentence]


def alone(rows: pd.DataFrame, images: int) -> str | None:
    """The unpruned network with 8-bit weights, and with 8-bit activations too."""
    return _steps(rows[rows["order"] == UNPRUNED], "The unpruned network", images)


def after_pruning(rows: pd.DataFrame, images: int) -> str | None:
    """The pruned network before and after it is quantised, without further training."""
    pruned = rows[(rows["order"] == PRUNED_FIRST) & (rows["fine_tuning_epochs"] == 0)]
    return _steps(pruned, f"Pruned by {pruned['sparsity_pct'].iloc[0]:.4g} %, it", images) if len(pruned) else None


def _steps(rows: pd.DataFrame, what: str, images: int) -> str | None:
    by = rows.set_index("quantisation")["top1_pct"]
    if not {NONE, WEIGHTS, BOTH} <= set(by.index):
        return None
    change, error = difference(by[[BOTH]], by[[NONE]], images)
    return (
        f"{what} has a top-1 accuracy of {by[NONE]:.2f} % in float32, {by[WEIGHTS]:.2f} % with 8-bit weights and "
        f"{by[BOTH]:.2f} % with 8-bit activations too: {_points(change)} by quantisation, {_clear(change, error)}."
    )


def orders(rows: pd.DataFrame, images: int, epochs: int) -> str | None:
    """Both orders with 8-bit weights and activations, after so many further epochs that see the rounding."""
    both = rows[(rows["quantisation"] == BOTH) & (rows["fine_tuning_epochs"] == epochs)].set_index("order")
    if not {PRUNED_FIRST, QUANTISED_FIRST} <= set(both.index):
        return None
    first, second = both.loc[PRUNED_FIRST], both.loc[QUANTISED_FIRST]
    since = [_since(rows, one) if epochs else "" for one in (first, second)]
    change, error = difference(*(pd.Series([one["top1_pct"]]) for one in (second, first)), images)
    when = f"After {epochs} further epoch{'s' if epochs > 1 else ''} of training with the rounding" if epochs else (
        f"At {first['sparsity_pct']:.4g} % sparsity and with 8-bit weights and activations"
    )  # fmt: skip
    return (
        f"{when}, pruning before quantising gives {first['top1_pct']:.2f} %{since[0]}, and quantising before pruning "
        f"{second['top1_pct']:.2f} %{since[1]}: {_points(change)}, {_clear(change, error)}."
    )


def _since(rows: pd.DataFrame, after: pd.Series) -> str:
    """What the further epochs of one order have changed, in brackets."""
    same = (rows["order"] == after.name) & (rows["quantisation"] == BOTH) & (rows["fine_tuning_epochs"] == 0)
    return "".join(f" ({_points(after['top1_pct'] - before)} by it)" for before in rows.loc[same, "top1_pct"])


def emptied(rounding: pd.DataFrame) -> str | None:
    """The layers that pruning left without a weight, by order."""
    found = rounding[(rounding["kept"] == 0) & (rounding["fine_tuning_epochs"] == 0)]
    parts = [f"{', '.join(layers)} ({order})" for order, layers in found.groupby("order", sort=False)["layer"]]
    return (
        f"Pruning left no weight in {' and '.join(parts)}: what such networks lose, they lose there." if parts else None
    )


def zeroed(rounding: pd.DataFrame) -> str | None:
    """The kept weights that rounding makes zero, in either order, without further epochs."""
    found = rounding[rounding["fine_tuning_epochs"] == 0].groupby("order")[["kept", "zeroed"]].sum()
    if not {PRUNED_FIRST, QUANTISED_FIRST} <= set(found.index):
        return None
    parts = [f"{100 * row['zeroed'] / row['kept']:.3g} % ({row['zeroed']:,} of {row['kept']:,})"
             for row in found.loc[[PRUNED_FIRST, QUANTISED_FIRST]].to_dict("records")]  # fmt: skip
    dense = ""
    if UNPRUNED in found.index:
        row = found.loc[UNPRUNED]
        dense = f", and of the unpruned network {100 * row['zeroed'] / row['kept']:.3g} %"
    return (
        f"Of the weights that pruning kept, rounding makes zero {parts[0]} where it comes after pruning and {parts[1]} "
        f"where training has seen it{dense}: a weight of less than half a step is lost, whatever the mask says."
    )


def reach(rounding: pd.DataFrame, ties: pd.DataFrame) -> str | None:
    """How far pruning reaches beyond what rounding makes zero, or the other way round: threshold beside half a step."""
    steps = ties[ties["order"] == PRUNED_FIRST]
    dense = rounding[rounding["order"] == UNPRUNED]
    if steps.empty or dense.empty:
        return None
    threshold, half = steps["threshold"].iloc[-1], dense["half_step"].median()
    said = (
        f"Where pruning comes first, the least magnitude that its last step kept is {threshold:.3g}; half a step of "
        f"rounding is {half:.3g} in the unpruned network (median of channels and layers): "
    )
    if threshold > half:
        return said + (
            f"pruning reaches {_ratio(threshold / half)} times as far, and takes most of what rounding would make zero."
        )
    return said + f"rounding alone would remove more than pruning does, {_ratio(half / threshold)} times as far."


def chosen(ties: pd.DataFrame) -> str | None:
    """What the pruning steps chose among, with rounded magnitudes beside float32 ones."""
    if not {PRUNED_FIRST, QUANTISED_FIRST} <= set(ties["order"]):
        return None
    plain, rounded = (ties[ties["order"] == order] for order in (PRUNED_FIRST, QUANTISED_FIRST))
    left, count = rounded["left"].iloc[0], len(rounded)
    zeros, removed = rounded["zeros"].iloc[0], left - rounded["kept"].iloc[0]
    said = (
        f"At the first pruning step {left:,} weights have {rounded['magnitudes'].iloc[0]:,} different magnitudes where "
        f"they are rounded, and {plain['magnitudes'].iloc[0]:,} in float32. "
    )
    if zeros > removed:
        return said + (
            f"Rounding had made {zeros:,} of them zero, more than the {removed:,} that were to go: which of these went "
            "was decided by their position alone."
        )
    said += (
        f"Rounding had made {zeros:,} of them zero, {100 * zeros / removed:.2g} % of the {removed:,} that were to go. "
    )
    tied, gone = rounded["tied"].sum(), (rounded["tied"] - rounded["tied_kept"]).sum()
    if not gone:
        return said + "No choice was left to position."
    return said + (
        f"In {f'all {count} steps together' if count > 1 else 'this step'} {tied:,} weights had "
        f"just the magnitude of the threshold, and position alone decided that {gone:,} of these went."
    )


def shared(overlap_pct: float, density: float) -> str:
    """How many of the kept weights the two orders have in common."""
    return (
        f"The two orders keep {overlap_pct:.1f} % of their weights in common, where chance within the whole network "
        f"would give {100 * density:.3g} %."
    )


def size(rows: pd.DataFrame) -> str | None:
    """The file of the pruned and quantised network beside those of either alone."""
    by = rows[rows["fine_tuning_epochs"] == 0].set_index(["order", "quantisation"])
    keys = [(UNPRUNED, NONE), (UNPRUNED, BOTH), (PRUNED_FIRST, NONE), (PRUNED_FIRST, BOTH)]
    if not all(key in by.index for key in keys):
        return None
    dense, eight, pruned, both = (by.loc[key] for key in keys)
    return (
        f"On disk quantisation alone makes {dense['disk_mb']:.3f} MB {eight['disk_mb']:.3f}, pruning alone, stored as "
        f"a bit mask and values, {pruned['bitmask_mb']:.3f}, and both {both['bitmask_mb']:.3f}, or "
        f"{both['compressed_mb']:.3f} compressed: {dense['disk_mb'] / both['compressed_mb']:.1f} times less than the "
        f"dense file."
    )


def executed(rows: pd.DataFrame) -> str:
    """What ONNX Runtime makes of the networks in integers, beside their simulation in float32."""
    tried = rows[rows["quantisation"] == BOTH]
    done = tried[tried["int8_top1_pct"].notna()]
    if done.empty:
        return f"ONNX Runtime ran none of them in integers: {tried['int8_note'].iloc[0]}."
    distance = (done["int8_top1_pct"] - done["top1_pct"]).abs().max()
    pruned, whole = (done[(done["order"] == UNPRUNED) == unpruned] for unpruned in (False, True))
    said = (
        f"ONNX Runtime runs {len(done)} of {len(tried)} networks with 8-bit weights and activations in integers; its "
        f"top-1 accuracy differs from the simulated one by {distance:.2f} points at most."
    )
    for batch in timed(rows) if len(pruned) and len(whole) else []:
        times = [1e3 * part[f"int8_latency_{batch}_s"].median() for part in (whole, pruned)]
        said += f" A pass of {batch} takes {times[0]:.3g} ms unpruned and {times[1]:.3g} ms pruned."
    notes = sorted(set(tried["int8_note"].dropna()) - {""})  # a CSV file has no empty text
    return said + (f" Its notes: {'; '.join(notes)}." if notes else "")


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _points(change: float) -> str:
    return f"{abs(change):.2f} points {'more' if change > 0 else 'less'}" if round(change, 2) else "no change"


def _clear(change: float, error: float) -> str:
    side = "beyond" if abs(change) > CLEAR * error else "within"
    return f"{side} {CLEAR:g} standard errors of the difference ({error:.2f} points each, of the test set alone)"
