"""Stage `score_base`: log-likelihood of every response under the base model, once, for all arms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from tasks.cells.scoring import ScoreJob, Scores, score
from tasks.files import DATA, read_parquet, write_parquet
from tasks.stage import run
from tasks.steps.experiment import Experiment
from tasks.steps.rows import Rows, by_user

SCORED: dict[str, Any] = {
    "user_id": pl.String,
    "interaction_id": pl.String,
    "period": pl.Int32,
    "part": pl.String,
    "logp": pl.Float64,
    "tokens": pl.Int32,
    "seconds": pl.Float64,
}


def main() -> None:
    """data/split/{t}.parquet -> data/score_base/{t}.parquet."""
    bench = Experiment()
    periods = {t: list(read_users(t).values()) for t in bench.params.periods}
    jobs = [ScoreJob(rows, None) for users in periods.values() for rows in users]
    found = iter(score(bench, jobs, "score base"))
    for t, users in periods.items():
        write_parquet(scored(users, list(islice(found, len(users)))), DATA / "score_base" / f"{t}.parquet")


def read_users(period: int) -> dict[str, Rows]:
    """The rows of every user in a period."""
    return by_user(read_parquet(DATA / "split" / f"{period}.parquet"))


def scored(users: Sequence[Rows], found: Sequence[Scores]) -> pl.DataFrame:
    """The table of a period (`SCORED`)."""
    if not users:
        return pl.DataFrame(schema=SCORED)
    places = np.concatenate([rows.places for rows in users])
    table = users[0].table.frame.select("user_id", "interaction_id", "period", "part")[places]
    return table.with_columns(
        logp=np.concatenate([one.logp for one in found]),
        tokens=np.concatenate([one.tokens for one in found]),
        seconds=np.concatenate([one.seconds * one.tokens * (1.0 / one.tokens.sum()) for one in found]),
    )


if __name__ == "__main__":
    run(main)
