"""Transfer measures by hand on one small matrix, and what must hold for any."""

from __future__ import annotations

import numpy as np
import pytest

from spring.transfer import (
    Follow,
    average,
    backward_transfer,
    delay,
    follow,
    forgetting,
    forward_transfer,
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
    """One user changes in period 1: +1 at once, +3 a period later. Two stable ones gain 0 and 1: 0.5, then 1.

    Period 2: the changed user is stable and the others change; +2 each, beyond the 4 of the first.
    """
    scores = np.array(
        [
            [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 3.0, 5.0]],
            [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]],
            [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 2.0]],
        ]
    )
    changed = np.array([[True, True, False], [False, False, True], [False, False, True]])
    found = follow(scores, changed=changed, stable=~changed)
    assert found == [Follow(0, pytest.approx((0.5 - 2 - 2) / 3), 3), Follow(1, pytest.approx(2.0), 1)]
    assert delay(found) == 1
    assert follow(scores, changed=changed, stable=np.zeros_like(changed)) == []  # nothing to compare with
    assert follow(scores, changed=np.zeros_like(changed), stable=~changed) == []


def test_delay_is_where_half_of_the_most_is_reached() -> None:
    assert delay([Follow(0, 0.4, 2), Follow(1, 0.5, 2), Follow(2, 1.0, 1)]) == 1
    assert delay([Follow(0, 0.5, 2), Follow(1, 1.0, 1)]) == 0
    assert delay([Follow(0, -0.5, 2)]) is None and delay([]) is None
