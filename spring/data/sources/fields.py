"""Values of a record as the texts of a row, or what is wrong with the first that cannot be one."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from spring.data.rows import Problem, Reason
from spring.data.values import is_missing, parse_number

IDS = ("user_id", "interaction_id")
OPTIONAL = ("month", "rating", "arrived")  # a row may lack them
UNDATED_MONTH = 7.0  # a year without a month is taken as its middle: at most half a year off

_ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+\d+")  # 1.23457E+17: many ids, to a spreadsheet, are this one
_WHOLE = re.compile(r"(-?\d+)\.0")  # an id in a column of floats, as pandas has it beside a missing one
_EXACT = 2**53  # whole numbers from which floats skip some


def read_fields(
    record: Mapping[str, Any], columns: Mapping[str, str], words: frozenset[str]
) -> tuple[dict[str, str], Problem | None]:
    """Our name -> text of the values that are there, and the first problem.

    columns: our name -> key of the record; texts are named `response` and `query.NAME`. words: those that
    stand for no value.
    """
    texts: dict[str, str] = {}
    damage = None
    for name, column in columns.items():
        value = record.get(column)
        text = text_of(value)
        if text is None:
            if value is not None and value == value:  # a NaN is no value
                damage = damage or Problem(name, Reason.NOT_TEXT, repr(value))
        elif name in IDS and _is_rounded(text.strip()):
            damage = damage or Problem(name, Reason.ROUNDED, text)
        elif not is_missing(text, words, prose=name == "response" or name.startswith("query.")):
            texts[name] = _plain_id(text) if name in IDS else text
        elif name not in OPTIONAL:
            damage = damage or Problem(name, Reason.MISSING_WORD, text)
    return texts, damage


def text_of(value: object) -> str | None:
    """A value as text, or None if it is none: a list, an object, a truth value, a number without end."""
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, bytes):  # text, to writers that do not say so
        return value.decode("utf-8", errors="replace")
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        return None
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        return None
    return str(value)


def date_of(year: str, month: str = "") -> str | None:
    """First day of the month; both come as text, perhaps with the .0 of a float column."""
    if not year.strip():
        return None
    in_year = parse_number(year)
    in_month = parse_number(month) if month.strip() else UNDATED_MONTH
    if in_year is None or in_month is None or in_year % 1 or in_month % 1:
        return f"year {year}, month {month}" if month.strip() else f"year {year}"
    return f"{int(in_year):04d}-{int(in_month):02d}-01"


def digest_of(values: object) -> str:
    """A name of 16 characters for values that JSON has."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _is_rounded(text: str) -> bool:
    """Whether other ids may have become this one, in a spreadsheet or in a column of floats."""
    whole = _WHOLE.fullmatch(text)
    return bool(_ROUNDED.fullmatch(text) or (whole and abs(float(whole[1])) >= _EXACT))


def _plain_id(text: str) -> str:
    """An id without the .0 that it has got in a column of floats: elsewhere it is written without."""
    whole = _WHOLE.fullmatch(text.strip())
    return whole[1] if whole else text
