"""JSON: an object per line, one array of objects, or objects one behind the other over several lines each.

A key that stands twice is no value.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from itertools import chain
from typing import Any

from spring.data.rows import Problem, Reason, Skip, SourceError
from spring.data.sources.formats.record import Content, Part, Record
from spring.data.sources.formats.text import read_lines, read_text

_BEGIN = re.compile(r"[^ \t\r\n]")  # JSON's blanks


class Object(dict[str, Any]):
    """A JSON object, and which of its keys stand there more than once."""

    twice: frozenset[str]


def read(parts: list[Part], wanted: Collection[str]) -> Iterator[Content]:
    """Each part; the columns are all keys that stand anywhere, so that rows and parts may lack some.

    Only what is `wanted` is kept of a row. Rows are read on until all columns that are wanted are known.
    """
    keys: dict[str, None] = {}
    streams = [_records(part, frozenset(wanted), keys) for part in parts]
    begun = [
        list(_until(stream, set(wanted) - part.keys.keys(), keys))
        for part, stream in zip(parts, streams, strict=True)
    ]
    for first, rest in zip(begun, streams, strict=True):
        # where no object could be read at all, the quarantine says why
        yield Content(list(keys) or list(wanted), chain(first, rest))


def _until(records: Iterator[Record], wanted: Set[str], keys: Mapping[str, None]) -> Iterator[Record]:
    """The first records, until all keys that are wanted are known."""
    while not keys.keys() >= wanted and (record := next(records, None)) is not None:
        yield record


def _records(part: Part, wanted: frozenset[str], keys: dict[str, None]) -> Iterator[Record]:
    for where, item in _items(part):
        if isinstance(item, Object):
            keys.update(dict.fromkeys(item))
        yield where, take(item, wanted)


def read_large(part: Part, wanted: Collection[str], *, key: str) -> Iterator[Record]:
    """An object per line, of a file that is too large to be held; `key` is the parameter that names it."""
    keys = frozenset(wanted)
    for where, item in _lines(part, read_lines(part.path, key=key)):
        yield where, take(item, keys)


def take(item: Any, wanted: frozenset[str]) -> dict[str, Any] | Problem | Skip:
    """What is wanted of an item, if it is an object in which no such key stands twice."""
    if isinstance(item, (Problem, Skip)):
        return item
    if not isinstance(item, Object):
        message = f"no object, {{...}}, but {json.dumps(item, ensure_ascii=False)}"
        return Problem("line", Reason.MALFORMED, message)
    if twice := sorted(item.twice & wanted):
        return Problem(twice[0], Reason.TWICE, f"the last one is {item[twice[0]]!r}")
    return {key: item[key] for key in wanted & item.keys()}


def _items(part: Part) -> Iterable[tuple[str, Any]]:
    """What the file holds, one by one: its lines, unless it is an array or its first line no whole value.

    Of lines, one at a time is in memory.
    """
    first = next((line for line in read_lines(part.path) if line.strip()), "{}")
    array = first.lstrip().startswith("[")
    if not array and _is_value(first):
        return _lines(part, read_lines(part.path))
    text = read_text(part.path)
    try:
        items = _parse(text) if array else list(_sequence(text))
        return [(f"{part.name}[{number}]", item) for number, item in enumerate(items)]
    except (ValueError, RecursionError) as error:
        if array and part.name.lower().removesuffix(".gz").endswith(".json"):
            raise SourceError(
                f"ingest.table.path: {part.path} is no JSON array: {error}. If it was cut off, fetch it "
                f"again; if each line is an object of its own, name it .jsonl"
            ) from None
    return _lines(part, io.StringIO(text, newline=None))


def _is_value(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        _parse(text)
        return True
    return False


def _sequence(text: str) -> Iterator[Any]:
    """Values one behind the other; raises ValueError where one is none."""
    decoder, place = json.JSONDecoder(object_pairs_hook=as_object), 0
    while found := _BEGIN.search(text, place):
        item, place = decoder.raw_decode(text, found.start())
        yield item


def _lines(part: Part, lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        item: Any
        try:
            line = line.removeprefix("\ufeff")  # files that were put one behind the other
            item = _parse(line) if line.strip() else Skip("blank line")
        except (ValueError, RecursionError) as error:
            item = Problem("line", Reason.MALFORMED, f"{error}: {line}")
        yield f"{part.name}:{number}", item


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=as_object)


def as_object(pairs: list[tuple[str, Any]]) -> Object:
    """For `object_pairs_hook`."""
    found = Object(pairs)
    counts = Counter(key for key, _ in pairs) if len(found) < len(pairs) else {}
    found.twice = frozenset(key for key, count in counts.items() if count > 1)
    return found
