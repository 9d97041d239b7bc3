"""What every format gives: the columns of a file, and its records one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spring.data.rows import Problem, Skip

# where it stands; its values by column, or why it has none
Record = tuple[str, dict[str, Any] | Problem | Skip]


class Part(NamedTuple):
    """A file of a table: the table itself, or one of the files of its folder."""

    path: Path
    name: str  # inside the folder, with slashes
    keys: dict[str, str | None]  # columns that the folders' names give, as Hive writes them: `year=2020`


class Content(NamedTuple):
    """What a part holds."""

    columns: list[str]
    records: Iterator[Record]
