"""Profiles in words: what they are written from, what is carried on, and who reads them.

A profile is state that consolidate@t writes to data/consolidate/{t}/profiles.parquet, with the interactions
it came from; generate@t and transfer put it before every query of its user. Training does not see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from spring.settings.arm import Arm
from tasks.cells.profiles import ProfileJob, write
from tasks.cells.workbench import Row
from tasks.files import DATA, EVERYBODY, Users, read_parquet
from tasks.steps.experiment import WORDS, Experiment

PROFILES: dict[str, Any] = {  # of profiles.parquet
    "profile": pl.String,  # which settings it was written under
    "user_id": pl.String,
    "period": pl.Int32,
    "text": pl.String,
    "tokens": pl.Int32,
    "read": pl.List(pl.String),  # interactions that stood in the prompt
    "sources": pl.List(pl.String),  # the same, and those that what was carried on came from
    "until": pl.Datetime("us", "UTC"),  # time of the latest source
    "cell": pl.String,
    "seconds": pl.Float64,
}


class Profiles:
    """The profiles after a period, by settings and user."""

    def __init__(self, written: pl.DataFrame) -> None:
        rows = written.select("profile", "user_id", "text", "until").iter_rows()
        self.found: dict[tuple[str, str], tuple[str, datetime]] = {
            (name, user): (text, until) for name, user, text, until in rows
        }

    @classmethod
    def after(cls, period: int, users: Users = EVERYBODY) -> Profiles:
        """What consolidate@period wrote."""
        return cls(_table(period, users))

    def of(self, arm: Arm, user: str, *, queries: Iterable[Row] = ()) -> str:
        """What stands before the user's queries; empty for an arm without profile.

        None of `queries` may be earlier than what the profile was written from.
        """
        if arm.profile_id is None:
            return ""
        text, until = self.found[arm.profile_id, user]
        early = [row["interaction_id"] for row in queries if row["timestamp"] < until]
        assert not early, f"{early} are earlier than the profile they would be served with"
        return text


def _table(period: int, users: Users) -> pl.DataFrame:
    return read_parquet(DATA / "consolidate" / str(period) / "profiles.parquet", users=users)


def write_profiles(
    bench: Experiment, users: Users, past: Mapping[str, Sequence[Row]], period: int, *, news: set[str]
) -> pl.DataFrame:
    """The rows of profiles.parquet after `period`: every settings for some users, all in one batch.

    `past` holds their train rows so far. Users who are not among `news` keep what was written of them.
    """
    before = _table(period - 1, users) if period else pl.DataFrame(schema=PROFILES)
    known = {(row["profile"], row["user_id"]): row for row in before.iter_rows(named=True)}
    places, jobs, kept = [], [], []
    for name, settings in bench.profiles.items():
        for user, rows in past.items():
            if user not in news and (name, user) in known:
                kept.append(known[name, user] | {"seconds": 0.0})
                continue
            carried = known.get((name, user)) if settings.carried else None
            seed = bench.seed(user, period + WORDS)  # another draw than that of the buffers and of training
            chosen = settings.choose(rows, period=period, seed=seed)
            places.append((name, user, carried))
            jobs.append(ProfileJob(settings, chosen, carried["text"] if carried else ""))
    written = write(bench, jobs, f"consolidate@{period} profiles{users.told}")
    rows_out = [
        {"profile": name, "user_id": user, "period": period, "cell": key, **_sources(job, carried), **text}
        for (name, user, carried), job, (key, text) in zip(places, jobs, written, strict=True)
    ]
    return pl.DataFrame(rows_out + kept, schema=PROFILES)


def _sources(job: ProfileJob, carried: dict[str, Any] | None) -> dict[str, Any]:
    """What a profile came from: what stood in the prompt, and what the text that was carried on came from."""
    read = [row["interaction_id"] for row in job.rows]
    earlier, times = (carried["sources"], [carried["until"]]) if carried else ([], [])
    until = max([*times, *(row["timestamp"] for row in job.rows)])
    return {"read": read, "sources": earlier + read, "until": until}
