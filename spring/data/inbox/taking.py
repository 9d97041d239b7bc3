"""Takes files of an inbox: each once, its rows told from those that were taken before.

Nothing is moved or changed in the inbox. What a row's texts are is decided here, once: later changes of the
mapping of columns or of the limits on texts are for what is taken later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from spring.data.batches import Batches
from spring.data.forgotten import REASON, Forgotten, read_forgotten
from spring.data.inbox.digest import Rows
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
    start = _taken_before(found, lines, rules, forgotten)
    told, judged, left_out = Rows(), Judged(known, rules), 0
    for raw in _read(found, rules):
        if raw.user_id in forgotten:
            left_out += 1
            continue
        told.add(raw)
        if told.count > start:
            judged.add(raw)
    _check_rests(found)
    judged.refuse_spoiled(found.name, told.count - start)
    part = judged.part.table()
    if left_out:
        judged.reasons[REASON] = left_out
    line = Line(
        file=found.name,
        digest=digest,
        rows=told.count,
        rows_digest=told.digest(),
        new=len(judged.fresh),
        known=start + judged.same,
        quarantined=dict(sorted(judged.reasons.items())),
        part=add_part(folder, part) if part.height else None,
        taken=now.isoformat(timespec="seconds"),
    )
    add_line(folder, line)
    known |= judged.fresh
    return line


def _read(found: Found, rules: Rules) -> Iterator[RawRow]:
    rows = read_file(rules.columns, found.path, found.name)
    return (row for row in rows if isinstance(row, RawRow))


def _check_rests(found: Found) -> None:
    """Raises RefusedError for a file that is not what it was when it was found."""
    if found.changed():
        raise RefusedError(f"{found.name} was written while it was read: it is taken when it rests")


def _taken_before(found: Found, lines: list[Line], rules: Rules, forgotten: Forgotten) -> int:
    """How many rows of a file, without those of who was forgotten, were taken when it was shorter.

    Of another content it is refused. A line from before somebody was forgotten may count theirs too.
    """
    before = next((line for line in reversed(lines) if line.file == found.name), None)
    if before is None:
        return 0
    for counted in (forgotten, Forgotten()) if forgotten.marks else (forgotten,):
        told, others = Rows(), 0
        those = (raw for raw in _read(found, rules) if raw.user_id not in counted)
        for raw in islice(those, before.rows):
            told.add(raw)
            others += raw.user_id not in forgotten
        if (told.count, told.digest()) == (before.rows, before.rows_digest):
            return others
    _check_rests(found)
    raise RefusedError(
        f"{found.name} has other rows than when it was taken ({before.taken}, {before.rows} rows); rows may "
        f"only be added at its end: give what is new under another name"
    )


class Judged:
    """What came of a file's rows so far."""

    def __init__(self, known: dict[str, str], rules: Rules) -> None:
        self.known, self.rules, self.part = known, rules, Batches(PART)
        self.fresh: dict[str, str] = {}  # id -> digest of the new ones
        self.same = 0  # rows that were known already
        self.reasons: Counter[str] = Counter()
        self.first_bad: dict[str, Any] = {}

    def add(self, raw: RawRow) -> None:
        """One more row."""
        rules = self.rules
        if rules.columns.interaction_id is None and raw.damage is None:
            raw = replace(raw, interaction_id=_own_id(raw))
        problem = find_problem(raw, min_chars=rules.min_chars, max_chars=rules.max_chars)
        if problem is not None:
            self._set_aside(raw, problem)
            return
        values = canonical_row(raw)
        digest, id = digest_of([str(value) for value in values]), raw.interaction_id or ""
        there = self.fresh.get(id) or self.known.get(id)
        if there == digest:
            self.same += 1
        elif there is not None:
            self._set_aside(raw, Problem("interaction_id", Reason.DUPLICATE_ID, id))
        else:
            self.fresh[id] = digest
            self.part.append(_kept(raw, digest, max(values[2], rules.earliest)))

    def _set_aside(self, raw: RawRow, problem: Problem) -> None:
        row = dict(zip(QUARANTINE, set_aside(raw, problem), strict=True))
        self.first_bad = self.first_bad or row
        self.reasons[str(row["reason"])] += 1
        self.part.append(row)

    def refuse_spoiled(self, name: str, read: int) -> None:
        """Raises RefusedError if more than `rules.max_quarantined` of the rows that were read are bad."""
        bad, most, first = sum(self.reasons.values()), self.rules.max_quarantined, self.first_bad
        if bad <= most * read:
            return
        told = ", ".join(f"{reason}: {count}" for reason, count in self.reasons.most_common())
        raise RefusedError(
            f"{name}: {bad} of {read} rows cannot be used ({told}; the first is {first['where']}, "
            f"{first['field']} {first['value']!r}), and ingest.max_quarantined allows {most:.0%}: nothing of "
            f"it was taken"
        )


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
