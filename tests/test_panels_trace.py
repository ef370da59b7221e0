"""The panel: its controls follow the step, its picture follows the controls."""

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
from chrome import GPU_HEADER, cpu_step, gpu_step, save

from lib import panels_trace


@pytest.fixture
def shown(monkeypatch):
    """The figures the panel draws."""
    figures, timeline = [], panels_trace.timeline

    def drawn(*arguments):
        figures.append(timeline(*arguments))
        return figures[-1]

    monkeypatch.setattr(panels_trace, "timeline", drawn)
    monkeypatch.setattr("lib.panels.display", lambda picture: None)
    return figures


@pytest.fixture
def built(tmp_path, shown):
    path = save(tmp_path / "t.json", gpu_step(), cpu_step(1500, 1), **GPU_HEADER)
    return panels_trace.trace(path, 0)


def controls(box):
    return {type(w).__name__ + w.description: w for w in box.children[0].children}


def test_it_has_step_zoom_and_kind(built, shown):
    found = controls(built)
    assert list(found) == ["Dropdownstep", "FloatRangeSliderzoom (ms)", "Dropdownkind"]
    assert found["Dropdownstep"].options == (("0: ProfilerStep#0", 0), ("1: ProfilerStep#1", 1))
    assert found["FloatRangeSliderzoom (ms)"].max == pytest.approx(1)
    assert found["Dropdownkind"].options[:2] == ("all kinds", "convolution")
    assert len(shown) == 1


def test_each_control_draws_again(built, shown):
    found = controls(built)
    for name, value in (("FloatRangeSliderzoom (ms)", (0.2, 0.4)), ("Dropdownkind", "convolution")):
        before = len(shown)
        found[name].value = value
        assert len(shown) == before + 1
    assert shown[-1].axes[0].get_xlim() == (0.2, 0.4)
    assert plt.get_fignums() == []


def test_another_step_brings_its_own_zoom_and_kinds(built, shown):
    found = controls(built)
    found["Dropdownkind"].value = "convolution"
    found["Dropdownstep"].value = 1
    assert "memset" not in found["Dropdownkind"].options
    low, high = found["FloatRangeSliderzoom (ms)"].value
    assert 0 <= low < 0.1 < 0.9 < high <= 1
    assert shown[-1].axes[-1].get_xlim() == (low, high)


def test_it_is_one_widget(built):
    assert isinstance(built, widgets.Widget)
