"""Wall times on paper, against cases worked out by hand."""

import pytest

from lib.study import simulate


def run(name: str, *sources: str, exclusive: bool = False) -> dict:
    return {"id": name, "sources": list(sources), "exclusive": exclusive}


# a: 4 s; b and c need it, 3 s and 2 s; d needs both, 1 s; e is alone in needing nothing, 5 s
PLAN = [run("a"), run("b", "a"), run("c", "a"), run("d", "b", "c"), run("e")]
SECONDS = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0, "e": 5.0}


@pytest.mark.parametrize(
    ("slots", "fixed_s", "wall_s"),
    [
        (1, 0.0, 15.0),
        (1, 1.0, 20.0),
        # a 0-4 and e 0-5; b 4-7, c 5-7; d 7-8
        (2, 0.0, 8.0),
        # a 0-5 and e 0-6; b 5-9, c 6-9; d 9-11
        (2, 1.0, 11.0),
        # a, then b beside c, then d
        (64, 0.0, 8.0),
        (64, 1.0, 11.0),
    ],
)
def test_by_hand(slots, fixed_s, wall_s):
    assert simulate.wall_s(PLAN, SECONDS, slots, fixed_s) == wall_s


def test_an_exclusive_run_is_alone():
    planned = [run("a"), run("timed", exclusive=True), run("b"), run("c")]
    # a and b from 0 to 2 and 3, c from 2 to 4; then the timed one
    seconds = {"a": 2.0, "timed": 10.0, "b": 3.0, "c": 2.0}
    assert simulate.wall_s(planned, seconds, 2) == 14.0
    assert simulate.wall_s(planned, seconds, 64) == 13.0


@pytest.mark.parametrize("slots", [1, 2, 3, 64])
def test_between_the_longest_chain_and_all_in_turn(slots):
    wall = simulate.wall_s(PLAN, SECONDS, slots, 0.5)
    longest, total = simulate.longest_s(PLAN, SECONDS, 0.5), sum(SECONDS.values()) + 0.5 * len(PLAN)
    assert longest == 4 + 3 + 1 + 1.5
    assert max(longest, total / slots) <= wall <= total


def test_no_run_takes_no_time():
    assert simulate.wall_s([], {}, 2) == 0.0
    assert simulate.longest_s([], {}) == 0.0


def test_of_a_plan_in_part():
    planned = {"runs": PLAN}
    assert simulate.among(planned, {"b", "d", "e"}) == [run("b"), run("d", "b"), run("e")]
