"""What a notebook calls to show a figure or a table that the report numbers, captions and can refer to.

Caption and label travel in the metadata of the output (`{"report": {"label": ..., "caption": ...}}`), which JupyterLab
ignores; the caption its reader sees is a second output, marked `skip` for the report.
"""

import base64
import io
from pathlib import Path

from IPython.display import Markdown, display
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.text import Text

from lib import markup
from lib.files import replacing
from lib.report import css, fonts, frames
from lib.report.markdown import LABEL

TEXT_WIDTH = 16.2 / 2.54  # inches between the margins of the PDF's page: draw at this width, it is not rescaled
SCREEN_DPI, PAGE_DPI = 144, 220
PADDING = 0.02  # inches around a figure
# With these, `set_layout_engine(None)` means no engine: each, also one that does nothing, has `savefig` draw twice.
NO_ENGINE = {"figure.autolayout": False, "figure.constrained_layout.use": False}


def setup():
    """Set the fonts and the theme of the report's figures: seaborn's, by the styles that matplotlib carries of it."""
    for path in fonts.folder().glob("*.ttf"):
        font_manager.fontManager.addfont(path)
    face = fonts.SANS
    plt.style.use(["seaborn-v0_8-ticks", "seaborn-v0_8-paper", "seaborn-v0_8-colorblind"])  # importing it takes 2 s
    plt.rcParams.update({
        "font.family": face, "font.size": 8.5, "axes.titlesize": 9, "axes.labelsize": 8.5,
        "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.title_fontsize": 8,
        "mathtext.fontset": "custom", "mathtext.rm": face, "mathtext.it": f"{face}:italic",
        "mathtext.bf": f"{face}:bold", "mathtext.cal": f"{face}:italic",  # or a cursive face is looked for
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.titlelocation": "left",
        "axes.grid": True, "grid.color": "#e4e7ec", "grid.linewidth": 0.6, "axes.axisbelow": True,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.2, "lines.markersize": 4,
        "figure.figsize": (TEXT_WIDTH, 0.42 * TEXT_WIDTH),
        "savefig.bbox": "tight", "savefig.pad_inches": PADDING,
        "svg.hashsalt": "report",  # the same figure gives the same bytes
    })  # fmt: skip


def figure(fig, label, caption, folder=None, vector=True):
    """Show matplotlib figure `fig` with a caption, and close it.

    label: "fig-..."; Markdown text refers to it as [Figure 1](#fig-...), and the report sets the right number.
    caption: Markdown, maths in dollars allowed. folder: also write <label>.pdf and <label>.png there. vector: lines
    stay lines in the report; False for pictures of many thousand points (a bitmap of 220 dots an inch). ValueError:
    label or caption unfit. A label used twice stops the export, not this call: a cell may run again.
    """
    caption = _check(label, caption, "fig-")
    with plt.rc_context(NO_ENGINE):
        box = _lay_out(fig)
        screen = _drawn(fig, box, "png", dpi=SCREEN_DPI if vector else PAGE_DPI)
        data = {"image/png": base64.b64encode(screen).decode(), "text/plain": caption}
        if vector:
            data["image/svg+xml"] = _drawn(fig, box, "svg", metadata={"Date": None}).decode()
        if folder is not None:
            _write(folder, f"{label}.pdf", _drawn(fig, box, "pdf", metadata={"CreationDate": None}))
            _write(folder, f"{label}.png", _drawn(fig, box, "png", dpi=PAGE_DPI))
    plt.close(fig)
    shown = {"image/png": {"width": _width_on_screen(screen, SCREEN_DPI if vector else PAGE_DPI)}}
    display(data, raw=True, metadata={**shown, "report": {"label": label, "caption": caption}})
    _caption_for_the_lab(caption)


def table(frame_or_styler, label, caption, folder=None):
    """Show a DataFrame or a pandas Styler with a caption.

    label: "tbl-...". A DataFrame is formatted by `frames.style`; a Styler is shown as its author made it (colours and
    bold cells survive). folder: also write the data, unformatted, as <label>.csv there. ValueError: label or caption
    unfit.
    """
    caption = _check(label, caption, "tbl-")
    styler = frame_or_styler if hasattr(frame_or_styler, "to_html") and hasattr(frame_or_styler, "data") else None
    styler = frames.style(frame_or_styler) if styler is None else styler
    if folder is not None:
        frame = styler.data
        text = frame.to_csv(index=not frames.plain(frame.index), lineterminator="\n")
        _write(folder, f"{label}.csv", text.encode())
    _caption_for_the_lab(caption)
    data = {"text/html": css.inline(styler.to_html()), "text/plain": caption}
    display(data, raw=True, metadata={"report": {"label": label, "caption": caption}})


def style(frame):
    """A Styler of `frame` in the report's number formats, to be coloured further: `show.style(frame).map(...)`."""
    return frames.style(frame)


def say(sentences):
    """Show Markdown: a text, or sentences that become one paragraph. Empty ones and None are left out.

    HTML in it is shown as text: sentences hold names and words of files that others may have written.
    """
    parts = [sentences] if isinstance(sentences, str) else list(sentences or ())
    text = " ".join(part.strip() for part in parts if part and part.strip())
    if text:
        display(Markdown(markup.without_html(text)))


def _check(label, caption, prefix):
    """The caption as it is shown: one paragraph, its HTML as text."""
    if not (isinstance(label, str) and label.startswith(prefix) and LABEL.fullmatch(label)):
        raise ValueError(f"label {label!r}: it must be {prefix} and then letters, digits, - or _")
    if not (isinstance(caption, str) and caption.strip()):
        raise ValueError(f"caption {caption!r} of {label}: it must be a sentence")
    return markup.without_html(" ".join(caption.split()))


def _lay_out(fig):
    """Find positions and margins (inches) once for all files of a figure: each would take half of its time for it."""
    try:
        fig.draw_without_rendering()
    except ValueError:  # a `$` that begins no maths, in a label that may be somebody's file's
        for text in fig.findobj(Text):
            if "$" in text.get_text() and not text.get_text().startswith(r"$\mathdefault{"):  # of a logarithmic scale
                text.set_parse_math(False)
        fig.draw_without_rendering()
    fig.set_layout_engine(None)
    return fig.get_tightbbox().padded(PADDING)


def _drawn(fig, box, kind, **options):
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, bbox_inches=box, **options)
    return buffer.getvalue()


def _width_on_screen(png, dpi):
    """Width of PNG bytes in CSS pixels (96 an inch), read from its header."""
    return round(int.from_bytes(png[16:20], "big") * 96 / dpi)


def _caption_for_the_lab(caption):
    display(Markdown(f"*{caption}*"), metadata={"report": {"skip": True}})


def _write(folder, name, data):
    with replacing(Path(folder) / name) as temporary:
        temporary.write_bytes(data)
