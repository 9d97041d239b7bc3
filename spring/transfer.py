"""What a learner keeps and gains over periods, from the matrix scores[i, j].

scores[i, j] is a metric (higher is better) on the test items of period j after learning period i; P periods,
[P, P]. `untrained` [P] is the metric before anything was learned, here that of the base model. Sources:

    Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory for Continual Learning" (arXiv 1706.08840)
    Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning" (arXiv 1801.10112)

Both speak of accuracies and of tasks that stay what they were. Here the metric is a log-likelihood per token,
so values are in nats, and a user may change in between: docs/statistics.md says how to read them then.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    below zero. Being a maximum, it is above zero for noise alone: compare arms, not with zero.
    """
    scores = _checked(scores)
    return float((scores[:-1, :-1].max(axis=0) - scores[-1, :-1]).mean())


@dataclass(frozen=True)
class Follow:
    """How far states have followed a change `periods` after the one it came in, over `changes` of them."""

    periods: int
    excess: float  # metric gained on the new habits beyond what learning gains on unchanged ones
    changes: int


def follow(scores: np.ndarray, *, changed: np.ndarray, stable: np.ndarray) -> list[Follow]:
    """The gain on a period's tests since just before it, where a user changed less where none did [ours].

    scores [N, P, P]; changed, stable [N, P] bool: the tests of this period are written in a new way, or as
    before. Over d = 0, 1, ..: the mean over changes (u, c) of scores[u, c+d, c] - scores[u, c-1, c], less the
    mean of the same over the users stable in c: states improve on every text of a task, changed or not.
    Changes in period 0, or in a period in which no user is stable, are left out; later d have fewer.
    """
    scores_of = [_checked(user) for user in scores]
    periods = scores.shape[1]
    found = []
    for d in range(periods - 1):
        excesses = []
        for c in range(1, periods - d):
            gains = np.array([user[c + d, c] - user[c - 1, c] for user in scores_of])
            if stable[:, c].any():
                excesses += (gains[changed[:, c]] - gains[stable[:, c]].mean()).tolist()
        if excesses:
            found.append(Follow(d, float(np.mean(excesses)), len(excesses)))
    return found


def delay(curve: Sequence[Follow]) -> int | None:
    """Periods until half of the largest excess is there; None where there is none to reach [ours]."""
    largest = max((point.excess for point in curve), default=0.0)
    if largest <= 0:
        return None
    return next(point.periods for point in curve if point.excess >= largest / 2)


def _checked(scores: np.ndarray) -> np.ndarray:
    assert scores.ndim == 2 and scores.shape[0] == scores.shape[1] >= 2, scores.shape
    assert np.isfinite(scores).all(), "a cell of the matrix is missing"
    return scores
