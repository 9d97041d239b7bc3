"""Takes files of an inbox: each once, its rows told from those that were taken before.

Nothing is moved or changed in the inbox. What a row's texts are is decided here, once: later changes of the
mapping of columns or of the limits on texts are for what is taken later.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from spring.data.forgotten import REASON, Forgotten, read_forgotten
from spring.data.inbox.files import Found, Seen, look
from spring.data.inbox.ledger import PART, Line, add_line, add_part, clear, read_ledger, read_parts
from spring.data.quarantine import QUARANTINE, canonical_row, find_problem, set_aside, writable
from spring.data.rows import Problem, RawRow, Reason, SourceError
from spring.data.sources.fields import digest_of
from spring.data.sources.table import TableSource, read_file


class RefusedError(SourceError):
    """A file that is not taken; the message says why and what to do."""


@dataclass(frozen=True)
class Rules:
    """How rows are read and judged."""

    columns: TableSource
    min_chars: int
    max_chars: int
    max_quarantined: float  # of a file's new rows; above it nothing of the file is taken
    earliest: datetime  # no row arrives before: the end of the last closed period


@dataclass
class Taken:
    """What came of a look into the inbox."""

    lines: list[Line] = field(default_factory=list)  # new ones of the ledger
    refused: dict[str, str] = field(default_factory=dict)  # file -> why, in one line
    waiting: list[str] = field(default_factory=list)  # files that are being written
    others: list[str] = field(default_factory=list)  # no tables


def take(inbox: Path, folder: Path, rules: Rules, *, now: datetime) -> Taken:
    """Takes what is new of the files of `inbox` into the ledger and the parts in `folder`.

    A row arrives with its own date, but never before `rules.earliest`: what was closed stays closed, whatever
    clocks say. A file that cannot be used is refused as a whole, and the others are taken. Of people who were
    forgotten nothing is taken; how many rows that were is counted.
    """
    clear(folder)
    lines, seen, taken = read_ledger(folder), Seen(folder), Taken()
    forgotten = read_forgotten(folder)
    known: dict[str, str] | None = None
    for found in look(inbox, taken.waiting, taken.others):
        digest = seen.digest(found)
        if digest is not None and any(line.digest == digest for line in lines):
            continue
        try:
            known = known_rows(folder) if known is None else known
            line = _take_file(found, lines, known, folder, rules, forgotten, now)
        except (SourceError, OSError) as error:
            taken.refused[found.name] = " ".join(str(error).split())
            continue
        if line is not None:
            lines.append(line)
            taken.lines.append(line)
    seen.keep()
    return taken


def known_rows(folder: Path) -> dict[str, str]:
    """Id -> digest of every row that was taken and is no quarantined one."""
    known: dict[str, str] = {}
    for part in read_parts(folder):
        good = part.filter(pl.col("reason").is_null())
        known.update(good.select("interaction_id", "digest").iter_rows())
    return known


def _take_file(
    found: Found,
    lines: list[Line],
    known: dict[str, str],
    folder: Path,
    rules: Rules,
    forgotten: Forgotten,
    now: datetime,
) -> Line | None:
    """Takes one file; null: the same bytes were taken already. Raises SourceError for one that is refused."""
    digest = found.digest()
    if any(line.digest == digest for line in lines):
        return None
    read = [row for row in read_file(rules.columns, found.path, found.name) if isinstance(row, RawRow)]
    if found.changed():
        raise RefusedError(f"{found.name} was written while it was read: it is taken when it rests")
    raws = [row for row in read if row.user_id not in forgotten]
    start = _taken_before(found.name, raws, read, forgotten, lines)
    rows, fresh, same = _judge(raws[start:], known, rules)
    reasons = Counter(str(row["reason"]) for row in rows if row["reason"] is not None)
    _refuse_spoiled(found.name, rows, len(raws) - start, reasons, rules.max_quarantined)
    if len(read) > len(raws):
        reasons[REASON] = len(read) - len(raws)
    line = Line(
        file=found.name,
        digest=digest,
        rows=len(raws),
        rows_digest=digest_rows(raws),
        new=len(fresh),
        known=start + same,
        quarantined=dict(sorted(reasons.items())),
        part=add_part(folder, pl.DataFrame(rows, schema=PART)) if rows else None,
        taken=now.isoformat(timespec="seconds"),
    )
    add_line(folder, line)
    known |= fresh
    return line


def _taken_before(
    name: str, raws: list[RawRow], read: list[RawRow], forgotten: Forgotten, lines: list[Line]
) -> int:
    """How many of `raws` were taken when the file was shorter; of another content it is refused.

    `read`: all rows of the file. A line from before somebody was forgotten may count theirs too.
    """
    before = next((line for line in reversed(lines) if line.file == name), None)
    if before is None:
        return 0
    for rows in (raws, read):
        if len(rows) >= before.rows and digest_rows(rows[: before.rows]) == before.rows_digest:
            return sum(row.user_id not in forgotten for row in rows[: before.rows])
    raise RefusedError(
        f"{name} has other rows than when it was taken ({before.taken}, {before.rows} rows); rows may "
        f"only be added at its end: give what is new under another name"
    )


def _refuse_spoiled(
    name: str, rows: list[dict[str, Any]], read: int, reasons: Counter[str], most: float
) -> None:
    """Raises SourceError if more than the share `most` of the rows that were read are bad."""
    bad = sum(reasons.values())
    if bad <= most * read:
        return
    told = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    first = next(row for row in rows if row["reason"] is not None)
    raise RefusedError(
        f"{name}: {bad} of {read} rows cannot be used ({told}; the first is {first['where']}, "
        f"{first['field']} {first['value']!r}), and ingest.max_quarantined allows {most:.0%}: nothing of it "
        f"was taken"
    )


def _judge(
    raws: Iterable[RawRow], known: dict[str, str], rules: Rules
) -> tuple[list[dict[str, Any]], dict[str, str], int]:
    """Rows of a part; id -> digest of the good ones of them; and how many rows were known already."""
    rows: list[dict[str, Any]] = []
    fresh: dict[str, str] = {}
    same = 0
    for raw in raws:
        if rules.columns.interaction_id is None and raw.damage is None:
            raw = replace(raw, interaction_id=_own_id(raw))
        problem = find_problem(raw, min_chars=rules.min_chars, max_chars=rules.max_chars)
        if problem is not None:
            rows.append(_aside(raw, problem))
            continue
        values = canonical_row(raw)
        digest, id = digest_of([str(value) for value in values]), raw.interaction_id or ""
        there = fresh.get(id) or known.get(id)
        if there == digest:
            same += 1
        elif there is not None:
            rows.append(_aside(raw, Problem("interaction_id", Reason.DUPLICATE_ID, id)))
        else:
            fresh[id] = digest
            rows.append(_kept(raw, digest, max(values[2], rules.earliest)))
    return rows, fresh, same


def _own_id(raw: RawRow) -> str:
    """An id for a row of a table without any: equal rows have equal ids."""
    return digest_of([raw.user_id, raw.timestamp, raw.task, raw.query, raw.response, raw.rating])


def _kept(raw: RawRow, digest: str, arrived: datetime) -> dict[str, Any]:
    return {
        "row": raw.row,
        "where": writable(raw.where),
        "user_id": raw.user_id,
        "interaction_id": raw.interaction_id,
        "timestamp": raw.timestamp,
        "task": raw.task,
        "query": json.dumps(raw.query, ensure_ascii=False, sort_keys=True),
        "response": raw.response,
        "rating": raw.rating,
        "arrived": arrived,
        "digest": digest,
        "reason": None,
    }


def _aside(raw: RawRow, problem: Problem) -> dict[str, Any]:
    return dict(zip(QUARANTINE, set_aside(raw, problem), strict=True))


def digest_rows(raws: Iterable[RawRow]) -> str:
    """Stands for rows in their order; the place in the file is no part of them."""
    digest = hashlib.sha256()
    for raw in raws:
        values = [
            raw.user_id,
            raw.interaction_id,
            raw.timestamp,
            raw.task,
            raw.query,
            raw.response,
            raw.rating,
        ]
        text = json.dumps([*values, raw.damage], sort_keys=True)
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()
