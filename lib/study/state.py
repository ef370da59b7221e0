"""What of a study is done, failed or waiting, and how long the rest may take."""

import json
from functools import cache
from pathlib import Path
from statistics import median

from lib import markup, parameters, paths, runs
from lib.files import listed, read_json, read_known, write_json
from lib.study import attempts, jobs, spec

PLAN = "plan.json"
LOCK, CLUSTER_LOCK = ".lock", ".slurm.lock"  # of the drivers of each engine


def plan(name: str, seeds: list[int] | None = None) -> dict:
    """The study as plain data: `study`, `title`, `question`, `summary` (the notebook that makes its report), `seeds`
    (as received; None are those of the study's file), `word` and `runs`, as `spec.word` and `spec.expand` say."""
    study = spec.read(name)
    return {
        "study": name,
        "title": study.title,
        "question": study.question,
        "summary": study.summary,
        "word": spec.word(study),
        "seeds": seeds,
        "runs": spec.expand(name, study, seeds),
    }


def seeds(name: str) -> list[int] | None:
    """The seeds that the last run or report of the study received in place of its file's; None if it received none."""
    kept = read_known(paths.RUNS / paths.inside("study", name) / PLAN, seeds=list)
    return kept["seeds"] if kept and all(isinstance(seed, int) and seed >= 0 for seed in kept["seeds"]) else None


def save(planned: dict) -> None:
    """Leave the plan beside its runs: the summary reads from it what is still missing."""
    write_json(folder(planned) / PLAN, planned)


def load_plan(name: str) -> dict:
    """The plan that the last `run` or `report` of this study left; ValueError where there is none.

    Its runs are in the folder `name` below `paths.RUNS`, whatever it says, and cannot lead out of it.
    """
    paths.inside("study", name.removeprefix(f"{paths.REFERENCE}/"))
    path = paths.RUNS / name / PLAN
    if not path.is_file():
        raise ValueError(f"study {name!r} was never started: python -m lib.study run {name}")
    planned = read_json(path)
    for run in planned["runs"]:
        for identifier in (run["id"], *run["sources"]):
            paths.inside(f"{path}: id of a run", identifier)
    return planned | {"study": name.removeprefix(f"{paths.REFERENCE}/")}


def folder(planned: dict) -> Path:
    return paths.RUNS / planned["study"]


def of(planned: dict, run: dict) -> str:
    """`done`, `failed` or `waiting`: a run is what its directory says."""
    directory = folder(planned) / run["id"]
    if (directory / runs.METRICS).is_file():
        return "done"
    return "failed" if (directory / runs.ERROR).is_file() else "waiting"


def reason(planned: dict, run: dict) -> str:
    """Why a failed run failed, in one line."""
    said = read_known(folder(planned) / run["id"] / runs.ERROR, error=str)
    return markup.line(said["error"]) if said else "it does not say why"


def gaps(planned: dict) -> dict[str, str]:
    """Run id -> why, of every planned run that is not done."""
    why = {"failed": lambda run: reason(planned, run), "waiting": lambda run: "not executed yet"}
    states = [(run, of(planned, run)) for run in planned["runs"]]
    return {run["id"]: why[now](run) for run, now in states if now != "done"}


def refuse_links(planned: dict) -> None:
    """ValueError where something of the workbench's own beside the runs, such as `.attempts`, is a link.

    A study's folder may come from others; what is written there, and cleared away, must lie in it.
    """
    own = folder(planned)
    names = (runs.ATTEMPTS, runs.CHECKPOINTS, attempts.TRIES, jobs.JOBS, LOCK, CLUSTER_LOCK)
    inside = (own / jobs.JOBS / jobs.ENDED, *listed(own / runs.CHECKPOINTS, "*"))
    for path in (*(own / name for name in names), *inside):
        if path.is_symlink():
            raise ValueError(f"{path} is a link: only a folder or file in its place is written to, so remove it")


def check(planned: dict) -> None:
    """Refuse to mix: a finished run made with other parameters stops the study, and the difference is named.

    So does a damaged file of a finished run, which would otherwise surface hours later, in the report.
    """
    for run in planned["runs"]:
        if of(planned, run) != "done":
            continue
        read_json(folder(planned) / run["id"] / runs.METRICS)
        made = read_json(folder(planned) / run["id"] / runs.RUN).get("parameters", {})
        # through JSON, as the run wrote them
        wanted = json.loads(json.dumps(run["parameters"]))
        made = _before(planned, run) | made
        names = [n for n in {**wanted, **made} if made.get(n) != wanted.get(n)]
        if names:
            differing = "; ".join(f"{n} was {made.get(n)!r}, now {wanted.get(n)!r}" for n in names)
            raise ValueError(
                f"{folder(planned) / run['id']} was made with other parameters ({differing}): "
                "move or delete that folder, or change the study back"
            )


def _before(planned: dict, run: dict) -> dict:
    """What a run did before its notebook had a parameter: its source's value where it has one, else the default."""
    known = {n: entry["default"] for n, entry in parameters.declared(run["notebook"]).items() if n in run["parameters"]}
    for source in planned["runs"]:
        if source["id"] in run["sources"]:
            known |= {n: value for n, value in source["parameters"].items() if n in spec.SAME and n in known}
    return known


def seconds_left(planned: dict, open_runs: list[dict], jobs: int) -> float | None:
    """Seconds until `open_runs` are done, from like runs that finished; None while some have no like.

    A like run has the same notebook, data and model; its time is scaled by the epochs.
    """
    each = seconds_each(planned, open_runs).values()
    return None if None in each else sum(each) / jobs


def seconds_each(planned: dict, open_runs: list[dict]) -> dict[str, float | None]:
    """Run id -> seconds that it may take, as its like took; None where no like run has finished."""
    known: dict[tuple, list[float]] = {}
    for run in planned["runs"]:
        if of(planned, run) == "done" and (seconds := took_s(folder(planned) / run["id"])):
            known.setdefault(_like(run), []).append(seconds / _epochs(run))
    middle = {like: median(seconds) for like, seconds in known.items()}
    return {run["id"]: middle[_like(run)] * _epochs(run) if _like(run) in middle else None for run in open_runs}


@cache  # the driver asks at every start and end of a run, and a finished run stays as it is
def took_s(directory: Path) -> float | None:
    """Seconds that a finished run took; of one that went on from a checkpoint, those of its training.

    None where its metrics do not say.
    """
    metrics = read_known(directory / runs.METRICS, wall_s=int | float)
    return max(metrics["wall_s"], metrics.get("train_s") or 0.0) if metrics else None


def _like(run: dict) -> tuple:
    values = run["parameters"]
    return run["notebook"], values.get("data"), values.get("model"), values.get("train_images")


def _epochs(run: dict) -> int:
    values = run["parameters"]
    return max(1, values.get("epochs", 1) + values.get("pre_epochs", 0))
