"""A file of text: unpacked, and decoded by what its first bytes say."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spring.data.rows import SourceError

_MARKS = {  # the longer one first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_CHUNK = 2**22
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


KEY = "ingest.table.path"  # the parameter that messages name


def read_text(path: Path, *, key: str = KEY) -> str:
    """All of it. Bytes that are no text become replacement characters, which quarantine their row.

    Raises SourceError if the file cannot be read or unpacked to its end, is no text by its first bytes, or
    seems to be UTF-16 with no mark.
    """
    with _reading(path, key):
        data = path.read_bytes()
        if _is_packed(path):
            data = gzip.decompress(data)
    codec, skipped = find_codec(data[:_LOOK], path, key)
    return data[skipped:].decode(codec, errors="replace")


def read_lines(path: Path, *, key: str = KEY) -> Iterator[str]:
    """The same, line by line: in memory is one line."""
    with _opened(path, key) as file:
        yield from file


def read_chunks(path: Path, *, key: str = KEY) -> Iterator[str]:
    """The same, a few megabytes at a time."""
    with _opened(path, key) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def _opened(path: Path, key: str) -> Iterator[io.TextIOWrapper]:
    with _reading(path, key), gzip.open(path) if _is_packed(path) else path.open("rb") as file:
        codec, skipped = find_codec(file.read(_LOOK), path, key)
        file.seek(skipped)
        yield io.TextIOWrapper(file, codec, errors="replace")


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


@contextmanager
def _reading(path: Path, key: str) -> Iterator[None]:
    """Tells what goes wrong with the file itself."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{key}: {path} cannot be read: {error}. If it is damaged or cut off, fetch it again; if it is "
            f"not packed, take .gz from its name"
            if _is_packed(path)
            else f"{key}: {path} cannot be read: {error}"
        ) from None


def find_codec(first: bytes, path: Path, key: str) -> tuple[str, int]:
    """The codec of a text and how long its mark is, by its first bytes."""
    for mark, codec in _MARKS.items():
        if first.startswith(mark):
            return codec, len(mark)
    for begin, (what, remedy) in _OTHERS.items():
        if first.startswith(begin):
            raise SourceError(f"{key}: {path} is {what}: {remedy}")
    if 4 * first.count(0) > len(first) or 0 in first[:2]:
        raise SourceError(
            f"{key}: {path} is no UTF-8: every other byte is 0, as in UTF-16. Save it as UTF-8, or with a "
            f"byte order mark"
        )
    return "utf-8", 0
