"""Where everything lies: one module of absolute paths, so that no notebook does path arithmetic."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = Path(os.environ.get("WORKBENCH_NOTEBOOKS") or ROOT / "notebooks").absolute()
STUDIES = Path(os.environ.get("WORKBENCH_STUDIES") or ROOT / "studies").absolute()
RUNS = Path(os.environ.get("WORKBENCH_RUNS") or ROOT / "runs").absolute()
FIGURES = Path(os.environ.get("WORKBENCH_FIGURES") or ROOT / "figures").absolute()

# The study name of runs that a person starts from JupyterLab; no study file may take it.
SCRATCH = "scratch"

# Results that come with the workbench, below RUNS and FIGURES; no study takes them for its own.
REFERENCE = "reference"


def notebook(name: str) -> Path:
    """The stored notebook `name`; ValueError lists the notebooks that exist."""
    # looked up, not joined: a name with a separator would lead out of the folder
    if name not in (known := _stems(NOTEBOOKS, "*.ipynb")):
        raise ValueError(f"unknown notebook {name!r}: one of {', '.join(known)}")
    return NOTEBOOKS / f"{name}.ipynb"


def study(name: str) -> Path:
    """The file of study `name`; ValueError lists the studies that exist."""
    if name not in (known := _stems(STUDIES, "*.yaml")):
        raise ValueError(f"unknown study {name!r}: one of {', '.join(known)}")
    return STUDIES / f"{name}.yaml"


def inside(kind: str, name: object) -> str:
    """`name` of a study or run where it is that of one folder, which cannot lead out of RUNS; else ValueError.

    Plans and records come with other people's results: letters, digits and `. _ + -` are allowed, first none of these.
    """
    if not is_name(name):
        raise ValueError(f"{kind}: received {name!r}, allowed are letters, digits and . _ + - with none of these first")
    return name


def is_name(name: object) -> bool:
    """Whether `inside` lets `name` pass."""
    return isinstance(name, str) and re.fullmatch(r"[^\W_][\w.+-]*", name) is not None


def _stems(folder: Path, pattern: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(pattern))
