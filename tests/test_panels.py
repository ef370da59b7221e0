"""Panels: another choice gives another picture, and nothing chosen gives none by error."""

import matplotlib

matplotlib.use("agg")
import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from frames import bars, layers, run

from lib import files, panels, paths, plots, runs
from lib.study import state


@pytest.fixture(autouse=True)
def pictures(monkeypatch) -> list:
    """Every picture that a panel shows, as bytes, in order."""
    found = []
    monkeypatch.setattr(panels, "display", lambda image: found.append(image.data))
    yield found
    plt.close("all")


def control(panel: widgets.Widget, name: str) -> widgets.Widget:
    (found,) = (w for w in panel.children[0].children if w.description == name)
    return found


def test_a_control_changes_the_picture_and_no_figure_stays(pictures):
    def draw(height):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, height], [0, height])
        return figure

    panel = panels.panel(draw, height=widgets.IntSlider(1, 1, 9, description="height"))
    assert len(pictures) == 1
    control(panel, "height").value = 7
    assert len(pictures) == 2
    assert pictures[0] != pictures[1]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert plt.get_fignums() == []


def test_choices_are_all_chosen_in_order():
    made = panels.choices(pd.DataFrame({"a": ["y", "x", "y"]}), "a")
    assert made.options == made.value == ("y", "x")


def test_choose_draws_the_chosen_rows(pictures):
    frame = pd.DataFrame({"network": ["a", "a"], "form": ["permanent", "masked forward"], "median_s": [1.0, 2.0], "spread_s": [0.1, 0.1]})  # fmt: skip  # noqa: E501
    panel = panels.choose(frame, "form", plots.timing_bars)
    for chosen in (("permanent",), ("masked forward",), ()):
        control(panel, "form").value = chosen
    assert len(pictures) == 4
    assert len(set(pictures)) == 4


def test_layers_follow_every_control(pictures):
    asked = []

    def view(pruner, density):
        asked.append((pruner, density))
        kept = round(100 * density) + (5 if pruner == "snip" else 0)
        rows = layers("x", {"a": kept, "b": 50}).to_dict("records")
        return rows, pd.concat([bars("a", [kept, 1], [1, 1]), bars("b", [9, 9], [0, 2])]).to_dict("records")

    panel = panels.layers(view, ["a", "b"], 0.1)
    assert asked == [("snip", 0.1)]
    control(panel, "pruner").value = "rand"
    control(panel, "density").value = 0.5
    control(panel, "layer").value = "b"
    assert [pruner for pruner, _ in asked] == ["snip", "rand", "rand", "rand"]
    assert asked[2][1] == pytest.approx(0.5)
    assert len(set(pictures)) == 4


def test_one_layer_of_a_pruned_network(pictures):
    rows = layers("x", {"a": 10, "b": 50}).to_dict("records")
    counted = pd.concat([bars("a", [1, 1], [1, 1]), bars("b", [9, 9], [0, 2])]).to_dict("records")
    panel = panels.layer(rows, counted, "snip")
    assert control(panel, "layer").options == ("a", "b")
    control(panel, "layer").value = "b"
    assert len(set(pictures)) == 2


def test_curves_of_the_finished_runs(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    assert isinstance(panels.curves("s"), widgets.HTML)
    facts = {
        "notebook": "accuracy", "threads": 1, "neighbours": 0, "load_at_start": {"cpu_busy_pct": 1.0},
        "hardware": {"cpu": "x", "cores": 1, "memory_gib": 1.0, "os": "y", "gpus": []},
    }  # fmt: skip
    for made in (run("dense", compression=0), run("snip"), run("snip", compression=2), run("rand", compression=2)):
        values = {k: made[k] for k in ("data", "model", "pruner", "density", "rounds", "seed", "epochs", "source")}
        files.write_json(tmp_path / "s" / made["run"] / runs.RUN, facts | {"parameters": values})
        files.write_json(tmp_path / "s" / made["run"] / runs.METRICS, {"top1_pct": made["top1_pct"]})
        history = "epoch,train_loss,test_loss,train_top1_pct,test_top1_pct\n1,1,1,1,1\n2,0.5,0.6,{0},{0}\n"
        (tmp_path / "s" / made["run"] / "history.csv").write_text(history.format(len(made["run"])))
    panel = panels.curves("s")
    assert control(panel, "task").options == ("MNIST / FC",)
    assert set(control(panel, "method").options) == {"Dense", "SNIP", "Rand"}
    control(panel, "method").value = ("Rand",)
    control(panel, "compression").value = (1.0,)
    assert len(pictures) == 3
    assert len(set(pictures)) == 3


def test_status_of_a_study_is_text_and_follows(here):
    here.write("s", {"notebook": "stub", "grid": {"name": ["a", "b"]}})
    planned = state.plan("s")
    state.save(planned)
    panel = panels.status("s")
    button, shown = panel.children
    assert "2 waiting" in shown.value
    files.write_json(here.runs / "s" / planned["runs"][0]["id"] / runs.ERROR, {"error": "<script>no</script>"})
    button.click()
    assert "1 failed, 1 waiting" in shown.value
    assert "&lt;script&gt;" in shown.value
    assert "<script>" not in shown.value
