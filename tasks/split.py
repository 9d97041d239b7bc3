"""Stage `split`: data/ingest/interactions.parquet -> data/split/{t}.parquet, one per period."""

from __future__ import annotations

import logging

import polars as pl

from spring.data.split import check_leakage, hold_out_validation, split
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
    frame = split(interactions, periods=len(params.periods), test_share=params.split.test_share)
    if params.split.hold_out == "validation":
        log.info("validation: all test items are set aside, the most recent train items are held out")
        frame = hold_out_validation(frame, test_share=params.split.test_share)
    repeats = check_leakage(frame)
    if repeats:
        log.info("%d test items repeat a short text that the user's train items hold", repeats)
    for period in params.periods:
        part = frame.filter(pl.col("period") == period)
        write_parquet(part, DATA / "split" / f"{period}.parquet")
        tests = part.filter(pl.col("part") == "test").height
        log.info("period %d: %d train and %d test items", period, part.height - tests, tests)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
