"""Stage `split`: data/ingest/interactions.parquet -> data/split/{t}.parquet, one per period.

Of the calendar's periods also data/split/waiting.parquet: what waits for its user's next lesson.
"""

from __future__ import annotations

import logging
from datetime import datetime

import polars as pl

from spring.data.calendar import arrival, first_day, hold_out, period_starts, split_calendar
from spring.data.split import check_leakage, hold_out_validation, split
from spring.settings.params import Params
from tasks.files import DATA, read_parquet, write_parquet
from tasks.params import load_params
from tasks.stage import run
from tasks.steps.partners import check_partners

log = logging.getLogger(__name__)


def main() -> None:
    """Splits, checks for leakage and writes one file per period."""
    params = load_params()
    interactions = read_parquet(DATA / "ingest" / "interactions.parquet")
    check_partners(params.arms, interactions["user_id"].unique().to_list())
    cut = cut_by_calendar if params.split.by == "calendar" else cut_by_count
    frame = cut(params, interactions)
    if params.split.hold_out == "validation":
        log.info("validation: all test items are set aside, the most recent train items are held out")
    repeats = check_leakage(frame)
    if repeats:
        log.info("%d test items repeat a short text that the user's train items hold", repeats)
    for period in params.periods:
        part = frame.filter(pl.col("period") == period)
        write_parquet(part, DATA / "split" / f"{period}.parquet")
        tests = part.filter(pl.col("part") == "test").height
        log.info("period %d: %d train and %d test items", period, part.height - tests, tests)


def cut_by_count(params: Params, interactions: pl.DataFrame) -> pl.DataFrame:
    """Periods of equal counts, user by user."""
    frame = split(interactions, periods=len(params.periods), test_share=params.split.test_share)
    if params.split.hold_out == "validation":
        return hold_out_validation(frame, test_share=params.split.test_share)
    return frame


def cut_by_calendar(params: Params, interactions: pl.DataFrame) -> pl.DataFrame:
    """Periods of the calendar; says where they lie and how many are filled, and writes what waits."""
    how = params.split
    assert how.every is not None, "params need it"
    unit = {"every": how.every, "time_zone": how.time_zone}
    earliest = interactions[arrival(interactions)].min()
    assert isinstance(earliest, datetime), "ingest leaves no empty table"
    first = how.start or first_day(earliest, **unit)
    starts = period_starts(first, periods=len(params.periods), **unit)
    frame, waiting = split_calendar(
        interactions, starts=starts, test_share=how.test_share, min_train=how.min_train
    )
    write_parquet(waiting, DATA / "split" / "waiting.parquet")
    filled = frame["period"].n_unique()
    log.info(
        "periods of %s from %s on (%s): %d of %d are filled",
        how.every, first, how.time_zone, filled, len(params.periods),
    )  # fmt: skip
    if waiting.height:
        log.info(
            "%d items of %d users wait for their next ones: fewer than split.min_train, %d",
            waiting.height, waiting["user_id"].n_unique(), how.min_train,
        )  # fmt: skip
    tell_limits(params)
    if how.hold_out == "validation":
        return hold_out(frame.filter(pl.col("part") == "train"), starts, how.test_share)
    return frame


def tell_limits(params: Params) -> None:
    """Names the limits that look at all data, so that more of it may change what is closed."""
    free = {"min_interactions": 1, "max_users": None, "max_interactions": None}
    for key, nothing in free.items():
        value = getattr(params.ingest, key)
        if value != nothing:
            log.info(
                "ingest.%s is %s and counts all there is: data that come later may change earlier periods; "
                "%s does not (docs/data.md)",
                key, value, "null" if nothing is None else nothing,
            )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
