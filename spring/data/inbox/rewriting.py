"""A ledger and its parts without somebody's rows, as they would be of files that never had them.

Of a file that is still in the inbox all follows from what is left of it. Of one that is gone, digest and
number of its rows stay those of the bytes that came: should they come again, they are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from spring.data.forgotten import REASON
from spring.data.inbox.digest import digest_rows
from spring.data.inbox.ledger import LEDGER, PART, PARTS, WRITING, Line, add_part, read_ledger
from spring.data.inbox.removing import Cleared
from spring.store.disk import sync

Rows = list[dict[str, Any]]


def rewrite(
    folder: Path,
    files: Mapping[str, Cleared],
    is_theirs: Callable[[dict[str, Any]], bool],
    rename: Callable[[str], str],
) -> int:
    """Takes somebody's rows out of ledger and parts; how many those were. `files`: of the inbox, by name.

    The ledger is replaced by one rename; parts that it does not name any more are removed after that.
    """
    (folder / WRITING).mkdir(exist_ok=True)
    lines, gone, before = [], 0, dict[str, Line]()
    for line in read_ledger(folder):
        rows = pl.read_parquet(folder / PARTS / line.part).to_dicts() if line.part else []
        left = [dict(row) for row in rows if not is_theirs(row)]
        gone += len(rows) - len(left)
        earlier = before.get(line.file)
        before[line.file] = line
        new = _of_file(line, earlier, left, len(rows) - len(left), files.get(line.file))
        if new is None:
            new = line.model_copy(update={"file": rename(line.file)}) if left or left == rows else None
            left = [row | {"where": rename(row["where"])} for row in left]
        if new is not None and (new.rows or left):
            lines.append(_with_rows(new, line, left, rows, folder))
    text = "".join(line.model_dump_json() + "\n" for line in lines)
    if (folder / LEDGER).exists() and text != (folder / LEDGER).read_text(encoding="utf-8"):
        whole = folder / WRITING / LEDGER
        whole.write_text(text, encoding="utf-8")
        sync(whole)
        whole.replace(folder / LEDGER)
        sync(folder)
    kept = {line.part for line in lines}
    for part in (folder / PARTS).glob("*"):
        if part.name not in kept:
            part.unlink()
    return gone


def _of_file(line: Line, earlier: Line | None, left: Rows, gone: int, file: Cleared | None) -> Line | None:
    """The line of a file that is there, and its rows numbered anew; null where it is not, or is another."""
    if file is None or digest_rows(file.before[: line.rows]) != line.rows_digest:
        return None
    start = earlier.rows if earlier else 0
    rows, began = (_others(file.theirs[:end]) for end in (line.rows, start))
    places = dict(zip(_numbers(file.before, file.theirs), file.after, strict=True))
    for row in left:
        at = places[row["row"]]
        row |= {"row": at.row, "where": at.where}
    known_of_theirs = sum(file.theirs[start : line.rows]) - gone
    return line.model_copy(
        update={
            "file": file.name,
            "digest": file.new_digest if line.digest == file.digest else line.digest,
            "rows": rows,
            "rows_digest": digest_rows(file.after[:rows]),
            "known": line.known - (start - began) - known_of_theirs,
        }
    )


def _others(theirs: Sequence[bool]) -> int:
    return len(theirs) - sum(theirs)


def _numbers(rows: Sequence[Any], theirs: Sequence[bool]) -> list[int]:
    """What the rows of others are numbered."""
    return [row.row for row, mine in zip(rows, theirs, strict=True) if not mine]


def _with_rows(new: Line, line: Line, left: Rows, rows: Rows, folder: Path) -> Line:
    """A line with its part written anew where that has changed, and counted."""
    part = line.part
    if left != rows:
        part = add_part(folder, pl.DataFrame(left, schema=PART)) if left else None
    reasons = Counter(str(row["reason"]) for row in left if row["reason"] is not None)
    counted = {reason: n for reason, n in line.quarantined.items() if reason == REASON}
    return new.model_copy(
        update={
            "new": sum(row["reason"] is None for row in left),
            "quarantined": dict(sorted((counted | reasons).items())),
            "part": part,
        }
    )
