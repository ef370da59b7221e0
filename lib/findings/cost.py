"""What pruning saves: operations on paper, seconds on the clock, and how little one says about the other."""

import pandas as pd

TOO_NOISY = 0.15  # passes of one network that differ by more than this share of their median say nothing


def macs(done: pd.DataFrame) -> list[str]:
    """Sentences on the MACs kept at equal density; `done` are the accuracy runs of one task."""
    if done.empty:
        return []
    pruned = done[done["pruner"] != "dense"]
    said = []
    for _, runs in pruned.groupby("compression"):
        share = runs.groupby("method")["macs_kept"].mean() / runs["macs_dense"].iloc[0]
        if len(share) < 2:
            continue
        said.append(_share(runs["at"].iloc[0], share, runs))
    return said


def _share(at: str, share: pd.Series, runs: pd.DataFrame) -> str:
    kept, dense = runs["weights_kept"].unique(), runs["macs_dense"].iloc[0]
    many = f"the same {kept[0]:,.0f}" if len(kept) == 1 else f"{kept.min():,.0f} to {kept.max():,.0f}"
    if share.max() - share.min() < 0.001:
        return (
            f"At {at} every method keeps {many} weights and {share.max():.1%} of the "
            f"{dense:,.0f} MACs: each weight is used equally often."
        )
    return (
        f"At {at} the methods keep {many} weights, but between {share.min():.1%} "
        f"({share.idxmin()}) and {share.max():.1%} ({share.idxmax()}) of the {dense:,.0f} MACs: "
        "a kept weight of an early layer is used at more positions."
    )


def time(timings: pd.DataFrame) -> list[str]:
    """Sentences on `timing_summary`: permanent weights by method, and against masks multiplied in each forward."""
    if timings.empty:
        return []
    permanent = timings[timings["form"] == "permanent"].set_index("network")
    if len(permanent) < 2:
        return []
    slow, fast = permanent["median_s"].idxmax(), permanent["median_s"].idxmin()
    ratio = permanent.loc[slow, "median_s"] / permanent.loc[fast, "median_s"]
    noise = (permanent["spread_s"] / permanent["median_s"]).median()
    spread = f"the passes of one network differ by {noise:.1%} (interquartile range over median)"
    if noise > TOO_NOISY:
        return [f"These times are too noisy to compare: {spread}. Time again on a machine that has nothing else to do."]
    verdict = "within" if ratio - 1 <= 3 * noise else "beyond"
    said = [
        f"With permanent weights the slowest of {len(permanent)} networks ({slow}) takes {ratio:.2f} times as long "
        f"as the fastest ({fast}); {spread}, so this is {verdict} three times the noise."
    ]
    masked = timings[timings["form"] == "masked forward"].set_index("network")
    ratios = (masked["median_s"] / permanent["median_s"]).dropna()
    if len(ratios):
        said.append(_mask_cost(ratios.median(), noise, len(ratios)))
    return said


def noisy(timings: pd.DataFrame) -> bool:
    """Whether the passes of one network differ too much for any comparison."""
    permanent = timings[timings["form"] == "permanent"]
    return bool((permanent["spread_s"] / permanent["median_s"]).median() > TOO_NOISY)


def _mask_cost(ratio: float, noise: float, networks: int) -> str:
    """`ratio` of the masked forward's time to that with permanent weights; `noise` as a share of the time."""
    measured = f"takes {ratio:.2f} times as long as permanent weights (median over {networks} networks)"
    if ratio > 1 + noise:
        return f"Multiplying the masks at every forward {measured}: a cost of the implementation, not of the method."
    if ratio < 1 - noise:
        return f"The masked forward {measured}: here the products cost less than something else about it saves."
    return f"The masked forward {measured}: no cost beyond the noise."


def paper_against_clock(timings: pd.DataFrame) -> str | None:
    """The network with the fewest MACs: what they promise, and what the clock says."""
    permanent = timings[timings["form"] == "permanent"]
    dense = permanent[permanent["pruner"] == "dense"]
    pruned = permanent[permanent["pruner"] != "dense"]
    if dense.empty or pruned.empty or noisy(timings):
        return None
    least = pruned.loc[pruned["macs_kept"].idxmin()]
    promised = least["macs_dense"] / least["macs_kept"]
    measured = dense["median_s"].iloc[0] / least["median_s"]
    return (
        f"{least['method']} at {least['at']} keeps the fewest MACs and promises to be "
        f"{promised:.1f} times as fast as the dense network; measured it is {measured:.2f} times as fast. "
        + (
            "Dense kernels multiply the zeros too, so unstructured sparsity does not shorten them."
            if measured < 1 + 0.2 * (promised - 1)
            else "Part of the saving reaches the clock."
        )
    )
