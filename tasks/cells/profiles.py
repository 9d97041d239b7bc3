"""Profiles in words: cells of what the model wrote about one user, and who reads them.

A profile is state that consolidate@t writes to data/consolidate/{t}/profiles.parquet, with the interactions
it came from; generate@t and transfer put it before every query of its user. Training does not see it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from spring.engine.strict import fingerprint
from spring.method.retrieval import query_text
from spring.settings.arm import Arm, Decode, Profile
from spring.store import cell_key, code_digest
from tasks.cells.decoding import COMMIT, LOOP, decode_all
from tasks.cells.scoring import CODE
from tasks.cells.workbench import WORDS, Done, Row, Workbench, fill, plain
from tasks.files import DATA, read_parquet

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


@dataclass(frozen=True)
class ProfileJob:
    """One user's profile under some settings: what it is written from, and what it replaces."""

    settings: Profile
    user: str
    rows: list[Row]
    before: dict[str, Any] | None  # the row of profiles.parquet that is carried on

    @property
    def previous(self) -> str:
        """The text that is carried on; empty without one."""
        return self.before["text"] if self.before else ""


class Profiles:
    """The profiles after a period, by settings and user."""

    def __init__(self, written: pl.DataFrame) -> None:
        rows = written.select("profile", "user_id", "text", "until").iter_rows()
        self.found: dict[tuple[str, str], tuple[str, datetime]] = {
            (name, user): (text, until) for name, user, text, until in rows
        }

    @classmethod
    def after(cls, period: int) -> Profiles:
        """What consolidate@period wrote."""
        return cls(read_parquet(DATA / "consolidate" / str(period) / "profiles.parquet"))

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


def write_profiles(
    bench: Workbench, past: dict[str, list[Row]], before: pl.DataFrame, period: int
) -> pl.DataFrame:
    """The rows of profiles.parquet after `period`: every settings for every user, all in one batch.

    `past` holds the train rows so far, by user; `before` is the table of the period before.
    """
    carried = {(row["profile"], row["user_id"]): row for row in before.iter_rows(named=True)}
    jobs = [
        ProfileJob(
            settings,
            user,
            settings.choose(rows, period=period, seed=_seed(bench, user, period)),
            carried.get((name, user)) if settings.carried else None,
        )
        for name, settings in bench.profiles.items()
        for user, rows in past.items()
    ]
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: _loop(job.settings),
        at_once=COMMIT,
        amount=lambda _: 1,
        what=f"consolidate@{period} profiles",
        unit="profile",
    )
    rows_out = [_row(bench, job, key, period) for job, key in zip(jobs, keys, strict=True)]
    return pl.DataFrame(rows_out, schema=PROFILES)


def _seed(bench: Workbench, user: str, period: int) -> int:
    """Of the draw of items; another than that of the buffers and of training."""
    return bench.seed(user, period + WORDS)


def _row(bench: Workbench, job: ProfileJob, key: str, period: int) -> dict[str, Any]:
    cell = json.loads((bench.store.path(key) / "profile.json").read_text(encoding="utf-8"))
    read = [row["interaction_id"] for row in job.rows]
    earlier, times = (job.before["sources"], [job.before["until"]]) if job.before else ([], [])
    return {
        "profile": fingerprint(job.settings),
        "user_id": job.user,
        "period": period,
        "read": read,
        "sources": earlier + read,
        "until": max([*times, *(row["timestamp"] for row in job.rows)]),
        "cell": key,
        **cell,
    }


def _loop(settings: Profile) -> Decode:
    """How a profile is written: greedily, by the one decode loop."""
    return Decode(
        lmbda=0.0,
        repetition_penalty=settings.repetition_penalty,
        max_new_tokens=settings.max_new_tokens,
        adaptive=None,
        confidence=None,
        rule=None,
    )


def _key(bench: Workbench, job: ProfileJob) -> str:
    method = f"spring/rivals/{job.settings.by}"
    return cell_key(
        kind="profile",
        code=code_digest(
            *CODE, *LOOP, method, "spring/method/retrieval", "tasks/cells/decoding", "tasks/cells/profiles"
        ),
        **bench.identity,
        settings=job.settings,
        previous=job.previous,
        rows=[plain(row) for row in job.rows],
    )


def _compute(bench: Workbench, decode: Decode, jobs: dict[str, ProfileJob], done: Done) -> None:
    from spring.engine.queries import Query

    queries = [Query(_prompt(bench, job), None, 0.0) for job in jobs.values()]
    answers = decode_all(bench, None, queries, decode, done)
    prompter = bench.prompter
    with bench.store.batch() as batch:
        for key, answer in zip(jobs, answers, strict=True):
            text = prompter.cut(prompter.plain(prompter.decode(answer.tokens)), decode.max_new_tokens)
            cell = {"text": text, "tokens": len(answer.tokens), "seconds": answer.seconds}
            (batch.cell(key) / "profile.json").write_text(json.dumps(cell), encoding="utf-8")


def _prompt(bench: Workbench, job: ProfileJob) -> tuple[int, ...]:
    """Token ids that ask for a profile."""
    prompter, most = bench.prompter, job.settings.item_tokens
    pairs = [(query_text(row["query"]), row["response"]) for row in job.rows]
    items = ["\n".join(prompter.cut(prompter.plain(text), most) for text in pair) for pair in pairs]
    return prompter.turn(*job.settings.ask(items, job.previous))
