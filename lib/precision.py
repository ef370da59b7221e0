"""Training with and without mixed precision, measured side by side."""

from lib import models, pruners
from lib.data import Dataset, scoring_batches
from lib.memory import peak
from lib.train import PRECISIONS, train


def compare(
    model: str, data: Dataset, pruner: str, densities: list[float], *, epochs: int, seed: int, **recipe
) -> list[dict]:
    """Train the same pruned network in each precision, at each density; one row an epoch.

    Rows are those of `train` with `density`, `precision` and, of the whole training, `peak_memory_mib`,
    `memory_before_mib`, `memory_of`. The precisions alternate within a density, so that a change of the
    machine's speed meets both. `recipe` goes to `train` (optimizer, lr, batch ...).
    """
    rows = []
    scoring = scoring_batches(data, seed=seed)
    for density in densities:
        for precision in PRECISIONS:
            network = models.build(model, data.shape, data.classes, seed).to(data.device)
            kept = pruners.prune(network, pruner, density, scoring, seed=seed)
            with peak(data.device) as used:
                history = train(network, data, epochs=epochs, masks=kept, precision=precision, seed=seed, **recipe)
            rows += [{"density": density, "precision": precision, **row, **used} for row in history]
    return rows
