"""How the updates of all users went: how many got which ruling, and when that is an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from spring.live.verdict import WITHHELD, Ruling

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """How many of all, and the interval of their share (Wilson, 1927), which holds for few users too."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """Of the users that were judged; 0 without any."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval; everything is possible without users."""
        if not self.of:
            return 0.0, 1.0
        from scipy.stats import binomtest  # here: it takes half a second, and few commands judge

        found = binomtest(self.count, self.of).proportion_ci(CONFIDENCE, "wilson")
        return float(found.low), float(found.high)


def fleet(rulings: Sequence[Ruling]) -> dict[Ruling, Share]:
    """The share of every ruling, in the order of `Ruling`."""
    names: tuple[Ruling, ...] = get_args(Ruling)
    return {name: Share(rulings.count(name), len(rulings)) for name in names}


def in_words(found: dict[Ruling, Share]) -> str:
    """One line of all."""
    parts = [f"{one.count} {name} ({_percent(one)})" for name, one in found.items()]
    return f"{found['refused'].of} judged: {', '.join(parts)}"


def _percent(one: Share) -> str:
    low, high = one.interval
    return f"{one.share:.0%}, {low:.0%} to {high:.0%}"


def alarm(found: dict[Ruling, Share], *, most: float) -> str:
    """What is wrong where more than `most` of the users were held or refused; else nothing."""
    judged, withheld = found["refused"].of, sum(found[name].count for name in WITHHELD)
    if not judged or withheld / judged <= most:
        return ""
    return f"ALARM: {withheld} of {judged} updates held or refused, more than {most:.0%} (live.gate.alarm)"
