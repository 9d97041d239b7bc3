"""Users in blocks: what a stage holds in memory is that of some of them, however many there are.

A stage reads the rows of a block, works through it and writes the block's part of each table; the next block
begins afresh. Of few users there is one block, of all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import polars as pl

from tasks.files import EVERYBODY, GROUP, Users, atomic, read_parquet, scan_parquet, write_parquet

TOGETHER = 1024  # users of a block


def blocks(tables: Iterable[Path], size: int | None = None) -> list[Users]:
    """The users of some tables, in blocks of `size` that leave nobody out."""
    columns = [scan_parquet(path).select("user_id") for path in tables]
    return in_blocks(pl.concat(columns).unique().collect()["user_id"], size)


def in_blocks(users: pl.Series, size: int | None = None) -> list[Users]:
    """The same of users, each of whom stands there once."""
    users = users.drop_nulls().sort()
    size = size or TOGETHER
    if len(users) <= size:
        return [EVERYBODY]
    starts = range(0, len(users), size)
    bounds = [None, *(users[start] for start in starts[1:]), None]
    return [
        Users(first, end, f", users {start + 1:,} to {min(start + size, len(users)):,} of {len(users):,}")
        for start, first, end in zip(starts, bounds, bounds[1:], strict=False)
    ]


class Parted:
    """A table that is written in parts, and there as a whole when the block ends well.

    behind: a table whose rows stand before them.
    """

    def __init__(self, path: Path, *, behind: Path | None = None) -> None:
        self.path, self.behind = path, behind
        self._first: pl.DataFrame | None = None
        self._files: list[Path] = []
        self._held = ExitStack()

    def __enter__(self) -> Parted:
        return self

    def add(self, part: pl.DataFrame) -> None:
        """These rows, behind the others; the first part stands in memory until there is a second."""
        if self._first is None and not self._files:
            self._first = part
            return
        if self._first is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".writing-")
            self._folder = Path(self._held.enter_context(made))
            first, self._first = self._first, None
            self._put(first)
        self._put(part)

    def _put(self, part: pl.DataFrame) -> None:
        file = self._folder / f"{len(self._files)}.parquet"
        part.write_parquet(file, row_group_size=GROUP)
        self._files.append(file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            if kind is not None:
                return
            if self._first is not None:
                before = [read_parquet(self.behind)] if self.behind else []
                write_parquet(pl.concat([*before, self._first]), self.path)
            elif self._files:
                parts = [scan_parquet(file) for file in filter(None, (self.behind, *self._files))]
                with atomic(self.path) as temporary:
                    pl.concat(parts).sink_parquet(temporary, row_group_size=GROUP)
