"""Stage `split`: data/ingest/interactions.parquet -> data/split/{t}.parquet, one per period.

Of the calendar's periods also data/split/waiting.parquet: what waits for its user's next lesson. Where each
row goes is decided for all of them, without texts; rows with texts are read and written in blocks of users.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from datetime import datetime

import polars as pl

from spring.data.calendar import arrival, first_day, hold_out, period_starts, split_calendar
from spring.data.split import check_leakage, hold_out_validation, split, without_texts
from spring.settings.params import Params
from tasks.files import DATA, of_users, read_parquet, scan_parquet
from tasks.params import load_params
from tasks.stage import run
from tasks.steps.blocks import Parted, blocks
from tasks.steps.partners import check_partners

log = logging.getLogger(__name__)

SOURCE = DATA / "ingest" / "interactions.parquet"


def main() -> None:
    """Splits, checks for leakage and writes one file per period."""
    params = load_params()
    rows = without_texts(scan_parquet(SOURCE)).collect()
    check_partners(params.arms, rows["user_id"].unique().to_list())
    cut = cut_by_calendar if params.split.by == "calendar" else cut_by_count
    frame, waiting = cut(params, rows)
    if params.split.hold_out == "validation":
        log.info("validation: all test items are set aside, the most recent train items are held out")
    repeats = check_leakage(frame)
    if repeats:
        log.info("%d test items repeat a short text that the user's train items hold", repeats)
    write(params, pl.concat([frame, waiting], how="diagonal") if waiting is not None else frame)
    for period in params.periods:
        part = frame.filter(pl.col("period") == period)
        tests = part.filter(pl.col("part") == "test").height
        log.info("period %d: %d train and %d test items", period, part.height - tests, tests)


def write(params: Params, placed: pl.DataFrame) -> None:
    """Every row into the file of its period, users in order; rows without a period wait."""
    places = placed.select("user_id", "interaction_id", "period", "part")
    added = ["period", "part"]
    files = {f"{period}.parquet": (pl.col("period") == period, added) for period in params.periods}
    if params.split.by == "calendar":
        files["waiting.parquet"] = pl.col("period").is_null(), []
    with ExitStack() as held:
        tables = {name: held.enter_context(Parted(DATA / "split" / name)) for name in files}
        for users in blocks([SOURCE]):
            rows = read_parquet(SOURCE, users=users)
            mine = of_users(users, places.lazy()).drop("user_id").collect()
            whole = mine.join(rows, on="interaction_id", how="left", maintain_order="left")
            for name, (here, columns) in files.items():
                tables[name].add(whole.filter(here).select(*rows.columns, *columns))


def cut_by_count(params: Params, interactions: pl.DataFrame) -> tuple[pl.DataFrame, None]:
    """Periods of equal counts, user by user; nothing waits."""
    frame = split(interactions, periods=len(params.periods), test_share=params.split.test_share)
    if params.split.hold_out == "validation":
        frame = hold_out_validation(frame, test_share=params.split.test_share)
    return frame, None


def cut_by_calendar(params: Params, interactions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Periods of the calendar, and what waits; says where they lie and how many are filled."""
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
        frame = hold_out(frame.filter(pl.col("part") == "train"), starts, how.test_share)
    return frame, waiting


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
