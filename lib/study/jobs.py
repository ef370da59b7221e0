"""What was given to a cluster: a file a run, beside the runs, and another when its task has ended with the run.

`.jobs/<run>.json` says under which `name` a run was handed over, and once the cluster has answered, as which `task`
(`123_4`, or `123` for one alone). `.jobs/ended/<run>.json` says what became of it, under the same name; where that
cannot be written, on a full disk, the user's private folder has it (see `lib.study.private`).
"""

import re
from collections.abc import Iterable
from pathlib import Path

from lib import markup, paths, runs
from lib.files import changed_ns, read_known, write_json
from lib.study import private

JOBS, ENDED = ".jobs", "ended"
TASK = re.compile(r"\d+(_\d+)?")


def folder(study: str) -> Path:
    return paths.RUNS / study / JOBS


def write(study: str, run: str, name: str, index: int, task: str | None = None) -> None:
    """Record that `run` is (to be) in the task `index` of the job called `name`; `task` once that has a number."""
    entry = {"run": run, "name": name, "index": index, "task": task, "submitted_utc": runs.now()}
    write_json(folder(study) / f"{run}.json", entry)


def end(study: str, run: str, name: str, error: str | None) -> None:
    """Record what became of the run under the job called `name`: None, or an error in one line."""
    entry = {"run": run, "name": name, "error": error, "ended_utc": runs.now()}
    try:
        write_json(folder(study) / ENDED / f"{run}.json", entry)
    except OSError:
        write_json(private.folder(study) / ENDED / f"{run}.json", entry)


def forget(study: str, run: str) -> None:
    """The run was not submitted after all."""
    (folder(study) / f"{run}.json").unlink(missing_ok=True)
    for place in _places(study):
        (place / f"{run}.json").unlink(missing_ok=True)


def _places(study: str) -> tuple[Path, Path]:
    """Where ends are."""
    return folder(study) / ENDED, private.place(study) / ENDED


def records(study: str, chosen: Iterable[str]) -> dict[str, dict]:
    """Run -> its record, of those that have one; of others' folders none whose task is no number."""
    kinds = {"name": str, "index": int, "task": str | None}
    found = {run: read_known(folder(study) / f"{run}.json", **kinds) for run in chosen}
    return {run: one for run, one in found.items() if one and (one["task"] is None or TASK.fullmatch(one["task"]))}


def ended(study: str, run: str, record: dict) -> dict | None:
    """What became of the run of this record; None while its task has not come to its end."""
    found = (read_known(place / f"{run}.json", name=str, error=str | None) for place in _places(study))
    end = next((end for end in found if end and end["name"] == record["name"]), None)
    return end and end | {"error": end["error"] and markup.line(end["error"])}


def ended_ns(study: str, run: str) -> int:
    """When that was written, by the folder's own clock; 0 where nothing was."""
    return max(changed_ns(place / f"{run}.json") for place in _places(study))


def told(study: str) -> list[int]:
    """Other numbers when a task has said something since; on folders of other hosts with a delay."""
    return [place.stat().st_mtime_ns for place in _places(study) if place.is_dir()]
