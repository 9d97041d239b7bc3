"""Which retrieved memories enter the context, and how much they weigh (Eq. 6).

K is the number of retrieved items of one query.

[paper] An item enters the context only if Sim(q, h) > sigma, with sigma the third quartile (Q3) of retrieval
scores (ablation: 0, Q2). If none passes, generation is purely parametric.
[ours]  sigma comes from past scores only. The `soft` gate; the `learned` one is in learned_gate.py.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["strict", "soft"]  # the third is in learned_gate.py

QUANTILES = {"q2": 0.5, "q3": 0.75}


class Past:
    """Scores in the order in which they became known: any quantile of the first so many of them.

    The sorted scores are cut into blocks, and how many of each block were known is counted now and then, so
    that a quantile takes the square root of the work that sorting does.
    """

    def __init__(self, scores: Any) -> None:
        scores = finite(scores)
        self.size = math.isqrt(len(scores)) + 1  # of a block, and scores between two counts
        self.known_at = np.argsort(scores, kind="stable").astype(np.int32)  # in the order of the scores
        self.sorted = scores[self.known_at]
        self.blocks = np.empty(len(scores), np.int32)
        self.blocks[self.known_at] = np.arange(len(scores)) // self.size
        counts = [self._count(start, start + self.size) for start in range(0, len(scores), self.size)]
        self.counts = np.cumsum([self._count(0, 0), *counts], axis=0, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.sorted)

    def _count(self, start: int, stop: int) -> NDArray[np.int32]:
        """How many of the scores from the one number to the other lie in each block."""
        return np.bincount(self.blocks[start:stop], minlength=self.size).astype(np.int32)

    def _held(self, count: int) -> NDArray[np.int64]:
        """How many of the first `count` lie in each block and those before it."""
        mark = count // self.size
        return np.cumsum(self.counts[mark] + self._count(mark * self.size, count))

    def _lowest(self, place: int, count: int) -> float:
        """The score that has `place` lower ones among the first `count`, ties apart."""
        held = self._held(count)
        block = int(np.searchsorted(held, place, "right"))
        start, before = block * self.size, held[block - 1] if block else 0
        known = np.flatnonzero(self.known_at[start : start + self.size] < count)
        return float(self.sorted[start + known[place - before]])

    def lower(self, scores: Floats, count: int, *, ties: bool) -> NDArray[np.int64]:
        """How many of the first `count` are lower than each of `scores`, or equal if `ties`. [K]."""
        held, found = self._held(count), np.zeros(len(scores), np.int64)
        for i, place in enumerate(np.searchsorted(self.sorted, scores, "right" if ties else "left")):
            block = place // self.size
            rest = self.known_at[block * self.size : place] < count
            found[i] = (held[block - 1] if block else 0) + np.count_nonzero(rest)
        return found

    def quantile(self, share: float, count: int) -> float:
        """np.quantile of the first `count`, to the last bit; infinite without any."""
        if not count:
            return math.inf
        place = (count - 1) * share
        low = math.floor(place)
        part, a, b = place - low, self._lowest(low, count), self._lowest(min(low + 1, count - 1), count)
        return b - (b - a) * (1 - part) if part >= 0.5 else a + (b - a) * part


def find_sigma(past: Past, sigma: Literal["q2", "q3"] | float, count: int | None = None) -> float:
    """Threshold of the gate (Eq. 6): a quartile of the first `count` (null: all) scores, or the given number.

    Without past scores a quartile is infinite, so that the gate stays closed [ours]: nothing is known of
    what relevant means, and the adapter alone is what the method falls back on.
    """
    if not isinstance(sigma, str):
        return float(sigma)
    return past.quantile(QUANTILES[sigma], len(past) if count is None else count)


def standing(scores: Any, past: Past, count: int | None = None) -> Floats:
    """Where scores stand among the first `count` (null: all) past ones: the share of these that is lower,
    ties by half [ours]. [K].

    A retrieval score in [0, 1] without its unit: above 0.75 is above sigma = q3. 0 without any past.
    """
    scores, count = finite(scores), len(past) if count is None else count
    if not count:
        return np.zeros(len(scores))
    places = past.lower(scores, count, ties=False) + past.lower(scores, count, ties=True)
    return places / (2 * count)


def scale_from(past: Past, count: int | None = None) -> float:
    """Width of the soft gate, in units of the score: IQR / (2 ln 3) of past scores; 0 without any [ours].

    This is the scale of the logistic distribution with that interquartile range. With sigma = q2 the weight
    is then its distribution function: 0.25 at the first quartile, 0.75 at the third.
    """
    count = len(past) if count is None else count
    if not count:
        return 0.0
    return (past.quantile(0.75, count) - past.quantile(0.25, count)) / (2 * math.log(3))


def relevance_gate(scores: Any, *, gate: Kind | None, sigma: float, scale: float | None = None) -> Floats:
    """Weight of each retrieved item: an item enters the context if its weight is above 0 (Eq. 6). [K] -> [K].

    strict: 1 if Sim > sigma, else 0 [paper]. soft: logistic of (Sim - sigma) / scale, and the strict step
    where the scale is 0 [ours]. None: everything that was retrieved passes.
    """
    scores = finite(scores)
    assert not math.isnan(sigma), sigma
    if gate is None:
        return np.ones(len(scores))
    if gate == "strict":
        return (scores > sigma).astype(np.float64)
    assert scale is not None and scale >= 0, "the soft gate needs a scale (scale_from)"
    if scale == 0 or math.isinf(sigma):
        return (scores > sigma).astype(np.float64)
    return 0.5 * (1 + np.tanh((scores - sigma) / (2 * scale)))  # the logistic, without overflow


def effective_lambda(lmbda: float, weights: Any) -> float:
    """Weight of the retrieval path: lmbda times the mean weight of the items that passed, 0 if none did.

    Under the strict gate this is lmbda as soon as one item passes [paper]; the soft gate scales it [ours].
    """
    weights = np.asarray(weights, dtype=np.float64)
    passed = weights[weights > 0]
    return lmbda * float(passed.mean()) if passed.size else 0.0


def finite(scores: Any) -> Floats:
    """Retrieval scores as an array; `ValueError` for one that is not finite."""
    scores = np.asarray(scores, dtype=np.float64)
    if (bad := np.flatnonzero(~np.isfinite(scores))).size:
        raise ValueError(f"retrieval score {bad[0]} is {scores[bad[0]]}: scores must be finite")
    return scores
