"""What tells that something holds a person: their names, the ids of their interactions, what they wrote.

Names and ids are looked for as whole words, and never within the ids of others (`ann` in `ann-marie`); of
texts the beginning and the end, if nobody else wrote the same.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

PROBE = 48  # characters of a text that are looked for: an excerpt holds them too
LEAST = 8  # characters of what is looked for within other words, or where bytes are no text
NEAR = 200  # bytes of what others wrote in which a name of theirs is known to be another's word
WORD = 3  # characters of a name, with a letter among them, that is looked for outside tables


@dataclass(frozen=True)
class Traces:
    """A person, as files may hold them."""

    user: str
    names: frozenset[str]  # the spellings of the user's id
    ids: frozenset[str]  # of their interactions
    texts: frozenset[str]  # probes of their texts
    others: frozenset[str]  # ids of others that contain a name or an id of theirs

    @classmethod
    def of(
        cls, user: str, names: Iterable[str], ids: Iterable[str], texts: Iterable[str], others: Iterable[str]
    ) -> Traces:
        """`others`: all ids and texts of other people; what they hold tells of nobody."""
        names, ids = frozenset((user, *names)), frozenset(ids)
        rest = pl.Series(list(others), dtype=pl.String)
        probes = {probe for text in texts for probe in probes_of(text)}
        words = [word for word in (*names, *ids) if word]
        near = (
            rest.filter((rest.str.len_bytes() <= NEAR) & rest.str.contains_any(words))
            if words
            else rest.clear()
        )
        return cls(user, names, ids - set(rest), frozenset(probes - _held(probes, rest)), frozenset(near))

    def as_json(self) -> dict[str, object]:
        """For a file."""
        return {"user": self.user} | {name: sorted(getattr(self, name)) for name in _SETS}

    @classmethod
    def from_json(cls, kept: Mapping[str, object]) -> Traces:
        """What `as_json` gave."""
        found = {name: frozenset(_strings(kept[name])) for name in _SETS}
        return cls(str(kept["user"]), **found)

    @property
    def is_telling(self) -> bool:
        """Whether the user's id can be looked for outside tables."""
        return all(map(_tells, self.names))

    @cached_property
    def _words(self) -> re.Pattern[str]:
        """Own names and ids, and those of others that contain one, the longest first: it is found alone."""
        own = {word for word in (*self.names, *self.ids) if _tells(word)}
        spelled = {way for word in own | self.others for way in spellings(word)}
        any_of = "|".join(map(re.escape, sorted(spelled, key=lambda way: (-len(way), way))))
        edge = r"0-9A-Za-z_\x80-\xff"
        return re.compile(f"(?<![{edge}])(?:{any_of})(?![{edge}])" if spelled else r"(?!)")

    @cached_property
    def _own(self) -> frozenset[str]:
        return frozenset(way for word in (*self.names, *self.ids) if _tells(word) for way in spellings(word))

    @cached_property
    def _probes(self) -> list[str]:
        return sorted({way for text in self.texts for way in spellings(text)})

    def in_bytes(self, data: bytes, *, words: bool = True) -> bool:
        """Whether bytes hold them; without `words` only texts and long ids: weights have words by chance."""
        text = data.decode("latin-1")
        series = pl.Series([text])
        long = [*self._probes, *(way for way in self._own if len(way) >= LEAST)]
        probes = self._probes if words else long
        if probes and series.str.contains_any(probes)[0]:
            return True
        if not words or not self._own or not series.str.contains_any(sorted(self._own))[0]:
            return False
        return any(found[0] in self._own for found in self._words.finditer(text))

    def in_text(self, text: str) -> bool:
        """Whether a text holds them."""
        return self.in_bytes(text.encode("utf-8", "surrogatepass"))

    def in_frame(self, frame: pl.DataFrame) -> bool:
        """Whether a table holds them: a cell that is a name or an id, or a text with one of theirs in it."""
        return any(self._in_series(frame[name]) for name in frame.columns)

    def _in_series(self, series: pl.Series) -> bool:
        if isinstance(series.dtype, pl.List | pl.Array):
            return self._in_series(series.explode())
        if isinstance(series.dtype, pl.Struct):
            return any(self._in_series(field) for field in series.struct.unnest())
        if series.dtype not in (pl.String, pl.Categorical):
            return False
        values = series.cast(pl.String).drop_nulls().unique()
        if values.is_in(list(self.names | self.ids)).any():
            return True
        probes = [way for text in self.texts for way in {text, *_escaped(text)}]
        return bool(probes) and bool(values.str.contains_any(probes).any())


_SETS = ("names", "ids", "texts", "others")


def _strings(value: object) -> list[str]:
    assert isinstance(value, list), value
    return [str(one) for one in value]


def _tells(word: str) -> bool:
    return len(word) >= WORD and any(sign.isalpha() for sign in word)


def probes_of(text: str) -> Iterator[str]:
    """What of a text is looked for; nothing of one that is too short to tell of anybody."""
    text = text.strip()
    if len(text) >= LEAST:
        yield from {text[:PROBE].strip(), text[-PROBE:].strip()}


def spellings(text: str) -> set[str]:
    """A text as files have it, byte by byte: as it is, in JSON, in HTML, in UTF-16."""
    ways = {text, *_escaped(text), html.escape(text), html.escape(text, quote=False)}
    coded = {way.encode("utf-8", "surrogatepass") for way in ways}
    coded.add(text.encode("utf-16-le", "surrogatepass"))
    return {way.decode("latin-1") for way in coded}


def _escaped(text: str) -> set[str]:
    """In JSON, and in JSON within JSON."""
    once = {json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
    return once | {json.dumps(way, ensure_ascii=ascii)[1:-1] for way in once for ascii in (True, False)}


def _held(probes: Iterable[str], texts: pl.Series) -> set[str]:
    """Those of the probes that stand in one of the texts."""
    probes = list(probes)
    if not probes or texts.is_empty():
        return set()
    found = texts.str.extract_many(probes, overlapping=True)
    return set(found.explode().drop_nulls())
