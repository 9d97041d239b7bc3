"""Stage `score_base`: log-likelihood of every response under the base model, once, for all arms."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tasks.cells.scoring import ScoreJob, Scores, score
from tasks.files import DATA, Users, read_parquet
from tasks.stage import run
from tasks.steps.blocks import Parted
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
    bench, out = Experiment(), DATA / "score_base"
    periods = bench.params.periods
    with ExitStack() as held:
        tables = {t: held.enter_context(Parted(out / f"{t}.parquet")) for t in periods}
        for users in bench.blocks(*map(split_of, periods)):
            for t, part in score_some(bench, users).items():
                tables[t].add(part)


def score_some(bench: Experiment, users: Users) -> dict[int, pl.DataFrame]:
    """The tables of all periods (`SCORED`), of some users."""
    periods = {
        t: list(by_user(read_parquet(split_of(t), users=users)).values()) for t in bench.params.periods
    }
    jobs = [ScoreJob(rows, None) for of_users in periods.values() for rows in of_users]
    found = iter(score(bench, jobs, f"score base{users.told}"))
    return {t: scored(of_users, list(islice(found, len(of_users)))) for t, of_users in periods.items()}


def split_of(period: int) -> Path:
    """The table of a period's interactions."""
    return DATA / "split" / f"{period}.parquet"


def scored(users: Sequence[Rows], found: Sequence[Scores]) -> pl.DataFrame:
    """A period's rows of the table (`SCORED`)."""
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
