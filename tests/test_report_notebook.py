import matplotlib

matplotlib.use("Agg")

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lib.report import notebook as show


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed: a list of (data, metadata)."""
    seen = []

    def display(data, raw=False, metadata=None):
        seen.append((data if raw else {"text/markdown": data.data}, metadata or {}))

    monkeypatch.setattr(show, "display", display)
    return seen


@pytest.fixture(autouse=True)
def theme():
    with plt.rc_context():
        show.setup()
        yield


def drawn():
    fig, ax = plt.subplots(figsize=(show.TEXT_WIDTH, 1.5))
    ax.plot([1, 2], label="$10^{-1}$")
    ax.legend()
    return fig


def test_a_figure_is_shown_once_with_its_caption_and_written_in_two_forms(displayed, tmp_path):
    fig = drawn()
    show.figure(fig, "fig-a", "What it shows.", folder=tmp_path / "new")
    (data, metadata), (caption, skipped) = displayed
    assert {"image/svg+xml", "image/png"} <= set(data)
    assert metadata["report"] == {"label": "fig-a", "caption": "What it shows."}
    assert caption == {"text/markdown": "*What it shows.*"}
    assert skipped["report"] == {"skip": True}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["fig-a.pdf", "fig-a.png"]
    assert not plt.fignum_exists(fig.number)


def test_the_same_figure_gives_the_same_bytes(displayed, tmp_path):
    for name in ("one", "two"):
        show.figure(drawn(), "fig-a", "Caption.", folder=tmp_path / name)
    assert displayed[0] == displayed[2]
    assert (tmp_path / "one" / "fig-a.pdf").read_bytes() == (tmp_path / "two" / "fig-a.pdf").read_bytes()


def test_a_bitmap_has_no_vector_form(displayed):
    show.figure(drawn(), "fig-a", "Caption.", vector=False)
    assert "image/svg+xml" not in displayed[0][0]


def test_a_label_that_is_no_maths_is_text_and_a_scale_stays_maths(displayed):
    fig, ax = plt.subplots()
    ax.plot([1, 10], label=r"$\q{$")
    ax.set_yscale("log")
    (said,) = ax.legend().get_texts()
    show.figure(fig, "fig-a", "Caption.")
    assert "image/png" in displayed[0][0]
    assert not said.get_parse_math()
    ticks = [tick for tick in ax.get_yticklabels() if tick.get_text()]
    assert ticks
    assert all(tick.get_parse_math() for tick in ticks)


def test_a_table_is_written_as_its_unformatted_data(displayed, tmp_path):
    frame = pd.DataFrame({"top1_pct": [91.23456]}, index=pd.Index(["SNIP"], name="pruner"))
    show.table(show.style(frame).map(lambda _: "font-weight: bold"), "tbl-a", "Caption.", folder=tmp_path)
    show.table(pd.DataFrame({"x": [0.5]}), "tbl-b", "Caption.", folder=tmp_path)
    assert (tmp_path / "tbl-a.csv").read_text() == "pruner,top1_pct\nSNIP,91.23456\n"
    assert (tmp_path / "tbl-b.csv").read_text() == "x\n0.5\n"
    html = displayed[1][0]["text/html"]
    assert "<style" not in html
    assert 'style="font-weight: bold"' in html
    assert "91.23<" in html


def test_sentences_become_one_paragraph_and_nothing_stays_nothing(displayed):
    show.say(["One.", None, "", "Two."])
    show.say([])
    show.say(None)
    show.say("Three.\n\nFour.")
    assert [data["text/markdown"] for data, _ in displayed] == ["One. Two.", "Three.\n\nFour."]


@pytest.mark.parametrize(
    ("label", "caption"), [("tbl-a", "C."), ("fig", "C."), ("fig-a b", "C."), ("fig-a", " "), ("fig-a", None)]
)
def test_labels_and_captions_are_checked_before_anything_is_drawn(displayed, label, caption):
    with pytest.raises(ValueError, match=r"^(label|caption) "):
        show.figure(None, label, caption)
    assert displayed == []


def test_notebooks_do_not_pay_for_nbconvert_and_the_report_never_imports_torch():
    code = "import sys; import lib.report.notebook; assert 'nbconvert' not in sys.modules; " + (
        "import lib.report.exporter; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("layout", [None, "constrained", "tight", "none"])
@pytest.mark.parametrize("usual", ["figure.autolayout", "figure.constrained_layout.use", "svg.hashsalt"])
def test_every_file_of_a_figure_has_its_layout_and_is_drawn_once(displayed, tmp_path, monkeypatch, layout, usual):
    """Whatever engine the figure has, and the settings of whoever opens the notebook."""
    with plt.rc_context({} if usual == "svg.hashsalt" else {usual: True}):
        fig, ax = plt.subplots(layout=layout)
        fig.colorbar(ax.imshow([[1, 2], [3, 4]]), ax=ax)
        draws, places, draw = [], [], fig.draw
        monkeypatch.setattr(fig, "draw", lambda renderer: (draws.append(1), draw(renderer)))
        real = show._drawn

        def drawn_to(*given, **options):
            made = real(*given, **options)
            places.append([tuple(one.get_position().bounds) for one in fig.axes])
            return made

        monkeypatch.setattr(show, "_drawn", drawn_to)
        before = dict(plt.rcParams)
        show.figure(fig, "fig-a", "Caption.", folder=tmp_path)
        assert dict(plt.rcParams) == before
    np.testing.assert_allclose(places, [places[0]] * 4, atol=1e-6)
    assert len(draws) == 1 + len(places), "once for the layout, and once for each file"
