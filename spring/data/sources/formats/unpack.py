"""A process of its own that reads parquet files: python unpack.py OUT, given a JSON list of [file, columns].

For each file OUT gets NUMBER.json, with the names of all columns or an error, and NUMBER.arrow, the asked-for
columns if all are there. In a process of its own because polars ends the whole process on some damaged files
(a length that was overwritten becomes a request for exabytes), and prints panics on its own. Imports polars
alone: it starts in a third of a second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl


def unpack(out: Path, files: list[tuple[str, list[str]]]) -> None:
    """Writes what the files hold."""
    for number, (file, wanted) in enumerate(files):
        found: dict[str, Any] = {"columns": [], "error": None}
        try:
            found["columns"] = _scan(file).collect_schema().names()
            if set(wanted) <= set(found["columns"]):
                _read(file, wanted).write_ipc(out / f"{number}.arrow")
        except (pl.exceptions.PolarsError, OSError, ValueError, pl.exceptions.PanicException) as error:
            found["error"] = f"{_place(file, wanted)}{error}".split("\n")[0][:500]
        (out / f"{number}.json").write_text(json.dumps(found), encoding="utf-8")


def _scan(file: str) -> pl.LazyFrame:
    """The file of that very name, without columns that the names of its folders give."""
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _read(file: str, columns: list[str]) -> pl.DataFrame:
    """The columns, each as long as the file says that it has rows."""
    frame = _scan(file).select(columns).collect()
    rows = _scan(file).select(pl.len()).collect().item()
    if frame.height != rows:
        raise ValueError(f"{frame.height} rows instead of the {rows} that it says it has")
    return frame


def _place(file: str, columns: list[str]) -> str:
    """The first column that cannot be read by itself, if there is one."""
    for column in columns:
        try:
            _scan(file).select(column).collect()
        except (pl.exceptions.PolarsError, OSError, ValueError, pl.exceptions.PanicException):
            return f"column {column!r}: "
    return ""


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), json.load(sys.stdin))
