"""Whether a new adapter, the candidate, may take the place of the one in service (docs/live.md).

Paired over held-out texts of its user: a difference is the candidate's log-likelihood per token less that of
the one in service, in nats. Few texts are the rule, so nothing is estimated of their spread: the bounds are
means of some of the differences (Hartigan, 1969). Legend: N texts.

Texts of periods that the candidate has learned and the one in service has not, the new ones, are judged apart
from older ones: a burst of somebody else's texts and a true change look alike in both. They differ in what
comes later, so that a change which costs older texts must be borne out by several periods.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

MOST = 16  # texts that one pair of bounds is of: 65,535 means
MOST_PERIODS = 3  # of `Rules.confirm`
Ruling = Literal["improved", "same", "held", "refused"]
WITHHELD: tuple[Ruling, ...] = ("held", "refused")  # the version in service stays


class Bounds(NamedTuple):
    """Where the centre of the differences lies, but for `beyond` on either side."""

    low: float
    high: float
    beyond: float  # probability


class Rules(NamedTuple):
    """What a candidate must keep to."""

    margin: float  # nats per token; less is no change
    least: int  # texts; with fewer, likelihood is not asked
    items: int  # texts, the latest so many, that one answer is of
    level: float  # probability that a candidate which is worse by the margin alone is refused, and the like
    confirm: int  # periods of new texts that must bear out what makes older ones worse
    drift: Mapping[str, float | None]  # from which outputs -> the most nats per token; null: any


class Answer(NamedTuple):
    """What some texts say of a candidate."""

    items: int = 0
    difference: float | None = None  # mean; null without items
    bounds: Bounds | None = None  # null: fewer than `Rules.least`

    def falls(self, margin: float) -> bool:
        """Whether it is worse by more than the margin."""
        return self.bounds is not None and self.bounds.high < -margin

    def rises(self, margin: float) -> bool:
        """Whether it is better by more than the margin."""
        return self.bounds is not None and self.bounds.low > margin


@dataclass(frozen=True)
class Verdict:
    """What was decided, why, and what new and older texts said."""

    ruling: Ruling
    reason: str
    new: Answer
    old: Answer


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


def judge(
    new: Sequence[Sequence[float]], old: Sequence[float], shifts: Mapping[str, float], rules: Rules
) -> Verdict:
    """Whether a candidate is published (improved, same) or not (held, refused).

    `new`: the differences of every period that only the candidate has learned, latest first, as they are in
    each; `old`: those of the others, likewise; `shifts`: the mean Kullback-Leibler divergence of the
    candidate's distributions on neutral texts, from those that `rules.drift` names. In turn:

    - refused: something is no number, outputs drifted beyond a limit, or the new texts lie below -margin.
    - held: the older texts do, unless the new ones lie above the margin whichever `confirm` - 1 of their
      periods are left out. So a change that only fewer periods speak for is not published.
    - improved: the new texts lie above the margin; else same.
    """
    learned = [value for period in new for value in period]
    if not np.isfinite([*learned, *old]).all():
        return Verdict("refused", "a log-likelihood is no number", Answer(len(learned)), Answer(len(old)))
    fresh, earlier = ask(learned, rules), ask(old, rules)
    for name, shift in shifts.items():
        limit = rules.drift[name]
        if not math.isfinite(shift) or (limit is not None and shift > limit):
            why = f"outputs on neutral texts drifted {shift:.3f} nats per token from {name}, limit {limit}"
            return Verdict("refused", why, fresh, earlier)
    ruling, reason = _of_likelihood(fresh, earlier, new, rules)
    return Verdict(ruling, reason, fresh, earlier)


def ask(differences: Sequence[float], rules: Rules) -> Answer:
    """What the first `rules.items` of some differences say."""
    values = np.asarray(differences[: rules.items], dtype=np.float64)
    if not len(values):
        return Answer()
    found = bounds(values, level=rules.level) if len(values) >= rules.least else None
    return Answer(len(values), float(np.sort(values).mean()), found)


def _of_likelihood(
    fresh: Answer, earlier: Answer, new: Sequence[Sequence[float]], rules: Rules
) -> tuple[Ruling, str]:
    unit = "nats per token"
    if fresh.falls(rules.margin):
        assert fresh.bounds is not None, "it was asked"
        much = f"at most {fresh.bounds.high:+.3f} {unit}{_by_chance(fresh, rules)}"
        return "refused", f"worse on new texts: {much}"
    if earlier.falls(rules.margin) and not _borne_out(new, rules):
        assert earlier.bounds is not None, "it was asked"
        much = f"at most {earlier.bounds.high:+.3f} {unit}{_by_chance(earlier, rules)}"
        later = f"not yet borne out by new texts of {rules.confirm} periods"
        return "held", f"worse on older texts: {much}, {later}"
    if fresh.bounds is None:
        return "same", f"{fresh.items} new texts, fewer than {rules.least}: likelihood was not asked"
    if fresh.rises(rules.margin):
        much = f"at least {fresh.bounds.low:+.3f} {unit}{_by_chance(fresh, rules)}"
        return "improved", f"better on new texts: {much}"
    return "same", f"between {fresh.bounds.low:+.3f} and {fresh.bounds.high:+.3f} {unit} on new texts"


def _by_chance(answer: Answer, rules: Rules) -> str:
    """Of texts that are too few for the level: how often they say the like by chance."""
    if answer.bounds is None or answer.bounds.beyond <= rules.level:
        return ""
    texts = "1 text" if answer.items == 1 else f"{answer.items} texts"
    return f" (of {texts}: by chance with probability up to {answer.bounds.beyond:g}, level {rules.level:g})"


def _borne_out(new: Sequence[Sequence[float]], rules: Rules) -> bool:
    """Whether the new texts are better even without any `confirm` - 1 of their periods."""
    periods = [period for period in new if period][: rules.items]
    rests = itertools.combinations(periods, max(0, len(periods) - rules.confirm + 1))
    answers = (ask([value for period in rest for value in period], rules) for rest in rests)
    return all(answer.rises(rules.margin) for answer in answers)


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
