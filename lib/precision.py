"""Training with and without mixed precision, measured side by side."""

from itertools import product

from lib import models, pruners
from lib.data import Dataset, scoring_batches
from lib.memory import peak
from lib.train import PRECISIONS, train


def compare(
    model: str,
    data: Dataset,
    pruner: str,
    densities: list[float],
    *,
    epochs: int,
    seed: int,
    repeats: int = 1,
    **recipe,
) -> list[dict]:
    """Train the same pruned network in each precision, at each density; one row an epoch.

    Rows are those of `train` with `seed`, `density`, `precision` and, of the whole training, `peak_memory_mib`,
    `memory_before_mib`, `memory_of`. `repeats` trainings of each have consecutive seeds from `seed` on. The
    precisions alternate within a density, so that a change of the machine's speed meets both. `recipe` goes to
    `train` (optimizer, lr, batch ...).
    """
    rows = []
    for number, density, precision in product(range(seed, seed + repeats), densities, PRECISIONS):
        network = models.build(model, data.shape, data.classes, number).to(data.device)
        kept = pruners.prune(network, pruner, density, scoring_batches(data, seed=number), seed=number)
        with peak(data.device) as used:
            history = train(network, data, epochs=epochs, masks=kept, precision=precision, seed=number, **recipe)
        setting = {"seed": number, "density": density, "precision": precision}
        rows += [{**setting, **row, **used} for row in history]
    return rows
