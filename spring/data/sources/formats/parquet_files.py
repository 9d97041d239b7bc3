"""Parquet: only the columns that are asked for are read, so that the others may hold whatever they like."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from spring.data.batches import AT_ONCE
from spring.data.rows import SourceError
from spring.data.sources.formats import unpack
from spring.data.sources.formats.record import Content, Part, Record
from spring.data.sources.formats.text import KEY

# Beyond these Python has no date, or none in every time zone
_DATES = date(2, 1, 1), date(9998, 12, 31)


def read(parts: list[Part], wanted: Collection[str]) -> Iterator[Content]:
    """Each part. Raises SourceError for the first that cannot be read, naming column and remedy."""
    for part, (columns, frame) in zip(parts, read_frames(parts, wanted), strict=True):
        _check_types(part, frame)
        yield Content(columns, _records(part, frame))


def read_frames(
    parts: list[Part], wanted: Collection[str], *, key: str = KEY
) -> Iterator[tuple[list[str], pl.DataFrame]]:
    """The names of all columns of each part, and those that are wanted, of any type; none if one lacks.

    key: the parameter that names the files.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        done = _unpack(out, [(str(part.path), sorted(set(wanted) - part.keys.keys())) for part in parts])
        for number, part in enumerate(parts):
            told = out / f"{number}.json"
            if not told.exists():  # the process ended at this file
                why = f"its reader ended with code {done.returncode}: {_last_line(done.stderr)}"
                raise _damaged(part, why, key)
            found = json.loads(told.read_text(encoding="utf-8"))
            if found["error"] is not None:
                raise _damaged(part, found["error"], key)
            file = out / f"{number}.arrow"
            yield found["columns"], pl.read_ipc(file) if file.exists() else pl.DataFrame()


def _unpack(out: Path, files: list[tuple[str, list[str]]]) -> subprocess.CompletedProcess[bytes]:
    # -P: the folder of the script is no place to import from
    command = [sys.executable, "-P", str(unpack.__file__), str(out)]
    return subprocess.run(command, input=json.dumps(files).encode(), capture_output=True)


def _damaged(part: Part, why: str, key: str) -> SourceError:
    return SourceError(
        f"{key}: {part.path} is no parquet file that can be read: {why}. If it is damaged or was "
        f"cut off, fetch or write it again; if a column holds what polars cannot read, write it in another "
        f"type"
    )


def _check_types(part: Part, frame: pl.DataFrame) -> None:
    for name, kind in frame.schema.items():
        if kind.is_nested() or isinstance(kind, (pl.Time, pl.Duration, pl.Object)):
            raise SourceError(
                f"{part.path}: the column {name!r} holds {kind}, and what is mapped must be a text, a number "
                f"or a date. Map another column, or write this one as text"
            )


def _last_line(output: bytes) -> str:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("note:")]
    return told[-1] if told else "it said nothing"


def _records(part: Part, frame: pl.DataFrame) -> Iterator[Record]:
    names, number = frame.columns, 0
    for some in frame.iter_slices(AT_ONCE):
        for values in zip(*(_values(some[name]) for name in names), strict=True):
            number += 1
            yield f"{part.name}:{number}", dict(zip(names, values, strict=True))


def _values(column: pl.Series) -> list[Any]:
    """A column as Python has it; a date beyond Python's as text that the check refuses as a time."""
    if not isinstance(column.dtype, (pl.Date, pl.Datetime)):
        return column.to_list()
    first, last = (_as(column.dtype, day) for day in _DATES)
    count = column.to_physical()
    inside = column.set((count < first) | (count > last), None)
    unit = getattr(column.dtype, "time_unit", "days")
    return [
        f"{number} {unit} since 1970" if value is None and number is not None else value
        for value, number in zip(inside.to_list(), count.to_list(), strict=True)
    ]


def _as(dtype: pl.DataType, day: date) -> int:
    """A day counted as a column counts, or what comes nearest to it of the numbers that fit there."""
    if isinstance(dtype, pl.Date):
        return (day - date(1970, 1, 1)).days
    seconds = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    count = seconds * {"ms": 10**3, "us": 10**6, "ns": 10**9}[getattr(dtype, "time_unit", "us")]
    # nanoseconds reach from 1677 to 2262; the least number stands for no time at all (NaT)
    return min(max(count, 1 - 2**63), 2**63 - 1)
