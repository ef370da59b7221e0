"""Compression pipelines: their chains of stages as planned and as far as finished, and a line a stage of each.

The numbers of a stage are those of the file that its run wrote, loaded again and evaluated.
"""

import math
from types import SimpleNamespace

import pandas as pd

from lib import frames, summary, tables
from lib.findings.accuracy import CLEAR, difference
from lib.markup import code, plain

SHORT = {
    "pretrained": "trained", "prune_weights": "weights pruned", "prune_activations": "activations pruned",
    "quantise": "quantised", "fine_tune": "fine-tuned", "coded": "coded",
}  # fmt: skip
# Metric of a stage -> the part of its file, in bytes.
PARTS = {
    "convolution_bytes": "convolutions", "linear_bytes": "linear layers", "bias_bytes": "biases",
    "norm_bytes": "batch norm", "other_bytes": "other", "index_bytes": "positions of zeros",
    "table_bytes": "code tables", "header_bytes": "header",
}  # fmt: skip
MACS = ((1e6, "million"), (1e3, "thousand"))  # a unit is used where the dense network fills it


def chains(book: SimpleNamespace) -> dict[str, SimpleNamespace]:
    """Name -> chain: `name`, `task`, `data`, `model`, `images` (of the test set) and `stages`, the original first.

    A stage has `number` (from 1), `notebook`, `short` and `what` (what it did, in few words and in its own), `planned`
    (run ids, a run a seed), `rows` (its finished runs as `frames.load` has them) and `gaps` (run -> why it is missing).
    Where a chain begins with a run of no chain or of another, the stages before that are its own first ones.
    ValueError for two runs of one stage and seed.
    """
    plan = book.staged.set_index("run", drop=False)
    found = {}
    for name, own in plan[plan["chain"] != ""].groupby("chain", sort=False):
        levels = [list(level["run"]) for _, level in own.groupby("stage")]
        before = _sources(plan, levels[0])
        while before:
            levels, before = [before, *levels], _sources(plan, before)
        first = plan.loc[levels[0][0]]
        stages = [_stage(book, plan.loc[level], number) for number, level in enumerate(levels, 1)]
        for stage in stages:
            if plan.loc[stage.planned, "seed"].duplicated().any():
                raise ValueError(
                    f"chain {name!r} has several runs of stage {stage.number} and one seed: one is allowed"
                )
        about = {of: first[of] for of in ("task", "data", "model")}
        images = summary.test_set(book, first["task"])["images"]
        found[name] = SimpleNamespace(name=name, images=images, stages=stages, **about)
    return found


def longer(chains: dict[str, SimpleNamespace]) -> dict[str, SimpleNamespace]:
    """Those of more than one stage: one alone is where others start from."""
    return {name: chain for name, chain in chains.items() if len(chain.stages) > 1}


def so_far(stages: list[dict], images: int | None) -> SimpleNamespace:
    """The chain of a single run, as `chains` has them, from the metrics of its stages (see `lib.stages`).

    `images` are those of the test set.
    """
    found = [
        SimpleNamespace(
            number=number,
            notebook=one["notebook"],
            short=SHORT[one["notebook"]],
            what=one["stage"],
            planned=[one["run"]],
            rows=pd.DataFrame([one]),
            gaps={},
        )
        for number, one in enumerate(stages, 1)
    ]
    return SimpleNamespace(name="this run", images=images, stages=found)


def _sources(plan: pd.DataFrame, level: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(plan.loc[level, "source"]) if name in plan.index]


def _stage(book: SimpleNamespace, planned: pd.DataFrame, number: int) -> SimpleNamespace:
    rows = book.everything[book.everything["run"].isin(planned["run"])].reset_index(drop=True)
    notebook = planned["notebook"].iloc[0]
    short = SHORT[notebook]
    return SimpleNamespace(
        number=number,
        notebook=notebook,
        short=short,
        what=rows["stage"].iloc[0] if len(rows) else short,
        planned=list(planned["run"]),
        rows=rows,
        gaps={run: why for run, why in book.gaps.items() if run in set(planned["run"])},
    )


def mean(stage: SimpleNamespace, metric: str) -> float:
    """Mean over seeds; NaN for a stage that is not finished."""
    return stage.rows[metric].astype(float).mean() if len(stage.rows) else math.nan


def entered(rows: pd.DataFrame) -> str:
    """The layers whose inputs the zeros of runs are counted of: linear ones in networks without convolutions."""
    return "convolutions" if (rows["convolution_bytes"] > 0).any() else "linear layers"


def anyway(rows: pd.DataFrame) -> str:
    """What makes the zeros that meet weights without having been pruned."""
    return "ReLU's, and the padding of convolutions" if entered(rows) == "convolutions" else "ReLU's"


def finished(chain: SimpleNamespace) -> list[SimpleNamespace]:
    """The stages of which a run is finished."""
    return [stage for stage in chain.stages if len(stage.rows)]


def steps(chain: SimpleNamespace) -> list[tuple[SimpleNamespace, SimpleNamespace]]:
    """(a stage, the next one), wherever both are finished with one seed in common."""
    pairs = zip(chain.stages, chain.stages[1:], strict=False)
    return [(a, b) for a, b in pairs if len(a.rows) and len(b.rows) and set(a.rows["seed"]) & set(b.rows["seed"])]


def change(before: SimpleNamespace, after: SimpleNamespace, images: int | None) -> tuple[float, float]:
    """Points of top-1 accuracy from one stage to another, of the seeds that both have, and their standard error."""
    both = before.rows[["seed", "top1_pct"]].merge(after.rows[["seed", "top1_pct"]], on="seed")
    return difference(both["top1_pct_y"], both["top1_pct_x"], images)


def sure(points: float, error: float) -> str:
    """How a difference of accuracies lies to its standard error, both in points."""
    if math.isnan(error):
        return "with no known uncertainty"
    side = "beyond" if abs(points) > CLEAR * error else "within"
    return f"{side} {CLEAR:g} standard errors of the difference ({error:.2f} points each)"


def by_task(chains: dict[str, SimpleNamespace]) -> dict[str, list[SimpleNamespace]]:
    """task -> its chains of which a stage is finished."""
    found: dict[str, list] = {}
    for chain in chains.values():
        if finished(chain):
            found.setdefault(chain.task, []).append(chain)
    return found


def last_layers(book: SimpleNamespace, chain: SimpleNamespace) -> SimpleNamespace | None:
    """The last finished `stage` with `layers` and `parts`, tables of its first seed; None without one."""
    if not (done := finished(chain)):
        return None
    run = done[-1].rows["run"].iloc[:1]
    return SimpleNamespace(
        stage=done[-1], **{name: frames.table(book.study, run, name) for name in ("layers", "parts")}
    )


def gaps(chain: SimpleNamespace) -> str | None:
    """Which stages are missing, and why; what is said of a chain is said of the others."""
    said = [
        f"stage {stage.number} ({stage.short}; {code(run)}: {plain(why)})"
        for stage in chain.stages
        for run, why in stage.gaps.items()
    ]
    return f"**Missing:** {'; '.join(said)}." if said else None


def size_table(chain: SimpleNamespace) -> pd.DataFrame:
    """A line a stage: weights and parameters kept (%), and its file beside the original's whole file."""

    def line(stage):
        rows = stage.rows
        whole = rows["seed"].map(_original(chain))
        left = rows["parameters"] - rows["prunable"] + rows["weights_kept"]
        return {
            "weights kept (%)": _spread(100 * rows["weights_kept"] / rows["prunable"], 2),
            "parameters kept (%)": _spread(100 * left / rows["parameters"], 2),
            "file (bytes)": _spread(rows["file_bytes"], 0),
            "of the original (%)": _spread(100 * rows["file_bytes"] / whole, 2),
            "times smaller": _spread(whole / rows["file_bytes"], 2),
        }

    return _lines(chain, line, "what")


def part_table(chain: SimpleNamespace) -> pd.DataFrame:
    """A line a stage: bytes of its file by what they hold, means over seeds; parts that no file has are left out."""

    def line(stage):
        return {words: _spread(stage.rows[[metric]].mean(), 0) for metric, words in PARTS.items()}

    table = _lines(chain, line)
    there = [words for metric, words in PARTS.items() if any(mean(stage, metric) for stage in finished(chain))]
    return table[[*there, *(["n"] if "n" in table else [])]]


def operation_table(chain: SimpleNamespace) -> pd.DataFrame:
    """A line a stage: MACs of an image with ever more left out, zeros entering convolutions, top-1, time.

    MACs after natural zeros are without those of zeros that are there anyway: ReLU's, and the padding of convolutions.
    """
    factor, unit, digits = in_unit(max((mean(stage, "macs_dense") for stage in finished(chain)), default=0))

    def line(stage):
        rows = stage.rows
        macs = {"MACs, dense": "macs_dense", "after weight masks": "macs_kept", "after natural zeros": "macs_natural",
                "after pruned zeros": "macs_active"}  # fmt: skip
        return {
            **{f"{words} ({unit})": _spread(rows[metric] / factor, digits) for words, metric in macs.items()},
            "natural zeros (%)": _spread(rows["zeros_natural_pct"], 2),
            "pruned zeros (%)": _spread(rows["zeros_pruned_pct"], 2),
            "top-1 (%)": _spread(rows["top1_pct"], 2),
            "stage (s)": _spread(rows["stage_s"], tables.decimals(rows["stage_s"].mean(), 2)),
        }

    return _lines(chain, line)


def in_unit(macs: float) -> tuple[float, str, int]:
    """How MACs are shown where the most are `macs`: what to divide by, the unit, decimals for 4 significant digits."""
    factor, unit = next(((factor, unit) for factor, unit in MACS if macs >= factor), MACS[-1])
    return factor, unit, tables.decimals(macs / factor, 4)


def _original(chain: SimpleNamespace) -> pd.Series:
    """Bytes of the original's whole file by seed."""
    rows = chain.stages[0].rows
    return rows.set_index("seed")["file_bytes"] if len(rows) else pd.Series(dtype=float)


def _lines(chain: SimpleNamespace, line, named: str = "short") -> pd.DataFrame:
    """`line` of each stage, with `n` where there are several seeds; one that is not finished says so in its name."""
    several = max(len(stage.planned) for stage in chain.stages) > 1
    lines = [line(stage) if len(stage.rows) else {} for stage in chain.stages]
    if several:
        lines = [cells | {"n": _count(stage)} for cells, stage in zip(lines, chain.stages, strict=True)]
    names = [
        getattr(stage, named) if len(stage.rows) else f"{stage.short} ({tables.MISSING})" for stage in chain.stages
    ]
    numbers = [stage.number for stage in chain.stages]
    return pd.DataFrame(lines, index=pd.MultiIndex.from_arrays([numbers, names], names=["no.", "stage"]))


def _count(stage: SimpleNamespace) -> str:
    done, planned = len(stage.rows), len(stage.planned)
    return f"{done}" if done == planned else f"{done} of {planned}"


def _spread(values: pd.Series, digits: int) -> str | float:
    """`1.20`, or of several seeds that differ `1.20 ± 0.10`; NaN where a network has no such number."""
    if values.isna().all():
        return math.nan
    return tables.spread(values.drop_duplicates() if values.nunique() == 1 else values, digits).partition(" (n")[0]
