"""From the frame of runs to the tables of the report: computing only; `lib.report.notebook` shows them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import catalog, shares

DENSE = "Dense"
MISSING = "missing"
NO_ABLATION = catalog.ABLATIONS[0]


def run_metrics(history: list[dict], layers: list[dict], collapse: dict) -> dict:
    """The flat metrics of a trained, pruned network, from its last epoch, its layers and its collapse.

    MACs are multiply-accumulates of one image over the prunable weights; at a mask they are theoretical.
    """
    last = history[-1]
    return {
        "top1_pct": last["test_top1_pct"],
        "top5_pct": last["test_top5_pct"],
        "test_loss": last["test_loss"],
        "train_top1_pct": last["train_top1_pct"],
        "train_loss": last["train_loss"],
        "train_s": sum(row["train_s"] for row in history),
        "weights": sum(row["weights"] for row in layers),
        "weights_kept": sum(row["kept"] for row in layers),
        "macs_dense": sum(row["macs_dense"] for row in layers),
        "macs_kept": sum(row["macs_kept"] for row in layers),
        "collapsed_layers": " ".join(collapse["layers"]),
        "connected": collapse["connected"],
    }


def method(row: dict | pd.Series) -> str:
    """The column a run belongs to: its pruner, and the rounds where there are several."""
    name = catalog.label(row["pruner"])
    return name if row.get("rounds", 1) == 1 else f"{name} ({row['rounds']:.0f} rounds)"


def task(row: dict | pd.Series) -> str:
    """The row a run belongs to, such as `CIFAR-10 / ResNet-20`."""
    return f"{catalog.label(row['data'])} / {catalog.label(row['model'])}"


def planned(plan: dict, notebook: str = "accuracy") -> pd.DataFrame:
    """One row a planned run of `notebook`: `run`, its parameters, and what `described` adds."""
    rows = [{"run": r["id"], **r["parameters"]} for r in plan["runs"] if r["notebook"] == notebook]
    return described(pd.DataFrame(rows), plan.get("word", "compression"))


def described(frame: pd.DataFrame, word: str = "compression") -> pd.DataFrame:
    """Add `method`, `task`, `compression` (-log10 of the density, to three decimals) to a frame of runs, `ablation`
    where it lacks that, and `word`, how the study says how much is kept (see `lib.shares`), with `at` in that word.
    """
    if frame.empty:
        columns = ["run", "data", "model", "pruner", "density", "rounds", "seed", "method", "task", "compression"]
        return frame.reindex(columns=list(dict.fromkeys([*frame.columns, *columns, "ablation", "word", "at"])))
    compression = (-np.log10(frame["density"])).round(3) + 0.0
    return frame.assign(
        method=frame.apply(method, axis=1),
        task=frame.apply(task, axis=1),
        compression=compression,
        ablation=frame["ablation"].fillna(NO_ABLATION) if "ablation" in frame else NO_ABLATION,
        word=word,
        at=compression.map(lambda c: shares.say(c, word)),
    )


def methods(frame: pd.DataFrame) -> list[str]:
    """The methods in a frame in the order of the catalogue, more rounds after fewer, Dense first."""
    order = list(catalog.PRUNERS)
    found = frame[["method", "pruner", "rounds"]].drop_duplicates("method")
    keys = {r["method"]: (order.index(r["pruner"]), r["rounds"]) for _, r in found.iterrows()}
    return sorted(keys, key=keys.get)


def tasks(frame: pd.DataFrame) -> list[str]:
    """The tasks of a frame, convolutional networks first, as the assignment has them."""
    return sorted(frame["task"].unique(), key=lambda t: (t.endswith("/ FC"), t))


def spread(values: Iterable[float], digits: int = 2, planned_n: int | None = None) -> str:
    """`91.20`, or `91.20 ± 0.31 (n = 3)`; `missing` without a value, and how many of the planned runs there are."""
    values = pd.Series(list(values), dtype=float).dropna()
    if values.empty:
        return MISSING
    text = f"{values.mean():,.{digits}f}"
    if len(values) > 1:
        text += f" ± {values.std(ddof=1):,.{digits}f}"
    if planned_n is not None and len(values) < planned_n:
        return f"{text} (n = {len(values)} of {planned_n})"
    return f"{text} (n = {len(values)})" if len(values) > 1 else text


def grid(
    done: pd.DataFrame, plan: pd.DataFrame, value: str, index: str, digits: int = 2, columns: str = "method"
) -> pd.DataFrame:
    """A table of `value` by `index` and `columns`: each cell the spread over seeds, gaps marked.

    `plan` decides which cells there are: a cell that was planned and is not finished reads `missing`, one that
    was never planned is empty.
    """
    order = methods(plan) if columns == "method" else list(dict.fromkeys(plan[columns]))
    rows = tasks(plan) if index == "task" else sorted(plan[index].unique())
    table = pd.DataFrame("", index=pd.Index(rows, name=index), columns=pd.Index(order, name=None))
    for (row, column), wanted in plan.groupby([index, columns]):
        values = done[done["run"].isin(wanted["run"])][value] if not done.empty else []
        table.loc[row, column] = spread(values, digits, len(wanted))
    return table


def pre_epochs(plan: pd.DataFrame, run: pd.Series) -> int:
    """Epochs of training before `run` pruned: its own, and those of the run it started from."""
    before = int(run["pre_epochs"])
    if not run["source"]:
        return before
    source = plan[plan["run"] == run["source"].split("/")[1]].iloc[0]
    return before + pre_epochs(plan, source) + int(source["epochs"])


def epochs_grid(plan: pd.DataFrame) -> pd.DataFrame:
    """Epochs before + after pruning, by task and method; what a cell of the accuracy table was trained for."""
    table = pd.DataFrame("", index=pd.Index(tasks(plan), name="task"), columns=methods(plan))
    for _, run in plan.iterrows():
        before = pre_epochs(plan, run)
        table.loc[run["task"], run["method"]] = f"{before} + {run['epochs']}"
    return table


def accuracy(done: pd.DataFrame, plan: pd.DataFrame, compression: float) -> pd.DataFrame:
    """Top-1 and epochs by task and method at one compression, the dense network's in the first column."""
    chosen = plan[(plan["compression"] == compression) | (plan["pruner"] == "dense")]
    top1 = grid(done, chosen, "top1_pct", "task").assign(quantity="top-1 (%)")
    top5 = grid(done, chosen, "top5_pct", "task").assign(quantity="top-5 (%)")
    epochs = epochs_grid(chosen).assign(quantity="epochs")
    parts = [part.loc[[t]] for t in top1.index for part in (top1, top5, epochs)]
    joined = pd.concat(parts).reset_index().set_index(["task", "quantity"])
    return joined[methods(chosen)]


def by_compression(done: pd.DataFrame, plan: pd.DataFrame, value: str, task: str, digits: int = 2) -> pd.DataFrame:
    """`value` of one task, a row a compression (with its ratio, density and sparsity), a column a method.

    Where nothing is pruned all methods are the same network: the dense one fills that row.
    """
    chosen = plan[plan["task"] == task]
    pruned, dense = chosen[chosen["pruner"] != "dense"], chosen[chosen["pruner"] == "dense"]
    table = grid(done, pruned, value, "compression", digits)
    if len(dense):
        values = done[done["run"].isin(dense["run"])][value] if not done.empty else []
        cell = spread(values, digits, len(dense))
        table.loc[0.0] = table.loc[0.0].replace("", cell) if 0.0 in table.index else cell
    return beside_shares(table.sort_index(), chosen["word"].iloc[0])


def beside_shares(table: pd.DataFrame, word: str) -> pd.DataFrame:
    """`table`, whose rows are compressions, with ratio, density and sparsity side by side as the rows' names."""
    named = pd.DataFrame([shares.columns(compression, word) for compression in table.index])
    return table.set_index(pd.MultiIndex.from_frame(named))


def passes(timings: pd.DataFrame) -> pd.DataFrame:
    """One row a network and form: `median_s` and `spread_s` (interquartile range) of its `n` passes, in seconds."""
    grouped = timings.groupby(["network", "form"], sort=False)["seconds"]
    table = grouped.agg(median_s="median", n="count")
    return table.assign(spread_s=grouped.quantile(0.75) - grouped.quantile(0.25)).reset_index()


def timing_summary(timings: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """`passes` of the networks that are runs in `done`, with `run`, `method`, `compression` and a readable name.

    `timings` are the rows of timings.csv, whose `network` is `study/run`.
    """
    table = passes(timings)
    table["run"] = table["network"].str.split("/").str[-1]
    known = ["run", "method", "pruner", "rounds", "compression", "word", "at", "task", "seed"]
    table = table.drop(columns="network").merge(done[[*known, "macs_kept", "macs_dense"]], on="run")
    pruned = table["method"] + " at " + table["at"]
    return table.assign(network=pruned.where(table["pruner"] != "dense", DENSE))


def layer_densities(layers: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """One row a layer: shape, weights, MACs, and the kept share in % for each method (mean over seeds).

    `layers` are the layers.csv of the planned runs under one another, with their `run`.
    """
    joined = layers.merge(plan[["run", "method"]], on="run")
    first = joined.drop_duplicates("layer").set_index("layer")[["shape", "weights", "macs_dense"]]
    kept = joined.pivot_table(index="layer", columns="method", values="density", aggfunc="mean") * 100
    order = [m for m in methods(plan) if m in kept]
    table = first.join(kept[order])
    table.columns = ["shape", "weights", "MACs", *order]
    return table


def layer_macs(layers: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """One row a layer: MACs of one image, dense and over the kept weights of each method, and in a last row all.

    Means over seeds, rounded to whole numbers; `layers` as for `layer_densities`.
    """
    joined = layers.merge(plan[["run", "method"]], on="run")
    kept = joined.pivot_table(index="layer", columns="method", values="macs_kept", aggfunc="mean", sort=False)
    table = kept[[m for m in methods(plan) if m in kept and m != DENSE]]
    table.insert(0, DENSE, joined.drop_duplicates("layer").set_index("layer")["macs_dense"])
    table.loc["all layers"] = table.sum()
    return table.round().astype(int).rename_axis(columns=None)


def shown_densities(table: pd.DataFrame) -> pd.DataFrame:
    """`layer_densities` in print: an emptied layer is called so, and one that keeps little is not shown as 0.00."""
    methods_in = [c for c in table if c not in ("shape", "weights", "MACs", DENSE)]
    words = {c: table[c].map(lambda v: "empty" if v == 0 else "<0.01" if v < 0.005 else f"{v:.2f}") for c in methods_in}
    return table.drop(columns=DENSE, errors="ignore").assign(**words)


def common_compression(plan: pd.DataFrame) -> float:
    """The highest compression that was planned for every task; where the tasks share none, the highest of all."""
    pruned = plan[plan["pruner"] != "dense"]
    sets = [set(group["compression"]) for _, group in pruned.groupby("task")]
    shared = set.intersection(*sets) if sets else set()
    everything = set.union(*sets) if sets else {0.0}
    return max(shared or everything)


def swept_tasks(plan: pd.DataFrame) -> list[str]:
    """The tasks with the most compressions; one, where all have the same single one."""
    counts = {task: plan.loc[plan["task"] == task, "compression"].nunique() for task in tasks(plan)}
    most = max(counts.values(), default=0)
    found = [task for task, count in counts.items() if count == most]
    return found if most > 2 else found[:1]


def at(plan: pd.DataFrame, task: str, compression: float) -> pd.DataFrame:
    """The runs of one task at one compression, and its dense one."""
    return plan[(plan["task"] == task) & ((plan["compression"] == compression) | (plan["pruner"] == "dense"))]


def time_grid(timings: pd.DataFrame, form: str) -> pd.DataFrame:
    """Median ± interquartile range (s) of the networks in one form, laid out like `by_compression`."""
    chosen = timings[timings["form"] == form]
    cells = chosen["median_s"].map("{:.3f}".format) + " ± " + chosen["spread_s"].map("{:.3f}".format)
    pruned = chosen["pruner"] != "dense"
    table = chosen.assign(cell=cells)[pruned].pivot_table(
        index="compression", columns="method", values="cell", aggfunc="first"
    )
    table = table[[m for m in methods(chosen) if m in table]].fillna("").rename_axis(columns=None)
    if not pruned.all():
        table.loc[0.0] = cells[~pruned].iloc[0]
    return beside_shares(table.sort_index(), timings["word"].iloc[0])


def panels(done: pd.DataFrame, timings: pd.DataFrame, task: str) -> list[tuple]:
    """What `plots.against_compression` draws: accuracy, time (where it was measured), MACs; [] without a run."""
    runs = done[done["task"] == task]
    dense, pruned = runs[runs["pruner"] == "dense"], runs[runs["pruner"] != "dense"]
    if pruned.empty:
        return []
    found = [(pruned, "top1_pct", "top-1 accuracy (%)", dense["top1_pct"].mean())]
    if len(timings):
        clock = timings[timings["form"] == "permanent"]
        is_dense = clock["pruner"] == "dense"
        found.append((clock[~is_dense], "median_s", "time of a pass (s)", clock.loc[is_dense, "median_s"].mean()))
    millions = pruned.assign(macs=pruned["macs_kept"] / 1e6)
    return [*found, (millions, "macs", "MACs of one image (million)", dense["macs_dense"].mean() / 1e6)]


def panel_names(drawn: list[tuple]) -> str:
    """The panels from left to right, in words."""
    return ", ".join(unit for _, _, unit, _ in drawn)
