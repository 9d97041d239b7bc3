"""A parquet, CSV or JSONL file whose columns `params.yaml` maps to ours."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from spring.data.quarantine import parse_number
from spring.data.rows import Problem, RawRow, Reason, Skip
from spring.engine.strict import Name, Strict

# a record: where it stands, and its values by column, or why it has none
Record = tuple[str, dict[str, Any] | Problem | Skip]
_COLUMNS = ("user_id", "interaction_id", "response", "timestamp", "year", "month", "rating")
UNDATED_MONTH = 7.0  # a year without a month is taken as its middle: at most half a year off


class TableSource(Strict):
    """A parquet, CSV or JSONL file with a column mapping."""

    path: str
    task: Name  # which of `prompts` the rows answer
    user_id: str
    interaction_id: str | None  # null: the row number
    response: str
    timestamp: str | None  # a datetime or date column; or null, with `year` and perhaps `month`
    year: str | None
    month: str | None
    query: dict[str, str]  # name in the prompt -> column
    rating: str | None


def read(source: TableSource) -> Iterator[RawRow | Skip]:
    """Raw rows in the order of the file.

    Raises ValueError if the file cannot be read or the mapping names a column that it does not have.
    """
    path = Path(source.path)
    if path.suffix not in _READERS:
        raise ValueError(
            f"ingest.table.path: {path} ends in {path.suffix!r}; read are {', '.join(sorted(_READERS))}"
        )
    if not path.is_file():
        raise ValueError(f"ingest.table.path: {path} does not exist (seen from {Path.cwd()})")
    columns, records = _READERS[path.suffix](path)
    _check_mapping(source, columns)
    number = 0
    for where, record in records:
        if isinstance(record, Skip):
            yield record
            continue
        number += 1
        if isinstance(record, Problem):
            yield RawRow(row=number, where=where, damage=record)
        else:
            yield _row(source, number, where, record)


def _check_mapping(source: TableSource, columns: list[str]) -> None:
    if (source.timestamp is None) == (source.year is None):
        raise ValueError(
            f"ingest.table needs either timestamp or year (with month if there is one), the other null: "
            f"timestamp is {source.timestamp!r}, year is {source.year!r}"
        )
    unknown = {name: column for name, column in _mapping(source).items() if column not in columns}
    if unknown:
        named = "".join(f"\n  ingest.table.{name}: {column!r}" for name, column in unknown.items())
        raise ValueError(f"{source.path} does not have these columns:{named}\nIt has {', '.join(columns)}.")


def _mapping(source: TableSource) -> dict[str, str]:
    """Our name of each value that is mapped -> its column."""
    columns = {name: getattr(source, name) for name in _COLUMNS if getattr(source, name) is not None}
    return columns | {f"query.{name}": column for name, column in source.query.items()}


def _row(source: TableSource, number: int, where: str, record: dict[str, Any]) -> RawRow:
    texts: dict[str, str] = {}
    damage = None
    for name, column in _mapping(source).items():
        value = record.get(column)
        if isinstance(value, date):  # a datetime is one too
            texts[name] = value.isoformat()
        elif isinstance(value, (str, int, float, Decimal)) and not isinstance(value, bool):
            if value == value:  # a NaN is no value
                texts[name] = str(value)
        elif value is not None:
            damage = damage or Problem(name, Reason.NOT_TEXT, repr(value))
    timestamp = texts.get("timestamp") or _date_of(texts.get("year", ""), texts.get("month", ""))
    return RawRow(
        row=number,
        where=where,
        user_id=texts.get("user_id"),
        interaction_id=texts.get("interaction_id") if source.interaction_id else f"row-{number}",
        timestamp=timestamp,
        task=source.task,
        query={name: texts.get(f"query.{name}") for name in source.query},
        response=texts.get("response"),
        rating=texts.get("rating", "").strip() or None,
        damage=damage,
    )


def _date_of(year: str, month: str) -> str | None:
    """First day of the month; both come as text, perhaps with the .0 of a float column."""
    if not year.strip():
        return None
    in_year = parse_number(year)
    in_month = parse_number(month) if month.strip() else UNDATED_MONTH
    if in_year is None or in_month is None or in_year % 1 or in_month % 1:
        return f"year {year}, month {month}"
    return f"{int(in_year):04d}-{int(in_month):02d}-01"


def _read_parquet(path: Path) -> tuple[list[str], Iterator[Record]]:
    try:
        frame = pl.read_parquet(path, glob=False)
    except (pl.exceptions.ComputeError, OSError) as error:
        raise ValueError(f"ingest.table.path: {path} is no parquet file that can be read: {error}") from None
    rows = frame.iter_rows(named=True)
    return frame.columns, ((f"{path.name}:{number}", row) for number, row in enumerate(rows, start=1))


def _read_csv(path: Path) -> tuple[list[str], Iterator[Record]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = file.readlines()
    reader = _csv_reader(lines, 0)
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise ValueError(f"{path}: the first line holds no column names: {error}") from None
    if len(set(header)) != len(header):
        raise ValueError(f"{path}: a column name stands twice in the first line: {', '.join(header)}")
    return header, _csv_records(lines, reader.line_num, header, path.name)


def _csv_records(lines: list[str], start: int, header: list[str], name: str) -> Iterator[Record]:
    """The records from line `start` on. Behind a malformed one reading goes on at the very next line.

    So an unclosed quote takes its own line, and not all that it would swallow.
    """
    reader = _csv_reader(lines, start)
    while True:
        first = start + reader.line_num
        record: dict[str, Any] | Problem | Skip
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"{name}:{first + 1}", Problem("line", Reason.MALFORMED, f"{error}: {lines[first]}")
            start = first + 1
            reader = _csv_reader(lines, start)
            continue
        if not values:
            record = Skip("blank line")
        elif len(values) != len(header):
            message = f"{len(values)} fields instead of {len(header)}: {','.join(values)}"
            record = Problem("line", Reason.MALFORMED, message)
        else:
            record = dict(zip(header, values, strict=True))
        last = start + reader.line_num
        yield f"{name}:{first + 1}" + (f"-{last}" if last > first + 1 else ""), record


def _csv_reader(lines: list[str], start: int) -> Any:
    rest = map(lines.__getitem__, range(start, len(lines)))  # a slice would copy them at each malformed line
    return csv.reader(rest, strict=True)


def _read_jsonl(path: Path) -> tuple[list[str], Iterator[Record]]:
    """The columns are the keys that most rows have; rows with further ones are refused, with fewer not."""
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        records.append((f"{path.name}:{number}", _json_record(line.decode("utf-8-sig", errors="replace"))))
    if records and isinstance(records[-1][1], Skip):
        records.pop()  # what follows the last line feed is no line
    rows = [record for _, record in records if isinstance(record, dict)]
    counts = Counter(key for row in rows for key in row)
    columns = sorted(key for key, count in counts.items() if 2 * count > len(rows))
    return columns, ((where, _refuse_unknown(record, columns)) for where, record in records)


def _json_record(line: str) -> dict[str, Any] | Problem | Skip:
    if not line.strip():
        return Skip("blank line")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return Problem("line", Reason.MALFORMED, line)
    return record if isinstance(record, dict) else Problem("line", Reason.MALFORMED, line)


def _refuse_unknown(record: dict[str, Any] | Problem | Skip, columns: list[str]) -> Any:
    if isinstance(record, dict) and (unknown := sorted(record.keys() - set(columns))):
        return Problem(unknown[0], Reason.UNKNOWN_COLUMN, str(record[unknown[0]]))
    return record


_READERS: dict[str, Callable[[Path], tuple[list[str], Iterator[Record]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
