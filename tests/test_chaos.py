"""The short form of chaos.py: one kill of each kind."""

import chaos
import pytest


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return chaos.undisturbed(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_study_comes_out_the_same_whatever_is_killed(alone, tmp_path, number):
    expected, lasts_s = alone
    kind, (_, share) = chaos.KINDS[number], chaos.draw(1, number)
    moment_s, wrong = chaos.disturbed(tmp_path, kind, share * lasts_s[kind], expected)
    assert wrong == [], f"{kind} killed after {moment_s:.2f} of {lasts_s[kind]:.1f} s"


def test_kinds_and_moments_follow_from_the_seed():
    drawn = [chaos.draw(0, number) for number in range(100)]
    assert drawn == [chaos.draw(0, number) for number in range(100)]
    assert {kind for kind, _ in drawn} == set(chaos.KINDS)
    assert all(0 <= share < 1 for _, share in drawn)
    assert drawn != [chaos.draw(1, number) for number in range(100)]
