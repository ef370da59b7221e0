"""What to ask a cluster for: from the command line, else the study file, else a file of the user's own."""

import os
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PositiveInt, ValidationError

from lib import parameters

MINUTES = 60  # of one start of a task where nothing is said; a training that needs more is requeued and goes on
TIME = re.compile(r"(?:(?P<days>\d+)-(?=\d))?(?P<clock>\d+(?::\d{1,2}){0,2})")


def _line(text: str) -> str:
    if not text.strip() or any(ord(character) < 32 for character in text):
        raise ValueError(f"received {text!r}, allowed is one line of text")
    return text


def _word(text: str) -> str:
    if len(_line(text).split()) != 1:
        raise ValueError(f"received {text!r}, allowed is text without spaces")
    return text


def _time(text: str) -> str:
    if minutes(text) < 1:
        raise ValueError(f"received {text!r}, allowed is a time from 00:01:00 on")
    return text


def _listed(value):
    return [value] if isinstance(value, str) else value


Word = Annotated[str, AfterValidator(_word)] | None
# YAML reads 1:30:00 as a number, to the base of 60
Time = Annotated[str, AfterValidator(_time), BeforeValidator(lambda value: _text(value))]


def _text(value):
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value < 600 else value


class Cluster(BaseModel, extra="forbid"):
    """Options of `sbatch` under its own names, `setup` (shell lines before a task) and `group` (runs in one task).

    `array_limit` is how many tasks of an array run at once. `time` is that of sbatch: minutes, minutes:seconds,
    hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds.
    """

    partition: Word = None
    gres: Word = None
    time: Time | None = None
    mem: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = None
    cpus: PositiveInt | None = None
    account: Word = None
    qos: Word = None
    constraint: Word = None
    array_limit: PositiveInt | None = None
    setup: Annotated[list[Annotated[str, AfterValidator(_line)]], BeforeValidator(_listed)] | None = None
    group: PositiveInt | None = None


def minutes(text: str) -> int:
    """Whole minutes, rounded up, of a time as sbatch takes it; ValueError for anything else."""
    match = TIME.fullmatch(text)
    if not match:
        raise ValueError(f"received {text!r}, allowed is a time such as 90, 01:30:00 or 2-12:00:00")
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
        raise ValueError(f"{where}: {parameters.one_line(error)}") from None
