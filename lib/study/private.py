"""A folder of this user's own for what goes to a cluster: pickles, and logs of tasks."""

import os
import re
from hashlib import sha256
from pathlib import Path

from lib import paths
from lib.files import listed

FOLDER = "WORKBENCH_SUBMIT"
OF_TASK = re.compile(r"(?P<task>\d+(_\d+)?)_(submitted\.pkl|submission\.sh|0_result\.pkl|0_log\.(out|err))")


def place(study: str) -> Path:
    """Where it is for this study: below WORKBENCH_SUBMIT, else in the user's cache. All nodes must see it.

    ValueError if it is inside the runs, which may come from others.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pruning-workbench" / "slurm"
    root = Path(os.environ.get(FOLDER) or cache).absolute()
    if root.resolve().is_relative_to(paths.RUNS.resolve()):
        raise ValueError(f"{FOLDER}: received {root}, allowed is a folder outside {paths.RUNS}")
    return root / f"{slug(study)}-{sha256(str(paths.RUNS).encode()).hexdigest()[:8]}"


def folder(study: str) -> Path:
    """The same, made, with nobody else allowed in; OSError if it belongs to somebody else."""
    made = place(study)
    for each in (made.parent, made):
        try:
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            why = f"cannot be made ({error.strerror}): set {FOLDER} to a folder of your own that all nodes see"
            raise OSError(f"{each} {why}") from None
        if each.stat().st_uid != os.getuid():
            raise PermissionError(f"{each} belongs to another user: set {FOLDER} to a folder of your own")
    made.chmod(0o700)
    return made


def slug(study: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", study)[:40]


def drop_unsent(where: Path) -> None:
    """Remove what was written for a submission that was refused: it has no number in its name."""
    for path in (*listed(where, ".submission_file_*"), *listed(where, "[!_]*.pkl")):
        if "_" not in path.name.removeprefix(".submission_file_") and not path.is_symlink():
            path.unlink(missing_ok=True)


def kept(where: Path) -> dict[str, list[Path]]:
    """Task (123_4, or 123) -> what it read and wrote, and the batch file of its own; of an array that is under 123."""
    found: dict[str, list[Path]] = {}
    for path in listed(where, "*"):
        if match := OF_TASK.fullmatch(path.name):
            found.setdefault(match["task"], []).append(path)
    return found


def drop(where: Path, tasks: set[str]) -> None:
    """Remove what these tasks have left, and the batch file of an array with the last of them."""
    left = kept(where)
    for task in tasks & set(left):
        for path in left.pop(task):
            path.unlink(missing_ok=True)
    arrays = {task.partition("_")[0] for task in tasks if "_" in task}
    for job in arrays - {task.partition("_")[0] for task in left if "_" in task}:
        (where / f"{job}_submission.sh").unlink(missing_ok=True)
    for link in listed(where, ".submission_file_*"):
        if not link.exists():  # it names a batch file
            link.unlink(missing_ok=True)
