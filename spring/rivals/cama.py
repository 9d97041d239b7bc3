"""CAMA as SPRInG's comparison adapts it: learn what the adapter is already sure of (`train.data: confident`).

"Keep new samples whose confidence exceeds the mean confidence of the previous period, train on them mixed
with buffer samples." -style: that is all its source says. The method of this name, arXiv 2403.07548, is
another one: a confidence-aware moving average of stored logits. N new interactions of one user and period.

[ours] confidence: the geometric mean of the response tokens' probabilities under the adapter that an item
meets: that of period t-1 for the new items, that of t-2 for those of period t-1, the base model for those of
period 0. So nobody had learned the items on either side; under one adapter, the period before would have been
learned, and hardly a new item passed. Where nothing exceeds the mean, the surest new item is kept, so that no
period goes unlearned. Half of each batch is drawn from the buffer, a reservoir of what was kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spring.method.drift import Floats, mean_logp


def confidence(logp: Any, tokens: Any) -> Floats:
    """exp(log p / tokens) of each response, in (0, 1]; log p sums over its tokens, nats. [N]."""
    return np.exp(mean_logp(logp, tokens, normalise="token"))


def keep_confident(new: Floats, previous: Floats) -> NDArray[np.int64]:
    """Indices, in time order, of new items above the previous period's mean; at least the surest."""
    kept = np.flatnonzero(new > previous.mean())
    return kept if kept.size else np.array([np.argmax(new)])
