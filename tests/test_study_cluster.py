"""Cluster options: which of three places counts, and what is refused."""

import pytest
import yaml

from lib.study import __main__ as command
from lib.study import cluster, spec
from lib.study.cluster import Cluster, minutes, options


@pytest.fixture
def of_user(monkeypatch, tmp_path):
    """Write the user's file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text: str) -> None:
        cluster.user_file().parent.mkdir(parents=True, exist_ok=True)
        cluster.user_file().write_text(text)

    return write


def test_nothing_said_is_nothing_asked(of_user):
    assert options(None, {}).model_dump(exclude_none=True) == {}


def test_the_command_line_over_the_study_over_the_user(of_user):
    of_user(yaml.safe_dump({"partition": "user", "account": "user", "mem": "1G", "setup": "module load one"}))
    found = options(Cluster(partition="study", account="study"), {"partition": "line"})
    assert found.model_dump(exclude_none=True) == {
        "partition": "line",
        "account": "study",
        "mem": "1G",
        "setup": ["module load one"],
    }


@pytest.mark.parametrize(
    ("text", "whole"),
    [("90", 90), ("1:30", 2), ("01:30:00", 90), ("2-12", 3600), ("1-00:30", 1470), ("1-00:00:01", 1441), ("0:30", 1)],
)
def test_times(text, whole):
    assert minutes(text) == whole


@pytest.mark.parametrize(
    "value",
    [
        {"partitions": "a"},
        {"partition": "a b"},
        {"partition": "a\n#SBATCH --uid=0"},
        {"time": "soon"},
        {"time": "0"},
        {"time": "4:59:"},
        {"time": "1"},
        {"time": 90},
        {"time": True},
        {"time": [1]},
        {"mem": True},
        {"mem": 1.5},
        {"account": True},
        {"account": ["a"]},
        {"array_limit": True},
        {"array_limit": "7"},
        {"cpus": 2.0},
        {"setup": {"a": 1}},
        {"mem": "much"},
        {"cpus": 0},
        {"group": -1},
        {"array_limit": "x"},
        {"setup": ["one\ntwo"]},
    ],
)
def test_what_is_refused_in_one_line(of_user, here, value):
    with pytest.raises(ValueError, match=next(iter(value))) as caught:
        options(None, value)
    assert "\n" not in str(caught.value)
    here.write("s", {"notebook": "stub"}, cluster=value)
    with pytest.raises(ValueError, match="study s: cluster") as caught:
        spec.read("s")
    assert "\n" not in str(caught.value)
    of_user(yaml.safe_dump(value))
    with pytest.raises(ValueError, match="cluster.yaml") as caught:
        options(None, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"title": "T", "questions": "Q"}, "questions: received 'Q', allowed are title, question, "),
        ({"cluster": {"array-limit": 1}}, "cluster.array-limit: received 1, allowed are partition, gres, "),
        ({"cluster": "gpu"}, "cluster: received 'gpu', allowed are lines such as `key: value`"),
        (None, "study s: received None, allowed are lines such as `key: value`"),
    ],
)
def test_keys_that_are_allowed_are_named(here, said, message):
    block = {"notebook": "stub"}
    whole = {"title": "T", "question": "Q?", "seeds": [1], "blocks": [block]}
    (here.studies / "s.yaml").write_text(yaml.safe_dump(said and whole | said))
    with pytest.raises(ValueError, match="^study s: ") as caught:
        spec.read("s")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_where_the_cluster_takes_them(of_user):
    of_user("mem: 8000\naccount: 123\nqos: 1\narray_limit: 4")
    found = options(None, {}).model_dump(exclude_none=True)
    assert found == {"mem": "8000", "account": "123", "qos": "1", "array_limit": 4}


@pytest.mark.parametrize("text", ["90", "1:30:00", "5:00", "720"])
def test_a_time_that_yaml_may_have_changed_is_refused(of_user, text):
    """It takes 5:00 for 300; nobody can tell that from 300 minutes."""
    of_user(f"time: {text}")
    with pytest.raises(ValueError, match="in quotation marks"):
        options(None, {})
    of_user(f'time: "{text}"')
    assert options(None, {}).time == text


@pytest.mark.parametrize(
    "value", [{"mem": "x"}, {"account": True}, {"time": "4"}, {"time": 5}, {"time": "soon"}, {"cpus": True}]
)
def test_what_is_allowed_is_said(of_user, value):
    ((name, given),) = value.items()
    with pytest.raises(ValueError, match=f"cluster: {name}: received {given!r}, (allowed|input should be a valid int)"):
        options(None, value)


@pytest.mark.parametrize("text", ["a: [", "- partition", "just text"])
def test_a_malformed_file_of_the_user(of_user, text):
    of_user(text)
    with pytest.raises(ValueError, match="cluster.yaml") as caught:
        options(None, {})
    assert "\n" not in str(caught.value)


def test_an_empty_file_of_the_user(of_user):
    of_user("# nothing yet\n")
    assert options(None, {}) == Cluster()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--partition", "x"], "--partition goes with --engine slurm only"),
        (["--detach"], "--detach goes with --engine slurm only"),
        (["--engine", "slurm", "--jobs", "2"], "--jobs goes with --engine local only"),
        (["--engine", "slurm", "--per-gpu", "2"], "--per-gpu goes with --engine local only"),
        (["--engine", "slurm", "--detach", "--report"], "--report goes without --detach only"),
        (["--engine", "slurm", "--time", "soon"], "received 'soon'"),
    ],
)
def test_options_that_do_not_go_together(of_user, here, capsys, given, message):
    here.write("s", {"notebook": "stub"})
    assert command.main(["run", "s", *given]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_machine_without_slurm_says_so(of_user, here, capsys, monkeypatch):
    here.write("s", {"notebook": "stub"})
    monkeypatch.setenv("PATH", str(here.root))
    assert command.main(["run", "s", "--engine", "slurm"]) == 1
    assert "there is no sbatch here" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["module load a", "[ -d x ] || mkdir x  # why", "if true; then cd x; fi", "a | b"])
def test_a_setup_line_is_a_whole_command(line):
    assert Cluster(setup=line).setup == [line]


@pytest.mark.parametrize("line", ["if true; then", "export A=1 \\", "cat <<END", "echo 'x", ")"])
def test_half_a_command_is_none(line):
    with pytest.raises(ValueError, match="allowed is a whole command of the shell"):
        Cluster(setup=["true", line])
