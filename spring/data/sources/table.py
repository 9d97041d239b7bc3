"""A table whose columns `params.yaml` maps to ours: parquet, CSV, TSV or JSON, a file or a folder of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from spring.data.rows import Opened, Problem, RawRow, Skip, SourceError
from spring.data.sources.fields import date_of, read_fields
from spring.data.sources.formats import csv_files, json_files, parquet_files
from spring.data.sources.formats.parts import find_parts, format_of
from spring.data.sources.formats.record import Content, Part
from spring.data.values import MISSING, fold_words
from spring.engine.strict import Name, Strict, added

_COLUMNS = ("user_id", "interaction_id", "response", "timestamp", "year", "month", "rating", "arrived")
_SHOWN = 50  # columns that a message names


class TableSource(Strict):
    """A table with a column mapping."""

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
    # when a text came here, a column as `timestamp`: what calendar periods go by; null: with its own date
    arrived: Annotated[str | None, added(None)]
    missing: Annotated[tuple[str, ...], added(MISSING)]  # words that stand for no value; [] if none does


def read(source: TableSource) -> Iterator[RawRow | Skip | Opened]:
    """Raw rows in the order of the file, of a folder in the order of its files' names.

    Raises SourceError if a file cannot be read or the mapping names a column that it does not have.
    """
    _check_time(source)
    kind, parts, skipped = find_parts(Path(source.path), FORMATS)
    if Path(source.path).is_dir():
        yield Opened("files", len(parts))
    yield from skipped
    yield from _read(source, kind, parts)


def read_file(source: TableSource, path: Path, name: str) -> Iterator[RawRow | Skip]:
    """As `read`, of one file that the rows call by `name`."""
    _check_time(source)
    yield from _read(source, format_of(path, FORMATS), [Part(path, name, {})])


def _read(source: TableSource, kind: str, parts: list[Part]) -> Iterator[RawRow | Skip]:
    columns = _mapping(source)
    words = fold_words(source.missing)
    number = 0
    for part, content in zip(parts, _READERS[kind](parts, set(columns.values())), strict=True):
        _check_columns(source, part, content.columns)
        for where, record in content.records:
            if isinstance(record, Skip):
                yield record
                continue
            number += 1
            if isinstance(record, Problem):
                yield RawRow(row=number, where=where, damage=_named(record, columns))
            else:
                yield _row(source, number, where, {**record, **part.keys}, words)


def _check_time(source: TableSource) -> None:
    if (source.timestamp is None) == (source.year is None):
        raise SourceError(
            f"ingest.table needs either timestamp or year (with month if there is one), the other null: "
            f"timestamp is {source.timestamp!r}, year is {source.year!r}"
        )


def _check_columns(source: TableSource, part: Part, found: list[str]) -> None:
    columns = [*found, *(key for key in part.keys if key not in found)]
    unknown = {name: column for name, column in _mapping(source).items() if column not in columns}
    if unknown:
        named = "".join(f"\n  ingest.table.{name}: {column!r}" for name, column in unknown.items())
        has = [column[:80] if column.isprintable() else repr(column)[:80] for column in columns[:_SHOWN]]
        more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
        raise SourceError(f"{part.path} does not have these columns:{named}\nIt has {', '.join(has)}{more}.")


def _mapping(source: TableSource) -> dict[str, str]:
    """Our name of each value that is mapped -> its column."""
    columns = {name: getattr(source, name) for name in _COLUMNS if getattr(source, name) is not None}
    return columns | {f"query.{name}": column for name, column in source.query.items()}


def _named(problem: Problem, columns: dict[str, str]) -> Problem:
    """A problem of a column under our name for it."""
    ours = {column: name for name, column in columns.items()}
    return problem._replace(field=ours.get(problem.field, problem.field))


def _row(
    source: TableSource, number: int, where: str, record: dict[str, Any], words: frozenset[str]
) -> RawRow:
    texts, damage = read_fields(record, _mapping(source), words)
    timestamp = texts.get("timestamp") or date_of(texts.get("year", ""), texts.get("month", ""))
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
        arrived=texts.get("arrived", "") if source.arrived else None,
        damage=damage,
    )


def _read_each(parts: list[Part], wanted: Collection[str], *, delimiter: str) -> Iterator[Content]:
    return (csv_files.read(part, wanted, delimiter=delimiter) for part in parts)


_READERS: dict[str, Callable[[list[Part], Collection[str]], Iterator[Content]]] = {
    ".parquet": parquet_files.read,
    ".csv": partial(_read_each, delimiter=","),
    ".tsv": partial(_read_each, delimiter="\t"),
    ".jsonl": json_files.read,
    ".json": json_files.read,
}
FORMATS = tuple(_READERS)
