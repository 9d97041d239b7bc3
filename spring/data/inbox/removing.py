"""Files of an inbox without somebody's rows; all others stay, byte by byte where rows are lines."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spring.data.inbox.digest import digest_file, digest_rows
from spring.data.inbox.files import Found
from spring.data.inbox.ledger import WRITING
from spring.data.rows import RawRow, SourceError
from spring.data.sources.formats.parts import known_format
from spring.data.sources.formats.text import find_codec
from spring.data.sources.table import FORMATS, TableSource, read_file

PLACE = re.compile(r"(?:\[(\d+)\]|:(\d+)(?:-(\d+))?)$")  # the end of a row's `where`: of an array, or lines


@dataclass(frozen=True)
class Cleared:
    """A file as it was, and what it is without their rows."""

    found: Found
    name: str  # without theirs in it
    before: list[RawRow]
    theirs: list[bool]  # of `before`
    after: list[RawRow]
    digest: str  # of the bytes as they were
    new: Path  # the file without them, where it waits; the file itself where there is nothing of theirs
    new_digest: str

    @property
    def changed(self) -> bool:
        """Whether there is anything of theirs in it."""
        return any(self.theirs) or self.name != self.found.name

    def replace(self) -> None:
        """Puts it in its place, as old as the other was; removes it where nothing is left."""
        if self.found.changed():
            raise SourceError(
                f"{self.found.path} was written to meanwhile: what it has of them stays; let writers rest"
            )
        if not self.after:
            self.found.path.unlink()
            self.new.unlink(missing_ok=True)
            return
        if any(self.theirs):
            state = self.found.path.stat()
            os.utime(self.new, ns=(state.st_atime_ns, state.st_mtime_ns))
            self.new.chmod(state.st_mode & 0o777)
            self.new.replace(self.found.path)
        if self.name != self.found.name:
            self.found.path.rename(self.found.path.with_name(Path(self.name).name))


def clear(
    found: Found, columns: TableSource, folder: Path, is_theirs: Callable[[RawRow], bool], name: str
) -> Cleared:
    """Writes what is left of a file beside the ledger in `folder`; the file itself stays as it is.

    Raises SourceError where it cannot be read, or would not be the same rows without theirs.
    """
    before = _read(columns, found.path, found.name)
    theirs = [is_theirs(row) for row in before]
    kind = str(known_format(found.path, FORMATS))
    new = folder / WRITING / f"{hashlib.sha256(found.name.encode()).hexdigest()[:16]}-{found.path.name}"
    gone = [row.where for row, mine in zip(before, theirs, strict=True) if mine]
    if gone:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(_without(found.path, kind, gone, found.name))
    else:
        new = found.path
    after = _read(columns, new, name) if not all(theirs) else []
    left = [row for row, mine in zip(before, theirs, strict=True) if not mine]
    if digest_rows(after) != digest_rows(left):
        raise SourceError(
            f"{found.path} cannot be written without their rows (broken lines, or keys that stand twice): "
            f"take them out by hand"
        )
    return Cleared(found, name, before, theirs, after, found.digest(), new, digest_file(new))


def _read(columns: TableSource, path: Path, name: str) -> list[RawRow]:
    return [row for row in read_file(columns, path, name) if isinstance(row, RawRow)]


def _without(path: Path, kind: str, gone: list[str], name: str) -> bytes:
    """The bytes of a file without the rows at these places."""
    places = [found for where in gone if (found := PLACE.fullmatch(where.removeprefix(name)))]
    if len(places) < len(gone):
        raise SourceError(f"{path}: where its rows stand is not known")
    if kind == ".parquet":
        numbers = {int(place[2]) - 1 for place in places}
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
        buffer = io.BytesIO()
        frame.filter(pl.Series([n not in numbers for n in range(frame.height)])).write_parquet(buffer)
        return buffer.getvalue()
    data, packed = path.read_bytes(), path.suffix.lower() == ".gz"
    if packed:
        data = gzip.decompress(data)
    codec, mark = find_codec(data[:1000], path, "ingest.inbox.folder")
    try:
        text = data[mark:].decode(codec, "surrogateescape" if codec == "utf-8" else "strict")
    except UnicodeError as error:
        raise SourceError(f"{path} cannot be written without their rows: {error}") from None
    if any(place[1] for place in places):
        left = _array(text, {int(place[1]) for place in places})
    else:
        numbers = {
            number for place in places for number in range(int(place[2]), int(place[3] or place[2]) + 1)
        }
        lines = io.StringIO(text, newline="").readlines()
        left = "".join(line for number, line in enumerate(lines, start=1) if number not in numbers)
    new = data[:mark] + left.encode(codec, "surrogateescape" if codec == "utf-8" else "strict")
    return gzip.compress(new, mtime=0) if packed else new


def _array(text: str, gone: set[int]) -> str:
    """An array of objects, or objects one behind the other, as an array with an item per line."""
    if text.lstrip().startswith("["):
        items = json.loads(text)
    else:
        decoder, items, place = json.JSONDecoder(), [], 0
        while found := re.compile(r"[^ \t\r\n]").search(text, place):
            item, place = decoder.raw_decode(text, found.start())
            items.append(item)
    kept = [json.dumps(item, ensure_ascii=False) for n, item in enumerate(items) if n not in gone]
    return "[\n" + ",\n".join(kept) + "\n]\n"
