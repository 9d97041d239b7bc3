"""What was taken from an inbox: a line per file in the order of taking, and the rows of each file in a part.

FOLDER/ledger.jsonl     the lines; it only grows, and holds no texts and no users
FOLDER/parts/PART       the new rows of a file; PART is the sha256 of its bytes
FOLDER/.writing/        what is not finished

A part counts once a line names it, and the ledger is replaced by one atomic rename: both are there or none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from spring.data.inbox.digest import digest_file
from spring.data.rows import SourceError
from spring.engine.strict import Strict
from spring.store.disk import sync

LEDGER, PARTS, WRITING = "ledger.jsonl", "parts", ".writing"
PART: dict[str, Any] = {
    "row": pl.Int64,  # in its file, from 1
    "where": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "timestamp": pl.String,
    "task": pl.String,
    "query": pl.String,  # JSON: field -> text
    "response": pl.String,
    "rating": pl.String,
    "arrived": pl.Datetime("us", "UTC"),
    "digest": pl.String,  # of what the row says; null for one that was set aside
    "field": pl.String,  # why it was: the `Problem`
    "reason": pl.String,
    "value": pl.String,
}


class Line(Strict):
    """A file that was taken; of one that grew, a line each time."""

    file: str  # its name in the inbox
    digest: str  # of its bytes
    rows: int  # in it
    rows_digest: str  # of all of them in order, by which a file that grew is recognised
    new: int
    known: int  # the same row was taken before
    quarantined: dict[str, int]  # rows by reason
    part: str | None  # where the new and the quarantined ones are; null: there are none
    taken: str  # when, in UTC


def read_ledger(folder: Path) -> list[Line]:
    """The lines; none where nothing was taken yet. Raises SourceError for a ledger that is damaged."""
    path = folder / LEDGER
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [Line.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise SourceError(
            f"{path} is damaged: {error.errors()[0]['msg']}. Bring it back: git checkout -- {path}"
        ) from None


def add_line(folder: Path, line: Line) -> None:
    """Appends a line, as one atomic rename."""
    path, new = folder / LEDGER, folder / WRITING / LEDGER
    before = path.read_bytes() if path.exists() else b""
    new.write_bytes(before + line.model_dump_json().encode() + b"\n")
    sync(new)
    new.replace(path)
    sync(folder)


def add_part(folder: Path, rows: pl.DataFrame) -> str:
    """Writes a part and gives its name; until a line names it, nobody reads it."""
    new = folder / WRITING / "part"
    rows.write_parquet(new)
    sync(new)
    name = f"{digest_file(new)}.parquet"
    new.replace(folder / PARTS / name)
    sync(folder / PARTS)
    return name


def clear(folder: Path) -> None:
    """Makes the folders, and removes what a killed process had begun to write."""
    shutil.rmtree(folder / WRITING, ignore_errors=True)
    for name in (PARTS, WRITING):
        (folder / name).mkdir(parents=True, exist_ok=True)


def read_parts(folder: Path) -> Iterator[pl.DataFrame]:
    """The parts in the order of the ledger. Raises SourceError for one that is gone or damaged."""
    for line in read_ledger(folder):
        if line.part is None:
            continue
        path = folder / PARTS / line.part
        if not path.is_file():
            raise SourceError(
                f"{path}, the rows of {line.file}, is not there: dvc checkout {folder / PARTS}.dvc brings it "
                f"back"
            )
        if digest_file(path) != path.stem:
            raise SourceError(
                f"{path}, the rows of {line.file}, is damaged: remove it, and dvc checkout --force "
                f"{folder / PARTS}.dvc brings it back"
            )
        yield pl.read_parquet(path)
