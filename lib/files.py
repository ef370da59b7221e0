"""Files appear whole or not at all."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOKS = 5  # at a folder in which other hosts remove things
# Beside the states of a run's trainings: its time of change is when somebody last asked for the state now.
SAVE_NOW = "save-now"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on an error it is removed.

    No two writers have one, on whichever hosts they are. The suffix stays the last part of the name, because writers
    choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def listed(folder: Path, pattern: str) -> list[Path]:
    """What lies in `folder` and fits `pattern`, sorted; nothing where there is no folder, or where it goes meanwhile.

    Names with a dot in front, such as those of `replacing`, are hidden unless the pattern has one, as in a shell.
    Before Python 3.13, `Path.glob` raises where another process removes the folder between two looks of it.
    """
    for look in range(LOOKS):
        try:
            found = sorted(folder.glob(pattern))
            break
        except FileNotFoundError:
            return []
        except OSError as error:  # by ESTALE, NFS tells that another host has removed something meanwhile
            if error.errno != errno.ESTALE or look == LOOKS - 1:
                raise
    return [path for path in found if pattern.startswith(".") or not path.name.startswith(".")]


def changed_ns(path: Path) -> int:
    """When the file was last changed, by the clock of its own folder; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Strict JSON: a NaN or an infinity is refused (ValueError), other languages could not read it."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_known(path: str | Path, **kinds) -> dict | None:
    """The object in `path` if it has each of these keys, with a value of that kind; else None.

    For records that others write: the file may have gone between two looks, or be cut by a full disk, or not be ours.
    """
    try:
        found = read_json(path)
    except (ValueError, OSError):
        return None
    return found if all(name in found and _is(found[name], kind) for name, kind in kinds.items()) else None


def _is(value, kind) -> bool:
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def read_json(path: str | Path) -> dict:
    """The object in `path`; a damaged file is a ValueError that names it."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not an object")
        return value
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: delete its folder and run the study again") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete its folder and run the study again") from None
