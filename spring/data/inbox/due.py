"""Which periods of the calendar are over."""

from __future__ import annotations

from datetime import date, datetime

from spring.data.calendar import period_starts


def ends(first: date, *, every: str, time_zone: str, now: datetime) -> list[datetime]:
    """The ends of all periods that are over, in UTC, in order."""
    periods = 1
    while (starts := period_starts(first, every=every, time_zone=time_zone, periods=periods))[-1] <= now:
        periods *= 2
    return [end for end in starts[1:] if end <= now]
