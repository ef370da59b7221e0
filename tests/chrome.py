"""Hand-made Chrome traces for the tests: small functions that return one event each, in microseconds."""

import json

HOST, MAIN, GPU = 100, 100, 0


def op(name, start, dur, tid=MAIN, **args):
    return {"ph": "X", "cat": "cpu_op", "name": name, "pid": HOST, "tid": tid, "ts": start, "dur": dur, "args": args}


def note(name, start, dur, tid=MAIN):
    return op(name, start, dur, tid) | {"cat": "user_annotation"}


def step(number, start, dur):
    return note(f"ProfilerStep#{number}", start, dur)


def runtime(name, start, dur, correlation, tid=MAIN, **args):
    return op(name, start, dur, tid, correlation=correlation, **args) | {"cat": "cuda_runtime"}


def kernel(name, start, dur, correlation=None, stream=7, category="kernel", **args):
    args |= {"device": 0, "stream": stream} | ({} if correlation is None else {"correlation": correlation})
    return {
        "ph": "X", "cat": category, "name": name, "pid": GPU, "tid": stream, "ts": start, "dur": dur, "args": args,
    }  # fmt: skip


def launched(name, launch, start, dur, correlation, stream=7, **args):
    """A launch on the host and the kernel it starts."""
    return [
        runtime("cudaLaunchKernel", launch, 2, correlation, **args),
        kernel(name, start, dur, correlation, stream, **args),
    ]


def arrow(identity, host_time, gpu_time, stream=7, tid=MAIN):
    tail = {"ph": "s", "id": identity, "pid": HOST, "tid": tid, "ts": host_time, "cat": "ac2g", "name": "ac2g"}
    head = {"ph": "f", "id": identity, "pid": GPU, "tid": stream, "ts": gpu_time, "cat": "ac2g", "name": "ac2g"}
    return [tail, head | {"bp": "e"}]


def save(path, *events, **header):
    """Write a trace of events and (nested) lists of events; returns the path."""
    path.write_text(json.dumps({"schemaVersion": 1, **header, "traceEvents": flat(events)}))
    return path


def flat(events):
    return [e for item in events for e in ([item] if isinstance(item, dict) else flat(item))]


GPU_HEADER = {
    "deviceProperties": [
        {"id": 0, "name": "Test GPU", "totalGlobalMem": 8 * 2**30, "numSms": 10, "computeMajor": 9, "computeMinor": 0}
    ],
    "cuda_runtime_version": 12080,
    "cuda_driver_version": 13010,
}


def gpu_step(start=0.0, number=0, correlation=1):
    """A step of 1000 us: loading (100), a mask, a convolution of two kernels, batch norm, relu; the GPU idles 100.

    Kernel times: mask 10, convolution 200 + 100 with a gap of 5, batch norm 80, relu 20; the GPU runs from 250 to 765.
    """
    s, c = start, correlation
    return [
        step(number, s, 1000),
        note("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", s + 10, 90),
        op("aten::mul", s + 200, 20),
        launched("void at::native::vectorized_elementwise_kernel<4, MulFunctor>", s + 205, s + 250, 10, c),
        op("aten::conv2d", s + 230, 60),
        op("aten::convolution", s + 235, 50),
        launched("nchwToNhwcKernel", s + 240, s + 260, 200, c + 1),
        launched("implicit_gemm", s + 260, s + 465, 100, c + 2),
        op("aten::batch_norm", s + 300, 30),
        launched("bn_fw_inf", s + 310, s + 565, 80, c + 3),
        op("aten::relu", s + 340, 30),
        launched("clamp", s + 350, s + 745, 20, c + 4),
        runtime("cudaDeviceSynchronize", s + 380, 400, c + 5),
    ]


def cpu_step(start=0.0, number=0):
    """A step of 1000 us on a CPU: loading 100, mask 20, convolution 500, batch norm 100, relu 50, gaps 30."""
    s = start
    shape = [[4, 3, 8, 8], [8, 3, 3, 3], [8]]
    return [
        step(number, s, 1000),
        note("data loading", s + 10, 90),
        op("aten::index", s + 20, 50),
        note("forward", s + 150, 800),
        op("aten::mul", s + 200, 20, **{"Input Dims": [[8, 3, 3, 3], [8, 3, 3, 3]]}),
        op("aten::conv2d", s + 230, 500, **{"Input Dims": shape}),
        op("aten::mkldnn_convolution", s + 250, 450, **{"Input Dims": shape}),
        op("aten::batch_norm", s + 740, 100, **{"Input Dims": [[4, 8, 8, 8], [8], [8], [8], [8]]}),
        op("aten::relu", s + 850, 50, **{"Input Dims": [[4, 8, 8, 8]]}),
    ]
