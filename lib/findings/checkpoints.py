"""Networks that were trained and pruned elsewhere, and read from a file."""

from pathlib import PurePath

import pandas as pd

from lib import shares


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a network, as `lib.networks.stored` describes it, with its `checkpoint` (a file) and accuracies (%)."""
    left = pd.DataFrame([shares.columns(run["compression"], run["word"]) for _, run in runs.iterrows()])
    found = pd.DataFrame({
        "file": [PurePath(path).name if path else "none: made here" for path in runs["checkpoint"]],
        "network": runs["task"].to_numpy(),
        "method": runs["method"].to_numpy(),
        **{name: left[name] for name in left},
        "weights kept": runs["weights_kept"].astype(int).to_numpy(),
        "MACs kept": runs["macs_kept"].astype(int).to_numpy(),
        "top-1 (%)": runs["top1_pct"].to_numpy(),
        "top-5 (%)": runs["top5_pct"].to_numpy(),
    })  # fmt: skip
    return found


def sentences(runs: pd.DataFrame) -> list[str]:
    """The most accurate network of each task, and those in which no path leads from the input to the output."""
    said = []
    for task, rows in runs.groupby("task", sort=False):
        best = rows.loc[rows["top1_pct"].idxmax()]
        of = f"the most accurate of {len(rows)} networks on {task}" if len(rows) > 1 else f"the network on {task}"
        named = f"{of}, {best['method']} at {best['at']},"
        said.append(f"As it is in its file, {named} has a top-1 accuracy of {best['top1_pct']:.2f} %.")
    cut = runs[~runs["connected"].astype(bool)]
    said += [f"In {row['method']} at {row['at']} no input reaches the output." for _, row in cut.iterrows()]
    return said
