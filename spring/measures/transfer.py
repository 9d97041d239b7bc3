"""What a learner keeps and gains over periods, from the matrix scores[i, j].

scores[i, j] is a metric (higher is better) on the test items of period j after learning period i; P periods,
[P, P]. `untrained` [P] is the metric before anything was learned, here that of the base model. Sources:

    Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory for Continual Learning" (arXiv 1706.08840)
    Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning" (arXiv 1801.10112)

Both speak of accuracies and of tasks that stay what they were. Here the metric is a log-likelihood per token,
so values are in nats, and a user may change in between: docs/statistics.md says how to read them then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def average(scores: np.ndarray) -> float:
    """Mean over all periods after learning the last one (ACC of Lopez-Paz and Ranzato)."""
    return float(_checked(scores)[-1].mean())


def backward_transfer(scores: np.ndarray) -> float:
    """What learning on did to earlier periods: mean of scores[P-1, j] - scores[j, j] over j < P-1.

    BWT of Lopez-Paz and Ranzato. Below zero: what was known is known less well at the end.
    """
    scores = _checked(scores)
    return float((scores[-1] - scores.diagonal())[:-1].mean())


def forward_transfer(scores: np.ndarray, untrained: np.ndarray) -> float:
    """What earlier learning did for a period still to come: mean of scores[j-1, j] - untrained[j], j >= 1.

    FWT of Lopez-Paz and Ranzato.
    """
    scores = _checked(scores)
    assert untrained.shape == scores.shape[:1], (untrained.shape, scores.shape)
    return float((scores.diagonal(offset=1) - untrained[1:]).mean())


def forgetting(scores: np.ndarray) -> float:
    """How far earlier periods fell below their best: max_i scores[i, j] - scores[P-1, j], mean over j < P-1.

    F of Chaudhry et al., with the maximum over all states i < P-1. Where the last state is the best one it is
    below zero. Being a maximum, it is above zero for noise alone, and states before period j count too: a
    memory that fills with other things forgets what was never learned: compare arms, not with zero.
    """
    scores = _checked(scores)
    return float((scores[:-1, :-1].max(axis=0) - scores[-1, :-1]).mean())


def held(scores: np.ndarray, *, changed: np.ndarray, returned: np.ndarray) -> float | None:
    """What is left of a habit on its return: scores[r-1, r] - scores[c-1, r], mean over returns r [ours].

    changed, returned [P] bool: the tests of this period are written in a new way, in an old one again. c is
    the last change or return before r, when the habit went away, so that the states c .. r-1 have learned
    another one meanwhile. Below zero: it was unlearned. Learning on lifts every text of a task, so compare
    arms, not with zero. None for a user without returns.
    """
    scores = _checked(scores)
    left = []
    for r in np.flatnonzero(returned):
        turns = np.flatnonzero((changed | returned)[:r])
        if turns.size and turns[-1] > 0:
            left.append(float(scores[r - 1, r] - scores[turns[-1] - 1, r]))
    return float(np.mean(left)) if left else None


def personal(own: np.ndarray, swapped: np.ndarray) -> float:
    """What a user's own adapter gives beyond a stranger's: mean of own - swapped over periods >= 1 [ours].

    Both [P]: a metric on the tests of each period after learning it, under the user's adapter and under
    another user's of the same period and arm. A stranger's adapter may do harm besides, so that this is the
    most that can be personal, and may exceed what the own adapter gains.
    """
    assert own.shape == swapped.shape, (own.shape, swapped.shape)
    return float((own - swapped)[1:].mean())


@dataclass(frozen=True)
class Follow:
    """How far states have followed a change `periods` after the one it came in, over `changes` of them."""

    periods: int
    excess: float  # metric gained on the new habits beyond what learning gains on unchanged ones
    changes: int


def follow(
    scores: np.ndarray, *, changed: np.ndarray, stable: np.ndarray, returned: np.ndarray
) -> list[Follow]:
    """The gain on a period's tests since just before it, where a user changed less where none did [ours].

    scores [N, P, P], NaN where a state did not know the user yet or there is no test; changed, stable,
    returned [N, P] bool: the tests of this period are written in a new way, as before, in an old way again.
    Over d = 0, 1, ..: the mean over changes (u, c) of scores[u, c+d, c] - scores[u, c-1, c], less the mean of
    the same over the users stable in c: states improve on every text of a task, changed or not.
    Changes in period 0, or in a period in which no user is stable, are left out. Users of both groups count
    until their next change or return: what comes after is another habit's learning. So later d have fewer.
    """
    periods, turns = scores.shape[1], changed | returned
    found = []
    for d in range(periods - 1):
        excesses = []
        for c in range(1, periods - d):
            gains = scores[:, c + d, c] - scores[:, c - 1, c]
            as_it_was = ~turns[:, c + 1 : c + d + 1].any(axis=1) & np.isfinite(gains)
            lasting, calm = changed[:, c] & as_it_was, stable[:, c] & as_it_was
            if calm.any():
                excesses += (gains[lasting] - gains[calm].mean()).tolist()
        if excesses:
            found.append(Follow(d, float(np.mean(excesses)), len(excesses)))
    return found


def delays(curves: Mapping[str, Sequence[Follow]]) -> dict[str, int | None]:
    """Arm -> periods until its excess is half of the largest of any arm; None where it never is [ours].

    One bar for all: half of an arm's own largest would call slow whoever goes on learning, and quick whoever
    learns next to nothing. Points of fewer than half of the changes neither set the bar nor reach it.
    """
    most = max((at.changes for curve in curves.values() for at in curve), default=0)
    enough = {arm: [at for at in curve if 2 * at.changes >= most] for arm, curve in curves.items()}
    bar = max((at.excess for curve in enough.values() for at in curve), default=0.0) / 2
    return {
        arm: next((at.periods for at in curve if at.excess >= bar > 0), None) for arm, curve in enough.items()
    }


def _checked(scores: np.ndarray) -> np.ndarray:
    assert scores.ndim == 2 and scores.shape[0] == scores.shape[1] >= 2, scores.shape
    assert np.isfinite(scores).all(), "a cell of the matrix is missing"
    return scores
