"""Pruning and 8-bit quantisation in both orders: what each costs, why the order matters, what the files weigh."""

import pandas as pd

from lib.findings.accuracy import CLEAR, difference

UNPRUNED, PRUNED_FIRST, QUANTISED_FIRST = "unpruned", "prune, then quantise", "quantise, then prune"
NONE, WEIGHTS, BOTH = "none", "weights", "weights and activations"


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a technique, quantisation and rate; `rows` is quantized.csv of a run."""
    shown = {
        "technique": rows["order"],
        "8 bits for": rows["quantisation"],
        "further epochs": rows["fine_tuning_epochs"],
        "sparsity (%)": rows["sparsity_pct"],
        "zeros (%)": rows["zeros_pct"],
        "top-1 (%)": rows["top1_pct"],
        "file (MB)": rows["disk_mb"],
        "bit mask (MB)": rows["bitmask_mb"],
        "compressed (MB)": rows["compressed_mb"],
    }
    return pd.DataFrame(shown)


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
    """What quantisation alone costs, then both orders beside each other; `images` is the size of the test set."""
    found = [alone(rows, images), after_pruning(rows, images)]
    found += [orders(rows, images, epochs) for epochs in sorted(rows["fine_tuning_epochs"].unique())]
    return [sentence for sentence in [*found, size(rows)] if sentence]


def why(rounding: pd.DataFrame, ties: pd.DataFrame, overlap_pct: float, density: float) -> list[str]:
    """Why the order matters: what rounding does to kept weights, what pruning chooses among, which weights stay.

    `rounding` and `ties` are rounding.csv and ties.csv of a run, `overlap_pct` the share of the weights kept by
    pruning first that pruning second keeps too.
    """
    found = [zeroed(rounding), chosen(ties), shared(overlap_pct, density)]
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
    change, error = difference(*(pd.Series([one["top1_pct"]]) for one in (second, first)), images)
    when = f"After {epochs} further epoch{'s' if epochs > 1 else ''} that see the rounding" if epochs else (
        f"At {first['sparsity_pct']:.4g} % sparsity and with 8-bit weights and activations"
    )  # fmt: skip
    return (
        f"{when}, pruning before quantising gives {first['top1_pct']:.2f} %, and quantising before pruning "
        f"{second['top1_pct']:.2f} %: {_points(change)}, {_clear(change, error)}."
    )


def zeroed(rounding: pd.DataFrame) -> str | None:
    """The kept weights that rounding makes zero, in either order, without further epochs."""
    found = rounding[rounding["fine_tuning_epochs"] == 0].groupby("order")[["kept", "zeroed"]].sum()
    if not {PRUNED_FIRST, QUANTISED_FIRST} <= set(found.index):
        return None
    parts = [f"{100 * row['zeroed'] / row['kept']:.2f} % ({row['zeroed']:,} of {row['kept']:,})"
             for row in found.loc[[PRUNED_FIRST, QUANTISED_FIRST]].to_dict("records")]  # fmt: skip
    dense = ""
    if UNPRUNED in found.index:
        row = found.loc[UNPRUNED]
        dense = f", and of the unpruned network {100 * row['zeroed'] / row['kept']:.2f} %"
    return (
        f"Of the weights that pruning kept, rounding makes zero {parts[0]} where it comes after pruning and {parts[1]} "
        f"where training has seen it{dense}: a weight of less than half a step is lost, whatever the mask says."
    )


def chosen(ties: pd.DataFrame) -> str | None:
    """What the last pruning step chose among, with rounded magnitudes beside float32 ones."""
    last = ties.groupby("order").last()
    if not {PRUNED_FIRST, QUANTISED_FIRST} <= set(last.index):
        return None
    plain, rounded = last.loc[PRUNED_FIRST], last.loc[QUANTISED_FIRST]
    removed = rounded["left"] - rounded["kept"]
    said = (
        f"At the last pruning step {rounded['left']:,.0f} weights have {rounded['magnitudes']:,.0f} different "
        f"magnitudes after rounding and {plain['magnitudes']:,.0f} in float32. "
    )
    if rounded["zeros"] > removed:
        said += (
            f"Rounding had already made {rounded['zeros']:,.0f} of them zero, more than the {removed:,.0f} that were "
            "to go, so which of these went was decided by their position alone."
        )
    else:
        said += (
            f"Rounding had already made {rounded['zeros']:,.0f} of them zero, {100 * rounded['zeros'] / removed:.2g} "
            f"% of the {removed:,.0f} that were to go: their removal changes nothing at that moment. "
        )
        said += _tied(rounded)
    return said


def _tied(step: pd.Series) -> str:
    if step["tied_kept"] == step["tied"]:
        return "No choice was left to position."
    return (
        f"{step['tied']:,.0f} had just the magnitude of the threshold, and position alone kept "
        f"{step['tied_kept']:,.0f} of these."
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


def _points(change: float) -> str:
    return f"{abs(change):.2f} points {'more' if change > 0 else 'less'}" if round(change, 2) else "no change"


def _clear(change: float, error: float) -> str:
    side = "beyond" if abs(change) > CLEAR * error else "within"
    return f"{side} {CLEAR:g} standard errors of the difference ({error:.2f} points, of the test set alone)"
