"""The trace analysis against hand-made traces whose answers are worked out here, and against a real one."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from chrome import GPU_HEADER, arrow, cpu_step, flat, gpu_step, kernel, launched, note, op, runtime, save, step
from hypothesis import given
from hypothesis import strategies as st

from lib.traces import (
    analyse,
    hardware,
    metrics,
    prepare,
    read,
    short_name,
    shown_kernels,
    shown_layers,
    shown_operators,
    shown_windows,
    store,
)
from lib.traces.bars import bars
from lib.traces.intervals import merge, union


def window(analysis, name):
    return analysis["windows"].set_index("window").loc[name]


@pytest.fixture
def gpu(tmp_path):
    return analyse(save(tmp_path / "t.json", gpu_step(), **GPU_HEADER))


@pytest.fixture
def cpu(tmp_path):
    return analyse(save(tmp_path / "t.json", cpu_step(), layers=["conv"]))


# intervals


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15))))
def test_union_counts_each_moment_once(pairs):
    starts, ends = [a for a, _ in pairs], [a + d for a, d in pairs]
    covered = {moment for a, b in zip(starts, ends, strict=True) for moment in range(a, b)}
    assert union(starts, ends) == len(covered)
    assert union(starts, ends, 10, 30) == len(covered & set(range(10, 30)))
    low, high = merge(starts, ends)
    assert (low[1:] > high[:-1]).all()


# reading


def test_gzip_and_plain_read_the_same(tmp_path):
    plain = save(tmp_path / "t.json", gpu_step())
    packed = tmp_path / "t.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(plain)["events"].equals(read(packed)["events"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"traceEvents": [', "is no JSON"),
        (b"\x1f\x8bnot gzip at all", "damaged gzip"),
        (gzip.compress(b'{"traceEvents": []}', mtime=0)[:-9], "damaged gzip"),
        (b'{"traceEvents": []}', "holds no events"),
        (b'{"other": 1}', "no list `traceEvents`"),
        (b'"text"', "its JSON is a str"),
    ],
    ids=["cut JSON", "no gzip", "cut gzip", "no events", "no list", "no object"],
)
def test_a_file_that_is_no_trace_gives_one_line(tmp_path, content, message):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        analyse(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.json"):
        analyse(tmp_path / "nothing.json")


def test_events_without_duration_are_said(tmp_path):
    broken = {key: value for key, value in op("aten::add", 5, 1).items() if key != "dur"}
    begin = {"ph": "B", "name": "x", "ts": 1, "pid": 1, "tid": 1}
    notes = analyse(save(tmp_path / "t.json", cpu_step(), broken, begin))["notes"]
    assert any("1 events lack a time or a duration" in text for text in notes)
    assert any("1 begin and end events" in text for text in notes)


def test_hardware_comes_from_the_file(tmp_path, cpu):
    found = hardware(read(save(tmp_path / "g.json", gpu_step(), **GPU_HEADER)))
    assert found["devices"] == [{"name": "Test GPU", "memory_gib": 8.0, "sms": 10, "compute_capability": "9.0"}]
    assert found["versions"] == {"CUDA runtime": "12.8", "CUDA driver": "13.1"}
    assert cpu["hardware"]["devices"] == []


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, at::native::"
         "binary_internal::MulFunctor<float> >, std::array<char*, 3ul> >(int)", "vectorized_elementwise_kernel (mul)"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float> >(int)",
         "vectorized_elementwise_kernel (add)"),
        ("void at::native::(anonymous namespace)::avg_pool2d_out_cuda_frame<float, float>(int)",
         "avg_pool2d_out_cuda_frame"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_s1688fprop>(x)", "cutlass_tensorop_s1688fprop"),
        ("ampere_sgemm_32x32_sliced1x4_tn", "ampere_sgemm_32x32_sliced1x4_tn"),
        ("Memcpy HtoD (Pinned -> Device)", "Memcpy HtoD"),
    ],
)  # fmt: skip
def test_short_kernel_names(full, short):
    assert short_name(full) == short


# attribution


def test_kernels_belong_to_the_innermost_operator_of_their_launch(gpu):
    kernels = gpu["work"]
    assert kernels.operator.tolist() == [
        "aten::mul", "aten::convolution", "aten::convolution", "aten::batch_norm", "aten::relu",
    ]  # fmt: skip
    assert kernels.kind.tolist() == [
        "mask multiply", "convolution", "convolution", "normalisation", "activation",
    ]  # fmt: skip
    assert gpu["attribution"]["by_correlation"] == 5
    assert gpu["attribution"]["unattributed"] == 0


def test_external_id_is_not_followed(tmp_path):
    """The external id of the kernel names the batch norm, its launch stands in the convolution."""
    events = [
        op("aten::conv2d", 0, 100, **{"External id": 1}),
        op("aten::batch_norm", 200, 100, **{"External id": 2}),
        launched("gemm", 50, 400, 30, 77, **{"External id": 2}),
    ]
    assert analyse(save(tmp_path / "t.json", events))["work"].operator.tolist() == ["aten::conv2d"]


def test_the_same_time_on_another_thread_is_no_containment(tmp_path):
    events = [op("aten::conv2d", 0, 100, tid=1), op("aten::relu", 0, 100, tid=2)]
    events += [runtime("cudaLaunchKernel", 50, 2, 5, tid=2), kernel("k", 120, 10, 5)]
    assert analyse(save(tmp_path / "t.json", events))["work"].operator.tolist() == ["aten::relu"]


def test_a_flow_arrow_links_where_the_correlation_does_not(tmp_path):
    events = [op("aten::conv2d", 0, 100), op("aten::relu", 100, 50), kernel("gemm", 200, 30), arrow(9, 50, 200)]
    found = analyse(save(tmp_path / "t.json", events))
    assert found["work"].operator.tolist() == ["aten::conv2d"]
    assert found["attribution"]["by_flow"] == 1
    assert found["convolution"]["sum_ms"] == pytest.approx(0.030)


def test_driver_launches_count_too(tmp_path):
    driver = runtime("cuLaunchKernel", 50, 2, 5) | {"cat": "cuda_driver"}
    events = [op("aten::conv2d", 0, 100), driver, kernel("gemm", 200, 30, 5)]
    assert analyse(save(tmp_path / "t.json", events))["attribution"]["by_correlation"] == 1


def test_unattributed_kernels_are_counted_aloud(tmp_path):
    events = [op("aten::relu", 0, 100), kernel("conv_looking_name", 200, 30, 5)]
    events += [runtime("cudaGraphLaunch", 150, 5, 6), kernel("graph_kernel", 240, 10, 6)]
    found = analyse(save(tmp_path / "t.json", events))
    assert found["attribution"]["unattributed"] == 2
    assert found["attribution"]["without_launch"] == 1
    assert set(found["work"].kind) == {"unattributed"}
    assert any("2 of 2 kernels (0.040 ms) could not be attributed" in text for text in found["notes"])


def test_copies_memsets_and_synchronisation_are_no_kernels(tmp_path):
    events = [
        *gpu_step(),
        op("aten::copy_", 110, 30),
        runtime("cudaMemcpyAsync", 112, 5, 50),
        kernel("Memcpy HtoD (Pinned -> Device)", 120, 40, 50, category="gpu_memcpy", bytes=1024),
        runtime("cudaMemsetAsync", 245, 1, 51),
        kernel("Memset (Device)", 700, 10, 51, category="gpu_memset"),
        kernel("Stream Wait Event", 645, 100, 52, category="cuda_sync"),
    ]
    found = analyse(save(tmp_path / "t.json", events))
    counts = found["attribution"]
    assert (counts["kernels"], counts["copies"], counts["memsets"]) == (5, 1, 1)
    assert window(found, "GPU busy").busy_ms == pytest.approx(0.410 + 0.040 + 0.010)  # the wait is no work
    assert window(found, "GPU span").start_ms == pytest.approx(0.250)  # first kernel, not the copy
    assert set(found["syncs"].name) == {"cudaDeviceSynchronize", "Stream Wait Event"}


def test_operators_nest_by_thread_with_self_time(tmp_path):
    events = [op("aten::conv2d", 0, 100), op("aten::convolution", 10, 60), op("aten::empty", 20, 5)]
    events += [op("aten::relu", 30, 200, tid=2)]
    ops = prepare(save(tmp_path / "t.json", events))["operators"].set_index("name")
    assert ops.depth.to_dict() == {"aten::conv2d": 0, "aten::convolution": 1, "aten::empty": 2, "aten::relu": 0}
    assert ops.self_us.to_dict() == {
        "aten::conv2d": 40, "aten::convolution": 55, "aten::empty": 5, "aten::relu": 200,
    }  # fmt: skip
    assert ops.kind["aten::empty"] == "convolution"


# convolutions


def test_overlap_on_two_streams_is_counted_once_in_the_union(tmp_path):
    events = [
        op("aten::conv2d", 0, 20),
        launched("a", 5, 100, 50, 1, stream=7),
        op("aten::conv2d", 30, 20),
        launched("b", 35, 120, 50, 2, stream=20),
    ]
    found = analyse(save(tmp_path / "t.json", events))
    assert found["convolution"]["union_ms"] == pytest.approx(0.070)
    assert found["convolution"]["sum_ms"] == pytest.approx(0.100)
    assert found["attribution"]["streams"] == 2
    assert window(found, "GPU span").idle_ms == pytest.approx(0)
    assert window(found, "GPU busy").convolution_pct == pytest.approx(100)


def test_layers_in_order_with_first_to_last_time_below_the_gap(tmp_path):
    path = save(tmp_path / "t.json", gpu_step(), layers=["stem"])
    layer = analyse(path)["layers"].iloc[0]
    assert (layer.layer, layer.kernels, layer.kernel_us, layer.first_to_last_us) == ("stem", 2, 300, 305)
    assert (layer.largest_gap_us, layer.main_kernel) == (5, "nchwToNhwcKernel")
    assert np.isnan(analyse(path, gap_us=4)["layers"].first_to_last_us.iloc[0])
    with pytest.raises(ValueError, match="gap_us is -1"):
        analyse(path, gap_us=-1)


def test_names_that_do_not_fit_are_not_used(tmp_path):
    found = analyse(save(tmp_path / "t.json", gpu_step()), layers=["a", "b"])
    assert found["layers"].layer.tolist() == ["convolution 1"]
    assert any("1 convolution calls and 2 layer names" in text for text in found["notes"])


def test_a_network_without_convolutions(tmp_path):
    found = analyse(save(tmp_path / "t.json", op("aten::linear", 0, 50), op("aten::relu", 60, 5)))
    assert found["layers"].empty
    assert found["convolution"]["layers"] == 0
    assert window(found, "CPU busy").convolution_pct == 0


# windows


def test_windows_of_a_gpu_step(gpu):
    table = gpu["windows"].set_index("window")
    assert table.duration_ms.round(6).to_dict() == {
        "host step": 1.0, "after data loading to last GPU activity": 0.665, "GPU span": 0.515, "GPU busy": 0.410,
    }  # fmt: skip
    assert table.convolution_ms.round(6).unique().tolist() == [0.3]
    assert table.convolution_pct.round(3).tolist() == [30.0, 45.113, 58.252, 73.171]
    assert table.idle_ms["GPU span"] == pytest.approx(0.105)
    assert np.isnan(table.idle_ms["GPU busy"])


def test_a_window_cuts_off_what_lies_outside(tmp_path):
    """The host does not wait: the step ends at 100 while its convolution runs from 80 to 180."""
    events = [step(0, 0, 100), op("aten::conv2d", 10, 20), launched("gemm", 15, 80, 100, 1)]
    found = analyse(save(tmp_path / "t.json", events))
    assert window(found, "host step").convolution_ms == pytest.approx(0.020)
    assert window(found, "GPU span").convolution_ms == pytest.approx(0.100)


def test_without_data_loading_its_window_is_left_out(tmp_path):
    events = [step(0, 0, 100), op("aten::conv2d", 10, 20), launched("gemm", 15, 40, 10, 1)]
    found = analyse(save(tmp_path / "t.json", events))
    assert "host step" in set(found["windows"].window)
    assert not found["windows"].window.str.startswith("after").any()
    assert any("no data-loading scope" in text for text in found["notes"])


def test_loading_after_the_work_is_the_next_steps(tmp_path):
    events = [*gpu_step(), note("data loading", 900, 50)]
    found = analyse(save(tmp_path / "t.json", events))
    assert window(found, "after data loading to last GPU activity").start_ms == pytest.approx(0.100)


def test_work_of_data_loading_is_left_out(tmp_path):
    events = [*gpu_step(), op("aten::index", 20, 30), launched("gather", 25, 60, 30, 60)]
    found = analyse(save(tmp_path / "t.json", events))
    assert window(found, "GPU busy").busy_ms == pytest.approx(0.410)
    assert any("1 pieces of GPU work launched by data loading" in text for text in found["notes"])


# steps


def test_no_step_means_the_whole_trace(tmp_path):
    events = [e for e in flat(gpu_step()) if not e["name"].startswith("ProfilerStep")]
    found = analyse(save(tmp_path / "t.json", events))
    assert any("no ProfilerStep" in text for text in found["notes"])
    assert found["attribution"]["kernels"] == 5
    assert found["step"]["host_ms"] == pytest.approx(0.770)  # from loading at 10 to the end of the synchronisation


def test_several_steps_are_told_apart(tmp_path):
    slow = gpu_step(2000, 2, 30)
    slow[-1] = runtime("cudaDeviceSynchronize", 2380, 600, 35)
    path = save(tmp_path / "t.json", gpu_step(0, 0, 10), gpu_step(1000, 1, 20), slow)
    last = analyse(path)
    assert last["step"]["name"] == "ProfilerStep#2"
    assert any("3 steps; this is step 2, the last complete one" in text for text in last["notes"])
    assert [analyse(path, index)["attribution"]["kernels"] for index in range(3)] == [5, 5, 5]
    assert analyse(path, -3)["step"]["name"] == "ProfilerStep#0"
    with pytest.raises(ValueError, match="no step 3: the trace has steps 0 to 2"):
        analyse(path, 3)


def test_a_step_cut_off_at_the_end_is_not_taken(tmp_path):
    cut = gpu_step(1000, 1, 20)
    cut[cut.index(op("aten::relu", 1340, 30)) + 1] = [runtime("cudaLaunchKernel", 1350, 2, 24)]
    found = analyse(save(tmp_path / "t.json", gpu_step(0, 0, 10), cut))
    assert found["steps"].complete.tolist() == [True, False]
    assert found["step"]["step"] == 0


def test_a_kernel_that_runs_after_its_step_belongs_to_it(tmp_path):
    events = [step(0, 0, 100), op("aten::relu", 10, 20), launched("late", 15, 140, 10, 1)]
    events += [step(1, 100, 100), op("aten::relu", 110, 20), launched("next", 115, 160, 10, 2)]
    path = save(tmp_path / "t.json", events)
    assert analyse(path, 0)["work"].name.tolist() == ["late"]
    assert analyse(path, 1)["work"].name.tolist() == ["next"]


# no GPU


def test_without_kernels_operators_are_used_and_said(cpu):
    assert not cpu["gpu"]
    assert cpu["clock"] == "CPU operators"
    assert any("No GPU kernels in the trace: it names no GPU" in text for text in cpu["notes"])
    assert cpu["convolution"] == {"layers": 1, "events": 1, "union_ms": 0.5, "sum_ms": 0.5}
    table = cpu["windows"].set_index("window")
    assert table.duration_ms.round(6).to_dict() == {
        "host step": 1.0, "after data loading to last operator": 0.8, "operator span": 0.7, "CPU busy": 0.67,
    }  # fmt: skip
    assert table.convolution_pct.min() > 0
    self_times = cpu["by_operator"].set_index("operator").self_us
    assert self_times["aten::conv2d"] == 50
    assert self_times["aten::mkldnn_convolution"] == 450
    assert "aten::index" not in self_times  # data loading's own


def test_the_cause_of_missing_kernels_is_read_from_the_trace(tmp_path):
    launch = runtime("cudaLaunchKernel", 235, 2, 9)
    said = analyse(save(tmp_path / "t.json", cpu_step(), launch, **GPU_HEADER))["notes"]
    assert any("1 kernel launches were recorded without their kernels" in text for text in said)
    said = analyse(save(tmp_path / "t.json", cpu_step(), **GPU_HEADER))["notes"]
    assert any("nothing was launched on it" in text for text in said)
    one_without = analyse(save(tmp_path / "t.json", gpu_step(), cpu_step(2000, 1)), 1)
    assert any("though the trace has 5" in text for text in one_without["notes"])


def test_neither_kernels_nor_operators(tmp_path):
    with pytest.raises(ValueError, match="neither GPU kernels nor operators"):
        analyse(save(tmp_path / "t.json", note("forward", 0, 10)))


# mask multiplies


def roles(path):
    return analyse(path)["multiplies"].role.tolist()


def shapes(*dims):
    return {"Input Dims": [list(d) for d in dims]}


def test_masks_by_recorded_shape_even_far_before_their_layer(tmp_path):
    conv, fc, image = (8, 3, 3, 3), (10, 8), (4, 3, 8, 8)
    events = [
        op("aten::mul", 0, 5, **shapes(conv, conv)),
        op("aten::mul", 10, 5, **shapes(fc, fc)),
        op("aten::mul", 20, 5, **shapes(image, image)),  # an activation
        op("aten::mul", 30, 5, **shapes(conv, ())),  # a weight times a number
        op("aten::mul", 40, 5, **shapes(conv, conv)),  # no second layer takes this shape
        op("aten::conv2d", 50, 50, **shapes(image, conv, (8,))),
        op("aten::linear", 110, 50, **shapes((4, 8), fc, (10,))),
    ]
    assert roles(save(tmp_path / "t.json", events)) == ["mask", "mask", "other", "other", "other"]


def test_masks_by_position_without_shapes(tmp_path):
    events = [
        op("aten::mul", 0, 5),
        op("aten::view", 6, 1),
        op("aten::conv2d", 10, 50),
        op("aten::mul", 70, 5),
        op("aten::mul", 80, 5),
        op("aten::batch_norm", 90, 20),
        op("aten::mul", 120, 5),  # before no layer
        op("aten::relu", 130, 5),
    ]
    assert roles(save(tmp_path / "t.json", events)) == ["mask", "mask", "mask", "other"]


def test_a_broadcasting_kernel_is_no_mask_but_its_partner_is(tmp_path):
    broadcasting = "void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl<MulFunctor>>()"
    events = [
        op("aten::mul", 0, 10),
        launched("void at::native::vectorized_elementwise_kernel<4, MulFunctor>()", 5, 100, 2, 1),
        op("aten::mul", 20, 10),
        launched(broadcasting, 25, 110, 50, 2),
        op("aten::add_", 40, 10),
        launched("add", 45, 170, 50, 3),
        op("aten::mul", 60, 10),  # squeeze and excitation: an activation scaled right before a layer
        launched(broadcasting, 65, 230, 50, 4),
        op("aten::conv2d", 80, 10),
        launched("gemm", 85, 300, 50, 5),
    ]
    found = analyse(save(tmp_path / "t.json", events))
    assert found["multiplies"].role.tolist() == ["mask", "other", "other"]
    assert found["masks"]["evidence"] == {"pair": 1}
    assert found["masks"]["gpu_sum_ms"] == pytest.approx(0.002)


# what could be saved


def test_savings_are_bounds_in_order(gpu, cpu):
    bound = gpu["savings"].set_index("change").saves_ms
    assert bound["idle GPU"] == pytest.approx(0.105)
    assert bound["data loading"] == pytest.approx(0.090)
    assert bound["mask multiplies"] == pytest.approx(0.010 + 0.020)  # on the GPU, and launched by the host
    assert bound["layout"] == pytest.approx(0.200)
    assert bound["fusion"] == pytest.approx(0.100 + 0.060)
    assert bound.is_monotonic_decreasing
    bound = cpu["savings"].set_index("change").saves_ms
    assert bound.round(6).to_dict() == {
        "batch norm": 0.1, "data loading": 0.09, "fusion": 0.05, "overhead": 0.03, "mask multiplies": 0.02,
    }  # fmt: skip


# the picture's table


def test_bars_have_a_row_a_depth_and_a_row_a_stream(tmp_path):
    events = [*gpu_step(), op("aten::relu", 400, 20), launched("side", 405, 500, 30, 40, stream=20)]
    table = bars(analyse(save(tmp_path / "t.json", events)))
    assert table[table.side == "GPU"].row.unique().tolist() == ["stream 7", "stream 20"]
    assert table[table.label == "conv2d"].lane.tolist() == [1]
    assert table[table.label == "convolution"].lane.tolist() == [2]
    assert table.start_ms.min() == 0


# what is stored and shown


def test_a_stored_copy_reads_the_same(tmp_path):
    path = save(tmp_path / "t.json", gpu_step(), **GPU_HEADER)
    copy = store(path, tmp_path / "deep" / "trace.json.gz")
    assert read(copy)["events"].equals(read(path)["events"])
    assert read(copy)["header"] == read(path)["header"]
    with pytest.raises(FileNotFoundError, match="none.json"):
        store(tmp_path / "none.json", copy)


def test_metrics_are_one_flat_row(gpu, cpu):
    row = metrics(gpu)
    assert (row["kernels"], row["convolutions"], row["mask_multiplies"]) == (5, 1, 1)
    assert row["busy_ms"] == pytest.approx(0.410)
    assert row["trace_device"] == "Test GPU"
    assert metrics(cpu)["kernels"] is None
    assert set(row) == set(metrics(cpu))
    assert not any(isinstance(value, list | dict) for value in row.values())


def test_shown_tables_fit_a_page(gpu, cpu):
    assert shown_layers(gpu).first_to_last_us.tolist() == [305]
    assert shown_layers(cpu).columns.tolist() == ["layer", "weight_shape", "operator_us"]
    assert len(shown_windows(gpu)) == 4
    few = shown_operators(gpu, rows=2)
    assert few.operator.tolist() == ["aten::conv2d", "aten::batch_norm", "2 others"]
    assert few.sum_us.sum() == gpu["by_operator"].sum_us.sum()
    assert "name" not in shown_kernels(gpu)


# a real trace


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("WORKBENCH_DATA")
    found = sorted(Path(folder, "traces").glob("resnet20-snip-*.json")) if folder else []
    if not found:
        pytest.skip("WORKBENCH_DATA is not set or holds no traces/: the real trace is not there to compare with")
    return found[0], analyse(found[0])


def test_real_trace_against_a_separate_count(real):
    """The same quantities by brute force over the raw events: every operator tried for every launch."""
    path, found = real
    raw = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("ph") == "X"]
    ops = [e for e in raw if e["cat"] == "cpu_op"]
    launch = {e["args"]["correlation"]: e for e in raw if e["cat"] == "cuda_runtime"}
    kernels = [e for e in raw if e["cat"] == "kernel"]

    def around(k):
        at = launch[k["args"]["correlation"]]
        return [o["name"] for o in ops if o["tid"] == at["tid"] and o["ts"] <= at["ts"] < o["ts"] + o["dur"]]

    conv = [k for k in kernels if "aten::conv2d" in around(k)]
    assert found["attribution"]["kernels"] == len(kernels) == 185
    assert found["convolution"]["events"] == len(conv) == 55
    assert found["convolution"]["layers"] == sum(o["name"] == "aten::conv2d" for o in ops) == 21
    assert found["convolution"]["sum_ms"] == pytest.approx(sum(k["dur"] for k in conv) / 1e3)
    grid = np.zeros(8_000_000, bool)  # one cell a nanosecond, from the first kernel on
    first = min(k["ts"] for k in kernels)
    for k in conv:
        grid[round((k["ts"] - first) * 1e3) : round((k["ts"] + k["dur"] - first) * 1e3)] = True
    assert found["convolution"]["union_ms"] == pytest.approx(grid.sum() / 1e6, abs=1e-4)
    muls = [k for k in kernels if around(k)[-1] == "aten::mul"]
    assert found["masks"]["multiplies"] == len(muls) == 79
    small = [k for k in muls if k["args"]["grid"][0] <= 36]  # 36 blocks cover the largest weight
    assert found["masks"]["masks"] == len(small) == 72  # 22 weights, 43 scales and biases, 7 weighted shortcuts
    assert found["masks"]["gpu_sum_ms"] == pytest.approx(sum(k["dur"] for k in small) / 1e3)


def test_real_trace_windows_by_hand(real):
    found = real[1]
    table = found["windows"].set_index("window")
    assert table.duration_ms["host step"] == pytest.approx(59.371683)
    assert table.duration_ms["GPU span"] == pytest.approx(7.672, abs=1e-3)
    assert table.duration_ms["GPU busy"] == pytest.approx(4.382, abs=1e-3)
    assert table.duration_ms["after data loading to last GPU activity"] == pytest.approx(7.975, abs=1e-3)
    assert found["hardware"]["devices"][0]["name"] == "NVIDIA RTX A5000"
    assert found["attribution"]["unattributed"] == 0
    assert found["notes"] == []
    assert found["layers"].kernels.sum() == 55
    assert found["layers"].largest_gap_us.max() < 10
