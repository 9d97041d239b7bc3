"""What stands for the content of a file that stages write, whatever it took and however cells share files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from spring.store.segments import ENDING
from tasks.cells.training import CURVE
from tasks.steps.index import read_held


def is_compared(path: Path) -> bool:
    """Not a segment: which cells share one is chance, and a table names those that count."""
    return path.suffix != ENDING


def content_of(path: Path) -> str:
    """A digest; of a table without its seconds, and with the cells that it names."""
    if path.suffix != ".parquet":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    import polars as pl  # here: who forks must not have its threads

    frame = pl.read_parquet(path)
    kept = frame.drop([name for name in frame.columns if name.startswith(("seconds", "file"))])
    found = hashlib.sha256(repr((kept.schema, kept.to_dicts())).encode())
    for name, key in frame.select("file", "cell").iter_rows() if "file" in frame.columns else ():
        held = read_held(path.parent / name, key)
        found.update(repr({part: held[part] for part in held if part != CURVE}).encode())
    return found.hexdigest()
