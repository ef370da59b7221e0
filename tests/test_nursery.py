import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_core.utils import ensure_event_loop
from stub_study import PATIENCE_S, gone, until

from lib import paths
from lib.files import read_json
from lib.study import nursery_main
from lib.study.attempt import execute_notebook
from lib.study.nursery import Nursery

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")

SMALL = ("ipykernel.kernelapp", "ipykernel.ipkernel", "numpy")  # half a second of imports
RESULTS = ("weights.safetensors", "masks.safetensors", "layers.csv", "histograms.csv")


@pytest.fixture(scope="module")
def nursery():
    with closing(Nursery()) as opened:
        yield opened


@pytest.fixture(scope="module")
def small():
    with closing(Nursery(SMALL)) as opened:
        yield opened


def execute(folder: Path, code: str, nursery: Nursery | None, threads: int | None = 1, **env: str) -> str:
    """The text that a notebook of one cell prints."""
    folder.mkdir(exist_ok=True)
    source = folder / "source.ipynb"
    cell = nbformat.v4.new_code_cell(code)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), source)
    with closing(ensure_event_loop()):  # that of this thread, which nbclient leaves open
        execute_notebook(source, folder / "target.ipynb", {}, threads, nursery, **env)
    outputs = nbformat.read(folder / "target.ipynb", as_version=4).cells[-1].outputs
    return "".join(output.get("text", "") for output in outputs)


def log(folder: Path) -> str:
    return (folder / "kernel.log").read_text()


def accuracy(folder: Path, nursery: Nursery | None) -> dict:
    folder.mkdir()
    settings = {"data": "digits", "model": "fc", "pruner": "snip", "epochs": 1, "train_images": 200}
    parameters = {**settings, "run_dir": str(folder)}
    with closing(ensure_event_loop()):
        execute_notebook(paths.notebook("accuracy"), folder / "notebook.ipynb", parameters, 1, nursery)
    metrics = read_json(folder / "metrics.json")
    return {name: value for name, value in metrics.items() if not name.endswith("_s")}


def pictures(folder: Path) -> list[str]:
    cells = nbformat.read(folder / "notebook.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_a_forked_kernel_gives_the_results_of_an_ordinary_one_bit_for_bit(tmp_path, nursery):
    ordinary, forked = tmp_path / "ordinary", tmp_path / "forked"
    assert accuracy(ordinary, None) == accuracy(forked, nursery)  # in this order: the nursery imports meanwhile
    for name in RESULTS:
        assert (forked / name).read_bytes() == (ordinary / name).read_bytes(), name
    assert read_json(forked / "run.json")["threads"] == 1
    assert pictures(forked) == pictures(ordinary) != []
    assert log(forked) == log(ordinary) == ""


def test_the_number_of_threads_is_honoured(tmp_path, nursery):
    code = "import torch; x = torch.rand(400, 400) @ torch.rand(400, 400); print(torch.get_num_threads())"
    assert execute(tmp_path, code, nursery, threads=2) == "2\n"
    assert log(tmp_path) == ""


def test_a_kernel_for_all_cores_is_started_and_not_forked(tmp_path, small, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert execute(tmp_path, "print('here')", small, threads=None) == "here\n"
    assert "OMP_NUM_THREADS" in log(tmp_path)


def test_environment_folder_and_process_are_those_of_an_ordinary_kernel(tmp_path, small):
    code = """
import json, os, signal, sys
seen = {"cwd": os.getcwd(), "path": sys.path,
    "leader": os.getsid(0) == os.getpgid(0) == os.getpid(), "interrupt": str(signal.getsignal(signal.SIGINT)),
    "terminate": str(signal.getsignal(signal.SIGTERM)), "argv": sys.argv[1], "main": __name__,
    "variables": {k: v for k, v in os.environ.items() if k not in ("JPY_PARENT_PID", "FORKED")}}
print(json.dumps(seen))"""
    forked = json.loads(execute(tmp_path / "forked", code, small, EXTRA="extra"))
    assert forked == json.loads(execute(tmp_path / "ordinary", code, None, EXTRA="extra"))
    assert (forked["cwd"], forked["variables"]["EXTRA"]) == (str(paths.ROOT), "extra")
    assert log(tmp_path / "forked") == ""


def test_two_at_once_share_neither_random_numbers_nor_sockets(tmp_path, nursery):
    code = """
import json, os, random, time, uuid, numpy, torch
from IPython import get_ipython
time.sleep(1)
print(json.dumps([os.getpid(), random.random(), numpy.random.rand(), torch.rand(1).item(), str(uuid.uuid4()),
    get_ipython().kernel.session.session, __import__("ipykernel").get_connection_file()]))"""
    printed = {}

    def one(name: str) -> None:
        printed[name] = json.loads(execute(tmp_path / name, code, nursery))

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a != b for a, b in zip(printed["a"], printed["b"], strict=True))
    assert log(tmp_path / "a") == log(tmp_path / "b") == ""


def test_a_killed_kernel_ends_its_run_and_no_other(tmp_path, small):
    with pytest.raises(Exception, match="died"):
        execute(tmp_path, "import os; os.kill(os.getpid(), 9)", small)
    assert execute(tmp_path, "print('next')", small) == "next\n"
    assert log(tmp_path) == ""
    assert psutil.Process(small.process.pid).children() == [], "no kernel and no zombie stays"


def test_exit_codes_are_known(small):
    command = [sys.executable, "-m", "ipykernel_launcher", "--version"]
    process = small.fork(command, dict(os.environ, OMP_NUM_THREADS="1"), os.getcwd(), os.devnull)
    assert (process.wait(), process.poll()) == (0, 0)
    process = small.fork(command[:-1], dict(os.environ, OMP_NUM_THREADS="1"), os.getcwd(), os.devnull)
    assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("import threading, time; threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()", "2 threads"),
        ("raise ImportError('it is broken')", "ImportError: it is broken"),
        ("import os; os._exit(3)", "the process has ended"),
    ],
)
def test_without_a_fork_the_run_is_done_by_an_ordinary_kernel_and_its_log_says_why(tmp_path, monkeypatch, module, why):
    (tmp_path / "troublesome.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(Nursery(("troublesome",))) as nursery:
        assert execute(tmp_path, "print('done')", nursery) == "done\n"
        assert why in log(tmp_path)


def test_nothing_is_forked_once_cuda_has_started(monkeypatch):
    monkeypatch.setattr(nursery_main, "_open_files", lambda: ["/dev/null", "/dev/nvidiactl"])
    monkeypatch.setattr(os, "listdir", lambda folder: ["1"])
    assert "CUDA" in nursery_main.refusal({"OMP_NUM_THREADS": "1"})


def test_another_kernel_than_ipykernel_is_not_replaced(tmp_path, small):
    with pytest.raises(Exception, match="is started by R --slave"):
        small.fork(["R", "--slave", "-e"], {}, ".", os.devnull)


def test_close_ends_kernels_and_whoever_waits(tmp_path):
    failed = []

    def run() -> None:
        try:
            execute(tmp_path, f"open({str(tmp_path / 'started')!r}, 'w'); import time; time.sleep(60)", nursery)
        except Exception as error:
            failed.append(error)

    nursery = Nursery(SMALL)
    thread = threading.Thread(target=run)
    thread.start()
    until((tmp_path / "started").exists)
    family = psutil.Process(nursery.process.pid).children()
    nursery.close()
    thread.join(PATIENCE_S)
    assert failed
    assert len(family) == 1
    until(lambda: gone(family))
    with pytest.raises(RuntimeError, match="stopped"):
        nursery.fork([sys.executable, "-m", "ipykernel_launcher"], {}, ".", os.devnull)


def test_when_the_driver_is_killed_nothing_stays(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_nursery import SMALL, Nursery, execute
code = "open({str(tmp_path / "started")!r}, 'w'); import time; time.sleep(60)"
execute(Path({str(tmp_path)!r}), code, Nursery(SMALL))
"""
    driver = subprocess.Popen([sys.executable, "-c", script])
    try:
        until((tmp_path / "started").exists)
        family = psutil.Process(driver.pid).children(recursive=True)
    finally:
        driver.kill()
        driver.wait()
    assert len(family) == 2, "the nursery and its kernel"
    until(lambda: gone(family))
