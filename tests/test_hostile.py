"""Run directories from others are data: what their files say comes out as text, and leads nowhere."""

import ast
import json
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import nbformat.v4 as nb
import pandas as pd
import pytest
from nbconvert import HTMLExporter
from notebook_cells import execute
from report_notebooks import notebook, shown, text
from stub_study import ROOT, Bench

from lib import markup, panels, paths, progress, runs, summary
from lib.bench import scale
from lib.files import read_json, write_json
from lib.findings import conclusions, settings
from lib.report import notebook as show
from lib.report import typeset
from lib.study import attempts, jobs, one, slurm, spec, state, status
from lib.study.__main__ import main
from lib.study.cluster import Cluster
from lib.study.execute import run_study

# each does something where it is taken for markup, and Typst stops where it is taken for code
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '#import "report.typ": hair',
    '#panic("run")',
    '`#panic("run")`{=typst}',
    '`` ` `#panic("run")`{=typst}',
    '```{=typst} #panic("run") ```',
    '[words]{typst:text:fill="panic()"}',
    "$\\frac{1}{2}$ and $x$",
    "\\(x\\) \\[y\\] \\begin{align} z",
    "@ref and <label> and *bold* _and_ ~~gone~~",
    "[link](javascript:alert(1)) ![picture](https://example.org/x.png)",
    "a | b & c; &lt;b&gt; ^1^ ~2~ ![] \\",
)
RUN = "stub-namea-seed1"


class Page(HTMLParser):
    """The elements and the text of a page, but for what nbconvert puts around outputs."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def displayed(monkeypatch):
    """What the report's functions display, as outputs of a cell."""
    seen = []

    def display(data, raw=False, metadata=None):
        node = shown(data if raw else {"text/markdown": data.data, "text/plain": ""})
        node.metadata = metadata or {}
        seen.append(node)

    monkeypatch.setattr(show, "display", display)
    return seen


def printed(outputs: list, tmp_path) -> tuple[str, Page]:
    """Typst's source of a notebook with these outputs, which Typst has set, and its page in HTML."""
    book = notebook(nb.new_code_cell("", execution_count=1, outputs=outputs))
    assert typeset.pdf(book).startswith(b"%PDF")
    exporter = HTMLExporter(template_name="basic")
    return typeset.typst_source(book, tmp_path), Page(exporter.from_notebook_node(book)[0])


def said(source: str) -> str:
    """Typst's source without its escapes and line ends, and with the straight quotes of the text."""
    return " ".join(re.sub(r"\\(.)", r"\1", source).split()).replace("”", '"').replace("“", '"')


@pytest.mark.parametrize("hostile", HOSTILE)
def test_plain_text_and_code_are_shown_as_they_are_written(displayed, tmp_path, hostile):
    show.say([f"**Before** {markup.plain(hostile)} after", f"and {markup.code(hostile)}."])
    source, page = printed(displayed, tmp_path)
    for element in ("script", "img", "a", "del", "sup", "sub"):
        assert element not in page.elements
    assert page.elements.count("strong") == 1
    assert f"Before {hostile} after" in " ".join(page.text.split())
    # Typst's own code holds no word of it: what is set is text, or raw text between backticks
    assert "#link" not in source
    assert "$" not in re.sub(r"\\\$|`+.*?`+", "", source.split("Before")[1])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_table_shows_cells_and_names_as_they_are_written(displayed, tmp_path, hostile):
    frame = pd.DataFrame({"run": [hostile, "b"], hostile: ["c", "d"]}, index=pd.Index([hostile, "e"]))
    show.table(frame, "tbl-a", "Caption.")
    source, page = printed([one for one in displayed if "report" in one.metadata], tmp_path)
    for element in ("script", "img", "a"):
        assert element not in page.elements
    assert page.text.count(hostile) == 3
    assert "$" not in source.split("table.header")[1].replace("\\$", "")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_even_where_it_is_taken_for_markdown_it_runs_nothing(displayed, tmp_path, hostile):
    """Names in sentences, a question, a caption: Markdown, in which HTML and Typst are text."""
    show.say([f"Of {hostile} it says."])
    show.table(pd.DataFrame({"a": [1]}), "tbl-a", f"Of {hostile}.")
    if "begin{align}" in hostile or "https:" in hostile:
        return  # maths that are none, which stops the export, and a link, which is followed by whoever wants to
    _, page = printed(displayed, tmp_path)
    assert "script" not in page.elements
    assert not [name for name, _ in page.attributes if name.startswith("on")]


@pytest.mark.parametrize(
    "cell",
    [
        '```{=typst}\n#panic("run")\n```',
        '`#panic("run")`{=typst}',
        '```{=typst}\n#align(center, image("picture0.svg"))\n#panic("run")\n```',
        '[x]{typst:text:fill="panic()"}',
        '::: {typst:fill="panic()"}\nx\n:::',
        '<table><tr><td style="background-color: #&quot;)+panic(&quot;run">x</td></tr></table>',
        '<span id="a>#panic(1)<b"></span>',
        '# Heading {#a"b}\n\n## Other {typst:x="panic()"}',
    ],
)
def test_typst_in_the_markdown_of_a_notebook_is_not_run(cell):
    assert typeset.pdf(notebook(text(cell))).startswith(b"%PDF")


@pytest.mark.parametrize(
    "place", ["HTTPS://example.org/x.png", "//example.org/x.png", "file:///etc/hostname", "ftp://x/y"]
)
def test_no_picture_is_fetched(tmp_path, place):
    source = typeset.typst_source(notebook(text(f"Words ![named]({place}).")), tmp_path)
    assert "image(" not in source
    assert "named" in source


def test_html_stays_text_and_maths_and_code_stay_what_they_are():
    kept = "Where $a<b$ and `x<y` hold, 2 < 3 and **all** of $$c<d$$; <0.01."
    assert markup.without_html(kept) == kept.replace("a<b", "a< b").replace("c<d", "c< d")
    assert markup.without_html("a <b> \\<c> \\\\<d> `<e>`") == "a \\<b> \\<c> \\\\\\<d> `<e>`"
    assert markup.without_html(markup.plain("$ <a> \\")) == markup.plain("$ <a> \\")
    assert markup.plain("ResNet-20 / FC, lr 0.1 (n = 3): 5 %") == "ResNet-20 / FC, lr 0.1 (n = 3): 5 %"
    assert markup.code("conv1.weight") == "`conv1.weight`"


def test_the_reason_of_a_failed_run_and_the_title_are_text(planned, here, displayed, tmp_path):
    for hostile in HOSTILE:
        write_json(here.runs / "s" / RUN / runs.ERROR, {"error": f"ValueError: {hostile}"})
        book = SimpleNamespace(gaps=state.gaps(planned))
        show.table(settings.gaps(book), f"tbl-gaps-{len(displayed)}", "Missing.")
    frame = pd.DataFrame(columns=["task", "pruner", "seed", "data", "model", "run"])
    empty = {"reference": False, "name": "s", "everything": frame, "involved": frame, "done": frame, "gaps": {}}
    for hostile in HOSTILE:
        made = conclusions.title(SimpleNamespace(title=hostile, question="Why?", **empty))
        show.say(made)
    source, page = printed([one for one in displayed if not one.metadata.get("report", {}).get("skip")], tmp_path)
    for hostile in HOSTILE:
        assert page.text.count(f"ValueError: {hostile}") == 1
        assert hostile in " ".join(page.text.split())
    assert "script" not in page.elements
    assert "img" not in page.elements
    assert source.count("#panic") == source.count("\\#panic")


def test_panels_show_names_as_text(monkeypatch):
    monkeypatch.setenv(runs.NEIGHBOURS, "0")
    assert "<script>" not in panels.curves("<script>").value


@pytest.mark.parametrize("name", ["../s", "/tmp", "..", ".", "a/b", "a\\b", "", "-a", ".s", "a\n", "s\0"])
def test_names_stay_below_runs(planned, here, name):
    outside = here.root / "s"
    outside.mkdir(exist_ok=True)
    for said in (lambda: paths.inside("study", name), lambda: state.load_plan(name), lambda: summary.load(name)):
        with pytest.raises(ValueError, match=r"^(study|unknown)[^\n]*$"):
            said()
    with pytest.raises(ValueError, match=r"^(source|no finished run)[^\n]*$"):
        runs.directory(f"{name}/{RUN}")
    with pytest.raises(ValueError, match=r"^(source|no finished run)[^\n]*$"):
        runs.directory(f"s/{name}")


@pytest.mark.parametrize("name", ["../s", "/tmp/s", "a/b", "..", "reference", "scratch"])
def test_the_command_line_takes_no_path_for_a_study(here, capsys, name):
    (here.root / "s.yaml").write_text("title: T")
    for command in (["run"], ["status"], ["report"], ["keep"], ["report", "--from", "reference"]):
        assert main([command[0], name, *command[1:]]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (here.root / "s").exists()


@pytest.mark.parametrize(
    "block",
    [
        {"notebook": "../stub"},
        {"notebook": "/tmp/stub"},
        {"notebook": "stub", "fixed": {"run_dir": "/tmp/elsewhere"}},
        {"notebook": "stub", "grid": {"run_dir": ["../elsewhere"]}},
        {"notebook": "stub", "fixed": {"source": "../s/a"}},
        {"notebook": "stub", "fixed": {"source": "/etc"}},
        {"notebook": "stub", "fixed": {"sources": ["../*"]}},
        {"chain": "../a", "stages": [{"stub": {}}]},
        {"chain": "a/b", "stages": [{"stub": {}}]},
        {"chain": "a\n", "stages": [{"stub": {}}]},
        {"chain": "a", "source": "../b", "stages": [{"stub": {}}]},
        {"chain": "a", "stages": [{"stub": {"run_dir": "/tmp/x"}}]},
    ],
)
def test_nothing_in_a_study_leads_out_of_its_folder(here, block):
    here.write("s", block)
    with pytest.raises(ValueError, match=r"^(study s: |unknown notebook)[^\n]+$"):
        state.plan("s")


@pytest.mark.parametrize("value", ["../../x", "/etc/x", "..", "a\\b", "a\nb", "C:x"])
def test_swept_values_make_names_of_one_folder(here, value):
    here.write("s", {"notebook": "stub", "grid": {"name": [value]}})
    (run,) = state.plan("s")["runs"]
    assert paths.inside("run", run["id"]) == run["id"]
    assert run["parameters"]["name"] == value


@pytest.mark.parametrize("what", ["id", "source"])
def test_a_plan_of_others_leads_nowhere(planned, here, what):
    theirs = read_json(here.runs / "s" / state.PLAN)
    theirs["study"] = "../../elsewhere"
    write_json(here.runs / "s" / state.PLAN, theirs)
    assert state.load_plan("s")["study"] == "s"
    theirs["runs"][0] |= {"id": "../../x"} if what == "id" else {"sources": ["/etc/x"]}
    write_json(here.runs / "s" / state.PLAN, theirs)
    with pytest.raises(ValueError, match=r"id of a run: received '[./etcx]+', allowed are letters"):
        state.load_plan("s")


@pytest.mark.parametrize("record", [{"run": "../../victim", "number": 1}, {"run": RUN, "number": "1/../../../victim"}])
def test_a_record_of_others_removes_nothing(planned, here, record):
    victim = here.root / "victim.1"
    victim.mkdir()
    (here.root / "victim").mkdir()
    work = here.runs / "s" / runs.ATTEMPTS / f"{RUN}.7"
    write_json(work / attempts.ATTEMPT, {"host": "another", "process": 1, "born": 0.0, "started_utc": ""} | record)
    assert attempts.clear("s") == []
    assert attempts.under_way("s") == []
    assert status.rows(planned)[0]["state"] == "waiting"
    assert victim.is_dir()
    assert (here.root / "victim").is_dir()


def test_progress_that_is_none_says_nothing(tmp_path):
    for said in ({}, {"what": "x", "epoch": "1", "epochs": 2, "train_loss": 1.0, "test_top1_pct": 1.0, "left_s": 1}):
        write_json(tmp_path / runs.PROGRESS, said)
        assert progress.of(tmp_path) is None


def test_a_finished_run_brings_no_code(planned, here):
    """The notebook of a run, whatever it holds, is no part of what the report reads."""
    folder = here.runs / "s" / RUN
    evil = nb.new_notebook(cells=[nb.new_code_cell(f"open({str(here.root / 'made')!r}, 'w')")])
    write_json(folder / runs.METRICS, {"wall_s": 1.0})
    (folder / runs.NOTEBOOK).write_text(json.dumps(evil))
    facts = {
        "hardware": {"gpus": [], "cpu": "", "cores": 1, "memory_gib": 1.0, "os": ""},
        "threads": 1,
        "neighbours": 0,
    }
    facts |= {
        "load_at_start": {"cpu_busy_pct": 0.0},
        "notebook": "stub",
        "parameters": planned["runs"][0]["parameters"],
    }
    write_json(folder / runs.RUN, facts)
    book = summary.load("s")
    assert list(book.everything["run"]) == [RUN]
    assert summary.parts(planned) == {"stub"}
    assert not (here.root / "made").exists()
    assert spec.read("s").summary == "summary"


EVIL = '<script>alert(1)</script> <img src=x onerror=alert(1)> `#panic("raw")`{=typst} #panic("code") @x $\\q{$'


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A finished study whose every text that a file of it can hold is EVIL; its plan."""
    bench = Bench(tmp_path, notebooks=ROOT / "notebooks")
    for name in ("RUNS", "STUDIES", "FIGURES"):
        monkeypatch.setattr(paths, name, getattr(bench, name.lower()))
    monkeypatch.setattr(scale, "COMPRESSIONS", [0.5, 1])
    monkeypatch.setattr(scale, "PRUNERS", ["snip"])
    planned = scale.make("evil", [1])
    for number, run in enumerate(planned["runs"]):
        folder = bench.runs / "evil" / run["id"]
        facts = read_json(folder / runs.RUN)
        facts["hardware"] |= {"cpu": f"{EVIL} {number}", "os": EVIL}
        facts["versions"]["torch"] = facts["git"]["commit"] = facts["data"]["source"] = EVIL
        facts["data"] |= {"fingerprint": f"{EVIL} {number}"}
        write_json(folder / runs.RUN, facts)
        metrics = {"collapsed_layers": EVIL, "connected": False, EVIL: EVIL}
        write_json(folder / runs.METRICS, read_json(folder / runs.METRICS) | metrics)
        layers = pd.read_csv(folder / "layers.csv")
        layers.assign(layer=[f"{EVIL} {name}" for name in layers["layer"]]).to_csv(folder / "layers.csv", index=False)
    failed = bench.runs / "evil" / planned["runs"][-1]["id"]
    (failed / runs.METRICS).unlink()
    write_json(failed / runs.ERROR, {"error": EVIL})
    planned |= {"title": EVIL, "question": f"{EVIL.replace('$', '')} Why?"}  # Markdown, in which maths is maths
    state.save(planned)
    return planned


def test_a_report_of_files_full_of_markup_shows_it(evil, tmp_path):
    executed = execute("summary", {"study": "evil"}, summary.parts(evil))
    work = tmp_path / "work"
    work.mkdir()
    assert typeset.pdf(executed).startswith(b"%PDF")
    source = typeset.typst_source(executed, work)
    page = Page(HTMLExporter(template_name="basic").from_notebook_node(executed)[0])
    assert "script" not in page.elements
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    shown_there = page.text.count("<script>alert(1)</script>")
    assert shown_there > 10  # title, question, gap, settings, layers of two tables
    assert source.count('#panic("code")') + source.count('\\#panic("code")') >= 10


def test_what_a_terminal_would_obey_is_not_printed(planned, here, capsys):
    write_json(here.runs / "s" / RUN / runs.ERROR, {"error": "E: \x1b]0;title\x07\x1b[2Jgone\r\nsecond"})
    work = here.runs / "s" / runs.ATTEMPTS / "stub-nameb-seed1.1"
    record = {"run": "stub-nameb-seed1", "number": 1, "host": "\x1b[31mhost", "process": 1, "born": 0.0}
    write_json(work / attempts.ATTEMPT, record)
    (work / attempts.BEAT).touch()
    said = {"what": "\x1b[2J", "epoch": 1, "epochs": 2, "train_loss": 1.0, "test_top1_pct": 1.0, "left_s": 1.0}
    write_json(work / runs.PROGRESS, said)
    assert main(["status", "s"]) == 1
    out = capsys.readouterr().out
    assert "[2Jgone second" in out
    assert "epoch 1 of 2" in out
    assert all(c.isprintable() or c == "\n" for c in out)


KNOWN = {"run": RUN, "number": 1, "host": "h", "process": 1, "born": 0.0}


@pytest.mark.parametrize(
    "record",
    [{}, {"run": RUN}, {"run": RUN, "number": 1}, KNOWN | {"process": "1"}, KNOWN | {"process": -1}]
    + [KNOWN | {"number": "1"}, KNOWN | {"born": None}, KNOWN | {"host": ["h"]}],
)
def test_a_record_or_an_error_that_says_nothing_stops_nothing(planned, here, record):
    write_json(here.runs / "s" / runs.ATTEMPTS / f"{RUN}.1" / attempts.ATTEMPT, record)
    write_json(here.runs / "s" / RUN / runs.ERROR, {})
    assert [row["state"] for row in status.rows(planned)] == ["failed", "waiting"]
    assert state.gaps(planned)[RUN] == "it does not say why"
    write_json(here.runs / "s" / RUN / runs.METRICS, {"wall_s": 1.0})
    write_json(here.runs / "s" / RUN / attempts.ATTEMPT, record)
    assert status.rows(planned)[0]["state"] == "done"
    assert attempts.begin("s", RUN).is_dir()


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"wall_s": "1"}', '{"run": 1}'])
def test_files_that_say_something_else_stop_nothing(planned, here, text):
    for path in (attempts.TRIES, RUN):
        (here.runs / "s" / path).mkdir()
    (here.runs / "s" / attempts.TRIES / f"{RUN}.1.json").write_text(text)
    (here.runs / "s" / RUN / runs.METRICS).write_text(text)
    assert attempts.tries("s") == []
    first = status.rows(planned)[0]
    assert (first["state"], first["attempt"]) == ("done", "")
    assert "metrics.json is damaged: delete its folder" in first["detail"]


def test_a_score_that_is_none_is_not_shown(planned, here):
    write_json(here.runs / "s" / RUN / runs.METRICS, {"wall_s": 1.0, "top1_pct": "\x1b[31mall"})
    assert status.rows(planned)[0]["detail"] == "1.0 s"


@pytest.mark.parametrize("path", sorted((ROOT / "lib").rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_runs_what_a_file_says(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = [ast.unparse(word) for word in node.keywords]
        if called.rpartition(".")[0] in ("torch", "pickle", "joblib", "yaml", "np", "numpy") and called.endswith(
            "load"
        ):
            assert called == "yaml.safe_load" or "weights_only=True" in given, ast.unparse(node)
        assert called not in ("eval", "exec", "pd.read_pickle", "torch.jit.load", "pickle.loads"), ast.unparse(node)
        assert "allow_pickle=True" not in given


OWN = [attempts.TRIES, runs.ATTEMPTS, runs.CHECKPOINTS, jobs.JOBS, state.LOCK, state.CLUSTER_LOCK]


@pytest.mark.parametrize("name", [*OWN, f"{jobs.JOBS}/{jobs.ENDED}", f"{runs.CHECKPOINTS}/{RUN}"])
@pytest.mark.parametrize("engine", ["local", "slurm", "by hand"])
def test_nothing_is_written_or_cleared_away_through_a_link(planned, here, monkeypatch, name, engine):
    home = here.root / "home"
    (home / RUN).mkdir(parents=True)
    for path in (home / "package.json", home / RUN / "thesis.tex"):
        path.write_text("mine")
        os.utime(path, (1e9, 1e9))
    os.utime(home / RUN, (1e9, 1e9))
    (here.runs / "s" / name).parent.mkdir(exist_ok=True)
    (here.runs / "s" / name).symlink_to(home / "package.json" if name.endswith(".lock") else home)
    (here.runs / "s" / ".#notes.md").symlink_to("an editor's lock")
    monkeypatch.setattr(slurm, "needed", lambda: None)
    starts = {
        "local": lambda: run_study(planned, [None]),
        "slurm": lambda: slurm.run_study(planned, Cluster()),
        "by hand": lambda: one.execute_runs(planned, [RUN]),
    }
    with pytest.raises(ValueError, match=f"{re.escape(name)} is a link"):
        starts[engine]()
    assert sorted(path.relative_to(home).as_posix() for path in home.rglob("*")) == [
        "package.json", RUN, f"{RUN}/thesis.tex",
    ]  # fmt: skip
    assert (home / "package.json").read_text() == "mine"
