"""Which files hold a person: tables are opened, packed ones unpacked, segments read cell by cell."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from spring.live.traces import Traces
from spring.store.segments import DamagedError, Segment

PARQUET, GZIP = b"PAR1", b"\x1f\x8b"
CHUNK, OVERLAP = 2**24, 2**12  # bytes that are searched at once, and again with the next
HEADER = 2**27  # bytes: no segment's is longer
PASSED = {".git", "__pycache__", ".venv", ".ruff_cache", ".mypy_cache", ".pytest_cache"}
MODEL = Path("data/model")  # nobody's: its vocabulary has names, of whoever is called so


@dataclass
class Search:
    """Says of files whether they hold somebody; of one that has several names once."""

    traces: Traces
    cells: frozenset[str]  # what learned from them, by the tables that name it
    _known: dict[tuple[int, int], bool] = field(default_factory=dict)

    def holds(self, file: Path, *, words: bool = True) -> bool:
        """Whether a file's content holds them; `words`: as single words too, where its bytes are text."""
        state = file.stat()
        place = state.st_dev, state.st_ino
        if not words:
            return self._look(file, words=False)
        if place not in self._known:
            self._known[place] = self._look(file, words=True)
        return self._known[place]

    def _look(self, file: Path, *, words: bool) -> bool:
        with file.open("rb") as handle:
            head = handle.read(16)
        if head.startswith(PARQUET):
            try:
                return self.traces.in_frame(pl.read_parquet(file, glob=False, hive_partitioning=False))
            except (pl.exceptions.PolarsError, OSError):
                return self._in_bytes(file, words=words)
        if head.startswith(GZIP):
            try:
                return self.traces.in_bytes(gzip.decompress(file.read_bytes()), words=words)
            except (OSError, EOFError, zlib.error):
                return self._in_bytes(file, words=words)
        if _is_tensors(head, file):
            return self._in_cells(file) or self._in_bytes(file, words=False)
        return self._in_bytes(file, words=words)

    def _in_cells(self, file: Path) -> bool:
        """Whether a segment has a cell that learned from them, or text of theirs in one."""
        try:
            segment = Segment(file)
            if self.cells.intersection(segment.keys):
                return True
            told = (
                content
                for key in segment.keys
                for name, content in segment.read(key).items()
                if not name.endswith(".safetensors")
            )
            return any(self.traces.in_bytes(content) for content in told)
        except DamagedError:  # weights of a model, or damaged: searched as bytes
            return False

    def _in_bytes(self, file: Path, *, words: bool) -> bool:
        with file.open("rb") as handle:
            before = b""
            while chunk := handle.read(CHUNK):
                if self.traces.in_bytes(before + chunk, words=words):
                    return True
                before = chunk[-OVERLAP:]
        return False


def _is_tensors(head: bytes, file: Path) -> bool:
    size = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 < size < min(HEADER, file.stat().st_size)


def files_under(root: Path) -> Iterator[Path]:
    """All files of a folder, without Git's own, the base model, virtual environments and what tools cache."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if name not in PASSED and here / name != MODEL and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (
            file for name in sorted(names) if (file := here / name).is_file() and not file.is_symlink()
        )


def cells_of(traces: Traces, files: Iterator[Path]) -> set[str]:
    """Keys of the cells that tables say are theirs, or learned from interactions of theirs."""
    found: set[str] = set()
    for file in files:
        with file.open("rb") as handle:
            if handle.read(4) != PARQUET:
                continue
        try:
            frame = pl.read_parquet(file, glob=False, hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError):
            continue
        if "cell" not in frame.columns or "user_id" not in frame.columns:
            continue
        theirs = pl.col("user_id").is_in(list(traces.names))
        if "chosen" in frame.columns:
            learned = pl.col("chosen").list.eval(pl.element().is_in(list(traces.ids))).list.any()
            theirs = theirs | learned
        found |= set(frame.filter(theirs)["cell"].drop_nulls())
    return found
