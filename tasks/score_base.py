"""Stage `score_base`: log-likelihood of every response under the base model, once, for all arms."""

from __future__ import annotations

from typing import Any

import polars as pl

from tasks.cells.scoring import ScoreJob, score
from tasks.files import DATA, read_parquet, write_parquet
from tasks.stage import run
from tasks.steps.experiment import Experiment

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
    periods = {t: read_parquet(DATA / "split" / f"{t}.parquet") for t in bench.params.periods}
    parts = [
        (t, user) for t, rows in periods.items() for user in rows.partition_by("user_id", maintain_order=True)
    ]
    jobs = [ScoreJob(user.to_dicts(), None) for _, user in parts]
    columns = ["user_id", "interaction_id", "period", "part"]
    scored = [
        user.select(columns).with_columns(
            logp=pl.Series(s.logp),
            tokens=pl.Series(s.tokens),
            seconds=s.seconds * pl.Series(s.tokens) / s.tokens.sum(),
        )
        for (_, user), s in zip(parts, score(bench, jobs, "score base"), strict=True)
    ]
    for t in periods:
        mine = [frame for (period, _), frame in zip(parts, scored, strict=True) if period == t]
        write_parquet(pl.concat([pl.DataFrame(schema=SCORED), *mine]), DATA / "score_base" / f"{t}.parquet")


if __name__ == "__main__":
    run(main)
