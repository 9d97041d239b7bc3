"""Rows that become a table, few at a time: as Python's objects they take five times as much memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

AT_ONCE = 4_096  # rows that are Python's at any time
GROUP = 1024  # rows of a file that are read together, where some are asked for


class Batches:
    """A table in the making. Rows are tuples, or mappings that may lack what is null.

    folder: where they wait in files, each of them sorted `by` some columns; null: in memory, as they came.
    """

    def __init__(self, schema: Mapping[str, Any], folder: Path | None = None, by: Sequence[str] = ()) -> None:
        self._schema, self._folder, self._by = dict(schema), folder, by
        self._last: list[Any] = []
        self._tables: list[pl.DataFrame] = []
        self._files: list[Path] = []

    def append(self, row: tuple[Any, ...] | Mapping[str, Any]) -> None:
        """One more row."""
        self._last.append(row)
        if len(self._last) == AT_ONCE:
            self._turn()

    def scan(self) -> pl.LazyFrame:
        """All rows so far, to be read when they are collected."""
        self._turn()
        return pl.scan_parquet(self._files, glob=False) if self._files else pl.concat(self._tables).lazy()

    def table(self) -> pl.DataFrame:
        """All rows so far."""
        return self.scan().collect()

    def _turn(self) -> None:
        if not self._last and (self._tables or self._files):
            return
        table = pl.DataFrame(self._last, schema=self._schema, orient="row")
        self._last = []
        if self._folder is None:
            self._tables.append(table)
            return
        file = self._folder / f"{len(self._files)}.parquet"
        table.sort(self._by).write_parquet(file, compression="lz4", row_group_size=GROUP)
        self._files.append(file)
