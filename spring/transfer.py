"""What a learner keeps and gains over periods, from the matrix scores[i, j].

scores[i, j] is a metric (higher is better) on the test items of period j after learning period i; P periods,
[P, P]. `untrained` [P] is the metric before anything was learned, here that of the base model. Sources:

    Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory for Continual Learning" (arXiv 1706.08840)
    Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning" (arXiv 1801.10112)

Both speak of accuracies and of tasks that stay what they were. Here the metric is a log-likelihood per token,
so values are in nats, and a user may change in between: docs/statistics.md says how to read them then.
"""

from __future__ import annotations

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


def _checked(scores: np.ndarray) -> np.ndarray:
    assert scores.ndim == 2 and scores.shape[0] == scores.shape[1] >= 2, scores.shape
    assert np.isfinite(scores).all(), "a cell of the matrix is missing"
    return scores
