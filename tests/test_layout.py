"""What holds for the whole repository: who may import whom, how notebooks look, what no file may say."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from lib import catalog, parameters, paths

ROOT = paths.ROOT
NEUTRAL = {"catalog", "files", "rates", "rounds", "widths"}
RECORD = {
    "command", "findings", "frames", "light", "machine", "markup", "networks", "panels", "panels_trace", "parameters",
    "paths", "plots", "plots_collapse", "plots_conservation", "plots_levels", "plots_pipeline",
    "plots_quantisation", "plots_repeated", "plots_runtimes", "plots_sensitivity", "plots_structures", "plots_trace",
    "progress", "report", "runs", "shares", "study", "summary", "tables", "traces",
}  # fmt: skip
COMPUTE = {
    "ablations", "checkpoint", "compact", "compiling", "conservation", "data", "device", "explore", "feasible",
    "flops", "formats", "formats_int8", "granularity", "hooks", "inference", "layer_tables", "masks", "memory",
    "models", "multishot", "noise", "optimizers", "parametrised", "pipeline", "precision", "pruners", "quantise",
    "quantised_pruning", "quantised_runtime", "ranking", "reference_checkpoint", "repeated", "runtimes",
    "semi_structured", "sensitivity", "small_maps", "sparsity", "storage", "structured", "timing", "tracing", "train",
}  # fmt: skip
BOTH = {"bench", "stages"}  # like a notebook, they call one half and write with the other
HEAVY = {"torch", "torchvision"}
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
TRACKED = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True).stdout.split("\n")[:-1]


def part(path: Path) -> str:
    """The part of lib that a file belongs to: a module, or the package it lies in."""
    first = path.relative_to(ROOT / "lib").parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Everything a file imports, anywhere in it: `torch`, and parts of lib as `lib.runs`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            within = ".".join(path.relative_to(ROOT).parts[: -node.level]) + "." if node.level else ""
            found |= {f"{within}{node.module or ''}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[: 2 if name.startswith("lib.") else 1]) for name in found}


MODULES = sorted(path for path in (ROOT / "lib").rglob("*.py") if path != ROOT / "lib" / "__init__.py")


def test_every_module_is_on_one_side():
    assert {part(path) for path in MODULES} == NEUTRAL | RECORD | COMPUTE | BOTH
    assert len(NEUTRAL | RECORD | COMPUTE | BOTH) == sum(map(len, (NEUTRAL, RECORD, COMPUTE, BOTH)))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_halves_do_not_import_each_other(path):
    side = part(path)
    ours = {name.removeprefix("lib.") for name in imported(path) if name.startswith("lib.")}
    if side in COMPUTE:
        assert ours <= COMPUTE | NEUTRAL
    elif side in BOTH:
        assert ours <= COMPUTE | RECORD | NEUTRAL | BOTH
    elif side in RECORD:
        assert ours <= RECORD | NEUTRAL
        assert not imported(path) & HEAVY
    else:
        assert ours <= NEUTRAL
        assert not imported(path) & HEAVY


def test_record_half_leaves_torch_out():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if part(path) in RECORD | NEUTRAL
    ]
    check = (
        f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\nprint({HEAVY} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in catalog.TABLES.items() for name in table])
def test_every_name_of_the_catalogue_is_there(kind, name):
    assert callable(catalog.load(kind, name))
    assert catalog.check(kind, name) == name
    assert re.fullmatch(r"[A-Za-z0-9-]+", catalog.label(name))


@pytest.mark.parametrize("kind", catalog.TABLES)
def test_unknown_names_list_the_known(kind):
    with pytest.raises(ValueError, match=f"unknown {kind} 'nothing': one of ") as caught:
        catalog.load(kind, "nothing")
    assert all(name in str(caught.value) for name in catalog.TABLES[kind])


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def book(request) -> dict:
    return json.loads(request.param.read_text(encoding="utf-8")) | {"name": request.param.stem}


def code(book: dict) -> list[str]:
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def test_notebook_is_stored_clean(book):
    for cell in book["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert cell["id"]
        assert set(cell["metadata"]) <= {"tags"}
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])


def test_notebook_is_thin(book):
    own = code(book)[1:]
    # a parameter is a line of the interface, not of the code
    lines = [line for cell in own for line in cell.splitlines() if line.strip()]
    lines = lines[sum("parameters" in c["metadata"].get("tags", []) and len(c["source"]) for c in book["cells"]) :]
    tree = ast.parse("\n".join(own))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.Try)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, kinds)]
    if not book["name"].startswith("summary"):
        assert len(own) <= 11
        assert len(lines) <= 48
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.For)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"os", "Path", "open"}


def test_notebook_has_its_frame(book):
    cells = book["cells"]
    first = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))["cells"][0]
    assert cells[0]["source"] == first["source"]
    assert cells[0]["metadata"] == first["metadata"]
    assert first["metadata"]["tags"][0].startswith("remove-")
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert cells[1]["cell_type"] == "markdown"
    assert "".join(cells[1]["source"]).startswith("# ")
    assert "panels" in "".join(cells[-1]["source"])
    if not book["name"].startswith("summary"):
        assert f'runs.begin("{book["name"]}", globals())' in "\n".join(code(book))
        assert sum("runs.finish(run" in cell for cell in code(book)) == 1
        assert [c["cell_type"] for a, c in pairwise(cells) if a is cells[-2]] == ["code"]


def test_parameters_are_commented_and_read_by_papermill(book):
    declared = parameters.declared(book["name"])
    source = next(
        "".join(c["source"]) for c in book["cells"] if "parameters" in c["metadata"].get("tags", [])
    )  # fmt: skip
    # papermill's own expression for `name: type = value  # comment`
    pattern = re.compile(r"^(?P<target>\w[\w_]*)\s*(:\s*[\"']?\w[\w_\[\],\s]*[\"']?\s*)?=\s*(?P<value>.*?)(\s*#\s*(type:\s*[^\s]*\s*)?(?P<help>.*))?$")  # fmt: skip  # noqa: E501
    lines = [line for line in source.splitlines() if line.strip()]
    assert [pattern.match(line)["target"] for line in lines] == list(declared)
    assert [pattern.match(line)["help"] for line in lines] == [entry["help"] for entry in declared.values()]


def test_all_studies_use_known_names():
    assert {path.stem for path in paths.STUDIES.glob("*.yaml")} >= {"quick", "cos568", "cos568-small"}


FORBIDDEN = {
    "absolute path of a machine": re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|srv)/[A-Za-z]"),
    "package index": re.compile(r"(?:index-url|extra-index|find-links|://[^\s\"']*/simple(?:/|\b)|trusted-host)"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_names_a(what):
    found = []
    for name in TRACKED:
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{n}" for n, line in enumerate(text.splitlines(), 1) if FORBIDDEN[what].search(line)]
    assert found == []


def test_lock_pins_everything_and_names_no_address():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        assert "://" not in line
        match = re.match(r"^([A-Za-z0-9._-]+)==([^\s;]+)(\s*;.*)?$", line)
        assert match, line
        pinned[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name = re.match(r"[A-Za-z0-9._-]+", wanted)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned


def test_git_hides_no_source():
    sources = [str(path.relative_to(ROOT)) for folder in ("lib", "tests") for path in (ROOT / folder).rglob("*.py")]
    sources += ["lib/report/main.typ", "lib/report/report.lua", "lib/data.py", "lib/runs.py", "studies/mine.yaml"]
    hidden = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", "--no-index", *sources], capture_output=True, text=True
    )
    assert (hidden.returncode, hidden.stdout) == (1, "")
    for output in ("runs/quick/x/metrics.json", "figures/quick/report.pdf", "data/mnist/x", ".venv/x"):
        assert subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", "--no-index", output]).returncode == 0
