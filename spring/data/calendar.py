"""Periods of the calendar: where each begins, and interactions cut by when they arrived.

Legend: P periods; period t is [starts[t], starts[t + 1]) of P + 1 `starts`, all in UTC.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from math import floor
from zoneinfo import ZoneInfo, available_timezones

import polars as pl

from spring.data.split import SplitError
from spring.engine.strict import nearest

DAYS, MONTHS = {"d": 1, "w": 7}, {"mo": 1, "q": 3, "y": 12}
_EVERY = re.compile(rf"([1-9]\d{{0,3}})({'|'.join([*DAYS, *MONTHS])})")
_NAMED = 10  # users that a message names


# --- where periods begin ----------------------------------------------------------------------------------


def read_every(text: str) -> tuple[int, str]:
    """How long a period is: a number and a unit, as polars writes them; raises `ValueError`."""
    found = _EVERY.fullmatch(text)
    if found is None:
        minutes = "; 1m would be a minute, a month is 1mo" if re.fullmatch(r"\d+m", text) else ""
        raise ValueError(
            f"must be a whole number and one of d, w, mo, q, y, as in 1d, 2w, 1mo, 30d, 1q or 1y{minutes}"
        )
    return int(found[1]), found[2]


def read_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name; raises `ValueError`."""
    if name != "UTC" and name not in (known := available_timezones()):  # which reads hundreds of files
        near = nearest(name, sorted(known))
        raise ValueError(
            f"must be a time zone's IANA name, as in UTC or Europe/Berlin{f'; {near}' if near else ''}"
        )
    return ZoneInfo(name)


def first_day(moment: datetime, *, every: str, time_zone: str) -> date:
    """The day on which the unit of `every` began that `moment` lies in: weeks begin on Mondays."""
    day, (_, unit) = moment.astimezone(read_zone(time_zone)).date(), read_every(every)
    if unit == "w":
        return day - timedelta(days=day.weekday())
    if unit in MONTHS:
        return date(day.year, (day.month - 1) // MONTHS[unit] * MONTHS[unit] + 1, 1)
    return day


def period_starts(first: date, *, every: str, time_zone: str, periods: int) -> list[datetime]:
    """Where each period begins, and where the last one ends: P + 1 local midnights, in UTC.

    All are counted from `first`, so that months from the 31st on are as long as they can be. Where a clock
    skips midnight the day begins when it goes on; where it shows midnight twice, the first time.
    """
    length, unit = read_every(every)
    zone = read_zone(time_zone)
    days = [_later(first, t * length, unit) for t in range(periods + 1)]
    return [datetime.combine(day, time(), zone).astimezone(UTC) for day in days]


def _later(day: date, count: int, unit: str) -> date:
    """`count` units after a day, the month's last day where it has no such day; at most the last date."""
    try:
        if unit in DAYS:
            return day + timedelta(days=count * DAYS[unit])
        years, month = divmod(day.month - 1 + count * MONTHS[unit], 12)
        year = day.year + years
        return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
    except (OverflowError, ValueError):
        return date.max


# --- what falls into them ---------------------------------------------------------------------------------


def arrival(frame: pl.DataFrame) -> str:
    """The column that says when an interaction arrived: its own date where nothing else is known."""
    return "arrived" if "arrived" in frame.columns else "timestamp"


def split_calendar(
    interactions: pl.DataFrame, *, starts: list[datetime], test_share: float, min_train: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`period` and `part` (train, test) as `split` adds them, and the interactions that wait.

    An interaction is of the period in which it arrived. Of a user's n interactions of a period the most
    recent n * test_share, rounded, are test, at least one, if a train item is left; none that is dated before
    the period: what was learned meanwhile is later. Where fewer than `min_train` are left to learn, all of
    them wait for the next period in which the user has new ones. What is to come changes none of it.

    Raises `SplitError` if an interaction arrived in none of the periods, or nothing can be learned in the
    first.
    """
    arrived = interactions[arrival(interactions)]
    came = pl.Series("came", starts, pl.Datetime("us", "UTC")).search_sorted(arrived, side="right")
    ordered = interactions.with_columns(came=came.cast(pl.Int32) - 1)
    _check_range(ordered, starts)
    learned = _learned_in(ordered, starts, test_share=test_share, min_train=min_train)
    placed = ordered.join(learned, on=["user_id", "came"], how="left", maintain_order="left").drop("came")
    waits = placed["period"].is_null()
    frame = placed.filter(~waits).sort("user_id", "period", "timestamp", maintain_order=True)
    if frame.filter(pl.col("period") == 0).is_empty():
        raise SplitError(
            f"period 0, from {starts[0]:%Y-%m-%d %H:%M} to {starts[1]:%Y-%m-%d %H:%M} UTC, has nothing to "
            f"learn from, and all learning starts there: set split.start to a later day or null, lower "
            f"split.min_train ({min_train}), or set a longer split.every"
        )
    return hold_out(frame, starts, test_share), placed.filter(waits).drop("period")


def hold_out(frame: pl.DataFrame, starts: list[datetime], share: float) -> pl.DataFrame:
    """Marks the most recent `share` of each user's period as test, the rest as train (`split_calendar`)."""
    inside = ["user_id", "period"]
    groups = _sizes(frame, starts, "period")
    tests = [held_out(size, on_time, share) for size, on_time in groups.select("size", "on_time").iter_rows()]
    counted = groups.select(*inside, "size", tests=pl.Series(tests, dtype=pl.Int64))
    rows = frame.join(counted, on=inside, how="left", maintain_order="left")
    train = pl.int_range(pl.len()).over(inside) < pl.col("size") - pl.col("tests")
    parts = pl.when(train).then(pl.lit("train")).otherwise(pl.lit("test"))
    return rows.with_columns(part=parts).drop("size", "tests")


def held_out(size: int, on_time: int, share: float) -> int:
    """How many of `size` interactions are test, `on_time` of them not dated before their period."""
    return min(max(1, floor(size * share + 0.5)), size - 1, on_time)


def _sizes(frame: pl.DataFrame, starts: list[datetime], period: str) -> pl.DataFrame:
    """user_id, period, and how many interactions there are: `size`, and `on_time` of them."""
    begins = pl.col(period).replace_strict(dict(enumerate(starts)), return_dtype=pl.Datetime("us", "UTC"))
    groups = frame.group_by("user_id", period).agg(
        size=pl.len().cast(pl.Int64), on_time=(pl.col("timestamp") >= begins).sum().cast(pl.Int64)
    )
    return groups.sort("user_id", period)


def _learned_in(
    ordered: pl.DataFrame, starts: list[datetime], *, test_share: float, min_train: int
) -> pl.DataFrame:
    """user_id, came -> the period in which what came then is learned; null while it waits."""
    groups = _sizes(ordered, starts, "came")
    periods: list[int | None] = []
    waiting, held, user = 0, 0, None  # groups and interactions
    for name, came, size, on_time in groups.select("user_id", "came", "size", "on_time").iter_rows():
        if name != user:
            waiting, held, user = 0, 0, name
        waiting, held = waiting + 1, held + size
        periods.append(None)
        if held - held_out(held, on_time, test_share) >= min_train:
            periods[-waiting:] = [came] * waiting
            waiting = held = 0
    return groups.select("user_id", "came", period=pl.Series(periods, dtype=pl.Int32))


def _check_range(ordered: pl.DataFrame, starts: list[datetime]) -> None:
    last, what = len(starts) - 2, arrival(ordered)
    first_came, last_came = str(ordered[what].min()), str(ordered[what].max())
    late, early = ordered.filter(pl.col("came") > last), ordered.filter(pl.col("came") < 0)
    if early.height:
        raise SplitError(
            f"{early.height} interaction(s) of {_users(early)} are earlier than period 0, which begins at "
            f"{starts[0]:%Y-%m-%d %H:%M} UTC (first {what}: {first_came}): set split.start to "
            f"that day or an earlier one, or to null"
        )
    if late.height:
        raise SplitError(
            f"{late.height} interaction(s) of {_users(late)} are later than period {last}, which ends at "
            f"{starts[-1]:%Y-%m-%d %H:%M} UTC (last {what}: {last_came}): add entries to periods, set "
            f"a longer split.every, or take these interactions out of the source"
        )


def _users(rows: pl.DataFrame) -> str:
    users = rows["user_id"].unique().sort().to_list()
    return f"{', '.join(users[:_NAMED])}{f' and {len(users) - _NAMED} more' if users[_NAMED:] else ''}"
