"""The command line: bad input is one line on stderr and code 2, and nothing is executed."""

import io
import json
import math
import shlex
import subprocess
import sys

import pytest
from rich.console import Console
from stub_study import write_notebook

from lib import files, runs
from lib.study import __main__ as command
from lib.study import attempts, execute, state


@pytest.fixture
def call(here, monkeypatch, capsys):
    """Exit code, output and errors of one command; executing a run fails the test."""

    def never(*_):
        pytest.fail("a run was executed")

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(execute, "attempt", never)
        try:
            code = command.main(list(arguments))
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return called


def refused(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def finish(study: str, metrics=None, only=None) -> None:
    """Write every run of a study as finished."""
    planned = state.plan(study)
    state.save(planned)
    for run in planned["runs"]:
        if only is None or run["id"] in only:
            folder = state.folder(planned) / run["id"]
            files.write_json(folder / runs.RUN, {"parameters": run["parameters"]})
            files.write_json(folder / runs.METRICS, {"wall_s": 2.0} | (metrics or {}))


STUB = {"notebook": "stub", "grid": {"name": ["a", "b"]}}


@pytest.mark.parametrize("action", ["run", "report", "status"])
def test_unknown_study(here, call, action):
    here.write("one", STUB)
    here.write("two", STUB)
    assert "unknown study 'three': one of one, two" in refused(call(action, "three"))
    assert not here.runs.exists()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"notebook": "stab"}, "unknown notebook 'stab': one of stub"),
        ({"notebook": "stub", "fixed": {"colour": 1}}, "no parameter 'colour': one of name, act, seed"),
        ({"notebook": "stub", "fixed": {"name": 5}}, "name: received 5, allowed is text"),
        ({"notebook": "stub", "fixed": {"seed": "1e3"}}, "received '1e3', allowed is a whole number"),
        ({"notebook": "stub", "fixed": {"source": "stub-c"}}, "source 'stub-c' is no earlier run"),
        ({"notebook": "stub", "fixed": {"density": 1.5}}, "received 1.5"),
    ],
)
def test_bad_study(here, call, block, message):
    here.write("s", STUB, block)
    for action in ("run", "report", "status"):
        assert message in refused(call(action, "s"))
    here.write("whole", STUB, title="This one is whole")
    code, out, err = call("list")
    assert code == 2
    assert "This one is whole" in out, "the others are shown all the same"
    assert message in err
    assert err.count("\n") == 1
    assert not here.runs.exists()


def test_other_parameters_are_named(here, call):
    here.write("s", STUB)
    finish("s")
    before = here.done("s")
    here.write("s", STUB | {"fixed": {"act": "raise"}})
    message = refused(call("run", "s"))
    assert "stub-namea-seed1 was made with other parameters (act was '', now 'raise')" in message
    assert here.done("s") == before


def test_a_parameter_that_went_is_named(here, call):
    here.write("s", STUB)
    finish("s")
    path = here.runs / "s" / "stub-nameb-seed1" / runs.RUN
    path.write_text(path.read_text().replace('"act"', '"acted"'))
    message = refused(call("run", "s"))
    assert "acted was '', now None" in message
    assert "act was" not in message, "its default is what the run did"


@pytest.mark.parametrize(("act", "refuses"), [("", False), ("raise", True)])
def test_a_parameter_that_the_notebook_gained_counts_as_its_default(here, call, act, refuses):
    here.write("s", STUB | {"fixed": STUB.get("fixed", {}) | {"act": act}})
    finish("s")
    for path in (here.runs / "s").glob(f"*/{runs.RUN}"):
        values = json.loads(path.read_text())
        del values["parameters"]["act"]
        path.write_text(json.dumps(values))
    if refuses:
        assert "act was '', now 'raise'" in refused(call("run", "s"))
    else:
        assert call("run", "s")[0] == 0


@pytest.mark.parametrize("file", [runs.RUN, runs.METRICS])
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_files(here, call, file, content):
    here.write("s", STUB)
    finish("s", only=["stub-nameb-seed1"])
    path = here.runs / "s" / "stub-nameb-seed1" / file
    path.write_text(content)
    assert f"{path} is damaged" in refused(call("run", "s"))


def test_a_run_without_its_parameters(here, call):
    here.write("s", STUB)
    finish("s")
    (here.runs / "s" / "stub-namea-seed1" / runs.RUN).unlink()
    assert "stub-namea-seed1/run.json" in refused(call("run", "s"))


def test_report_without_runs(here, call):
    here.write("s", STUB)
    assert "has no finished run" in refused(call("report", "s"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required"),
        (("fly",), "invalid choice"),
        (("run",), "required"),
        (("run", "s", "--jobs", "0"), "received '0', allowed is a whole number from 1 to 1000000"),
        (("run", "s", "--jobs", "two"), "received 'two'"),
        (("run", "s", "--seeds", "-1"), "argument"),
        (("run", "s", "--seeds", "1.5"), "received '1.5', allowed is a whole number from 0 to 4294967295"),
        (("run", "s", "--seeds"), "expected at least one argument"),
        (("status", "s", "--jobs", "2"), "unrecognized arguments"),
    ],
)
def test_bad_arguments(here, call, arguments, message):
    here.write("s", STUB)
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err
    assert not here.runs.exists()


def test_a_finished_study_is_done(here, call):
    here.write("s", STUB)
    finish("s", {"top1_pct": 12.5})
    code, out, err = call("run", "s")
    assert (code, err) == (0, "")
    assert "2 runs, 2 done, 0 to do" in out
    code, out, _ = call("status", "s")
    assert code == 0
    assert "2 done, 0 failed, 0 waiting" in out
    assert out.count("12.50 %") == 2
    assert call("status", "s", "--seeds", "1", "2")[0] == 1  # two more are wanted


def test_the_seeds_of_the_last_run_need_not_be_said_again(here, call):
    here.write("s", STUB)
    state.save(state.plan("s", [4, 5]))
    out = call("status", "s")[1]
    assert [f"seed{seed}" in out for seed in (1, 4, 5)] == [False, True, True]
    assert "4 waiting" in out
    state.save(state.plan("s"))
    assert "2 waiting" in call("status", "s")[1]


def test_a_title_is_text(here, call):
    here.write("s", STUB, title="of [b]all[/b] [/]")
    code, out, _ = call("list")
    assert code == 0
    assert "[b]all[/b] [/]" in out


def test_list(here, call):
    here.write("s", STUB)
    code, out, _ = call("list")
    assert code == 0
    assert [word in out for word in ("s", "2", "T")] == [True] * 3


def test_failed_and_missing_runs_make_the_report_incomplete(here, call, monkeypatch):
    from lib.study import report

    monkeypatch.setattr(report, "make_report", lambda planned, nursery=None: here.root / "report.pdf")
    here.write("s", STUB)
    finish("s", only=["stub-namea-seed1"])
    files.write_json(here.runs / "s" / "stub-nameb-seed1" / runs.ERROR, {"error": "E: why [not] so"})
    code, out, _ = call("report", "s")
    assert code == 1
    assert "gap: stub-nameb-seed1: E: why [not] so" in out
    code, out, _ = call("status", "s")
    assert code == 1
    assert "1 done, 1 failed, 0 waiting" in out


def test_failed_run_of_a_study_still_makes_the_report(here, monkeypatch, capsys):
    from lib.study import report

    monkeypatch.setattr(report, "make_report", lambda planned, nursery=None: here.root / "report.pdf")

    def attempt(planned, run, *_):
        return "E: no" if "namea" in run["id"] else finish("s", only=[run["id"]])

    monkeypatch.setattr(execute, "attempt", attempt)
    here.write("s", STUB)
    assert command.main(["run", "s", "--report", "--jobs", "2"]) == 1
    out = capsys.readouterr().out
    assert "failed: stub-namea-seed1: E: no" in out
    assert "1 of 2 runs failed" in out
    assert "report.pdf" in out


def test_a_broken_summary_is_code_1(here, call, monkeypatch):
    from lib.study import report

    def broken(planned, nursery=None):
        raise RuntimeError("the summary failed, see summary.ipynb: KeyError: 'x'")

    monkeypatch.setattr(report, "make_report", broken)
    here.write("s", STUB)
    finish("s")
    code, _, err = call("report", "s")
    assert code == 1
    assert err == "error: the summary failed, see summary.ipynb: KeyError: 'x'\n"


def test_the_report_is_made_by_the_notebook_that_the_study_names(here, call, monkeypatch):
    from lib.study import report

    made = []
    monkeypatch.setattr(report, "execute_notebook", lambda path, *_: made.append(path.read_text()))
    monkeypatch.setattr(report, "export", lambda *_: None)
    for name in ("summary", "mine"):
        write_notebook(here.notebooks, name, ('study = "s"  # study\nresults = ""  # whose', f"# {name}"))
    for extra in ({}, {"summary": "mine"}):
        here.write("s", STUB, **extra)
        finish("s")
        assert call("report", "s")[0] == call("keep", "s")[0] == call("report", "s", "--from", "reference")[0] == 0
    plan = here.runs / "reference" / "s" / state.PLAN
    files.write_json(plan, {k: v for k, v in files.read_json(plan).items() if k != "summary"})  # one from before
    assert call("report", "s", "--from", "reference")[0] == 0
    assert ["mine" if "# mine" in text else "summary" for text in made] == ["summary"] * 2 + ["mine"] * 2 + ["summary"]


@pytest.mark.parametrize("arguments", [[], ["run"], ["report"], ["status"], ["list"]])
def test_help_names_the_exit_codes(call, arguments):
    code, out, _ = call(*arguments, "--help")
    assert code == 0
    assert "0 all done, 1 a run" in " ".join(out.split())


def test_help_imports_nothing_heavy():
    check = "import sys; from lib.study.__main__ import parser; parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert not {"torch", "papermill", "matplotlib"} & set(done.stdout.split())


def test_time_left_scales_with_epochs(here):
    write = {"notebook": "stub", "grid": {"name": ["a", "b", "c"]}}
    here.write("s", write)
    planned = state.plan("s")
    for run, epochs in zip(planned["runs"], (2, 4, 6), strict=True):
        run["parameters"]["epochs"] = epochs
    assert state.seconds_left(planned, planned["runs"][1:], 1) is None
    folder = state.folder(planned) / planned["runs"][0]["id"]
    files.write_json(folder / runs.METRICS, {"wall_s": 10.0})
    assert math.isclose(state.seconds_left(planned, planned["runs"][1:], 2), 5 * (4 + 6) / 2)


def test_plan_is_plain_json_and_read_back(here):
    here.write("s", STUB)
    planned = state.plan("s")
    state.save(planned)
    assert state.load_plan("s") == planned == json.loads(json.dumps(planned))
    with pytest.raises(ValueError, match="was never started"):
        state.load_plan("t")


def test_a_run_that_waits_for_the_machine_says_so(here, monkeypatch):
    here.write("s", STUB)
    planned, said = state.plan("s"), io.StringIO()
    console = Console(file=said, width=200)
    monkeypatch.setattr(command, "TELL_EVERY_S", 0.0)
    with command._progress(console) as bar:
        watch = command._Watch(planned, planned["runs"], 1, console, bar, bar.add_task("", total=2, left=""))
        for run in planned["runs"]:
            watch.started(run)
        attempts.begin("s", planned["runs"][0]["id"])
        watch.tick()
    first, second = said.getvalue().splitlines()
    assert first.endswith(": started") or second.endswith(": started")
    assert f"{planned['runs'][1]['id']}: waits until the machine is free" in said.getvalue()


@pytest.mark.parametrize("seeds", [["1", "2", "1"], [str(2**32)], ["9" * 30], ["²"]])
def test_seeds_that_cannot_be(here, call, seeds):
    here.write("s", STUB)
    assert "seeds: received " in refused(call("run", "s", "--seeds", *seeds))
    here.write("s", STUB, seeds=[int(seed) if seed.isdecimal() else seed for seed in seeds])
    assert "seeds" in refused(call("run", "s"))


@pytest.mark.parametrize("width", [60, 200])
def test_a_narrow_terminal_shows_every_word(here, call, width):
    """Whole ids, and nothing is cut off at the right."""
    here.write("s", STUB)
    planned = state.plan("s")
    failed = {"state": "failed", "attempt": 3, "where": "n1", "detail": f"ValueError: {'why ' * 30}end"}
    table = [{"run": run["id"]} | failed for run in planned["runs"]]
    console = Console(width=width, file=io.StringIO())
    console.print(command._shown(planned, table, width))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for row in table:
        assert row["run"] in shown
    assert shown.count("why") == 30 * len(table)
    assert shown.count("end") == len(table)


@pytest.mark.parametrize("kind", ["folder", "dangling", "deep"])
def test_a_study_file_that_cannot_be_read_hides_no_other(here, call, kind):
    here.write("whole", STUB, title="This one is whole")
    path = here.studies / "broken.yaml"
    {"folder": path.mkdir, "dangling": lambda: path.symlink_to("gone"), "deep": lambda: path.write_text("[" * 5000)}[
        kind
    ]()
    code, out, err = call("list")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: broken.yaml: ")
    assert "This one is whole" in out


def test_the_command_that_follows_a_detached_one_says_all_of_it(here):
    here.write("s", STUB)
    words = [
        "run",
        "s",
        "--seeds",
        "3",
        "4",
        "--engine",
        "slurm",
        "--detach",
        "--array-limit",
        "2",
        "--setup",
        "cd 'a b'",
    ]
    given = command.parser().parse_args([*words, "--setup", "true"])
    again = command._again(state.plan("s"), given)
    program, _, module, *rest = shlex.split(again)
    assert (program, module) == ("python", "lib.study")
    assert vars(command.parser().parse_args(rest)) == vars(given) | {"detach": False}
