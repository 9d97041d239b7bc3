"""Raw rows in, canonical interactions out; every row that cannot be used is kept with its reason.

`check_rows` turns what a source yields into the canonical table and the quarantine, and `leave_out` applies
the limits per user. Rows read = kept + quarantined + left out, always.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from spring.data.batches import Batches
from spring.data.rows import ARRIVED, INTERACTIONS, Opened, Problem, RawRow, Reason, Skip, canonical
from spring.data.split import LONG_TEXT
from spring.data.values import name_user, parse_number, parse_time

QUARANTINE = {
    "row": pl.Int64,
    "where": pl.String,
    "user_id": pl.String,
    "field": pl.String,
    "reason": pl.String,
    "value": pl.String,
}
CHECKED = {**INTERACTIONS, **ARRIVED, "row": pl.Int64, "where": pl.String}
LEFT_OUT = {"user_id": pl.String, "interactions": pl.Int64, "reason": pl.String}
EXCERPT = 80  # characters of the offending value that are kept

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # tab, line feed and carriage return pass
_UNDECODED = re.compile(r"[\ufffd\ud800-\udfff]")  # replacement characters and lone surrogates


@dataclass(frozen=True, slots=True)
class Checked:
    """Outcome of `check_rows`: `read` rows = height of `interactions` + height of `quarantine`."""

    interactions: pl.DataFrame
    quarantine: pl.DataFrame
    skipped: dict[str, int]
    read: int
    opened: dict[str, str | int] = field(default_factory=dict)  # what the source says that it read
    joined: dict[str, list[str]] = field(default_factory=dict)  # users written in several ways, and how


def check_rows(rows: Iterable[RawRow | Skip | Opened], *, min_chars: int, max_chars: int) -> Checked:
    """Separates usable rows from the others.

    `min_chars` bounds responses, `max_chars` responses and query fields. Texts come out in Unicode's NFC,
    with line feeds for line ends and without white space around them, user ids as `name_user` has them. Of
    several rows with one interaction id the first stays; of identical texts of `LONG_TEXT` characters and
    more the earliest, whoever's they are, because its copies would leak from training into the test items:
    from a user's own, or from another user's where arms learn from all of them.
    """
    kept = Batches(CHECKED)
    bad: list[tuple[Any, ...]] = []
    skipped: Counter[str] = Counter()
    opened: dict[str, str | int] = {}
    seen: set[str] = set()
    dated = False  # whether the source says when rows arrived
    spelled: dict[str, set[str]] = defaultdict(set)
    for raw in rows:
        if isinstance(raw, Skip):
            skipped[raw.reason] += 1
            continue
        if isinstance(raw, Opened):
            opened[raw.what] = raw.value
            continue
        problem = find_problem(raw, min_chars=min_chars, max_chars=max_chars)
        if problem is None and raw.interaction_id in seen:
            problem = Problem("interaction_id", Reason.DUPLICATE_ID, raw.interaction_id)
        if problem is not None:
            bad.append(set_aside(raw, problem))
        else:
            seen.add(raw.interaction_id or "")
            dated |= raw.arrived is not None
            spelled[name_user(raw.user_id or "")].add(raw.user_id or "")
            kept.append((*canonical_row(raw), raw.row, writable(raw.where)))
    frame = kept.table().sort("user_id", "timestamp", "row")
    read = frame.height + len(bad)
    frame = frame.drop("arrived") if not dated else frame.with_columns(_arrived())
    frame, repeated = _part_repeats(frame)
    quarantine = pl.concat([pl.DataFrame(bad, schema=QUARANTINE, orient="row"), repeated]).sort("row")
    interactions = frame.select(canonical(frame))
    joined = {user: sorted(ways) for user, ways in sorted(spelled.items()) if len(ways) > 1}
    return Checked(interactions, quarantine, dict(skipped), read, opened, joined)


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


def leave_out(
    interactions: pl.DataFrame,
    *,
    min_interactions: int,
    max_users: int | None,
    max_interactions: int | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Applies the limits per user; returns what is kept and what is left out (user, how many, why).

    First the users with fewer than `min_interactions` go, then those beyond the `max_users` with most
    interactions (ties: by user id), then each user's interactions beyond the `max_interactions` latest.
    """
    counts = interactions.group_by("user_id").len("interactions").cast({"interactions": pl.Int64})
    counts = counts.sort(["interactions", "user_id"], descending=[True, False])
    enough = counts.filter(pl.col("interactions") >= min_interactions)
    users = enough.head(max_users) if max_users is not None else enough
    few = counts.filter(pl.col("interactions") < min_interactions)
    left = [
        few.with_columns(reason=pl.lit(f"fewer than min_interactions = {min_interactions}")),
        enough[users.height :].with_columns(reason=pl.lit(f"beyond max_users = {max_users}")),
    ]
    kept = interactions.join(users.select("user_id"), on="user_id", how="semi", maintain_order="left")
    if max_interactions is not None:
        kept = kept.group_by("user_id", maintain_order=True).tail(max_interactions)
        cut = users.with_columns(pl.col("interactions") - max_interactions).filter(pl.col("interactions") > 0)
        left.append(cut.with_columns(reason=pl.lit(f"earlier than the latest {max_interactions}")))
    return kept.select(canonical(kept)), pl.concat(left).select(list(LEFT_OUT)).sort("user_id", "reason")


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


def _arrived() -> pl.Expr:
    """When a row arrived: not before its own date, and with it where nothing is known."""
    return pl.max_horizontal("arrived", "timestamp").alias("arrived")


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


def _part_repeats(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Parts long texts that say again what an earlier one said, of whichever user.

    The earliest is the one that arrived first, where that is known: a late copy changes no closed period.
    """
    order = [column for column in ("arrived", "timestamp", "row") if column in frame.columns]
    nth = pl.struct(order).rank("ordinal").over("response")
    again = frame.with_columns(again=(nth > 1) & (pl.col("response").str.len_chars() >= LONG_TEXT))
    repeated = again.filter("again").select(
        "row",
        "where",
        "user_id",
        field=pl.lit("response"),
        reason=pl.lit(str(Reason.REPEATED)),
        value=pl.col("response").str.slice(0, EXCERPT),
    )
    return again.filter(~pl.col("again")), repeated
