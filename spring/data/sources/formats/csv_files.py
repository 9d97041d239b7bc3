"""CSV and TSV (RFC 4180): a malformed record costs what it may have swallowed, and never yields a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from typing import Any

from spring.data.rows import Problem, Reason, Skip, SourceError
from spring.data.sources.formats.record import Content, Part, Record
from spring.data.sources.formats.text import read_text

_LARGEST = 2**31 - 1  # characters of a field: how long texts may be is for ingest.max_chars to say


def read(part: Part, wanted: Collection[str], *, delimiter: str) -> Content:
    """The first line names the columns; no name that is `wanted` may stand there twice."""
    lines = io.StringIO(read_text(part.path), newline="").readlines()
    csv.field_size_limit(_LARGEST)  # the module's, for the whole process
    reader = _reader(lines, 0, delimiter)
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise SourceError(f"{part.path}: the first line holds no column names: {error}") from None
    if not header:
        raise SourceError(f"{part.path} is empty, or its first line is: that line must name the columns")
    twice = sorted({name for name in header if header.count(name) > 1 and name in wanted})
    if twice:
        raise SourceError(
            f"{part.path}: a column name stands twice in the first line: {', '.join(twice)}. Rename one"
        )
    others = [other for other in ",;\t|" if other in header[0]] if len(header) == 1 else []
    if others:
        raise SourceError(
            f"{part.path}: the first line is a single column, {header[0][:80]!r}. Are its fields separated "
            f"by {others[0]!r}? Read are commas in .csv and tabs in .tsv"
        )
    return Content(header, _records(lines, reader.line_num, header, part.name, delimiter))


def _records(lines: list[str], start: int, header: list[str], name: str, delimiter: str) -> Iterator[Record]:
    """The records from line `start` on; behind a malformed one from where no quote can be open any more."""
    reader = _reader(lines, start, delimiter)
    feeds = any(line.endswith("\n") for line in lines)
    torn = False  # whether the record before ended in a carriage return that may be text
    while True:
        first = start + reader.line_num
        record: dict[str, Any] | Problem | Skip
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            start = _find_end(lines, first, delimiter)
            yield from _refuse(lines, first, start, name, f"{error}, quotes inside quotes are doubled")
            reader = _reader(lines, start, delimiter)
            torn = False
            continue
        last = start + reader.line_num
        behind, torn = torn, feeds and lines[last - 1].endswith("\r")
        if not values:
            record = Skip("blank line")
        elif len(values) != len(header):
            message = f"{len(values)} fields instead of {len(header)}: {delimiter.join(values)}"
            record = Problem("line", Reason.MALFORMED, message)
        elif torn or behind:
            message = f"a carriage return amid lines that end in line feeds: {delimiter.join(values)}"
            record = Problem("line", Reason.MALFORMED, message)
        else:
            record = dict(zip(header, values, strict=True))
        yield f"{name}:{first + 1}" + (f"-{last}" if last > first + 1 else ""), record


def _refuse(lines: list[str], first: int, end: int, name: str, why: str) -> Iterator[Record]:
    """Each line from `first` to before `end`: they may be rows, or text of the malformed one."""
    yield f"{name}:{first + 1}", Problem("line", Reason.MALFORMED, f"{why}: {lines[first]}")
    for place in range(first + 1, end):
        if lines[place].strip():
            message = f"behind the open quote of line {first + 1}: {lines[place]}"
            yield f"{name}:{place + 1}", Problem("line", Reason.MALFORMED, message)
        else:
            yield f"{name}:{place + 1}", Skip("blank line")


def _find_end(lines: list[str], first: int, delimiter: str) -> int:
    """The line behind `first` at which no quote is open, whether or not one of the malformed record's was.

    A stray quote and one that opens a text of many lines look the same. So both are followed, a quote open or
    none, until a line ends at which they agree; what stands between may be rows or text, and is refused.
    """
    states = {_ends_quoted(lines[first], False, delimiter), False}
    place = first + 1
    while True in states and place < len(lines):
        states = {_ends_quoted(lines[place], state, delimiter) for state in states}
        place += 1
    return place


def _ends_quoted(line: str, quoted: bool, delimiter: str) -> bool:
    """Whether a quote is open at the end of a line, if one was (`quoted`) or was not at its beginning."""
    place = 0
    while True:
        if quoted:
            place = line.find('"', place)
            if place < 0:
                return True
            if line.startswith('""', place):
                place += 2
                continue
            quoted = False
        elif line.startswith('"', place):
            quoted, place = True, place + 1
            continue
        place = line.find(delimiter, place) + 1  # a quote amid a field is a character like others
        if place == 0:
            return False


def _reader(lines: list[str], start: int, delimiter: str) -> Any:
    rest = map(lines.__getitem__, range(start, len(lines)))  # a slice would copy them at each malformed line
    return csv.reader(rest, strict=True, delimiter=delimiter)
