"""What a source yields: rows as they stand there, all text, nothing parsed or judged.

`RawRow` is one row, `Skip` whatever is no row at all (a commit without a body, a blank line), `Opened` what
the source read from (a commit's hash, how many files).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import polars as pl

INTERACTIONS: dict[str, Any] = {
    "user_id": pl.String,
    "interaction_id": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "task": pl.String,
    "query": pl.String,
    "response": pl.String,
    "rating": pl.Float64,
}
ARRIVED: dict[str, Any] = {"arrived": pl.Datetime("us", "UTC")}  # behind them, where a source says it


def canonical(frame: pl.DataFrame) -> list[str]:
    """The columns of a canonical table."""
    return [*INTERACTIONS, *(column for column in ARRIVED if column in frame.columns)]


class Reason(StrEnum):
    """Why a row is in quarantine; the first that applies, in this order."""

    MALFORMED = "malformed line"
    TWICE = "a key stands twice"
    NOT_TEXT = "not a text or number"
    ROUNDED = "an id written as a rounded number"
    MISSING_WORD = "a word for a missing value"
    NO_PRODUCT = "unknown product"
    IMPOSSIBLE_RATING = "rating outside 1 to 5"
    MISSING_USER = "missing user id"
    MISSING_ID = "missing interaction id"
    MISSING_TIME = "missing time"
    BAD_TIME = "unparsable time"
    ENCODING = "wrong encoding"
    CONTROL = "control characters"
    EMPTY = "empty text"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    BAD_RATING = "rating is not a number"
    DUPLICATE_ID = "duplicate interaction id"
    REPEATED = "repeated text"


class SourceError(ValueError):
    """A source that cannot be read at all; the message names it, its parameter, and what to do."""


class Problem(NamedTuple):
    """What is wrong with a row, where in it, and the offending value."""

    field: str
    reason: Reason
    value: str | None


class Skip(NamedTuple):
    """Something read that is no row: counted by reason, not part of the quarantine."""

    reason: str


class Opened(NamedTuple):
    """What a source read from, beyond its parameters: told in ingest.json under `opened`."""

    what: str
    value: str | int


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the source has it, nothing parsed; `damage` if it could not even be read."""

    row: int  # from 1, in the source's own order
    where: str  # file and line, package and version, commit
    user_id: str | None = None
    interaction_id: str | None = None
    timestamp: str | None = None  # what `parse_time` reads
    task: str = ""
    query: dict[str, str | None] = field(default_factory=dict)
    response: str | None = None
    rating: str | None = None
    arrived: str | None = None  # as `timestamp`; empty: not known of this row; null: the source has none
    damage: Problem | None = None


def rows_of(frame: pl.DataFrame, *, first: int = 1) -> Iterator[RawRow]:
    """Raw rows of a canonical table, for sources that make one: they are checked as any other."""
    for number, row in enumerate(frame.select(list(INTERACTIONS)).iter_rows(named=True), start=first):
        yield RawRow(
            row=number,
            where=f"row {number}",
            user_id=row["user_id"],
            interaction_id=row["interaction_id"],
            timestamp=row["timestamp"] and row["timestamp"].isoformat(),
            task=row["task"],
            query=json.loads(row["query"]),
            response=row["response"],
            rating=None if row["rating"] is None else str(row["rating"]),
        )
