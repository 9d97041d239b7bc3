"""One raw row: whether it can be used, as what, and how it stands in quarantine if not."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import polars as pl

from spring.data.rows import Problem, RawRow, Reason
from spring.data.values import name_user, parse_number, parse_time

QUARANTINE = {
    "row": pl.Int64,
    "where": pl.String,
    "user_id": pl.String,
    "field": pl.String,
    "reason": pl.String,
    "value": pl.String,
}
EXCERPT = 80  # characters of the offending value that are kept

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # tab, line feed and carriage return pass
_UNDECODED = re.compile(r"[\ufffd\ud800-\udfff]")  # replacement characters and lone surrogates


def find_problem(raw: RawRow, *, min_chars: int, max_chars: int) -> Problem | None:
    """The first reason not to use a row, or None."""
    if raw.damage is not None:
        return raw.damage
    if not name_user(raw.user_id or ""):
        return Problem("user_id", Reason.MISSING_USER, raw.user_id)
    if not (raw.interaction_id or "").strip():
        return Problem("interaction_id", Reason.MISSING_ID, raw.interaction_id)
    if not (raw.timestamp or "").strip():
        return Problem("timestamp", Reason.MISSING_TIME, raw.timestamp)
    if parse_time(raw.timestamp or "") is None:
        return Problem("timestamp", Reason.BAD_TIME, raw.timestamp)
    if (raw.arrived or "").strip() and parse_time(raw.arrived or "") is None:
        return Problem("arrived", Reason.BAD_TIME, raw.arrived)
    texts = {**{f"query.{name}": text for name, text in raw.query.items()}, "response": raw.response}
    for name, text in {"user_id": raw.user_id, "interaction_id": raw.interaction_id, **texts}.items():
        if problem := _find_bad_characters(name, text or ""):
            return problem
    for name, text in texts.items():
        if problem := _find_bad_length(name, text, 1 if name != "response" else min_chars, max_chars):
            return problem
    if raw.rating is not None and parse_number(raw.rating) is None:
        return Problem("rating", Reason.BAD_RATING, raw.rating)
    return None


def canonical_row(raw: RawRow) -> tuple[Any, ...]:
    """The values of a usable row in the order of `INTERACTIONS` and `ARRIVED`."""
    query = {name: _normalise(text or "") for name, text in raw.query.items()}
    return (
        name_user(raw.user_id or ""),
        raw.interaction_id,
        parse_time(raw.timestamp or ""),
        raw.task,
        json.dumps(query, ensure_ascii=False, sort_keys=True),
        _normalise(raw.response or ""),
        None if raw.rating is None else parse_number(raw.rating),
        parse_time(raw.arrived or ""),
    )


def _normalise(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _find_bad_characters(name: str, text: str) -> Problem | None:
    for reason, pattern in ((Reason.ENCODING, _UNDECODED), (Reason.CONTROL, _CONTROL)):
        if found := pattern.search(text):
            return Problem(name, reason, text[max(0, found.start() - EXCERPT // 2) :])
    return Problem(name, Reason.ENCODING, text) if _is_mojibake(text) else None


def _is_mojibake(text: str) -> bool:
    """UTF-8 that was read as Western European: certain only if the whole text reads back as UTF-8."""
    if text.isascii():
        return False
    for codec in ("cp1252", "latin-1"):
        try:
            text.encode(codec).decode("utf-8")
        except UnicodeError:
            continue
        return True
    return False


def _find_bad_length(name: str, text: str | None, least: int, most: int) -> Problem | None:
    length = len(_normalise(text or ""))
    if length == 0:
        return Problem(name, Reason.EMPTY, text)
    if length < least:
        return Problem(name, Reason.TOO_SHORT, text)
    return Problem(name, Reason.TOO_LONG, text) if length > most else None


def set_aside(raw: RawRow, problem: Problem) -> tuple[Any, ...]:
    """A row of `QUARANTINE`."""
    user, value = (text and writable(text[:EXCERPT]) for text in (raw.user_id, problem.value))
    return raw.row, writable(raw.where), user, writable(problem.field), str(problem.reason), value


def writable(text: str) -> str:
    """The text with a sign in place of what no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
