"""Rows of a table that become dicts only while they are read: those of all users would fill the memory.

Who holds the rows of all users holds a table and places in it. What a loop over users reads lies close
together, so a table keeps the blocks as dicts that were asked for last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cells.workbench import Row

BLOCK = 64  # rows that become dicts together
KEPT = 16  # blocks of a table that stay dicts
COLLECTED = 4096  # rows that a `Growing` holds as dicts
Places = NDArray[np.int32]


class Table:
    """The rows of a frame, by place."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        self._blocks: dict[int, list[Row]] = {}

    def __getitem__(self, place: int) -> Row:
        number, within = divmod(place, BLOCK)
        if number not in self._blocks:
            if len(self._blocks) == KEPT:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = self.frame.slice(number * BLOCK, BLOCK).to_dicts()
        return self._blocks[number][within]


class Rows(Sequence[Row]):
    """Some rows of a table, in order; equal to a list of them, which is what another process is sent."""

    __slots__ = ("places", "table")

    def __init__(self, table: Table, places: Places) -> None:
        self.table, self.places = table, places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Row]:
        return (self.table[place] for place in self.places.tolist())

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> Row | Rows:
        if isinstance(at, slice):
            return Rows(self.table, self.places[at])
        return self.table[int(self.places[at])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[object, ...]:
        return list, (list(self),)


def pick(rows: Sequence[Row], numbers: Iterable[int]) -> Sequence[Row]:
    """The rows that stand at these numbers, from 0 on, in their order."""
    if isinstance(rows, Rows):
        return Rows(rows.table, rows.places[list(numbers)])
    return [rows[number] for number in numbers]


def those(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> Sequence[Row]:
    """The rows that are wanted, in order."""
    return pick(rows, [number for number, row in enumerate(rows) if wanted(row)])


def named(rows: Sequence[Row], ids: Set[str]) -> Sequence[Row]:
    """The rows of these interactions, in order."""
    return those(rows, lambda row: row["interaction_id"] in ids) if ids else pick(rows, ())


def chained(first: Sequence[Row], second: Sequence[Row]) -> Sequence[Row]:
    """The rows of both, in order."""
    if not (first and second):
        return first or second
    if isinstance(first, Rows) and isinstance(second, Rows) and first.table is second.table:
        return Rows(first.table, np.concatenate([first.places, second.places]))
    return [*first, *second]


def parted(rows: Rows, at: int) -> tuple[Rows, Rows]:
    """Those that stand before a place of their table, and the others; all in the order of the table."""
    number = int(np.searchsorted(rows.places, at))
    return rows[:number], rows[number:]


def by_user(rows: pl.DataFrame) -> dict[str, Rows]:
    """Rows of each user, in order."""
    return {user: mine for (user,), mine in grouped(rows, "user_id").items()}


def grouped(rows: pl.DataFrame, *names: str) -> dict[tuple[Any, ...], Rows]:
    """Rows of all that have the same values under `names`, in order."""
    places = pl.int_range(pl.len(), dtype=pl.Int32).alias("place")
    found = rows.select(*names, places).group_by(names, maintain_order=True).agg("place")
    if found.is_empty():
        return {}
    ends = found["place"].list.len().cum_sum().to_list()
    parts = np.split(found["place"].explode().to_numpy(), ends[:-1])
    table = Table(rows)
    return {key: Rows(table, part) for key, part in zip(found.select(names).iter_rows(), parts, strict=True)}


class Growing:
    """A table that rows are added to as dicts, of which few stand in memory."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._frames = [pl.DataFrame(schema=schema)]

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """These rows, behind the others."""
        self._rows += rows
        if len(self._rows) >= COLLECTED:
            self._put_away()

    def frame(self) -> pl.DataFrame:
        """All rows so far."""
        self._put_away()
        return pl.concat(self._frames, rechunk=True)

    def _put_away(self) -> None:
        self._frames.append(pl.DataFrame(self._rows, schema=self.schema))
        self._rows = []
