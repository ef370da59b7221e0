"""Small frames of runs for the tests of tables, figures and findings."""

import pandas as pd

from lib import tables


def run(pruner: str, top1: float = 50.0, compression: float = 1.0, seed: int = 1, rounds: int = 1, **more) -> dict:
    """One finished accuracy run; `top1` None is one that is planned but not finished."""
    model = more.get("model", "fc")
    name = f"{model}-{pruner}-c{compression:g}-r{rounds}-s{seed}"
    kept = int(1000 * 10**-compression)
    return {
        "run": name, "data": "mnist", "model": "fc", "pruner": pruner, "density": 10.0**-compression, "rounds": rounds,
        "seed": seed, "epochs": 10, "pre_epochs": 0, "source": "", "top1_pct": top1, "top5_pct": None if top1 is None
        else min(100.0, top1 + 5), "weights": 1000, "weights_kept": kept, "macs_dense": 2000, "macs_kept": 2 * kept,
        "collapsed_layers": "", "connected": True, "train_images": 0,
    } | more  # fmt: skip


def study(*rows: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(done, plan) of these runs."""
    plan = tables.described(pd.DataFrame(list(rows)))
    return plan[plan["top1_pct"].notna()].reset_index(drop=True), plan


def timings(*rows: tuple) -> pd.DataFrame:
    """Rows of tables.timing_summary from (pruner, compression, permanent s, masked s or None, spread s, MACs kept)."""
    found = []
    for pruner, compression, permanent, masked, spread, macs in rows:
        one = tables.described(pd.DataFrame([run(pruner, compression=compression)])).iloc[0]
        name = "Dense" if pruner == "dense" else f"{one['method']} at {one['at']}"
        for form, seconds in (("permanent", permanent), ("masked forward", masked)):
            if seconds is not None:
                found.append({
                    "network": name, "form": form, "median_s": seconds, "spread_s": spread, "n": 5, "run": one["run"],
                    "method": one["method"], "pruner": pruner, "rounds": 1, "compression": compression, "seed": 1,
                    "word": one["word"], "at": one["at"],
                    "task": one["task"], "macs_kept": macs, "macs_dense": 2000,
                })  # fmt: skip
    return pd.DataFrame(found)


def layers(run_name: str, kept: dict[str, int], weights: int = 100) -> pd.DataFrame:
    """layers.csv of one run: kept weights of each layer, of `weights` each."""
    rows = [
        {"run": run_name, "layer": name, "shape": "10x10", "weights": weights, "kept": n, "density": n / weights,
         "macs_dense": 2 * weights, "macs_kept": 2 * n}
        for name, n in kept.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def histories(rows: dict[str, list[float]], gap: float = 1.0) -> pd.DataFrame:
    """history.csv of several runs from their test top-1 by epoch; training top-1 lies `gap` points above."""
    return pd.DataFrame([
        {"run": name, "epoch": epoch, "train_loss": 1.0, "test_loss": 1.1, "train_top1_pct": top1 + gap,
         "test_top1_pct": top1, "train_top5_pct": 99.0, "test_top5_pct": 99.0}
        for name, values in rows.items() for epoch, top1 in enumerate(values, 1)
    ])  # fmt: skip


def bars(layer: str, kept: list[int], removed: list[int]) -> pd.DataFrame:
    """histograms.csv of one layer over equal bins of [-1, 1]."""
    width = 2 / len(kept)
    edges = [-1 + width * i for i in range(len(kept) + 1)]
    return pd.DataFrame({"layer": layer, "left": edges[:-1], "right": edges[1:], "kept": kept, "removed": removed})
