"""Periods of the calendar: where they begin, who is in them, what waits; hand-made cases and properties."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spring.data.calendar import (
    first_day,
    held_out,
    hold_out,
    period_starts,
    read_every,
    read_zone,
    split_calendar,
)
from spring.data.rows import ARRIVED, INTERACTIONS
from spring.data.split import SplitError, check_leakage

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
WEEKS = period_starts(START.date(), every="1w", time_zone="UTC", periods=4)


def rows(
    texts: dict[str, list[tuple[float, float] | float]], start: datetime = START, day: timedelta = DAY
) -> pl.DataFrame:
    """Texts of each user by day since `start`, or (own day, day of arrival), named USER-PLACE."""
    found = []
    for user, days in sorted(texts.items()):
        for place, when in enumerate(days):
            own, came = when if isinstance(when, tuple) else (when, when)
            name = f"{user}-{place}"
            row = (user, name, start + own * day, "commit", "{}", name, None, start + came * day)
            found.append(row)
    return pl.DataFrame(found, schema=INTERACTIONS | ARRIVED, orient="row").sort("user_id", "timestamp")


def cut(
    texts: dict[str, list], *, min_train: int = 1, share: float = 0.1
) -> tuple[pl.DataFrame, pl.DataFrame]:
    frame, waiting = split_calendar(rows(texts), starts=WEEKS, test_share=share, min_train=min_train)
    check_leakage(frame)
    return frame, waiting


def layout(frame: pl.DataFrame, user: str) -> list[tuple[str, int, str]]:
    return frame.filter(user_id=user).select("interaction_id", "period", "part").rows()


# --- where periods begin ----------------------------------------------------------------------------------


@pytest.mark.parametrize("every", ["1d", "30d", "2w", "1mo", "5mo", "1q", "1y"])
@pytest.mark.parametrize("day", [date(2024, 1, 31), date(2023, 8, 29), date(2024, 2, 29)])
@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
)
def test_periods_begin_where_polars_says(every: str, day: date, zone: str) -> None:
    """Local midnights, all counted from the first: a month after 31 January is 29 February, two 31 March."""
    number, unit = read_every(every)
    local = [
        pl.Series([datetime(day.year, day.month, day.day)]).dt.offset_by(f"{t * number}{unit}")
        for t in range(15)
    ]
    expected = pl.concat(local).dt.replace_time_zone(zone).dt.convert_time_zone("UTC").to_list()
    assert period_starts(day, every=every, time_zone=zone, periods=14) == expected


def test_days_are_as_long_as_the_clock_makes_them() -> None:
    """23 hours when Berlin's clocks go forward, 25 when they go back."""
    for day, hours in ((date(2024, 3, 31), 23), (date(2024, 10, 27), 25), (date(2024, 6, 1), 24)):
        first, last = period_starts(day, every="1d", time_zone="Europe/Berlin", periods=1)
        assert last - first == timedelta(hours=hours)


def test_a_midnight_that_the_clock_skips_or_shows_twice() -> None:
    """Sao Paulo's clocks went from 24:00 to 1:00; Havana's from 1:00 back to 0:00: the first one counts."""
    first, last = period_starts(date(2018, 11, 4), every="1d", time_zone="America/Sao_Paulo", periods=1)
    assert first == datetime(2018, 11, 4, 3, tzinfo=UTC) and last - first == timedelta(hours=23)
    assert first.astimezone(ZoneInfo("America/Sao_Paulo")).hour == 1
    first, last = period_starts(date(2023, 11, 5), every="1d", time_zone="America/Havana", periods=1)
    assert first == datetime(2023, 11, 5, 4, tzinfo=UTC) and last - first == timedelta(hours=25)


@pytest.mark.parametrize(
    ("every", "zone", "day"),
    [
        ("1d", "UTC", (2024, 5, 15)),
        ("30d", "Pacific/Auckland", (2024, 5, 16)),  # it is the 16th there
        ("2w", "UTC", (2024, 5, 13)),
        ("3mo", "UTC", (2024, 5, 1)),
        ("1q", "UTC", (2024, 4, 1)),
        ("2y", "UTC", (2024, 1, 1)),
    ],
)
def test_the_first_interaction_anchors_periods_at_its_unit(
    every: str, zone: str, day: tuple[int, int, int]
) -> None:
    moment = datetime(2024, 5, 15, 13, 30, tzinfo=UTC)  # a Wednesday
    assert first_day(moment, every=every, time_zone=zone) == date(*day)


@pytest.mark.parametrize(
    "text", ["", "1", "mo", "0d", "-1w", "1m", "1h", "1w3d", "1.5d", "1 d", "1month", "weekly"]
)
def test_a_length_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number and one of d, w, mo, q, y"):
        read_every(text)


def test_what_was_probably_meant() -> None:
    with pytest.raises(ValueError, match="1m would be a minute, a month is 1mo"):
        read_every("1m")
    with pytest.raises(ValueError, match=r"IANA name.*did you mean Europe/Berlin\?"):
        read_zone("Europe/Berln")


# --- what falls into them ---------------------------------------------------------------------------------


def test_unequal_users() -> None:
    """One text is learned, of two the later is asked; who comes late or stays away has no rows meanwhile."""
    frame, waiting = cut({"a": [0, 1, 2, 7], "b": [1, 21, 22], "c": [8, 9]})
    assert layout(frame, "a") == [
        ("a-0", 0, "train"),
        ("a-1", 0, "train"),
        ("a-2", 0, "test"),
        ("a-3", 1, "train"),
    ]
    assert layout(frame, "b") == [("b-0", 0, "train"), ("b-1", 3, "train"), ("b-2", 3, "test")]
    assert layout(frame, "c") == [("c-0", 1, "train"), ("c-1", 1, "test")]
    assert waiting.is_empty() and frame.schema["period"] == pl.Int32


def test_a_period_begins_with_its_first_moment() -> None:
    frame, _ = cut({"a": [0, 7 - 1e-6, 7]})
    assert frame["period"].to_list() == [0, 0, 1]


def test_what_comes_late_is_of_the_period_it_came_in_and_never_asked() -> None:
    frame, _ = cut({"a": [0, (3, 8), 9], "b": [1, (2, 10), (4, 11)]})
    assert layout(frame, "a") == [("a-0", 0, "train"), ("a-1", 1, "train"), ("a-2", 1, "test")]
    assert layout(frame, "b") == [("b-0", 0, "train"), ("b-1", 1, "train"), ("b-2", 1, "train")]


def test_few_train_items_wait_for_the_next_ones() -> None:
    """Two are wanted: a's single text of week 1 is learned with those of week 3; b's last one waits on."""
    frame, waiting = cut({"a": [0, 1, 2, 8, 21, 22], "b": [0, 1, 2, 21]}, min_train=2)
    assert layout(frame, "a")[3:] == [("a-3", 3, "train"), ("a-4", 3, "train"), ("a-5", 3, "test")]
    assert waiting["interaction_id"].to_list() == ["b-3"]
    assert waiting.columns == list(INTERACTIONS | ARRIVED)


def test_validation_holds_out_of_the_train_items() -> None:
    frame, _ = cut({"a": [0, 1, 2, 3, 7], "b": [0]})
    kept = hold_out(frame.filter(part="train"), WEEKS, 0.1)
    assert layout(kept, "a") == [
        ("a-0", 0, "train"),
        ("a-1", 0, "train"),
        ("a-2", 0, "test"),
        ("a-4", 1, "train"),
    ]
    assert layout(kept, "b") == [("b-0", 0, "train")]


@pytest.mark.parametrize(
    ("size", "on_time", "tests"), [(1, 1, 0), (2, 2, 1), (14, 14, 1), (15, 15, 2), (15, 0, 0), (15, 1, 1)]
)
def test_how_many_are_asked(size: int, on_time: int, tests: int) -> None:
    assert held_out(size, on_time, 0.1) == tests


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"a": [0, 28]}, r"1 interaction\(s\) of a are later than period 3, .*add entries to periods"),
        (
            {"a": [-1, 0]},
            r"1 interaction\(s\) of a are earlier than period 0.*set split.start to that day or an",
        ),
        ({"a": [7]}, r"period 0, from 2024-01-01 00:00 to 2024-01-08 00:00 UTC, has nothing to learn from"),
    ],
)
def test_nothing_is_dropped_in_silence(texts: dict[str, list], said: str) -> None:
    with pytest.raises(SplitError, match=said):
        cut(texts)


CALENDARS = [
    ("1w", "UTC"),
    ("30d", "Europe/Berlin"),
    ("1d", "America/New_York"),
    ("1mo", "Australia/Lord_Howe"),
]
users = st.dictionaries(
    st.sampled_from("bcde"),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 27.9)), max_size=12),
    max_size=3,
)


@settings(deadline=None, max_examples=100)
@given(
    texts=users,
    closed=st.integers(1, 3),
    share=st.floats(0.01, 0.99),
    min_train=st.integers(1, 3),
    calendar=st.sampled_from(CALENDARS),
)
def test_closed_periods_stay(
    texts: dict[str, list], closed: int, share: float, min_train: int, calendar: tuple[str, str]
) -> None:
    """What came by the end of a period decides all of it; nothing is lost; tests are the latest.

    Of four periods, in which clocks change, as if they were 28 days.
    """
    every, zone = calendar
    starts = period_starts(date(2024, 3, 8), every=every, time_zone=zone, periods=4)
    day = (starts[-1] - starts[0]) / 28
    texts = {user: [(min(own, came), came) for own, came in days] for user, days in texts.items()}
    texts["a"] = [(-1, 0), (-1, 0.5), (-1, 1), 2]  # three to learn from in period 0, whatever is asked
    whole = rows(texts, starts[0], day)
    so_far = whole.filter(pl.col("arrived") < starts[closed])
    (frame, waiting), (earlier, _) = (
        split_calendar(some, starts=starts, test_share=share, min_train=min_train) for some in (whole, so_far)
    )
    check_leakage(frame)
    assert frame.filter(pl.col("period") < closed).equals(earlier)
    names = [*frame["interaction_id"], *waiting["interaction_id"]]
    assert sorted(names) == sorted(whole["interaction_id"])
    for (_, period), mine in frame.group_by("user_id", "period"):
        parts = mine["part"].to_list()
        tests = parts.count("test")
        assert (
            parts == ["train"] * (len(parts) - tests) + ["test"] * tests and len(parts) - tests >= min_train
        )
        assert mine["timestamp"].is_sorted() and (mine["arrived"] < starts[int(period) + 1]).all()
        assert (mine.filter(part="test")["timestamp"] >= starts[int(period)]).all()
