"""Where everything lies: one module of absolute paths, so that no notebook does path arithmetic."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "studies"
RUNS = Path(os.environ.get("WORKBENCH_RUNS") or ROOT / "runs").absolute()
FIGURES = Path(os.environ.get("WORKBENCH_FIGURES") or ROOT / "figures").absolute()

# The study name of runs that a person starts from JupyterLab; no study file may take it.
SCRATCH = "scratch"


def notebook(name: str) -> Path:
    """The stored notebook `name`; ValueError lists the notebooks that exist."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        raise ValueError(f"unknown notebook {name!r}: one of {', '.join(_stems(NOTEBOOKS, '*.ipynb'))}")
    return path


def study(name: str) -> Path:
    """The file of study `name`; ValueError lists the studies that exist."""
    path = STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"unknown study {name!r}: one of {', '.join(_stems(STUDIES, '*.yaml'))}")
    return path


def _stems(folder: Path, pattern: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(pattern))
