"""Rows that become a table, few at a time: as Python's objects they take five times as much memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

AT_ONCE = 20_000  # rows that are Python's at any time


class Batches:
    """A table in the making. Rows are tuples, or mappings that may lack what is null."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = dict(schema)
        self._last: list[Any] = []
        self._tables: list[pl.DataFrame] = []

    def append(self, row: tuple[Any, ...] | Mapping[str, Any]) -> None:
        """One more row."""
        self._last.append(row)
        if len(self._last) == AT_ONCE:
            self._turn()

    def table(self) -> pl.DataFrame:
        """All rows so far, in order."""
        self._turn()
        return pl.concat(self._tables)

    def _turn(self) -> None:
        self._tables.append(pl.DataFrame(self._last, schema=self._schema, orient="row"))
        self._last = []
