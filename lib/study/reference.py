"""Results that come with the workbench: runs/reference/<study>, apart from what a user computes."""

import filecmp
import os
import shutil
import tempfile
from pathlib import Path

from lib import paths, runs
from lib.files import read_json, write_json, write_text
from lib.study import state

# What a reader needs of a run; weights, states of trainings and logs stay where they were made.
MASKS = "masks.safetensors"
LIGHT = (runs.RUN, runs.METRICS, "*.csv", MASKS, "trace.json.gz")
LARGEST = 3 * 2**20  # bytes of a file that is worth its place in the repository
LARGEST_MASKS = 2**19  # those of a network of more than 4 million weights its seed gives again


def place(study: str) -> str:
    """The name under which the reference runs of `study` are found below `paths.RUNS`, and its figures likewise."""
    return f"{paths.REFERENCE}/{study}"


def studies() -> list[str]:
    """The studies that have finished reference runs, by name."""
    folders = (paths.RUNS / paths.REFERENCE).glob("[!.]*/")
    return sorted(folder.name for folder in folders if has_results(place(folder.name)))


def has_results(study: str) -> bool:
    """Whether a run of the plan that lies with `study`, a name below `paths.RUNS`, is finished."""
    if not (paths.RUNS / study / state.PLAN).is_file():
        return False
    planned = state.load_plan(study) | {"study": study}
    return any(state.of(planned, run) == "done" for run in planned["runs"])


def plan(study: str) -> dict:
    """The plan of the reference runs of `study`; ValueError names the studies that have some."""
    if study not in (known := studies()):
        raise ValueError(f"study {study!r} has no reference results: those that have are {', '.join(known) or 'none'}")
    return state.load_plan(place(study)) | {"study": place(study)}


def keep(planned: dict) -> dict:
    """Make the finished runs of the plan the reference: their light files, each run whole or not at all.

    A reference run that was made later stays. Returns run ids in `copied`, `unchanged` and `newer`, in `large` the
    files over LARGEST and the masks over LARGEST_MASKS, and in `strangers` the reference runs that the plan does not
    have. ValueError for a study without a finished run, or one whose runs were made with other parameters.
    """
    done = [run for run in planned["runs"] if state.of(planned, run) == "done"]
    if not done:
        raise ValueError(f"study {planned['study']} has no finished run in {paths.RUNS}: run it first")
    state.check(planned)
    target = paths.RUNS / place(planned["study"])
    target.mkdir(parents=True, exist_ok=True)
    told = {"copied": [], "unchanged": [], "newer": [], "large": []}
    shown = _key_runs(done)
    for run in done:
        name = run["id"]
        with tempfile.TemporaryDirectory(prefix=".keep-", dir=target) as folder:
            copy = Path(folder) / name
            told["large"] += _copy(state.folder(planned) / name, copy, name in shown)
            told[outcome := _outcome(copy, target / name)].append(name)
            if outcome == "copied":
                _exchange(copy, target / name)
    if not (target / state.PLAN).is_file() or read_json(target / state.PLAN) != planned:
        write_json(target / state.PLAN, planned)
    wanted = {run["id"] for run in planned["runs"]}
    return told | {"strangers": [d.name for d in runs.finished(target) if d.name not in wanted]}


def _key_runs(done: list[dict]) -> set[str]:
    """The runs whose executed notebook a reader may want: the first of each notebook, pruned where there is one."""
    pruned_first = sorted(done, key=lambda run: run["parameters"].get("pruner") == "dense")
    return {run["id"] for run in {run["notebook"]: run for run in reversed(pruned_first)}.values()}


def _copy(source: Path, target: Path, with_notebook: bool) -> list[str]:
    """Copy the light files of a run; return those left out for their size."""
    target.mkdir()
    files = sorted({path for pattern in LIGHT for path in source.glob(pattern)})
    if with_notebook and (source / runs.NOTEBOOK).is_file():
        files.append(source / runs.NOTEBOOK)
    large = [path for path in files if path.stat().st_size > largest(path.name)]
    for path in files:
        if path in large:
            continue
        if path.name == runs.NOTEBOOK:
            write_text(target / path.name, _without_places(path.read_text(encoding="utf-8")))
        else:
            shutil.copyfile(path, target / path.name)
    return [f"{source.name}/{path.name}" for path in large]


def largest(name: str) -> int:
    """Bytes that the file of this name, or at this path, may have."""
    return LARGEST_MASKS if name.endswith(MASKS) else LARGEST


def _without_places(text: str) -> str:
    """A notebook without the folders of the machine it was executed on."""
    for folder, name in ((paths.RUNS, "runs"), (paths.NOTEBOOKS, "notebooks"), (paths.ROOT, ".")):
        text = text.replace(folder.as_posix(), name)
    return text


def _outcome(copy: Path, there: Path) -> str:
    """`copied` where `copy` is to take the place of the run `there`, else why not."""
    if not there.is_dir():
        return "copied"
    names = sorted(path.name for path in copy.iterdir())
    same_names = names == sorted(path.name for path in there.iterdir())
    if same_names and filecmp.cmpfiles(copy, there, names, shallow=False)[0] == names:
        return "unchanged"
    return "newer" if _started(there) > _started(copy) else "copied"


def _started(folder: Path) -> str:
    # ISO 8601 in UTC, to the second: the order of the texts is that of the times
    return read_json(folder / runs.RUN).get("started_utc", "")


def _exchange(copy: Path, there: Path) -> None:
    """Put `copy` in the place of `there` by renames; the earlier run goes with the temporary folder."""
    if there.exists():
        os.rename(there, copy.with_name("earlier"))
    os.rename(copy, there)
