"""The report of a study: its summary notebook, executed and typeset."""

from pathlib import Path

from filelock import FileLock

from lib import machine, paths, summary
from lib.files import read_json, write_json
from lib.report import parts
from lib.report.typeset import export
from lib.study import reference, state
from lib.study.attempt import execute_notebook
from lib.study.execute import stoppable
from lib.study.healing import explain
from lib.study.nursery import Nursery


def make_report(planned: dict, nursery: Nursery | None = None) -> Path:
    """Execute the plan's summary notebook over the finished runs and typeset it; return the PDF's path.

    A `nursery` forks the summary's kernel, which then need not import.

    Missing runs are gaps in the report, not errors. ValueError when not one run is finished, RuntimeError
    when the summary itself fails.
    """
    if not any(state.of(planned, run) == "done" for run in planned["runs"]):
        raise ValueError(f"study {planned['study']} has no finished run in {paths.RUNS}: run it first")
    state.check(planned)
    state.save(planned)
    values = {"study": planned["study"], "results": "own"}
    return _typeset(planned, values, paths.FIGURES / planned["study"], nursery)


def make_reference_report(study: str) -> Path:
    """The same of the reference runs of `study`, in figures/reference/<study>; nothing in runs/ is written.

    ValueError when there are none.
    """
    planned = reference.plan(study)
    return _typeset(planned, {"study": study, "results": "reference"}, paths.FIGURES / reference.place(study))


def _typeset(planned: dict, parameters: dict, figures: Path, nursery: Nursery | None = None) -> Path:
    # a plan that was kept before studies named their summary has no such key
    notebook = paths.notebook(planned.get("summary", "summary"))
    figures.mkdir(parents=True, exist_ok=True)
    fitted, executed, pdf = figures / ".summary.ipynb", figures / "summary.ipynb", figures / "report.pdf"
    # two drivers may end their studies at the same moment
    with FileLock(figures / ".lock"):
        try:
            write_json(fitted, parts.fitting(read_json(notebook), summary.parts(planned)))
            stoppable(lambda _: execute_notebook(fitted, executed, parameters, machine.cores(), nursery))
        except Exception as error:
            raise RuntimeError(f"the summary failed, see {executed}: {explain(error)}") from error
        finally:
            fitted.unlink(missing_ok=True)
        export(executed, pdf)
    return pdf
