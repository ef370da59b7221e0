"""How runs are handed over: groups, arrays, what waits for what, and a folder of one's own."""

import stat
import subprocess

import pytest

from lib import files, runs
from lib.study import __main__ as command
from lib.study import jobs, private, state, submit
from lib.study.cluster import Cluster


@pytest.fixture
def planned(here, monkeypatch):
    """Three dense runs, two that build on the first, one that builds on all; one is timed."""
    monkeypatch.setenv(private.FOLDER, str(here.root / "submit"))
    names = {"notebook": "stub", "grid": {"name": ["a", "b", "c"]}}
    first = "stub-namea-seed{seed}"
    here.write(
        "s",
        names,
        {"notebook": "stub", "grid": {"name": ["d", "e"]}, "fixed": {"source": first}},
        {"notebook": "stub", "fixed": {"name": "all", "sources": ["stub-name*"]}},
        {"notebook": "stub", "grid": {"name": ["timed"]}, "exclusive": True},
    )
    return state.plan("s")


@pytest.fixture
def handed(monkeypatch):
    """What is handed over in place of calling sbatch: (groups of ids, tasks waited for, alone)."""
    given = []

    def one(study, groups, where, after, exclusive, options):
        given.append(([[run["id"] for run in group] for group in groups], after, exclusive))
        job = len(given)
        return [f"{job}_{n}" for n in range(len(groups))] if len(groups) > 1 else [str(job)]

    monkeypatch.setattr(submit, "_submit", one)
    return given


def records() -> dict[str, dict]:
    return jobs.records("s", [name(text) for text in "abc"])


def ended(run: str) -> dict | None:
    return jobs.ended("s", run, jobs.records("s", [run])[run])


def name(text: str) -> str:
    return f"stub-name{text}-seed1"


def done(planned: dict, run: str, seconds: float = 10.0) -> None:
    files.write_json(state.folder(planned) / run / runs.METRICS, {"wall_s": seconds})


def test_an_array_for_each_set_of_sources(planned, handed):
    made, refused = submit.submit(planned, planned["runs"], {}, Cluster())
    assert refused is None
    alone = [name("a"), name("b"), name("c")]
    assert handed[0] == ([[run] for run in alone], (), False)
    assert handed[1] == ([[name("timed")]], (), True)
    assert handed[2] == ([[name("d")], [name("e")]], ("1_0",), False)
    assert handed[3] == ([["stub-seed1"]], tuple(sorted(("1_0", "1_1", "1_2", "3_0", "3_1"))), False)
    assert [run["id"] for run in made["1"]] == alone
    assert sum(len(some) for some in made.values()) == len(planned["runs"])


def test_sources_that_are_done_or_with_the_cluster(planned, handed):
    done(planned, name("a"))
    chosen = [run for run in planned["runs"] if run["id"] not in (name("a"), name("b"))]
    submit.submit(planned, chosen, {name("b"): {"task": "77_3"}}, Cluster(group=1))
    assert handed[0] == ([[name("c")], [name("d")], [name("e")]], (), False)
    assert handed[2] == ([["stub-seed1"]], ("1_0", "1_1", "1_2", "77_3"), False)


def test_a_source_that_nobody_has_is_waited_for(planned, handed):
    """Something other than the cluster executes it, and its end is no dependency that SLURM knows."""
    submit.submit(planned, planned["runs"][1:], {}, Cluster())
    assert [run for groups, *_ in handed for group in groups for run in group] == [name(n) for n in ("b", "c", "timed")]


def test_groups_of_a_size(planned, handed):
    submit.submit(planned, planned["runs"], {}, Cluster(group=2))
    assert handed[0][0] == [[name("a"), name("b")], [name("c")]]
    assert handed[2] == ([[name("d"), name("e")]], ("1_0",), False)


def by_time(planned: dict, together: list[dict]) -> list[list[dict]]:
    return submit.grouped(together, None, state.seconds_each(planned, together))


@pytest.mark.parametrize(("seconds", "sizes"), [(50.0, [2, 2, 1]), (1.0, [5]), (500.0, [1, 1, 1, 1, 1])])
def test_groups_by_known_times(planned, seconds, sizes):
    assert [len(group) for group in by_time(planned, planned["runs"][:5])] == [1] * 5
    done(planned, name("timed"), seconds)
    assert [len(group) for group in by_time(planned, planned["runs"][:5])] == sizes


def test_a_group_has_an_end(planned):
    done(planned, name("timed"), 0.001)
    groups = by_time(planned, planned["runs"][:1] * 50)
    assert max(map(len, groups)) == submit.RUNS_MOST
    assert sum(map(len, groups)) == 50


def test_arrays_have_an_end(planned, handed, monkeypatch):
    monkeypatch.setattr(submit, "ARRAY_MOST", 2)
    submit.submit(planned, planned["runs"][:3], {}, Cluster())
    assert [groups for groups, *_ in handed] == [[[name("a")], [name("b")]], [[name("c")]]]


def test_the_folder_is_private_and_elsewhere(here, monkeypatch):
    monkeypatch.setenv(private.FOLDER, str(here.root / "deep" / "submit"))
    made = private.folder("s")
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    made.chmod(0o777)
    assert stat.S_IMODE(private.folder("s").stat().st_mode) == 0o700
    assert private.folder("other") != made
    monkeypatch.setenv(private.FOLDER, str(here.runs / "mine"))
    with pytest.raises(ValueError, match="allowed is a folder outside"):
        private.folder("s")
    monkeypatch.delenv(private.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here.root / "cache"))
    assert private.folder("s").is_relative_to(here.root / "cache" / "pruning-workbench")


def test_what_sbatch_is_asked(planned, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", "/a folder/data")
    options = Cluster(partition="gpu", time="1-00", mem="4G", cpus=3, array_limit=7, setup=["module load cuda"])
    asked = submit.parameters("s-1", ("1_0", "2"), True, options)
    assert asked["dependency"] == "afterany:1_0:2"
    assert asked["exclusive"] is True
    assert (asked["time"], asked["mem"], asked["cpus_per_task"], asked["array_parallelism"]) == (1440, "4G", 3, 7)
    assert "export WORKBENCH_DATA='/a folder/data'" in asked["setup"]
    assert asked["setup"][-2] == "module load cuda"
    plain = submit.parameters("s-1", (), False, Cluster())
    assert {"dependency", "exclusive", "partition", "gres", "mem"}.isdisjoint(plain)


def programs(folder, monkeypatch, **texts: str) -> None:
    """Shell scripts in place of the cluster's programs."""
    for program, text in ({"srun": "exit 0"} | texts).items():
        (folder / program).write_text(f"#!/bin/sh\n{text}\n")
        (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_arrays_of_a_cluster_that_wants_them_small(planned, handed, tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, scontrol="echo 'MaxArraySize            = 2'")
    submit.submit(planned, planned["runs"][:3], {}, Cluster())
    assert [groups for groups, *_ in handed] == [[[name("a")], [name("b")]], [[name("c")]]]


GENERAL = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
# Takes arrays of two tasks at most, and three tasks in all.
LIMITED = f"""
n=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
n=$((${{n:-0}} + 1))
had=$(cat "${{0%/*}}/had" 2>/dev/null || echo 0)
if [ $n -gt 2 ] || [ $((had + n)) -gt 3 ]; then
    echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2
    echo "sbatch: error: {GENERAL}" >&2
    exit 1
fi
echo $((had + n)) > "${{0%/*}}/had"
echo "Submitted batch job 1$had"
"""


def test_a_limit_of_jobs_leaves_the_rest_for_later(planned, here, tmp_path, monkeypatch, capsys):
    programs(tmp_path, monkeypatch, sbatch=LIMITED, scontrol="exit 1")
    alone = [run for run in planned["runs"] if not run["sources"]]
    made, refused = submit.submit(planned, alone, {}, Cluster())
    assert sum(len(some) for some in made.values()) == 3
    assert refused == "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    handed = {run["id"] for some in made.values() for run in some}
    assert set(jobs.records("s", [run["id"] for run in alone])) == handed
    assert capsys.readouterr().err == ""
    assert not [path.name for path in private.place("s").glob("*.pkl") if "_" not in path.name]
    (tmp_path / "had").unlink()
    assert submit.submit(planned, alone[3:], {}, Cluster())[1] is None


@pytest.mark.parametrize("limit", ["QOSMaxWallDurationPerJobLimit", "QOSMaxCpuPerJobLimit"])
def test_a_limit_that_does_not_pass_is_an_error(planned, tmp_path, monkeypatch, limit):
    lines = "; ".join(f'echo "sbatch: error: {text}" >&2' for text in (limit, GENERAL))
    programs(tmp_path, monkeypatch, sbatch=f"{lines}; exit 1", scontrol="exit 1")
    with pytest.raises(RuntimeError, match=f"^sbatch refused: sbatch: error: {limit}$"):
        submit.submit(planned, planned["runs"][:3], {}, Cluster())
    assert jobs.records("s", [run["id"] for run in planned["runs"]]) == {}


def test_what_is_left_for_later_is_said(planned, tmp_path, monkeypatch, capsys):
    programs(tmp_path, monkeypatch, sbatch=LIMITED)
    assert command.main(["run", "s", "--engine", "slurm", "--detach"]) == 0
    out, err = capsys.readouterr()
    assert "not submitted yet: 4 runs, " in out
    assert ": sbatch: error: QOSMaxSubmitJobPerUserLimit\n" in out
    assert err == ""


@pytest.mark.parametrize(
    "text", ["Unable to contact slurm controller (connect failure)", "Socket timed out on send/recv"]
)
def test_what_may_have_arrived_is_looked_for(planned, tmp_path, monkeypatch, text):
    programs(tmp_path, monkeypatch, sbatch=f"echo x >> {tmp_path}/calls; echo 'sbatch: error: {text}' >&2; exit 1")
    made, refused = submit.submit(planned, planned["runs"][:3], {}, Cluster())
    assert made == {}
    assert text in refused
    assert (tmp_path / "calls").read_text() == "x\n"
    assert {record["task"] for record in records().values()} == {None}


def test_refused_by_sbatch(planned, here, tmp_path, monkeypatch, capsys):
    """One line of sbatch's own, and nothing is left that looks like a job."""
    programs(tmp_path, monkeypatch, sbatch="echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(RuntimeError, match="sbatch refused: sbatch: error: invalid partition"):
        submit.submit(planned, planned["runs"][:3], {}, Cluster())
    assert records() == {}
    assert capsys.readouterr().err == ""


def test_handed_over_and_written_down(planned, tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, sbatch="echo Submitted batch job 123")
    jobs.write("s", name("a"), "earlier", 0, "1")
    jobs.end("s", name("a"), "earlier", "ValueError: no")
    assert ended(name("a"))["error"] == "ValueError: no"
    submit.submit(planned, planned["runs"][:3], {}, Cluster())
    found = records()
    assert [found[name(n)]["task"] for n in "abc"] == ["123_0", "123_1", "123_2"]
    assert ended(name("a")) is None
    assert len({record["name"] for record in found.values()}) == 1
    submit.submit(planned, planned["runs"][:1], {}, Cluster())
    assert records()[name("a")]["task"] == "123"


@pytest.mark.parametrize(
    ("line", "message"),
    [("true # as ever", ""), ("false # 'no'", "--setup false # 'no': failed\n"), ("sh -c 'exit 3'", "failed\n")],
)
def test_a_setup_line_that_fails_ends_the_task(line, message):
    lines = submit.parameters("s-1", (), False, Cluster(setup=[line]))["setup"]
    done = subprocess.run(["bash", "-c", "\n".join([*lines, "echo goes on"])], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == ((1, "") if message else (0, "goes on\n"))
    assert done.stderr.endswith(message)


def test_a_folder_that_cannot_be_made_names_its_variable(here, monkeypatch):
    (here.root / "file").touch()
    monkeypatch.setenv(private.FOLDER, str(here.root / "file" / "mine"))
    with pytest.raises(OSError, match=f"cannot be made .Not a directory.: set {private.FOLDER} to"):
        private.folder("s")
