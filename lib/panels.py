"""The panel at the end of a notebook: controls, and a picture that follows them.

A panel draws from what is already loaded, so a picture takes a tenth of a second. It is for the screen; the
figure for the report stands beside it.
"""

import io
from collections.abc import Callable
from html import escape

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, display
from matplotlib.figure import Figure

from lib import catalog, frames, plots, runs, tables
from lib.study import state
from lib.study import status as statuses

SCREEN_DPI = 110


def panel(draw: Callable[..., Figure], **controls: widgets.Widget) -> widgets.Widget:
    """The controls in a row above the figure that `draw` returns for their values."""

    def show(**values):
        figure, picture = draw(**values), io.BytesIO()
        # the notebook's own display draws twice, to crop the margins
        with plt.rc_context({"savefig.bbox": None}):
            figure.savefig(picture, format="png", dpi=SCREEN_DPI)
        display(Image(picture.getvalue()))
        plt.close(figure)

    return widgets.VBox([widgets.HBox(list(controls.values())), widgets.interactive_output(show, controls)])


def choices(frame: pd.DataFrame, column: str) -> widgets.SelectMultiple:
    """A list of the values in a column, all chosen."""
    values = list(dict.fromkeys(frame[column]))
    rows = min(6, max(2, len(values)))
    return widgets.SelectMultiple(options=values, value=values, rows=rows, description=column)


def curves(study: str) -> widgets.Widget:
    """Learning curves of the finished accuracy runs of `study`, chosen by task, method and compression."""
    if runs.in_study():  # nobody moves a control there, and the curves of half a study mislead
        return widgets.HTML(f"Open the notebook in JupyterLab to choose among the curves of runs/{escape(study)}.")
    done = frames.load(study)
    done = done[done["notebook"] == "accuracy"] if not done.empty else done
    if done.empty:
        return widgets.HTML(f"No finished accuracy run in runs/{escape(study)} yet: run this notebook, or a study.")
    done = tables.described(done)
    histories = frames.table(study, done["run"], "history")

    def draw(task, method, compression) -> Figure:
        dense = done["pruner"] == "dense"
        chosen = done[
            (done["task"] == task) & done["method"].isin(method) & (done["compression"].isin(compression) | dense)
        ]
        return plots.curves(histories, chosen) if len(chosen) else _nothing()

    return panel(
        draw,
        task=widgets.Dropdown(options=tables.tasks(done), description="task"),
        method=choices(done, "method"),
        compression=choices(done, "compression"),
    )


def layers(view: Callable[[str, float], tuple[list, list]], names: list[str], density: float) -> widgets.Widget:
    """Density of every layer, and the histogram of one, for any pruner and density.

    `view(pruner, density)` returns layer rows and histogram rows, as that of `lib.explore.viewer` does.
    """
    if runs.in_study():  # a score of a large network takes seconds
        return widgets.HTML("Open the notebook in JupyterLab to prune by other methods and to other densities.")
    pruners = [name for name in catalog.PRUNERS if name not in ("dense", *catalog.TRAINED)]

    def draw(pruner, density, layer) -> Figure:
        rows, bars = (pd.DataFrame(part) for part in view(pruner, density))
        return plots.layer_view(rows, bars[bars["layer"] == layer], pruner)

    return panel(
        draw,
        pruner=widgets.Dropdown(options=[(catalog.label(p), p) for p in pruners], value="snip", description="pruner"),
        density=widgets.FloatLogSlider(density, min=-3, max=0, step=0.05, description="density", readout_format=".3g"),
        layer=widgets.Dropdown(options=names, description="layer"),
    )


def layer(layers: list[dict], histograms: list[dict], pruner: str) -> widgets.Widget:
    """Density of every layer of one pruned network, and the histogram of the layer that is chosen."""
    rows, bars = pd.DataFrame(layers), pd.DataFrame(histograms)

    def draw(layer) -> Figure:
        return plots.layer_view(rows, bars[bars["layer"] == layer], pruner)

    return panel(draw, layer=widgets.Dropdown(options=list(rows["layer"]), description="layer"))


def choose(frame: pd.DataFrame, column: str, draw: Callable[[pd.DataFrame], Figure]) -> widgets.Widget:
    """`draw` of the rows of `frame` whose `column` is chosen."""

    def drawn(**values) -> Figure:
        rows = frame[frame[column].isin(values[column])]
        return draw(rows) if len(rows) else _nothing()

    return panel(drawn, **{column: choices(frame, column)})


def status(study: str) -> widgets.Widget:
    """What each run of a study that was started is now, as `python -m lib.study status` shows it, and a button."""
    shown, again = widgets.HTML(), widgets.Button(description="look again")

    def look(_=None) -> None:
        rows = statuses.now(state.load_plan(study))
        table = pd.DataFrame(rows).to_html(index=False, escape=True, border=0, justify="left")
        shown.value = f"<p>{statuses.counts(rows)}</p>{table}"

    again.on_click(look)
    look()
    return widgets.VBox([again, shown])


def _nothing() -> Figure:
    figure, ax = plt.subplots(figsize=(plots.WIDTH, 1))
    ax.set_axis_off()
    ax.text(0.5, 0.5, "nothing is chosen", ha="center")
    return figure
