"""Which interactions of a new period drifted: the drift score and the selection by it (Eq. 1, 2).

Everything is for one user and one period; N is the number of train interactions of that period, in time
order. Log-probabilities are sums over the response tokens, in nats; `tokens` counts those tokens.

[paper] S(q, a) = -(log p_adap - log p_base) + alpha * log p_base, with p_adap under the adapter of the
*previous* period; the first term is the novelty, the second the quality. The top 30 % are learned.
[ours]  log p is a mean per response token (`normalise: token`). With a sum the shortest responses would
always score highest, while the paper counts extremely short texts as low quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Normalise = Literal["token", "sequence"]


def mean_logp(logp: Any, tokens: Any, *, normalise: Normalise) -> Floats:
    """Log-probability of each response: per token, or of the whole sequence. [N], nats.

    `ValueError` where a row has no response token: its mean is undefined and it teaches nothing.
    """
    logp, tokens = np.asarray(logp, dtype=np.float64), np.asarray(tokens)
    assert logp.shape == tokens.shape, (logp.shape, tokens.shape)
    if (empty := np.flatnonzero(tokens < 1)).size:
        raise ValueError(
            f"tokens of row {empty[0]} is {tokens[empty[0]]}: a response needs at least one token to be "
            f"scored; remove the row or raise ingest.min_chars"
        )
    return logp / tokens if normalise == "token" else logp


def novelty(*, logp_base: Any, logp_adap: Any, tokens: Any, normalise: Normalise) -> Floats:
    """First term of Eq. 1: -(log p_adap - log p_base), high where the previous adapter fits worse. [N]."""
    base = mean_logp(logp_base, tokens, normalise=normalise)
    return base - mean_logp(logp_adap, tokens, normalise=normalise)


def quality(*, logp_base: Any, tokens: Any, normalise: Normalise) -> Floats:
    """Second term of Eq. 1 before its weight: log p_base, low for noise and gibberish. [N]."""
    return mean_logp(logp_base, tokens, normalise=normalise)


def loss(*, logp_adap: Any, tokens: Any, normalise: Normalise) -> Floats:
    """Negative log-likelihood under the adapter, a control: no base model, no quality term [ours]. [N]."""
    return -mean_logp(logp_adap, tokens, normalise=normalise)


def drift_score(*, logp_base: Any, logp_adap: Any, tokens: Any, alpha: float, normalise: Normalise) -> Floats:
    """Drift score S = novelty + alpha * quality (Eq. 1). [N].

    alpha = 0 leaves the novelty alone, alpha = inf the quality alone (the limit of the ranking) [ours].
    """
    worth = quality(logp_base=logp_base, tokens=tokens, normalise=normalise)
    if math.isinf(alpha):
        return worth
    new = novelty(logp_base=logp_base, logp_adap=logp_adap, tokens=tokens, normalise=normalise)
    return new + alpha * worth


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All that a scorer may read: one user's new period, and the settings of its score."""

    logp_base: Any  # [N]
    logp_adap: Any  # [N], under the adapter of the previous period
    tokens: Any  # [N]
    alpha: float
    normalise: Normalise
    seed: int  # of this user and period
    embeddings: Any = None  # [N, D], for scorers that say they read them
    past_embeddings: Any = None  # [M, D] of the user's train interactions of all earlier periods


def share_count(n: int, *, share: float) -> int:
    """ceil(share * n), where 0.07 * 100 is 7 and not 8: the product is rounded to 9 decimals first."""
    return min(n, max(1, math.ceil(round(share * n, 9))))


def select_drift(scores: Any, *, share: float) -> NDArray[np.int64]:
    """The drift set (Eq. 2): indices of the ceil(share * N) highest scores, in time order.

    [ours] the ceiling, so that no user's period goes unlearned, and ties: the earlier interaction wins.
    `ValueError` for a score that is not a number or infinite, naming its row.
    """
    scores = np.asarray(scores, dtype=np.float64)
    assert 0 < share <= 1, share
    if (bad := np.flatnonzero(~np.isfinite(scores))).size:
        raise ValueError(
            f"drift score of row {bad[0]} is {scores[bad[0]]}: scores must be finite; check the "
            f"log-likelihoods of that interaction"
        )
    highest_first = np.argsort(-scores, kind="stable")
    return np.sort(highest_first[: share_count(len(scores), share=share)])
