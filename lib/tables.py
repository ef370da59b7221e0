"""From the frame of runs to the tables of the report: computing only; `lib.report.notebook` shows them."""

import math
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import catalog, parameters, shares

DENSE = "Dense"
MISSING = "missing"
UNKNOWN = "?"
NO_ABLATION = catalog.ABLATIONS[0]
# What makes another method of a pruner, wherever it is not the default ...
OPTIONS = ("schedule", "scope", "also", "spare", "train_mode")
# ... and what has a column or a place of its own, so that it needs no word in a method's name.
PLACED = ("data", "model", "pruner", "density", "rounds", "seed", "ablation", "run_dir")


def run_metrics(history: list[dict], layers: list[dict], collapse: dict, macs: dict) -> dict:
    """The flat metrics of a trained, pruned network, from its last epoch, its layers and its collapse.

    `macs` is what `lib.flops.macs` counted: of the whole network, also of layers that no mask names and that `layers`
    therefore lacks. At a mask they are theoretical.
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
        **macs,
        "collapsed_layers": " ".join(collapse["layers"]),
        "connected": collapse["connected"],
    }


def method(row: dict | pd.Series, variant: str = "") -> str:
    """The column a run belongs to: its pruner, in brackets the rounds where there are several, and its `variant`."""
    rounds = "" if row.get("rounds", 1) == 1 else f"{row['rounds']:.0f} rounds"
    more = ", ".join(text for text in (rounds, variant) if text)
    return catalog.label(row["pruner"]) + (f" ({more})" if more else "")


def variants(frame: pd.DataFrame) -> pd.Series:
    """What tells the runs of one pruner apart besides its rounds, in words such as `scope layer, lr 0.01`; mostly "".

    An option of the pruning is named wherever it is not the default, any other parameter only where runs of one cell
    and seed differ in it: they are no repetitions of each other, and no mean may be taken over them.
    """
    known = parameters.declared("accuracy")
    free = [name for name in known if name in frame and name not in PLACED]
    texts = frame[free].map(_text)
    defaults = {name: _text(known[name]["default"]) for name in free}
    cell = [frame[name] for name in PLACED if name in frame] + [texts[name] for name in OPTIONS if name in free]
    named = [name for name in free if name in OPTIONS or (texts[name].groupby(cell).nunique() > 1).any()]
    words = [
        ", ".join(_worded(name, row[name]) for name in named if row[name] not in ("", defaults[name]))
        for _, row in texts.iterrows()
    ]
    return pd.Series(words, index=frame.index, dtype=object)


def _text(value) -> str:
    """A parameter as text; "" for one that a run does not have or that is empty."""
    if isinstance(value, list | tuple):
        return " and ".join(str(v) for v in value)
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _worded(name: str, text: str) -> str:
    flag = {"train_mode": "scored in training mode"}
    # a source has the seed of its run, which makes no other method
    return flag.get(name, f"{name.replace('_', ' ')} {re.sub('-seed[0-9]+$', '', text)}")


def task(row: dict | pd.Series) -> str:
    """The row a run belongs to, such as `CIFAR-10 / ResNet-20`."""
    return f"{catalog.label(row['data'])} / {catalog.label(row['model'])}"


def planned(plan: dict, notebook: str = "accuracy") -> pd.DataFrame:
    """One row a planned run of `notebook`: `run`, its parameters, and what `described` adds."""
    rows = [{"run": r["id"], **r["parameters"]} for r in plan["runs"] if r["notebook"] == notebook]
    found = described(pd.DataFrame(rows), plan.get("word", "compression"))
    return found if rows else found.astype(object)  # a frame of nothing can be joined with runs by their names


def described(frame: pd.DataFrame, word: str = "compression") -> pd.DataFrame:
    """Add `method`, its `variant`, `task`, `compression` (-log10 of the density) to a frame of runs,
    `ablation` where it lacks that, and `word`, how the study says how much is kept (see `lib.shares`), with `at` in
    that word.
    """
    if frame.empty:
        columns = ["run", "data", "model", "pruner", "density", "rounds", "seed", "method", "task", "compression"]
        more = ["variant", "ablation", "word", "at"]
        return frame.reindex(columns=list(dict.fromkeys([*frame.columns, *columns, *more])))
    compression = (-np.log10(frame["density"])).round(9) + 0.0  # 0.5 is 0.5 again
    ablation = frame["ablation"].fillna(NO_ABLATION) if "ablation" in frame else NO_ABLATION
    frame = frame.assign(ablation=ablation)
    variant = variants(frame)
    return frame.assign(
        variant=variant,
        method=[method(row, variant[index]) for index, row in frame.iterrows()],
        task=frame.apply(task, axis=1),
        compression=compression,
        word=word,
        at=compression.map(lambda c: shares.say(c, word)),
    )


def named_as(done: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """`done` with the methods of `plan`: what tells runs apart is seen in the whole plan, not in a part of it."""
    names = plan.set_index("run")[["method", "variant"]]
    return done.assign(**{column: done["run"].map(names[column]) for column in names})


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


def decimals(value: float, significant: int) -> int:
    """Decimals that show so many significant digits of a number; 0 for large numbers, none, and zero."""
    return max(0, significant - 1 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0


def grid(
    done: pd.DataFrame, plan: pd.DataFrame, value: str, index: str, digits: int = 2, columns: str = "method"
) -> pd.DataFrame:
    """A table of `value` by `index` and `columns`: each cell the spread over seeds, gaps marked.

    `plan` decides which cells there are: a cell that was planned and is not finished reads `missing`, one that
    was never planned is empty.
    """
    order = methods(plan) if columns == "method" else list(dict.fromkeys(plan[columns]))
    rows = tasks(plan) if index == "task" else sorted(plan[index].unique())
    table = pd.DataFrame("", index=pd.Index(rows, name=index), columns=pd.Index(order, name=None), dtype=object)
    for (row, column), wanted in plan.groupby([index, columns]):
        values = done[done["run"].isin(wanted["run"])][value] if not done.empty else []
        table.loc[row, column] = spread(values, digits, len(wanted))
    return table


def pre_epochs(plan: pd.DataFrame, run: pd.Series) -> float:
    """Epochs of training before `run` pruned: its own, and those of the run it started from.

    NaN where that is none of `plan`, such as a checkpoint from a file: how long it was trained is not known.
    """
    before = int(run["pre_epochs"])
    if not run["source"]:
        return before
    source = plan[plan["run"] == run["source"].split("/")[1]]
    if source.empty:
        return math.nan
    return before + pre_epochs(plan, source.iloc[0]) + int(source["epochs"].iloc[0])


def before_pruning(plan: pd.DataFrame, run: pd.Series) -> str:
    """`pre_epochs` in print."""
    before = pre_epochs(plan, run)
    return UNKNOWN if math.isnan(before) else f"{before}"


def epochs(plan: pd.DataFrame, run: pd.Series) -> str:
    """Epochs before + after pruning, such as `0 + 10`."""
    return f"{before_pruning(plan, run)} + {run['epochs']:.0f}"


def epochs_grid(plan: pd.DataFrame) -> pd.DataFrame:
    """Epochs before + after pruning, by task and method; what a cell of the accuracy table was trained for."""
    table = pd.DataFrame("", index=pd.Index(tasks(plan), name="task"), columns=methods(plan))
    for _, run in plan.iterrows():
        table.loc[run["task"], run["method"]] = epochs(plan, run)
    return table


def unknown(table: pd.DataFrame) -> str:
    """What the question marks of an `epochs_grid` in `table` mean, for the end of its caption; nothing without one."""
    found = table.map(lambda cell: str(cell).startswith(UNKNOWN)).any(axis=None)
    return f" ({UNKNOWN} where a network came from elsewhere than the runs of this table)" if found else ""


def accuracy(done: pd.DataFrame, plan: pd.DataFrame, compression: float) -> pd.DataFrame:
    """Top-1 and epochs by task and method at one compression, the dense network's in the first column."""
    chosen = plan[(plan["compression"] == compression) | (plan["pruner"] == "dense")]
    top1 = grid(done, chosen, "top1_pct", "task").assign(quantity="top-1 (%)")
    top5 = grid(done, chosen, "top5_pct", "task").assign(quantity="top-5 (%)")
    trained = epochs_grid(chosen).assign(quantity="epochs")
    parts = [part.loc[[t]] for t in top1.index for part in (top1, top5, trained)]
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
        cells = {column: _dense_cell(done, dense, pruned, column, value, digits) for column in table}
        given = table.loc[0.0] if 0.0 in table.index else pd.Series("", index=table.columns)
        table.loc[0.0] = given.where(given != "", pd.Series(cells))
    return beside_shares(table.sort_index(), chosen["word"].iloc[0])


def _dense_cell(
    done: pd.DataFrame, dense: pd.DataFrame, pruned: pd.DataFrame, column: str, value: str, digits: int
) -> str:
    """The dense network trained as the method `column` was; where there is none, the one of default parameters."""
    variant = pruned.loc[pruned["method"] == column, "variant"].iloc[0]
    chosen = next((part for v in (variant, "") if len(part := dense[dense["variant"] == v])), dense[:0])
    values = done[done["run"].isin(chosen["run"])][value] if not done.empty else []
    return spread(values, digits, len(chosen)) if len(chosen) else ""


def beside_shares(table: pd.DataFrame, word: str) -> pd.DataFrame:
    """`table`, whose rows are compressions, with ratio, density and sparsity side by side as the rows' names."""
    named = pd.DataFrame([shares.columns(compression, word) for compression in table.index])
    return table.set_index(pd.MultiIndex.from_frame(named))


def passes(timings: pd.DataFrame) -> pd.DataFrame:
    """One row a network and form: `median_s` and `spread_s` (interquartile range) of its `n` passes, in seconds."""
    grouped = timings.groupby(["network", "form"], sort=False)["seconds"]
    table = grouped.agg(median_s="median", n="count")
    return table.assign(spread_s=grouped.quantile(0.75) - grouped.quantile(0.25)).reset_index()


def timing_summary(timings: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """`passes` of those `networks` that were timed, with `run`, `method`, `compression` and a readable name.

    `timings` are the rows of timings.csv, whose `network` is `study/run`. Each name stands for one network: where a
    method was timed twice at one compression, the names have their run beside them.
    """
    table = passes(timings)
    table["run"] = table["network"].str.split("/").str[-1]
    known = ["run", "method", "pruner", "rounds", "compression", "word", "at", "task", "seed"]
    table = table.drop(columns="network").merge(networks[[*known, "macs_kept", "macs_dense"]], on="run")
    return table.assign(network=network_names(table))


def network_names(networks: pd.DataFrame) -> pd.Series:
    """`Dense`, `SNIP at compression 1`, followed by the run where several have that name: of rows as `described`."""
    pruned = networks["method"] + " at " + networks["at"]
    return told_apart(pruned.where(networks["pruner"] != "dense", networks["method"]), networks["run"])


def told_apart(names: pd.Series, runs: pd.Series) -> pd.Series:
    """`names` of networks, followed by the run wherever one name stands for several runs."""
    several = runs.groupby(names).transform("nunique") > 1
    return names.where(~several, names + ", " + runs)


def layer_densities(layers: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """One row a layer: shape, weights, MACs, and the kept share in % for each method (mean over seeds).

    `layers` are the layers.csv of the planned runs under one another, with their `run`. A layer that a run does not
    list took no part in its pruning, and is whole.
    """
    joined = layers.merge(plan[["run", "method"]], on="run")
    first = joined.drop_duplicates("layer").set_index("layer")[["shape", "weights", "macs_dense"]]
    kept = 100 * joined.pivot_table(index="layer", columns="method", values="density", aggfunc="mean").fillna(1.0)
    order = [m for m in methods(plan) if m in kept]
    table = first.join(kept[order])
    table.columns = ["shape", "weights", "MACs", *order]
    return table


def layer_macs(layers: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """One row a layer: MACs of one image, dense and over the kept weights of each method, and in a last row their sum.

    Means over seeds, rounded to whole numbers; `layers` as for `layer_densities`.
    """
    joined = layers.merge(plan[["run", "method"]], on="run")
    kept = joined.pivot_table(index="layer", columns="method", values="macs_kept", aggfunc="mean", sort=False)
    dense = joined.drop_duplicates("layer").set_index("layer")["macs_dense"]
    table = kept[[m for m in methods(plan) if m in kept and m != DENSE]]
    table = table.where(table.notna(), dense, axis=0)
    table.insert(0, DENSE, dense)
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
    """Of the tasks with pruned networks those with the most compressions; one, where all have the same single one."""
    pruned = tasks(plan[plan["pruner"] != "dense"])
    counts = {task: plan.loc[plan["task"] == task, "compression"].nunique() for task in pruned}
    most = max(counts.values(), default=0)
    found = [task for task, count in counts.items() if count == most]
    return found if most > 2 else found[:1]


def at(plan: pd.DataFrame, task: str, compression: float) -> pd.DataFrame:
    """The runs of one task at one compression, and its dense one."""
    return plan[(plan["task"] == task) & ((plan["compression"] == compression) | (plan["pruner"] == "dense"))]


def time_grid(timings: pd.DataFrame, form: str) -> pd.DataFrame:
    """Median ± interquartile range (s) of the networks in one form, laid out like `by_compression`.

    Of several networks in one cell, such as seeds, it is the median of both, and their number.
    """
    chosen = timings[timings["form"] == form]
    # three significant digits of the shortest, at least milliseconds
    digits = max(3, 2 - math.floor(math.log10(chosen["median_s"].min())))
    dense, pruned = chosen[chosen["pruner"] == "dense"], chosen[chosen["pruner"] != "dense"]
    rows, columns = sorted(pruned["compression"].unique()), methods(pruned) or methods(dense)
    table = pd.DataFrame("", index=rows, columns=columns, dtype=object)
    for (compression, column), networks in pruned.groupby(["compression", "method"]):
        table.loc[compression, column] = _clock(networks, digits)
    if len(dense):
        given = table.loc[0.0] if 0.0 in table.index else pd.Series("", index=table.columns)
        table.loc[0.0] = given.where(given != "", _clock(dense, digits))
    return beside_shares(table.sort_index(), timings["word"].iloc[0])


def _clock(rows: pd.DataFrame, digits: int) -> str:
    text = f"{rows['median_s'].median():.{digits}f} ± {rows['spread_s'].median():.{digits}f}"
    return f"{text} (n = {len(rows)})" if len(rows) > 1 else text


def panels(done: pd.DataFrame, timings: pd.DataFrame, task: str) -> list[tuple]:
    """What `plots.against_compression` draws: accuracy, time (where it was measured), MACs.

    [] where the pruned networks have fewer than two compressions: there is no line to draw.
    """
    runs = done[done["task"] == task]
    dense, pruned = runs[runs["pruner"] == "dense"], runs[runs["pruner"] != "dense"]
    if pruned["compression"].nunique() < 2:
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
