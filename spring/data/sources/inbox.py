"""What was taken from an inbox (spring/data/inbox): rows that arrived before an instant, in that order.

The columns of the files are those of `ingest.table`; a row keeps what they meant when it was taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import AwareDatetime

from spring.data.inbox.ledger import read_ledger, read_parts
from spring.data.rows import Opened, Problem, RawRow, Reason, Skip
from spring.engine.strict import Strict


class InboxSource(Strict):
    """A folder into which files are dropped."""

    folder: str  # the inbox; or a single file, to which rows are added
    kept: str  # the folder of the ledger and the parts
    until: AwareDatetime | None  # the end of the last closed period: what arrived later waits; null: nothing


def read(source: InboxSource) -> Iterator[RawRow | Skip | Opened]:
    """Raw rows in the order of taking. Raises SourceError if ledger or parts are damaged."""
    folder, number = Path(source.kept), 0
    yield Opened("files taken", len(read_ledger(folder)))
    for part in read_parts(folder):
        # what was set aside has no time
        due = (
            part
            if source.until is None
            else part.filter(~(pl.col("arrived") >= source.until).fill_null(False))
        )
        for row in due.iter_rows(named=True):
            number += 1
            yield _row(number, row)


def _row(number: int, row: dict[str, Any]) -> RawRow:
    if row["reason"] is not None:
        damage = Problem(row["field"], Reason(row["reason"]), row["value"])
        return RawRow(row=number, where=row["where"], user_id=row["user_id"], damage=damage)
    return RawRow(
        row=number,
        where=row["where"],
        user_id=row["user_id"],
        interaction_id=row["interaction_id"],
        timestamp=row["timestamp"],
        task=row["task"],
        query=json.loads(row["query"]),
        response=row["response"],
        rating=row["rating"],
        arrived=row["arrived"].isoformat(),
    )
