"""Profile vectors after a period: data/consolidate/{t}/vectors.parquet carries them on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from spring.rivals.asls import Profile
from spring.rivals.online import Profiling
from spring.settings.arm import Arm
from tasks.cells.vectors import Followed, FollowJob, Known
from tasks.files import DATA, EVERYBODY, Users, read_parquet
from tasks.steps.index import vector_id

PROFILE_VECTORS: dict[str, Any] = {
    "profile": pl.String,  # `vector_id` of its settings
    "user_id": pl.String,
    "cell": pl.String,
    "vector": pl.List(pl.Float32),  # [D]
    "mean": pl.Float64,
    "count": pl.Int32,
}

ProfileVectors = dict[tuple[str, str], Known]  # by vector_id and user


def profilings(arms: Iterable[Arm]) -> list[Profiling]:
    """How profiles move, in all the ways that `arms` ask for."""
    found = {vector_id(arm.profiling): arm.profiling for arm in arms if arm.profiling is not None}
    return [found[name] for name in sorted(found)]


def read_profile_vectors(period: int, users: Users = EVERYBODY) -> ProfileVectors:
    """The profiles after `period`; before period 0 there are none."""
    if period < 0:
        return {}
    rows = read_parquet(DATA / "consolidate" / str(period) / "vectors.parquet", users=users).to_dicts()
    return {
        (row["profile"], row["user_id"]): Known(
            row["cell"], Profile(np.array(row["vector"], np.float32), row["mean"], row["count"])
        )
        for row in rows
    }


def table(jobs: Sequence[FollowJob], found: Sequence[Followed]) -> pl.DataFrame:
    """Profiles after the jobs, as vectors.parquet has them."""
    rows = [
        {
            "profile": vector_id(job.how),
            "user_id": job.user,
            "cell": one.known.key,
            "vector": one.known.profile.vector.tolist(),
            "mean": one.known.profile.mean,
            "count": one.known.profile.count,
        }
        for job, one in zip(jobs, found, strict=True)
    ]
    return pl.DataFrame(rows, schema=PROFILE_VECTORS)
