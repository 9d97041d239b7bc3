"""What is known after a period: data/adapt/{t}/index.parquet, and how it is read from there.

Adapters lie in segments of the cell store (spring/store/segments.py), which data/ links to: their bytes are
on the disk once. Who has nothing new keeps adapter and place, in a row that cost nothing (`carried_on`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from spring.rivals.online import Profiling
from spring.store.cells import CellStore
from spring.store.keys import fingerprint
from spring.store.segments import DamagedError, opened
from tasks.files import DATA, EVERYBODY, Users, read_parquet
from tasks.steps.rows import Rows, grouped

Place = tuple[str, str | None]  # recipe and user; the user is null for what all users share

INDEX: dict[str, Any] = {
    "recipe": pl.String,
    "user_id": pl.String,  # null: one adapter for all users
    "period": pl.Int32,
    "lesson": pl.Int32,  # how many its user had before
    "cell": pl.String,
    "file": pl.String,  # the segment, from data/adapt/{t}; ../{t}/... where it was learned last
    "bytes": pl.Int64,  # of the adapter and what its recipe keeps beside it
    "chosen": pl.List(pl.String),  # in the last lesson
    "items": pl.Int32,
    "steps": pl.Int32,
    "tokens": pl.Int64,
    "seconds": pl.Float64,
    "seconds_score": pl.Float64,  # of deciding what to learn
    "until": pl.Datetime("us", "UTC"),  # of a lesson for all users: its latest possible item
}


class ArtifactError(Exception):
    """A file in data/ is missing or damaged; the message says which, and what to do."""


def read_index(period: int, users: Users = EVERYBODY, columns: list[str] | None = None) -> pl.DataFrame:
    """What was learned in a period (`INDEX`), or some columns of it; nothing before period 0."""
    if period < 0:
        return pl.DataFrame(schema=INDEX).select(columns or "*")
    return read_parquet(DATA / "adapt" / str(period) / "index.parquet", columns, users)


def carried_on(
    learned: pl.DataFrame, recipes: Iterable[str], period: int, users: Users = EVERYBODY
) -> pl.DataFrame:
    """The rows of the period before whose places are not among the `learned`, as this one lists them."""
    rows = read_index(period - 1, users).filter(pl.col("recipe").is_in(list(recipes)))
    rows = rows.join(learned, on=["recipe", "user_id"], how="anti", nulls_equal=True, maintain_order="left")
    nothing = {"items": 0, "steps": 0, "tokens": 0, "seconds": 0.0, "seconds_score": 0.0}
    listed = rows.with_columns(
        period=pl.lit(period),
        file=from_before(period),
        **{name: pl.lit(value) for name, value in nothing.items()},
    )
    return listed.select(pl.col(name).cast(kind) for name, kind in INDEX.items())


def from_before(period: int) -> pl.Expr:
    """The column `file` of the period before, as `period` says it."""
    beside = pl.col("file").str.starts_with("../")
    return pl.when(beside).then("file").otherwise(pl.format("../{}/{}", pl.lit(period - 1), "file"))


def read_held(file: Path, key: str, remote: CellStore | None = None) -> dict[str, bytes]:
    """The files of a cell in a segment that data/ links to; raises `ArtifactError` where it is not whole.

    On a node that does not share data/ they are those of the `remote`.
    """
    try:
        return opened(str(file.resolve())).read(key)
    except FileNotFoundError as error:
        if remote is not None and key in remote:
            return remote.read(key)
        raise ArtifactError(
            f"{file} is missing: run `dvc repro`, which runs the stage that writes it"
        ) from error
    except (DamagedError, KeyError) as error:
        raise ArtifactError(
            f"{file} is damaged ({error}): run `make verify`, which says what to do"
        ) from error


def read_chosen(period: int, users: Users = EVERYBODY) -> dict[Place, Rows]:
    """What was learned last at every place up to a period: one row, with `chosen`."""
    return grouped(read_index(period, users, ["recipe", "user_id", "chosen"]), "recipe", "user_id")


def vector_id(how: Profiling) -> str:
    """Names the profile vectors that move so."""
    return fingerprint(how)


def user_folder(user: str | None) -> str:
    """A folder name for any user id: readable, unique, safe on every file system; null: all users."""
    if user is None:
        return "population"  # no user's: theirs end in a fingerprint
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in user.lower())[:40].strip("-")
    return f"{readable or 'user'}-{fingerprint(user)}"
