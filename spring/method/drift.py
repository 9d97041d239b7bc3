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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spring.settings.train import Select

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
    """What is known of one user's new period when it is scored; the first three fields are [N]."""

    logp_base: Any
    logp_adap: Any  # under the adapter of the previous period
    tokens: Any
    seed: int  # of this user and period; only `random` draws from it
    embeddings: Any = None  # [N, D], only for `embedding`
    past_embeddings: Any = None  # [M, D] of the user's train interactions of all earlier periods

    @property
    def log_likelihoods(self) -> dict[str, Any]:
        """The arguments of `drift_score`."""
        return {"logp_base": self.logp_base, "logp_adap": self.logp_adap, "tokens": self.tokens}


def likelihood_score(select: Select, batch: Batch) -> Floats:
    """The paper's score (Eq. 1)."""
    return drift_score(**batch.log_likelihoods, alpha=select.alpha, normalise=select.normalise)


def bottom_score(select: Select, batch: Batch) -> Floats:
    """The paper's score upside down: a control that learns what the method would leave out [ours]."""
    return -likelihood_score(select, batch)


def loss_score(select: Select, batch: Batch) -> Floats:
    """Plain loss under the previous adapter, a control [ours]."""
    return loss(logp_adap=batch.logp_adap, tokens=batch.tokens, normalise=select.normalise)


def random_score(select: Select, batch: Batch) -> Floats:
    """Uniform numbers, a control [ours]."""
    return np.random.default_rng(batch.seed).random(len(batch.tokens))


def embedding_score(select: Select, batch: Batch) -> Floats:
    """One minus the cosine to the mean embedding of the user's past, in [0, 2].

    From the blog account of the method, which looks for drift in embeddings. `ValueError` without a past or
    where a cosine is undefined.
    """
    assert batch.embeddings is not None and batch.past_embeddings is not None, "embeddings are needed"
    items, past = np.asarray(batch.embeddings, float), np.asarray(batch.past_embeddings, float)
    if len(past) == 0:
        raise ValueError(
            "scorer `embedding` compares with the user's past, and there is none: start at period 1"
        )
    centre = past.mean(axis=0)
    lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(centre)
    if (undefined := np.flatnonzero(lengths == 0)).size:
        raise ValueError(
            f"scorer `embedding`: the cosine of row {undefined[0]} to the past is undefined (length 0)"
        )
    return 1 - items @ centre / lengths


SCORERS: dict[str, Callable[[Select, Batch], Floats]] = {
    "likelihood": likelihood_score,
    "bottom": bottom_score,
    "loss": loss_score,
    "random": random_score,
    "embedding": embedding_score,
}
ASK_BASE = ("likelihood", "bottom")  # scorers that need the base model's likelihoods, and so its time
ASK_ADAPTER = ("likelihood", "bottom", "loss")  # the same of the previous adapter's


def score(select: Select, batch: Batch) -> Floats:
    """Scores each interaction of a new period by `select.scorer`; the highest are learned. [N]."""
    return SCORERS[select.scorer](select, batch)


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
