"""How all users of a live project went, period by period: rulings of the gate, drift of their texts.

The fleet view of an update's page (docs/live.md). It counts users and texts: no name of anybody is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spring.live.fleet import Share, fleet
from spring.live.verdict import WITHHELD, Ruling
from spring.measures.statistics import Interval, mean_interval
from tasks.files import DATA, read_parquet
from tasks.steps.index import read_index
from tasks.steps.verdicts import verdicts_file

MOST = 60  # periods that are shown, the latest
BELOW, ABOVE = 0.1, 0.9  # the quantiles that a range ends at
RESAMPLES, CONFIDENCE = 10_000, 0.95


@dataclass(frozen=True)
class Range:
    """Where most of some values lie."""

    low: float  # quantile `BELOW`
    middle: float
    high: float  # quantile `ABOVE`
    count: int

    @classmethod
    def of(cls, values: pl.Series) -> Range | None:
        """Of those that are numbers; null: of none."""
        known = values.drop_nulls().filter(values.drop_nulls().is_finite())
        if known.is_empty():
            return None
        low, middle, high = (known.quantile(q, "linear") for q in (BELOW, 0.5, ABOVE))
        assert low is not None and middle is not None and high is not None, "it has values"
        return cls(low, middle, high, len(known))


@dataclass(frozen=True)
class FleetPeriod:
    """What a period brought to all users together."""

    period: int
    days: str
    learned: int  # users who learned something in it
    drift: Range | None  # drift scores of what the served arm could learn from (Eq. 1), nats per token
    selected: float | None  # share of these texts that it selected (Eq. 2)
    rulings: dict[Ruling, Share]  # of the update that closed it last; empty: nobody was judged
    gain: Interval | None  # of candidates on new texts over what was in service, nats per token, over users
    moved: Range | None  # of outputs on neutral texts from the version in service, nats per token

    @property
    def withheld(self) -> Share | None:
        """Those held or refused, of those judged."""
        if not self.rulings:
            return None
        count = sum(self.rulings[name].count for name in WITHHELD)
        return Share(count, self.rulings[WITHHELD[0]].of)


def fleet_periods(
    kept: Path, recipe: str | None, closed: int, days: Callable[[int], str]
) -> list[FleetPeriod]:
    """The latest closed periods of the arm that is served, newest first; verdicts lie in `kept`.

    A period whose results are not here (they were not pulled) is left out.
    """
    latest = range(closed - 1, max(-1, closed - 1 - MOST), -1)
    here = [period for period in latest if scores_file(period).exists()]
    return [fleet_period(kept, recipe, period, days(period)) for period in here]


def fleet_period(kept: Path, recipe: str | None, period: int, days: str) -> FleetPeriod:
    """One period."""
    own = pl.col("recipe") == recipe
    scores = read_parquet(scores_file(period)).filter(own)
    learned = read_index(period).filter(own, pl.col("items") > 0, pl.col("user_id").is_not_null())
    known = scores.filter(pl.col("drift_score").is_not_null())
    selected = known["selected"].mean()
    file = verdicts_file(kept, period)
    verdicts = read_parquet(file) if file.exists() else None
    judged = verdicts is not None and not verdicts.is_empty()
    return FleetPeriod(
        period=period,
        days=days,
        learned=learned["user_id"].n_unique(),
        drift=Range.of(known["drift_score"]),
        selected=selected if isinstance(selected, float) else None,
        rulings=fleet(verdicts["ruling"].to_list()) if verdicts is not None and judged else {},
        gain=gain_of(verdicts["difference"]) if verdicts is not None else None,
        moved=Range.of(verdicts["drift_before"]) if verdicts is not None else None,
    )


def scores_file(period: int) -> Path:
    """Where the drift scores of a period lie."""
    return DATA / "adapt" / str(period) / "scores.parquet"


def gain_of(differences: pl.Series) -> Interval | None:
    """Of users who had new texts."""
    values = differences.drop_nulls().to_numpy()
    if not len(values):
        return None
    return mean_interval(values, resamples=RESAMPLES, confidence=CONFIDENCE, seed=0)


def bounds(ranges: Iterable[Range | None]) -> tuple[float, float]:
    """The ends of an axis that holds all of them, and 0."""
    known = [one for one in ranges if one is not None]
    return min([0.0, *(one.low for one in known)]), max([0.0, *(one.high for one in known)])


def place(value: float, ends: tuple[float, float]) -> float:
    """Where a value stands on an axis, in percent of its length."""
    low, high = ends
    return 100 * (value - low) / (high - low) if high > low else 0.0
