"""Sentences on a trace: each holds its number, and opposite data give the opposite sentence."""

import re

import pytest
from chrome import GPU_HEADER, cpu_step, flat, gpu_step, launched, op, save, step

from lib.findings import trace as findings
from lib.traces import analyse


@pytest.fixture
def gpu(tmp_path):
    return analyse(save(tmp_path / "g.json", gpu_step(), **GPU_HEADER))


@pytest.fixture
def cpu(tmp_path):
    return analyse(save(tmp_path / "c.json", cpu_step(), processor="Test CPU"))


def every(analysis):
    layers = findings.layers(analysis)
    return [
        findings.hardware(analysis), *findings.where_time_goes(analysis), *([layers] if layers else []),
        findings.masks(analysis), *findings.proposals(analysis),
    ]  # fmt: skip


def test_no_sentence_without_a_number(gpu, cpu):
    for sentence in every(gpu) + every(cpu):
        assert re.search(r"\d", sentence), sentence
        assert "nan" not in sentence
        assert "\n" not in sentence


def test_the_gpu_paragraph_has_the_numbers_of_the_tables(gpu):
    text = " ".join(findings.where_time_goes(gpu))
    assert "takes 1 ms on the host, 0.09 ms of it (9.0%) for loading data" in text
    assert "last GPU activity it takes 0.665 ms" in text
    assert "1 convolution takes 0.3 ms (union of 2 kernels; equal to a plain sum of 0.3 ms)" in text
    for share in ("30.0% of the host step", "45.1% of", "58.3% of the GPU span", "73.2% of the time the GPU works"):
        assert share in text
    assert "idles 0.105 ms (20.4%), less long than it convolves (0.3 ms)" in text


def test_convolution_large_and_small(gpu, tmp_path):
    assert "is the largest part of the work, 73.2%" in " ".join(findings.where_time_goes(gpu))
    events = flat(gpu_step())
    next(e for e in events if e["name"] == "clamp")["dur"] = 900
    small = " ".join(findings.where_time_goes(analyse(save(tmp_path / "s.json", events))))
    assert "is not the largest part of the work, 23.3%; more goes to activation with 0.9 ms (69.8%)" in small


def test_busy_and_idle_gpu(tmp_path):
    def trace(gap):
        events = [step(0, 0, 5000), op("aten::conv2d", 0, 50), launched("a", 10, 100, 100, 1)]
        return [*events, op("aten::relu", 60, 50), launched("b", 70, 200 + gap, 100, 2)]

    idle = findings.where_time_goes(analyse(save(tmp_path / "i.json", trace(500))))[-1]
    busy = findings.where_time_goes(analyse(save(tmp_path / "b.json", trace(1))))[-1]
    assert "idles 0.5 ms (71.4%), longer than it convolves (0.1 ms): the host launches the kernels too late" in idle
    assert "idles 0.001 ms (0.5%), less long than it convolves (0.1 ms): the kernels are launched in time" in busy


def test_streams_that_overlap_show_in_the_sums(tmp_path):
    events = [op("aten::conv2d", 0, 9), launched("a", 5, 100, 50, 1)]
    events += [op("aten::conv2d", 30, 20), launched("b", 35, 120, 50, 2, stream=20)]
    text = " ".join(findings.where_time_goes(analyse(save(tmp_path / "t.json", events))))
    assert "take 0.07 ms (union of 2 kernels; against a plain sum of 0.1 ms)" in text


def test_a_cpu_trace_is_labelled_and_never_zero(cpu):
    assert "0 GPUs: it was recorded on Test CPU" in findings.hardware(cpu)
    assert any("No GPU kernels in the trace" in note for note in findings.notes(cpu))
    text = " ".join(findings.where_time_goes(cpu))
    assert "1 operator call on the CPU" in text
    assert "kernel" not in text
    assert " 0.0%" not in text


def test_hardware_is_the_files(gpu):
    text = findings.hardware(gpu)
    assert "Test GPU, 8.0 GiB, 10 SMs, compute capability 9.0 (CUDA runtime 12.8, CUDA driver 13.1)" in text


def test_masks_and_no_masks(gpu, tmp_path):
    text = findings.masks(gpu)
    assert "1 of the step's 1 multiplications apply a mask (1 by standing right before a layer)" in text
    assert "0.01 ms on the GPU (2.4% of the time it works) and 0.02 ms of the host's time" in text
    bare = [e for e in flat(cpu_step()) if e["name"] != "aten::mul"]
    assert findings.masks(analyse(save(tmp_path / "b.json", bare))) == (
        "None of the step's 0 multiplications applies a mask."
    )


def test_proposals_are_two_ranked_bounds(gpu, cpu, tmp_path):
    first, second = findings.proposals(gpu)
    assert first.startswith("First, keep activations and weights in channels-last order")
    assert "at most 0.2 ms of the step's 1 ms (20.0%" in first
    assert second.startswith("Second, fold batch norm into the convolutions and fuse")
    first, second = findings.proposals(cpu)
    assert first.startswith("First, fold batch norm into the convolutions: this saves at most 0.1 ms")
    assert second.startswith("Second, load data ahead")
    slow = flat(cpu_step())
    next(e for e in slow if e["name"] == "aten::mul")["dur"] = 25
    next(e for e in slow if e["name"] == "data loading")["dur"] = 180
    assert findings.proposals(analyse(save(tmp_path / "s.json", slow)))[0].startswith("First, load data ahead")


def test_what_nothing_bounds_is_not_proposed(tmp_path):
    said = findings.proposals(analyse(save(tmp_path / "t.json", op("aten::conv2d", 0, 50), op("aten::relu", 50, 10))))
    assert len(said) == 2
    assert said[1] == "The trace bounds no further change: it shows 1 that would save anything."
    assert findings.proposals(analyse(save(tmp_path / "t.json", op("aten::conv2d", 0, 50)))) == []


def test_layers_name_the_longest(tmp_path):
    events = [op("aten::conv2d", 0, 300), op("aten::conv2d", 400, 100), op("aten::conv2d", 600, 100)]
    text = findings.layers(analyse(save(tmp_path / "t.json", events), layers=["a", "b", "c"]))
    assert text == "The longest convolution is a with 0.3 ms, 60.0% of all 3; 1 of them take half of the time."
    assert findings.layers(analyse(save(tmp_path / "t.json", events[:1]))) is None
    both = analyse(save(tmp_path / "g.json", gpu_step(), op("aten::conv2d", 372, 6), launched("b", 374, 770, 10, 50)))
    assert findings.layers(both).endswith("where the GPU pauses for 10 µs at most within a layer: 2 of them.")


def test_a_small_share_is_never_zero():
    assert findings.pct(0.0001) == "less than 0.1%"
    assert findings.pct(0.5) == "50.0%"
    assert findings.ms(0.0241) == "0.0241 ms"
    assert findings.ms(1234.5) == "1,234 ms"
