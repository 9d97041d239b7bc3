"""Whether a new adapter, the candidate, may take the place of the one in service (docs/live.md).

Paired over held-out texts of its user: a difference is the candidate's log-likelihood per token less that of
the one in service, in nats. Few texts are the rule, so nothing is estimated of their spread: the bounds are
means of some of the differences (Hartigan, 1969). Legend: N texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

MOST = 16  # texts that one verdict is of: 65,535 means
Ruling = Literal["improved", "same", "refused"]


class Bounds(NamedTuple):
    """Where the centre of the differences lies, but for `beyond` on either side."""

    low: float
    high: float
    beyond: float  # probability


class Rules(NamedTuple):
    """What a candidate must keep to."""

    margin: float  # nats per token; less is no change
    least: int  # texts; with fewer, likelihood is not asked
    level: float  # probability that a candidate which is worse by the margin alone is refused, and the like
    drift: Mapping[str, float | None]  # from which outputs -> the most nats per token; null: any


@dataclass(frozen=True)
class Verdict:
    """What was decided, and why."""

    ruling: Ruling
    reason: str
    items: int
    difference: float | None  # mean; null without items
    low: float | None = None  # bounds; null where the items are too few for `Rules.level`
    high: float | None = None


class Slice(NamedTuple):
    """The items that have a label in common, and their mean difference."""

    by: str
    label: str
    items: int
    difference: float


def means_of_some(differences: np.ndarray) -> np.ndarray:
    """The means of all 2^N - 1 choices of at least one of the differences [N], in order."""
    assert 0 < len(differences) <= MOST, len(differences)
    sums, counts = np.zeros(1), np.zeros(1)
    for value in np.sort(differences):  # the same last bits in whatever order they came
        sums, counts = np.concatenate([sums, sums + value]), np.concatenate([counts, counts + 1])
    means = np.sort(sums[1:] / counts[1:])
    return means.clip(differences.min(), differences.max())  # of equal values, too, but for rounding


def bounds(differences: np.ndarray, *, level: float) -> Bounds:
    """Bounds of the centre of the differences [N], each of which is as likely above it as as far below.

    Between any two neighbours of the ordered `means_of_some`, and beyond either end, the centre lies with
    the same probability, 2^-N (Hartigan, 1969): the k-th from either end is passed with k / 2^N,
    which is at most `level`. If even k = 1 has more, the bounds are the least and the largest difference.
    Neither falls when a difference rises.
    """
    gaps = 2 ** len(differences)
    k = max(1, math.floor(level * gaps))
    means = means_of_some(differences)
    return Bounds(float(means[k - 1]), float(means[-k]), k / gaps)


def judge(differences: Sequence[float], shifts: Mapping[str, float], rules: Rules) -> Verdict:
    """Refused where the differences lie below -margin or the outputs drifted beyond a limit.

    `differences` [N], in any order; `shifts`: the mean Kullback-Leibler divergence of the candidate's
    distributions on neutral texts, from those that `rules.drift` names. What is no number is refused.
    """
    values = np.asarray(differences, dtype=np.float64)
    count = len(values)
    if not np.isfinite(values).all():
        return Verdict("refused", "a log-likelihood is no number", count, None)
    mean = float(np.sort(values).mean()) if count else None
    found = bounds(values, level=rules.level) if count else None
    known = found is not None and found.beyond <= rules.level
    low, high = (found.low, found.high) if found is not None and known else (None, None)
    for name, shift in shifts.items():
        limit = rules.drift[name]
        if not math.isfinite(shift) or (limit is not None and shift > limit):
            why = f"outputs on neutral texts drifted {shift:.3f} nats per token from {name}"
            return Verdict("refused", f"{why}, limit {limit}", count, mean, low, high)
    ruling, reason = _of_likelihood(count, found, rules)
    return Verdict(ruling, reason, count, mean, low, high)


def _of_likelihood(count: int, found: Bounds | None, rules: Rules) -> tuple[Ruling, str]:
    if found is None or count < rules.least:
        return "same", f"{count} held-out texts, fewer than {rules.least}: likelihood was not asked"
    if found.high < -rules.margin:
        return "refused", f"worse on held-out texts: at most {found.high:+.3f} nats per token"
    if found.low > rules.margin:
        return "improved", f"better on held-out texts: at least {found.low:+.3f} nats per token"
    return "same", f"between {found.low:+.3f} and {found.high:+.3f} nats per token on held-out texts"


def worst_slice(differences: Sequence[float], labels: Mapping[str, Sequence[str]]) -> Slice | None:
    """The slice with the lowest mean among those that set some items apart, if it is below zero.

    `labels`: by what slices are made -> the label of each item [N].
    """
    values, found = np.asarray(differences, dtype=np.float64), []
    for by, names in labels.items():
        each = sorted(set(names))
        for label in each if len(each) > 1 else ():
            mine = values[[name == label for name in names]]
            found.append(Slice(by, label, len(mine), float(np.sort(mine).mean())))
    lowest = min(found, key=lambda one: (one.difference, one.by, one.label), default=None)
    return lowest if lowest is not None and lowest.difference < 0 else None
