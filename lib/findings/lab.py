"""The report of the pruning lab, where it takes several runs at once: repeated pruning by task, methods compared."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from lib import catalog, paths, summary, tables
from lib.files import read_json
from lib.findings import repeated
from lib.findings.accuracy import CLEAR, difference
from lib.runs import NOTEBOOK

HOW = {"none": "without retraining", "rewind": "rewound and retrained"}
BASE = "mag"  # the pruner of the lab's own iterations, global L1; others are compared with it
EMBEDDING = "embedding.weight"
FOURS = "fours"  # the scope of n of each four weights


def runs(book: SimpleNamespace) -> list[SimpleNamespace]:
    """The finished runs of the notebook repeated: `task`, `method`, `retrain`, `images`, `table`, and what they stored.

    `table` is that of `findings.repeated.iterations`, `iterations`, `files` and `sparsities` are the CSV files,
    `images` the number of test inputs, `row` and `directory` as in `summary.looks`.
    """
    found = []
    for one in summary.looks(book, "repeated"):
        task = tables.task(one.row)
        apart = f"{task} with embeddings" if "embeddings" in one.row["also"] else task
        read = {name: summary.read(one, name) for name in ("iterations", "files", "latencies", "sparsities")}
        one.table = repeated.iterations(*(read[name] for name in ("iterations", "files", "latencies")))
        one.iterations, one.files, one.sparsities = read["iterations"], read["files"], read["sparsities"]
        one.task, one.method, one.retrain = apart, catalog.label(one.row["pruner"]), one.row["retrain"]
        one.images = summary.test_set(book, task)["images"]
        found.append(one)
    return found


def by_task(found: list[SimpleNamespace]) -> dict[str, dict[str, SimpleNamespace]]:
    """task -> how it was retrained, in words -> its run with magnitudes, the first of several seeds."""
    chosen: dict[str, dict[str, SimpleNamespace]] = {}
    for one in found:
        if one.row["pruner"] == BASE:
            chosen.setdefault(one.task, {}).setdefault(HOW[one.retrain], one)
    return chosen


def base(chosen: dict[str, dict[str, SimpleNamespace]]) -> pd.DataFrame:
    """A line a task: iteration 0, the dense network. Times in seconds, medians; MB are 10^6 bytes of the state dict.

    The files of the other iterations are compared with its own, so that it is 1.00 times smaller by definition.
    """
    rows = []
    for task, pair in chosen.items():
        first = next(iter(pair.values())).table.iloc[0]
        times = {f"s a pass of {n}": f"{first[f'latency_{n}_s']:.3g}" for n in _timed(pair)}
        rows.append({
            "network": task, "iteration": int(first["iteration"]), "sparsity (%)": f"{first['sparsity_pct']:.2f}",
            "top-1 (%)": f"{first['top1_pct']:.2f}", **times, "state dict (MB)": f"{first['disk_mb']:.3f}",
            "times smaller": "1.00", "parameters": f"{first['parameters']:,.0f}",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("network") if rows else pd.DataFrame()


def _timed(pair: dict[str, SimpleNamespace]) -> list[int]:
    return repeated.batches(next(iter(pair.values())).table)


def code(one: SimpleNamespace) -> str:
    """The cell that is to be shown of a run's executed notebook, or of the workbench's where that was not kept."""
    executed = one.directory / NOTEBOOK
    cells = read_json(executed if executed.is_file() else paths.notebook("repeated"))["cells"]
    shown = ["".join(cell["source"]) for cell in cells if "shown" in cell["metadata"].get("tags", [])]
    return "".join(f"```python\n{text}\n```\n" for text in shown)


def embeddings(sparsities: pd.DataFrame) -> str | None:
    """What of the embedding went, beside the other layers; None where it took no part. `sparsities` is a CSV file."""
    own = sparsities[sparsities["parameter"] == EMBEDDING]
    others = sparsities[~sparsities["parameter"].isin([EMBEDDING, *sparsities["parameter"].iloc[-2:]])]
    if own.empty or others.empty:
        return None
    one, rest = own.iloc[0], others[["weights", "zeros"]].sum()
    together = one["weights"] + rest["weights"]
    return (
        f"The embedding holds {one['weights']:,} of the {together:,} weights that are pruned, and "
        f"{one['sparsity_pct']:.2f} % of them are zero; of those of the other layers "
        f"{100 * rest['zeros'] / rest['weights']:.2f} %."
    )


def scored(found: list[SimpleNamespace]) -> dict[str, dict[str, SimpleNamespace]]:
    """task -> method -> its rewound run, where several methods were; a method's first of several seeds."""
    chosen: dict[str, dict[str, SimpleNamespace]] = {}
    for one in found:
        if one.retrain == "rewind":
            chosen.setdefault(one.task, {}).setdefault(one.method, one)
    return {task: methods for task, methods in chosen.items() if len(methods) > 1}


def methods(compared: dict[str, SimpleNamespace]) -> pd.DataFrame:
    """Top-1 (%) of each method at each iteration that two of them have, with its sparsity (%)."""
    tops = {method: one.table.set_index("iteration")["top1_pct"] for method, one in compared.items()}
    sparsity = pd.concat([one.table.set_index("iteration")["sparsity_pct"] for one in compared.values()])
    table = pd.DataFrame(tops).assign(**{"sparsity (%)": sparsity.groupby(level=0).first().round(2)})
    table = table[table[list(tops)].notna().sum(axis=1) > 1]
    return table[["sparsity (%)", *tops]]


def best_score(compared: dict[str, SimpleNamespace]) -> str | None:
    """The most accurate method at the last iteration that all have, against magnitude; None without magnitude."""
    last = min(one.table["iteration"].max() for one in compared.values())
    at = {method: one.table.set_index("iteration").loc[last] for method, one in compared.items()}
    label = catalog.label(BASE)
    if label not in at or len(at) < 2:
        return None
    others = {method: row["top1_pct"] for method, row in at.items() if method != label}
    best, worst = max(others, key=others.get), min(others, key=others.get)
    images = next(iter(compared.values())).images
    gain, error = difference(*(pd.Series([at[name]["top1_pct"]]) for name in (best, label)), images)
    side = "beyond" if abs(gain) > CLEAR * error else "within"
    said = (
        f"At {at[label]['sparsity_pct']:.2f} % sparsity {best} has the best accuracy of the other scores, "
        f"{others[best]:.2f} %: {abs(gain):.2f} points {'above' if gain > 0 else 'below'} that of {label} "
        f"({at[label]['top1_pct']:.2f} %), {side} {CLEAR:g} standard errors of the difference ({error:.2f} points "
        "each)."
    )
    return said if best == worst else f"{said} The lowest is that of {worst}, {others[worst]:.2f} %."


def patterns(book: SimpleNamespace) -> dict[str, SimpleNamespace]:
    """task -> its finished run of the notebook multishot that kept n of each four weights, with `levels`."""
    found = {}
    for one in summary.looks(book, "multishot"):
        if one.row["scope"] == FOURS:
            one.levels, one.images = summary.read(one, "levels"), summary.test_set(book, tables.task(one.row))["images"]
            found.setdefault(tables.task(one.row), one)
    return found


def pattern_table(one: SimpleNamespace, beside: SimpleNamespace | None) -> pd.DataFrame:
    """A line a level: the pattern, its sparsity and top-1, and that of magnitude without a pattern, interpolated.

    None of the last where it was pruned less far.
    """
    rows = one.levels
    table = pd.DataFrame({
        "sparsity (%)": (100 * rows["sparsity"]).round(2), "top-1 (%)": rows["top1_pct"].round(2),
    })  # fmt: skip
    if beside is not None:
        free = np.interp(100 * rows["sparsity"], *(beside.table[n] for n in ("sparsity_pct", "top1_pct")), right=np.nan)
        table["without a pattern (%, interpolated)"] = free.round(2)
    names = [f"{round(4 * density):.0f}:4" for density in rows["density"]]
    return table.set_index(pd.Index(["dense" if name == "4:4" else name for name in names], name="pattern"))


def pattern_sentences(one: SimpleNamespace) -> list[str]:
    """What the pattern costs in accuracy, whether it holds, and whether the device has a kernel for it."""
    rows, row = one.levels, one.row
    dense, two = rows.iloc[0], rows.loc[(rows["density"] - 0.5).abs().idxmin()]
    change, error = difference(pd.Series([two["top1_pct"]]), pd.Series([dense["top1_pct"]]), one.images)
    side = "beyond" if abs(change) > CLEAR * error else "within"
    held = row["most_of_four"]
    allowed = round(4 * rows["density"].iloc[-1])
    checked = f"Of no four consecutive inputs of an output are more than {held:.0f} kept"
    return [
        f"With {round(4 * two['density'])} of each four weights the accuracy is {two['top1_pct']:.2f} %, "
        f"{abs(change):.2f} points {'above' if change > 0 else 'below'} the dense network's, {side} {CLEAR:g} standard "
        f"errors of the difference ({error:.2f} points each).",
        f"{checked}, as checked in the masks of the last level."
        if held <= allowed
        else f"**The pattern does not hold:** of some four weights {held:.0f} are kept, where {allowed} are allowed.",
        _kernel(row),
    ]


def _kernel(row: pd.Series) -> str:
    faster = row.get("sparse_kernel_speedup")
    if faster is None or pd.isna(faster):
        return (
            f"This device ({row['device']}) has no kernel that multiplies by such matrices faster, so none was timed: "
            "GPUs have one from compute capability 8.0 on."
        )
    return f"The sparse kernel of this device takes {1 / faster:.2f} of the time of the dense one in half precision."


def listed(opening: str, sentences: list[str]) -> str:
    """Markdown: what the sentences are of, and below it a list of them."""
    return "\n".join([opening, "", *(f"- {sentence}" for sentence in sentences)])


def contributions() -> pd.DataFrame:
    """An empty table of who did what, to be filled in by the authors."""
    parts = ("Repeated pruning, sizes and times", "Structured pruning", "Sensitivity", "Runtimes", "Further scores")
    parts += ("Quantisation", "Report")
    return pd.DataFrame({"part": parts, "who": "", "what": ""})


def seeds(found: list[SimpleNamespace]) -> str | None:
    """That tables of repeated pruning are of the first seed, where there are several."""
    several = sorted({int(one.row["seed"]) for one in found})
    if len(several) < 2:
        return None
    first, rest = several[0], ", ".join(map(str, several[1:]))
    return f"Tables and figures of repeated pruning are of seed {first}; seeds {rest} lie beside it in `runs`."


def conclusions(chosen: dict[str, dict[str, SimpleNamespace]], compared: dict[str, dict]) -> list[str]:
    """A sentence a task: how far it went, and at what price, with and without retraining; then the best score."""
    said = []
    for task, pair in chosen.items():
        last = {how: one.table.iloc[-1] for how, one in pair.items()}
        parts = [
            f"{row['top1_pct']:.2f} % {how} (smallest file {row['times_smaller']:.2f} times smaller)"
            for how, row in last.items()
        ]
        table = next(iter(pair.values())).table
        said.append(
            f"{task} has a top-1 accuracy of {table['top1_pct'].iloc[0]:.2f} % dense, and at "
            f"{table['sparsity_pct'].iloc[-1]:.2f} % sparsity {' and '.join(parts)}."
        )
        if lost := repeated.collapse(table):
            said[-1] += f" {lost}"
    said += [f"{task}: {text[0].lower()}{text[1:]}" for task, one in compared.items() if (text := best_score(one))]
    return said
