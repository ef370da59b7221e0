"""What to ask a cluster for: from the command line, else the study file, else a file of the user's own."""

import os
import re
import subprocess
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, Field, PositiveInt, ValidationError

from lib import parameters

WARNING_S = 90  # SLURM warns a task so long before its time limit
LEAST = 5  # minutes: of less, the warning would leave hardly anything
MINUTES = 60  # of one start of a task where nothing is said; a training that needs more is requeued and goes on
TIME = re.compile(r"(?:(?P<days>\d+)-(?=\d))?(?P<clock>\d+(?::\d{1,2}){0,2})")


def _line(value) -> str:
    if not _text(value).strip() or any(ord(character) < 32 for character in _text(value)):
        raise ValueError("allowed is one line of text")
    return str(value)


def _word(value) -> str:
    if len(_line(value).split()) != 1:
        raise ValueError("allowed is text without spaces")
    return str(value)


def _text(value) -> str:
    """A name may be a number."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("allowed is text")
    return str(value)


def _time(value) -> str:
    if not isinstance(value, str):
        raise ValueError('allowed is such as "01:30:00", in quotation marks, since YAML takes 1:30 for the number 90')
    if minutes(value) < LEAST:
        raise ValueError(f"allowed are {LEAST} minutes and more: the last {WARNING_S} s are for saving")
    return value


def _memory(value) -> str:
    if not re.fullmatch(r"\d+[KMGT]?", _text(value)):
        raise ValueError("allowed is such as 8G, or 8000 for as many MiB")
    return str(value)


def _command(value) -> str:
    """Whole by itself: whether it succeeds is asked after it."""
    done = subprocess.run(["bash", "-n"], input=f"{_line(value)}\n", capture_output=True, text=True)
    if done.returncode or done.stderr or str(value).rstrip().endswith("\\"):
        raise ValueError("allowed is a whole command of the shell")
    return str(value)


def _listed(value):
    return value if isinstance(value, list) else [value]


Word = Annotated[str, BeforeValidator(_word)] | None
Count = Annotated[PositiveInt, Field(strict=True)] | None  # not true for 1


class Cluster(BaseModel, extra="forbid"):
    """Options of `sbatch` under its own names, `setup` (shell lines before a task) and `group` (runs in one task).

    `array_limit` is how many tasks of an array run at once; runs with other sources are in another one. `time` is that
    of sbatch: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes,
    days-hours:minutes:seconds.
    """

    partition: Word = None
    gres: Word = None
    time: Annotated[str, BeforeValidator(_time)] | None = None
    mem: Annotated[str, BeforeValidator(_memory)] | None = None
    cpus: Count = None
    account: Word = None
    qos: Word = None
    constraint: Word = None
    array_limit: Count = None
    setup: Annotated[list[Annotated[str, BeforeValidator(_command)]], BeforeValidator(_listed)] | None = None
    group: Count = None


def minutes(text: str) -> int:
    """Whole minutes, rounded up, of a time as sbatch takes it; ValueError for anything else."""
    match = TIME.fullmatch(text)
    if not match:
        raise ValueError("allowed is such as 90 (minutes), 01:30:00 or 2-12:00:00")
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, rest, seconds = (*parts, 0, 0)[:3]
        whole = ((int(match["days"]) * 24 + hours) * 60 + rest) * 60 + seconds
    elif len(parts) == 3:
        whole = (parts[0] * 60 + parts[1]) * 60 + parts[2]
    else:
        whole = parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)
    return -(-whole // 60)


def user_file() -> Path:
    """Options for all studies of this user; the file need not be there."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "pruning-workbench" / "cluster.yaml"


def options(study: Cluster | None, given: dict) -> Cluster:
    """Options of the command line (`given`, without what was not said) over those of the study over the user's.

    ValueError in one line for an unknown key or a value that is not allowed.
    """
    stated = study.model_dump(exclude_none=True) if study else {}
    return _checked("cluster", _of_user() | stated | given)


def _of_user() -> dict:
    path = user_file()
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{path}: received {found!r}, allowed are lines such as `partition: gpu`")
    return _checked(str(path), found or {}).model_dump(exclude_none=True)


def _checked(where: str, values: dict) -> Cluster:
    try:
        return Cluster.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{where}: {parameters.one_line(error, {'': Cluster.model_fields})}") from None
