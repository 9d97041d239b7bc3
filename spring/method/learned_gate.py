"""A gate that learned from the past which memories help (`gate: learned`) [ours].

A pair is a past train query with an item that was retrieved for it; its gain is by how much the item raised
the log-likelihood of the query's reference as the arm would have answered, mixture and all (Eq. 8), under the
adapter and the memory that it had *before* it learned from that query. A logistic regression tells from the
features below whether a gain is positive. K is the number of pairs.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Floats = NDArray[np.float64]
OPEN = 0.5  # an item passes if a gain is more probable than none
EXACT = 8192  # pairs; of more, the last 1/128 or fewer may wait for the next fit


@dataclass(frozen=True)
class Features:
    """What is known of a (query, item) pair before anything is generated."""

    score: float  # Sim(q, h)
    standing: float  # of the score among past scores: above 0.75 is above sigma = q3
    rank: int  # 1: the best item of its query
    query_words: float  # ln(1 + words of the query)
    item_words: float  # ln(1 + words of the item)
    age: float  # ln(1 + days from item to query)


def features(
    *, score: float, standing: float, rank: int, query_words: int, item_words: int, days: float
) -> Features:
    """Features of one pair; lengths and age on a logarithmic scale."""
    assert rank >= 1 and days >= 0, (rank, days)
    lengths = math.log1p(query_words), math.log1p(item_words)
    return Features(float(score), float(standing), rank, *lengths, math.log1p(days))


def matrix(pairs: Any) -> Floats:
    """`Features` of pairs, or what they are already, as [K, 6]."""
    if isinstance(pairs, np.ndarray):
        return pairs
    return np.array([astuple(pair) for pair in pairs], dtype=np.float64).reshape(-1, 6)


class LearnedGate:
    """P(gain > 0) by logistic regression on standardised features.

    Its log loss is a proper score, so its probabilities are calibrated as far as the features carry. Where
    every one of K pairs helped, each is (K + 1) / (K + 2), by Laplace's rule; where none did, or there is
    none, the gate is `closed`.
    """

    def __init__(self, pairs: Any, gains: Any) -> None:
        gains = np.asarray(gains, dtype=np.float64)
        assert len(pairs) == len(gains), (len(pairs), len(gains))
        helped = gains > 0
        self.closed = not helped.any()  # nothing passes, for want of a pair that helped
        self.constant = 0.0 if self.closed else (len(helped) + 1) / (len(helped) + 2)  # without a model
        self.model: Pipeline | None = None
        if not self.closed and not helped.all():
            self.model = _regression().fit(matrix(pairs), helped)

    def probabilities(self, pairs: Any) -> Floats:
        """P(gain > 0) of each pair; 0 where the gate is closed. [K]."""
        if self.model is None or not len(pairs):
            return np.full(len(pairs), self.constant)
        return np.asarray(self.model.predict_proba(matrix(pairs))[:, 1])

    def weights(self, pairs: Any) -> Floats:
        """Weight of each item in the context: its probability if above one half, else 0. [K]."""
        found = self.probabilities(pairs)
        return np.where(found > OPEN, found, 0.0)


def learned_from(known: int) -> int:
    """How many of the pairs that are known a gate is fitted to, the earliest: all of up to `EXACT` of them.

    Of more it is fitted anew each time that they have become 1 in 128 to 256 more: fits would else grow in
    number with the queries, and each with the pairs.
    """
    return known if known <= EXACT else known - known % (1 << (known.bit_length() - 8))


def foretold(pairs: Any, gains: Any, times: Any) -> tuple[Floats, Floats]:
    """P(gain > 0) of each pair as the gate gave it at its time, and the share of gains so far. [K] each.

    Learned from the pairs of strictly earlier queries alone (Dawid 1984, prequential). NaN where the gate was
    still closed. `times` are those of the queries, [K], in any order.
    """
    times, gains, pairs = np.asarray(times), np.asarray(gains, dtype=np.float64), matrix(pairs)
    helped, gate, fitted = gains > 0, LearnedGate((), ()), 0
    order = np.argsort(times, kind="stable")
    said, shares = np.full(len(times), np.nan), np.full(len(times), np.nan)
    for time in np.unique(times):
        known = order[: np.searchsorted(times[order], time)]
        if (count := learned_from(len(known))) > fitted:
            gate, fitted = LearnedGate(pairs[known[:count]], gains[known[:count]]), count
        if gate.closed:
            continue
        now = np.flatnonzero(times == time)
        said[now] = gate.probabilities(pairs[now])
        shares[now] = helped[known].mean()
    return said, shares


def brier(probabilities: Any, happened: Any) -> float:
    """Mean squared error of probabilities of what happened or not, both [K] (Brier 1950); lower is better."""
    return float(np.mean((np.asarray(probabilities) - np.asarray(happened)) ** 2))


def calibration_error(probabilities: Any, happened: Any, *, bins: int = 5) -> float:
    """Expected calibration error over bins of equally many pairs (Naeini et al. 2015), in [0, 1].

    Chance alone lifts it above 0, the more the fewer pairs a bin has.
    """
    probabilities, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(happened)
    parts = np.array_split(np.argsort(probabilities, kind="stable"), min(bins, len(probabilities)))
    gaps = [len(part) * abs(probabilities[part].mean() - happened[part].mean()) for part in parts]
    return float(sum(gaps) / len(probabilities))


def _regression() -> Pipeline:
    from sklearn.linear_model import LogisticRegression  # here: takes seconds, and few arms need it
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
