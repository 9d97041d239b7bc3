"""What a value written as text says: a number, a point in time, a user, or nothing at all."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EARLIEST, LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
# What programs write where there is no value: pandas, R, SQL, spreadsheets, JavaScript, dumps of forums.
# Case, width, blanks around it and characters that nobody sees do not count.
MISSING = (
    "nan", "-nan", "nat", "none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "#na", "#n/a n/a", "<na>",
    "<n/a>", "<null>", "<none>", "(null)", "(none)", "[null]", r"\n", "undefined", "1.#ind", "-1.#ind",
    "1.#qnan", "-1.#qnan", "+nan", "[deleted]", "[removed]", "(blank)", "(empty)", "(missing)", "<missing>",
    "not available", "not applicable", "#ref!", "#value!", "#null!", "#name?", "#num!", "#div/0!", "[]", "{}",
    "''", '""', "-", "--", "---", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2015", "\u2212", "?",
    ".", "..", "...", "_", "*",
)  # fmt: skip

_WORD = 100  # letters: what has more is no word, and long texts are many
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE = re.compile(r"\s*(?:UTC|GMT|Z)$", re.I)  # times without an offset are taken as UTC anyway
_BEFORE_OFFSET = re.compile(r"\s+(?=[+-]\d{2}:?\d{2}$)")
# Java and Go name the zone behind its offset: +01:00[Europe/Paris], +0100 CET
_NAMED = re.compile(r"(Z|[+-]\d{2}:?\d{2})\s*(?:\[[\w/+-]+\]|[A-Z]{2,5})$")
_COUNT = re.compile(r"\d{15,}")  # whole microseconds or nanoseconds: more digits than a float keeps


@lru_cache(maxsize=64)  # a row's is asked for several times
def parse_time(text: str) -> datetime | None:
    """A point in time in UTC, or None if it is none.

    ISO 8601 dates and times (without an offset: taken as UTC), also 20160131, `... UTC`, with a blank before
    the offset or a zone's name behind it; what is finer than a microsecond is cut off. Counts since 1970:
    seconds from 10^8 (1973) on, milliseconds from 10^11, microseconds from 10^14, nanoseconds from 10^17.
    Smaller numbers are refused: a bare year would pass for 1970. So are times from 2100 on: 20160131120000
    would pass for one. 0001-01-01 and 9999-12-31 say that none is known.
    """
    text = text.strip()
    number = parse_number(text)
    try:
        if number is not None and number >= 1e8:
            time = _since_1970(text, number)
        else:
            bare = _ZONE.sub("", _NAMED.sub(r"\1", text))
            time = datetime.fromisoformat(_BEFORE_OFFSET.sub("", bare))
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return time if EARLIEST <= time < LATEST else None


def _since_1970(text: str, number: float) -> datetime:
    if number < 1e14:
        return datetime.fromtimestamp(number if number < 1e11 else number / 1000, UTC)
    count = int(text) if _COUNT.fullmatch(text) else int(number)
    return _EPOCH + timedelta(microseconds=count if count < 10**17 else count // 1000)


def parse_number(text: str) -> float | None:
    """A finite number, or None; 4_5 is none, though Python takes it for 45."""
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@lru_cache(maxsize=4096)  # each is asked for with every row
def name_user(text: str) -> str:
    """The user that an id means: in NFC, one blank for each run of blanks, none around, nothing invisible.

    Exports differ in these while the person is one: "Ada  L", "Ada\\u00a0L" and "Ada L\\u200b" are "Ada L".
    Case and accents tell users apart.
    """
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def is_missing(text: str, words: frozenset[str], *, prose: bool) -> bool:
    """Whether `text` is one of the `words` for no value; in prose only those with a letter in them are."""
    if len(text.strip()) > _WORD:
        return False
    word = _fold(text)
    return word in words and not (prose and not any(character.isalpha() for character in word))


def fold_words(words: tuple[str, ...]) -> frozenset[str]:
    """Words as `is_missing` compares them."""
    return frozenset(_fold(word) for word in words)


def _fold(word: str) -> str:
    return unicodedata.normalize("NFKC", name_user(word)).casefold()
