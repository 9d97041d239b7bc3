"""Transfer measures by hand on one small matrix, and what must hold for any."""

from __future__ import annotations

import numpy as np
import pytest

from spring.measures.transfer import (
    Follow,
    average,
    backward_transfer,
    delays,
    follow,
    forgetting,
    forward_transfer,
    held,
    personal,
)

# After learning period 0, 1, 2 (rows) on the tests of period 0, 1, 2 (columns).
SCORES = np.array([[-2.0, -3.0, -4.0], [-1.0, -1.5, -3.5], [-2.5, -2.0, -1.0]])
UNTRAINED = np.array([-5.0, -4.0, -4.5])


def test_by_hand() -> None:
    """Average: (-2.5 - 2 - 1) / 3. Backward: -2.5 + 2 and -2 + 1.5, both -0.5.

    Forward: -3 + 4 = 1 and -3.5 + 4.5 = 1. Forgetting: the best were -1 (after period 1) and -1.5, so 1.5
    and 0.5.
    """
    assert average(SCORES) == pytest.approx(-5.5 / 3)
    assert backward_transfer(SCORES) == pytest.approx(-0.5)
    assert forward_transfer(SCORES, UNTRAINED) == pytest.approx(1.0)
    assert forgetting(SCORES) == pytest.approx(1.0)


def test_nothing_learned_is_nothing_transferred() -> None:
    """The base model: all rows equal, and equal to the untrained one."""
    scores = np.tile(UNTRAINED, (3, 1))
    assert backward_transfer(scores) == forgetting(scores) == forward_transfer(scores, UNTRAINED) == 0
    assert average(scores) == pytest.approx(-4.5)


def test_only_gains_are_negative_forgetting() -> None:
    """Each state a nat better than the one before: two nats and one backward; one above the best so far."""
    scores = np.arange(3.0)[:, None] + np.zeros(3)
    assert backward_transfer(scores) == pytest.approx(1.5)
    assert forgetting(scores) == pytest.approx(-1.0)


def test_cells_outside_a_measure_do_not_move_it() -> None:
    later = SCORES.copy()
    later[0, 2] = -99.0  # two periods ahead: no measure reads it
    assert forward_transfer(later, UNTRAINED) == forward_transfer(SCORES, UNTRAINED)
    assert (average(later), backward_transfer(later)) == (average(SCORES), backward_transfer(SCORES))
    assert forgetting(later) == forgetting(SCORES)


def test_holes_are_refused() -> None:
    with pytest.raises(AssertionError, match="missing"):
        average(np.array([[0.0, np.nan], [0.0, 0.0]]))


def test_following_by_hand() -> None:
    """One user changes in period 1: +1 at once, +3 a period later. Two stable ones gain 0 and 1: 0.5.

    Period 2: the third changes, so that what it loses of its old habits counts no more: the second gains 1.
    Its own change gains 2, the two stable users 4 and 2.
    """
    scores = np.array(
        [
            [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 3.0, 5.0]],
            [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]],
            [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -5.0, 2.0]],
        ]
    )
    changed = np.array([[True, True, False], [False, False, False], [False, False, True]])
    never = np.zeros_like(changed)
    found = follow(scores, changed=changed, stable=~changed, returned=never)
    assert found == [Follow(0, pytest.approx((0.5 - 1) / 2), 2), Follow(1, pytest.approx(2.0), 1)]
    assert follow(scores, changed=changed, stable=never, returned=never) == []  # nothing to compare with
    assert follow(scores, changed=never, stable=~changed, returned=never) == []


def test_a_change_is_followed_until_the_next() -> None:
    """The same scores, the first user's old habits back in period 2: what came a period later is theirs."""
    scores = np.zeros((2, 3, 3))
    scores[0, 1:, 1] = 1.0, 3.0
    changed, returned = np.array([[[False, True, False], [False] * 3], [[False, False, True], [False] * 3]])
    stable = ~(changed | returned)
    assert follow(scores, changed=changed, stable=stable, returned=returned) == [Follow(0, 1.0, 1)]
    lasting = follow(scores, changed=changed, stable=stable, returned=np.zeros_like(returned))
    assert lasting == [Follow(0, 1.0, 1), Follow(1, 3.0, 1)]


def test_delay_is_where_half_of_the_most_of_any_arm_is_reached() -> None:
    curves = {
        "quick": [Follow(0, 0.6, 2), Follow(1, 0.9, 2)],
        "slow": [Follow(0, 0.4, 2), Follow(1, 1.0, 1)],
        "hardly": [Follow(0, 0.1, 2), Follow(1, 0.2, 1)],  # at once by a bar of its own
        "not": [Follow(0, -0.5, 2)],
    }
    assert delays(curves) == {"quick": 0, "slow": 1, "hardly": None, "not": None}
    assert delays({"not": curves["not"], "none": []}) == {"not": None, "none": None}
    few = {"quick": [Follow(0, 0.6, 7)], "late": [Follow(0, 0.2, 7), Follow(1, 0.5, 6), Follow(2, 9.0, 2)]}
    few["thin"] = [Follow(0, 0.2, 7), Follow(2, 0.9, 2)]
    assert delays(few) == {"quick": 0, "late": 1, "thin": None}, (
        "two changes of seven neither set a bar nor reach it"
    )


def test_held_is_what_is_left_when_a_habit_returns() -> None:
    """A until 0, B in 1 and 2, A again in 3: state 2 knows A's tests by 2, state 0 knew them by 3."""
    scores = np.zeros((5, 5))
    scores[:, 3] = 3.0, 2.5, 2.0, 9.0, 9.0  # what is learned in period 3 and later plays no part
    changed, returned = np.arange(5) == 1, np.arange(5) == 3
    assert held(scores, changed=changed, returned=returned) == -1.0
    assert held(scores, changed=changed, returned=np.zeros(5, bool)) is None
    again = returned | (np.arange(5) == 4)  # B again in 4: known since 2, A learned on in 3
    scores[:, 4] = 0.0, 1.0, 4.0, 4.5, 0.0
    assert held(scores, changed=changed, returned=again) == pytest.approx((-1.0 + 0.5) / 2)
    assert held(scores, changed=np.zeros(5, bool), returned=returned) is None  # when it went is not known


def test_personal_is_own_against_a_strangers_adapter() -> None:
    assert personal(np.array([9.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.0])) == 2.0  # period 0 is not evaluated
