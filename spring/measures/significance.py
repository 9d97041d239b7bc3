"""Paired tests over users: permutation p-values, Holm's correction, effect sizes, users needed.

Everything starts from the differences of two arms, one number per user. Legend: N users, M tests.
What each number means and what it cannot say: docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy.special import ncfdtr, ndtri, stdtrit
from threadpoolctl import threadpool_limits

from spring.measures.statistics import by_length
from spring.measures.threads import in_threads

EXACT_USERS = 16  # up to here all 2^N sign patterns are counted: 65,536, in a fraction of a second
DRAWS = 100_000  # of sign patterns beyond: enough to stay below 0.05 when corrected for hundreds of arms
MANY_USERS = 1_000  # signs of more are drawn as bits, in a third of the time
PATTERNS_AT_ONCE = 250_000  # signs drawn per chunk: 2 MB, which a processor's cache holds
TIE = 1e-9  # relative: means of equal sums may differ in their last bits


def differences_of(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """values - others, [N] each; what only rounding tells apart is 0."""
    differences = values - others
    rounding = TIE * np.maximum(np.abs(values), np.abs(others))
    return np.where(np.abs(differences) <= rounding, 0.0, differences)


def permutation_p(differences: np.ndarray, *, seed: int, draws: int = DRAWS) -> float | None:
    """Two-sided p-value of a mean difference of zero, by flipping signs [N] (Fisher, 1935).

    If the arms were exchangeable, each user's difference would be as likely with the other sign. Exact for
    up to `EXACT_USERS` users; beyond, of `draws` seeded ones, the data as they are counted among them
    (Phipson and Smyth, 2010), so that it is never 0. None for fewer than two users.
    """
    return permutation_ps([differences], seed=seed, draws=draws)[0]


def permutation_ps(columns: Sequence[np.ndarray], *, seed: int, draws: int = DRAWS) -> list[float | None]:
    """`permutation_p` of every column ([N], each its own N): those of as many users share sign patterns."""
    found: list[float | None] = [None] * len(columns)
    for users, places in by_length(columns):
        if users > 1:
            together = np.stack([columns[place] for place in places], axis=1)
            for place, p in zip(places, ps_together(together, seed=seed, draws=draws), strict=True):
                found[place] = p
    return found


def ps_together(differences: np.ndarray, *, seed: int, draws: int) -> list[float]:
    """`permutation_p` of columns of as many users, [N, M], under the same sign patterns."""
    users = len(differences)
    near_zero = TIE * np.abs(differences).mean(axis=0)
    observed = np.abs(differences.mean(axis=0)) - near_zero

    def reached(signs: np.ndarray) -> np.ndarray:
        found: np.ndarray = (np.abs(signs @ differences) / users >= observed).sum(axis=0)
        return found

    with threadpool_limits(1, "blas"):  # threads of such small products would wait for each other
        if users <= EXACT_USERS:
            return [count / 2**users for count in reached(all_signs(users)).tolist()]
        bits = drawn_bits(users, draws=draws, seed=seed)
        counts: np.ndarray = sum(in_threads(lambda chunk: reached(signs_of(chunk, users)), bits), np.array(0))
    return [(count + 1) / (draws + 1) for count in counts.tolist()]


@lru_cache(maxsize=1)
def all_signs(users: int) -> np.ndarray:
    """Every sign pattern, 1 and -1. [2^N, N], kept: arms are compared by the dozen."""
    return 2.0 * ((np.arange(2**users)[:, None] >> np.arange(users)) & 1) - 1


def drawn_bits(users: int, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Seeded bits in chunks, `draws` in all, each [chunk, N]; of many users eight to a byte."""
    chunk = max(1, PATTERNS_AT_ONCE // users)
    random = np.random.default_rng(seed)
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        if users > MANY_USERS:
            yield random.integers(0, 256, size=(rows, -(-users // 8)), dtype=np.uint8)
        else:
            yield random.integers(0, 2, size=(rows, users))


def signs_of(bits: np.ndarray, users: int) -> np.ndarray:
    """Bits as `drawn_bits` gives them as sign patterns, 1 and -1. [chunk, N]"""
    return 2.0 * (np.unpackbits(bits, axis=1, count=users) if users > MANY_USERS else bits) - 1


def smallest_p(users: int, *, tests: int = 1) -> float:
    """The lowest p-value that `permutation_p` can give, corrected for `tests`: all signs are alike."""
    alone = 2 / 2**users if users <= EXACT_USERS else 1 / (DRAWS + 1)
    return min(1.0, tests * alone)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values [M] corrected for being M tests (Holm, 1979), in the order given; None stays out of it.

    The k-th smallest is multiplied by the number of tests from it on; none falls below a smaller one's.
    """
    corrected: list[float | None] = [None] * len(p_values)
    ranked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    highest = 0.0
    for rank, (p, place) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        corrected[place] = highest
    return corrected


def cohens_dz(differences: np.ndarray) -> float | None:
    """Mean over standard deviation of paired differences [N] (Cohen, 1988).

    None for fewer than two users, or where all differ alike: there is no spread to measure by.
    """
    spread = standard_deviation(differences)
    return float(differences.mean()) / spread if spread else None


def users_needed(differences: np.ndarray, *, effect: float, power: float, alpha: float) -> int | None:
    """How many users a true mean difference of `effect` needs, at the spread of `differences` [N].

    The smallest number with which a two-sided paired t-test at level `alpha` finds it with probability
    `power`. None where there is no spread or no effect to go by.
    """
    spread = standard_deviation(differences)
    if not spread or effect == 0:
        return None
    standardised = min(abs(effect) / spread, 1e6)  # beyond, two users are enough, and the power is NaN
    normal = ((ndtri(1 - alpha / 2) + ndtri(power)) / standardised) ** 2
    users = max(2, math.floor(normal))  # the normal approximation asks for too few
    while not t_test_power(users, effect=standardised, alpha=alpha) >= power:  # NaN is no answer
        users += 1
    return users


def t_test_power(users: int, *, effect: float, alpha: float) -> float:
    """Probability that a two-sided paired t-test at `alpha` finds a standardised `effect` (d_z).

    Of t squared, which has the noncentral F distribution: scipy's noncentral t is NaN for large effects.
    """
    critical = stdtrit(users - 1, 1 - alpha / 2)
    return float(1 - ncfdtr(1, users - 1, users * effect**2, critical**2))


def standard_deviation(differences: np.ndarray) -> float | None:
    """Of a sample [N]; None for fewer than two users or where all values are equal but for rounding."""
    if len(differences) < 2:
        return None
    spread = float(differences.std(ddof=1))
    return spread if spread > TIE * float(np.abs(differences).max(initial=0)) else None
