"""A file of text: unpacked, and decoded by what its first bytes say."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path

from spring.data.rows import SourceError

_MARKS = {  # the longer one first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_LOOK = 1000  # bytes in which UTF-16 without a mark shows: every second one of Latin text is 0
# What is no text, whatever its name says, by its first bytes: (what it is, what to do)
_OTHERS = {
    b"\x1f\x8b": ("packed by gzip", "add .gz to its name"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"BZh": ("packed by bzip2", "unpack it"),
    b"\xfd7zXZ\0": ("packed by xz", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old spreadsheet", "save it as CSV"),
    b"PAR1": ("a parquet file", "let its name end in .parquet"),
    b"SQLite format 3": ("a database", "write the table as CSV"),
    b"%PDF": ("a PDF file", "give a table"),
    b"version https://git-lfs": (
        "a pointer of Git LFS and not the file itself",
        "fetch it with git lfs pull",
    ),
}


def read_text(path: Path) -> str:
    """All of it. Bytes that are no text become replacement characters, which quarantine their row.

    Raises SourceError if the file cannot be read or unpacked to its end, is no text by its first bytes, or
    seems to be UTF-16 with no mark.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"ingest.table.path: {path} cannot be read: {error}. If it is damaged or cut off, fetch it "
            f"again; if it is not packed, take .gz from its name"
            if path.suffix.lower() == ".gz"
            else f"ingest.table.path: {path} cannot be read: {error}"
        ) from None
    for mark, codec in _MARKS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(codec, errors="replace")
    for first, (what, remedy) in _OTHERS.items():
        if data.startswith(first):
            raise SourceError(f"ingest.table.path: {path} is {what}: {remedy}")
    if 4 * data[:_LOOK].count(0) > len(data[:_LOOK]) or 0 in data[:2]:
        raise SourceError(
            f"ingest.table.path: {path} is no UTF-8: every other byte is 0, as in UTF-16. Save it as UTF-8, "
            f"or with a byte order mark"
        )
    return data.decode("utf-8", errors="replace")
