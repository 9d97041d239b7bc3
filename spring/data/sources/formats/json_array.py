"""One JSON array of objects that is too large to be held: LaMP's files have gigabytes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

from spring.data.rows import SourceError
from spring.data.sources.formats.json_files import as_object, take
from spring.data.sources.formats.record import Part, Record
from spring.data.sources.formats.text import read_chunks

_BEGIN = re.compile(r"[^ \t\r\n]")  # JSON's blanks


def read(part: Part, wanted: Collection[str], *, key: str) -> Iterator[Record]:
    """The objects of the array, one by one; `key` is the parameter that names the file.

    In memory is the text of one item, and what of the file is read at once. Raises SourceError where the
    array ends: what came before has been given by then.
    """
    keys = frozenset(wanted)
    for number, item in enumerate(_Reader(part, key).items()):
        yield f"{part.name}[{number}]", take(item, keys)


class _Reader:
    """The array as a text of which `held` is in memory, from `place` on unread."""

    def __init__(self, part: Part, key: str) -> None:
        self.part, self.key = part, key
        self.chunks = read_chunks(part.path, key=key)
        self.decoder = json.JSONDecoder(object_pairs_hook=as_object)
        self.held, self.place = "", 0

    def items(self) -> Iterator[Any]:
        if self._next() != "[":
            self._refuse("it does not begin with [")
        self.place += 1
        if self._next() == "]":
            return
        while True:
            yield self._item()
            sign = self._next()
            if sign == "]":
                return
            if sign != ",":
                self._refuse(f"an item is followed by {sign!r}")
            self.place += 1

    def _next(self) -> str:
        """The next character that is no blank; it stays unread."""
        while (found := _BEGIN.search(self.held, self.place)) is None:
            self.place = len(self.held)
            if not self._more():
                self._refuse("it ends before its ]")
        self.place = found.start()
        return found[0]

    def _item(self) -> Any:
        self._next()
        while True:
            try:
                item, end = self.decoder.raw_decode(self.held, self.place)
            except RecursionError as error:
                self._refuse(str(error))
            except json.JSONDecodeError as error:  # wrong, or not all of it yet
                if not self._more():
                    self._refuse(str(error))
                continue
            if end < len(self.held) or not self._more():  # a number may go on in what is unread
                self.place = end
                return item

    def _more(self) -> bool:
        """Reads on, about as much as is held: then a long item is not decoded again for every few letters."""
        kept = self.held[self.place :]
        pieces, length = [kept], len(kept)
        for piece in self.chunks:
            pieces.append(piece)
            length += len(piece)
            if length >= 2 * len(kept):
                break
        self.held, self.place = "".join(pieces), 0
        return len(pieces) > 1

    def _refuse(self, why: str) -> NoReturn:
        raise SourceError(
            f"{self.key}: {self.part.path} is no JSON array: {why}. If it was cut off, fetch it again"
        )
