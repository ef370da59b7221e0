"""Before a study starts: can every run of it work? What only torch can tell is asked in a process of its own."""

import json
import subprocess
import sys

from lib import catalog, paths

# What is sure to work with `digits`: for scoring, ten training images or more of each class, and ten of them to
# calibrate with; as many test images as there are; and of those three batches for a trace.
DIGITS = {
    "train_images": range(100, 4_001),
    "test_images": range(1_001),
    "counted_images": range(1_001),
    "calibration_images": range(10, 101),
}
TRACE = {"batch": range(1, 500)}


def check(runs: list[dict]) -> None:
    """ValueError in one line for the first of the planned `runs` that cannot work: see `lib.feasible`.

    Its data sets are read, and where there is no data folder downloaded. Runs that are sure to work are not asked
    about, since importing torch takes seconds.
    """
    unsure = [run for run in runs if not _sure(run["notebook"], run["parameters"])]
    if not unsure:
        return
    asked = json.dumps([{name: run[name] for name in ("id", "notebook", "parameters")} for run in unsure])
    command = [sys.executable, "-m", "lib.feasible"]
    done = subprocess.run(command, input=asked, cwd=paths.ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1] if lines else f"{' '.join(command)} ended with code {done.returncode}")


def _sure(notebook: str, values: dict) -> bool:
    """Whether a run needs nothing but `digits`, enough of them, and a network that takes them."""
    if "data" not in values or values.get("trace_file"):
        return True
    if values["data"] != "digits" or not catalog.comes_with_a_package("digits"):
        return False
    if values.get("pretrained") or values.get("checkpoint") or values.get("layer_shares"):
        return False
    if values.get("activation_method", "").startswith("map-"):
        return False
    if "model" in values and not catalog.takes_small_images(values["model"]):
        return False
    if not set(values.get("latency_batches", [])) <= set(DIGITS["test_images"]):
        return False
    left = (values.get("train_images") or DIGITS["train_images"][-1]) - 10 * max(10, values.get("scoring_images", 0))
    if values.get("validation_images") not in (None, *range(10, left + 1)):
        return False
    limits = DIGITS | TRACE if notebook == "trace" else DIGITS
    return all(not values.get(name) or values[name] in allowed for name, allowed in limits.items())
