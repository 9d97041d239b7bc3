"""Segments: many cells in one file, in the safetensors format, which never changes once it is there.

    metadata `cells`   the sha256 of the list behind it: KEY -> [check, {NAME: sha256}], what each cell holds
    tensors  SHA256    the bytes of one file of a cell, as uint8; equal ones lie there once

sha256 is cut to 32 digits, and to 8 where it says that one entry of the list is whole. A segment is named by
the sha256 of all its bytes. So each byte is covered: those of a cell when it is read, all of them by
`is_whole`. Equal cells in equal order give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from spring.store.disk import new_name, sync

Files = Mapping[str, bytes]  # what a cell holds, by name
ENDING = ".safetensors"
LENGTH = 8  # bytes that say how long the header is


class DamagedError(Exception):
    """A segment, or one of its cells, is not what was written."""


class Segment:
    """A segment that lies at `path`; raises `DamagedError` if its header cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb", buffering=0)
        size = int.from_bytes(self.file.read(LENGTH), "little")
        try:
            if size > os.fstat(self.file.fileno()).st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(self.file.read(size))
            digest, _, text = header.pop("__metadata__")["cells"].partition(" ")
            listed = json.loads(text)
            self._cells: dict[str, tuple[str, dict[str, str]]] = {
                key: (c, f) for key, (c, f) in listed.items()
            }
            self._places = {name: range(*entry["data_offsets"]) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path.name}: {error}") from error
        self._start = LENGTH + size
        self.list_is_whole: bool = digest == _digest(text.encode())

    @property
    def keys(self) -> list[str]:
        """The cells that it holds, in the order in which they were put there."""
        return list(self._cells)

    def read(self, key: str) -> dict[str, bytes]:
        """The files of a cell; raises `DamagedError` where one is not what was written."""
        check, files = self._cells[key]
        if check != _check(key, files):
            raise DamagedError(f"{key}: the list of its files is not what was written")
        return {name: self._content(key, name, digest) for name, digest in files.items()}

    def _content(self, key: str, name: str, digest: str) -> bytes:
        place = self._places.get(digest, range(0))
        content = os.pread(self.file.fileno(), len(place), self._start + place.start)
        if _digest(content) != digest:
            raise DamagedError(f"{key}: {name} is not what was written")
        return content


def is_whole(segment: Path) -> bool:
    """Whether all bytes of a segment are those that were written."""
    with segment.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == segment.stem


def whole_cells(segment: Segment) -> dict[str, Files]:
    """The cells of a segment that are what was written."""
    found: dict[str, Files] = {}
    for key in segment.keys:
        try:
            found[key] = segment.read(key)
        except DamagedError:
            continue
    return found


@lru_cache(maxsize=64)
def opened(path: Path) -> Segment:
    """The segment at an absolute path, its header read once."""
    return Segment(path)


def write_segment(cells: Mapping[str, Files], folder: Path) -> Path:
    """Writes cells as a segment in `folder`, all of it on the disk."""
    listed = {}
    contents: dict[str, bytes] = {}
    for key, files in cells.items():
        names = {name: _digest(content) for name, content in sorted(files.items())}
        listed[key] = (_check(key, names), names)
        contents |= {digest: files[name] for name, digest in names.items()}
    tensors = {digest: np.frombuffer(content, np.uint8) for digest, content in contents.items()}
    text = json.dumps(listed)
    packed = save(tensors, {"cells": f"{_digest(text.encode())} {text}"})  # of two keys the order is chance
    temporary = folder / new_name()
    with temporary.open("wb") as file:
        file.write(packed)
    sync(temporary)
    return temporary.rename(folder / (hashlib.sha256(packed).hexdigest() + ENDING))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _check(key: str, files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([key, files]).encode()).hexdigest()[:8]
