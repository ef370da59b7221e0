"""A study of 500 runs: what its plan, its status and its report cost; and what more slots would save, on paper.

`python -m lib.bench.scale NAME SEED...` writes the study NAME and its finished runs where the environment's
WORKBENCH_STUDIES and WORKBENCH_RUNS say, and prints one line of JSON: seconds of each of PARTS.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from lib import paths, runs
from lib.bench import fixed
from lib.bench.training import spread
from lib.files import read_json, write_json, write_text
from lib.study import reference, simulate, state, status

NAME = "scale"
SEEDS = range(1, 6)
SLOTS = (1, 2, 64)
# the runs that come with the workbench give the copies their tables: nothing is computed
PATTERN = "accuracy-digits-{model}-{pruner}-c{compression}-seed1"
FIXED = {"data": "digits", "epochs": 3}
PRUNERS = ["rand", "snip", "grasp", "synflow"]
COMPRESSIONS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
PARTS = {"plan": "from the study's file to its runs", "status": "state of all runs", "frames": "frames of the report"}
COMMANDS = {"status": ("status, the whole command", 2.0), "report": ("report, the whole command", 20.0)}  # target, s


def study(seeds: list[int]) -> dict:
    """The content of a study file: five pruners, ten compressions and two networks, 102 runs a seed."""
    blocks = []
    for model in ("resnet8", "fc"):
        source = f"accuracy-digits-{model}-dense-c0-seed{{seed}}"
        every = {"compression": COMPRESSIONS}
        for fixed_there, grid in (
            ({"pruner": "dense", "compression": 0}, {}),
            ({"pruner": "mag", "source": source}, every),
            ({}, every | {"pruner": PRUNERS}),
        ):
            blocks.append({"notebook": "accuracy", "fixed": {"model": model} | fixed_there, "grid": grid})
    return {"title": "Scale", "question": "What do many runs cost?", "fixed": FIXED, "seeds": seeds, "blocks": blocks}


def make(name: str, seeds: list[int]) -> dict:
    """Write the study and a folder for each of its runs, finished: copies of the reference's; return its plan."""
    paths.STUDIES.mkdir(parents=True, exist_ok=True)
    write_text(paths.STUDIES / f"{name}.yaml", yaml.safe_dump(study(seeds), sort_keys=False))
    planned = state.plan(name)
    templates = paths.ROOT / "runs" / paths.REFERENCE / "quick"
    for number, run in enumerate(planned["runs"]):
        values, folder = run["parameters"], state.folder(planned) / run["id"]
        like = {"model": values["model"], "pruner": values["pruner"]}
        template = templates / PATTERN.format(compression=0 if values["pruner"] == "dense" else 1, **like)
        folder.mkdir(parents=True)
        for table in template.glob("*.csv"):
            shutil.copyfile(table, folder / table.name)
        write_json(folder / runs.RUN, read_json(template / runs.RUN) | {"parameters": values})
        metrics = read_json(template / runs.METRICS)
        write_json(folder / runs.METRICS, metrics | {"top1_pct": metrics["top1_pct"] - number % 7 / 10})
    state.save(planned)
    return planned


def timed(name: str, seeds: list[int]) -> dict[str, float]:
    """Seconds of each of PARTS, and `runs`, how many there are."""
    from lib import summary  # what it imports is none of the plan's

    planned = make(name, seeds)
    parts = {
        "plan": lambda: state.plan(name),
        "status": lambda: status.rows(planned),
        "frames": lambda: summary.load(name),
    }
    seconds = {}
    for part, call in parts.items():
        start = time.perf_counter()
        call()
        seconds[part] = time.perf_counter() - start
    return seconds | {"runs": len(planned["runs"])}


def measure(folder: Path, size: dict) -> tuple[list, list]:
    """Rows for a study of 510 finished runs and for every reference study on more slots, and notes.

    `size`: `scale_seeds`, as the study has 102 runs a seed.
    """
    environment = fixed._elsewhere(folder) | {"WORKBENCH_STUDIES": str(folder / "studies")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": paths.ROOT, "env": environment}
    seeds = [str(seed) for seed in size["scale_seeds"]]
    said = fixed._finish(subprocess.Popen([sys.executable, "-m", "lib.bench.scale", NAME, *seeds], **pipes))
    seconds = json.loads(said.splitlines()[-1])
    row = {"section": "scale", "task": f"{seconds['runs']} finished runs", "of": "study"}
    rows = [row | {"form": form} | spread([seconds[part]]) for part, form in PARTS.items()]
    for command, (form, target_s) in COMMANDS.items():
        start = time.perf_counter()
        fixed._finish(subprocess.Popen([sys.executable, "-m", "lib.study", command, NAME], **pipes))
        rows.append(row | {"form": form, **spread([time.perf_counter() - start]), "target_s": target_s})
    simulated = [row for name in reference.studies() for row in on_paper(reference.plan(name))]
    return rows + simulated, [
        "Wall times on so many slots are computed, not measured: from the times of the reference runs, their "
        f"dependencies, and {fixed.TARGETS['study']:g} s that each run costs besides; slots are hosts or GPUs that do "
        "not slow each other down, and timed runs are alone."
    ]


def on_paper(planned: dict, fixed_s: float = fixed.TARGETS["study"]) -> list[dict]:
    """Wall times of the finished runs of a plan, and how many times one slot takes each: for each of SLOTS, and for the
    longest chain of runs that build on each other, below which none goes.
    """
    taken = simulate.taken_s(planned)
    found = simulate.among(planned, set(taken))
    walls = {f"{n} slot{'s' if n > 1 else ''}, on paper": simulate.wall_s(found, taken, n, fixed_s) for n in SLOTS}
    walls["longest chain of runs, on paper"] = simulate.longest_s(found, taken, fixed_s)
    row = {"section": "scale", "task": f"study {planned['study']}, {len(found)} runs", "of": "study"}
    one, *_ = walls.values()
    return [row | {"form": form, "ratio": one / wall, **spread([wall])} for form, wall in walls.items()]


if __name__ == "__main__":
    print(json.dumps(timed(sys.argv[1], [int(seed) for seed in sys.argv[2:]])))
