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
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spring.store.disk import new_name, sync
from spring.store.where import Keys, packed_key, packed_keys, unpacked_keys

Files = Mapping[str, bytes]  # what a cell holds, by name
ENDING = ".safetensors"
LENGTH = 8  # bytes that say how long the header is


BEGINNING = '{"__metadata__":{"cells":'
FAULTS = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)  # of a damaged header


class DamagedError(Exception):
    """A segment, or one of its cells, is not what was written."""


class Segment:
    """A segment that lies at `path`; raises `DamagedError` if its list of cells cannot be read.

    Damage behind the list shows when something is read. What it lists stands in memory as arrays, some 140
    bytes a cell of three files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb", buffering=0)
        size = int.from_bytes(self.file.read(LENGTH), "little")
        self._start = LENGTH + size
        try:
            if size > os.fstat(self.file.fileno()).st_size:
                raise ValueError("its header is longer than the file")
            digest, _, text = _listing(self.file.read(size)).partition(" ")
            self.list_is_whole: bool = digest == _digest(text.encode())
            listed: dict[str, list[Any]] = json.loads(text)
            if not self.list_is_whole:
                listed = {key: one for key, one in listed.items() if one[0] == _check(key, one[1])}
            self._list([(key, files) for key, (_, files) in listed.items()])
        except FAULTS as error:
            raise DamagedError(f"{path.name}: {error}") from error

    def _list(self, cells: Sequence[tuple[str, dict[str, str]]]) -> None:
        """Takes down keys, and of each cell its files: name and digest."""
        self.packed: Keys = packed_keys(key for key, _ in cells)
        self._order = np.argsort(self.packed).astype(np.int32)
        self._ends = np.cumsum([len(files) for _, files in cells], dtype=np.int32)
        self._names = sorted({name for _, files in cells for name in files})
        number = {name: n for n, name in enumerate(self._names)}
        self._named = np.array([number[name] for _, files in cells for name in files], np.int16)
        self._digests = _packed(digest for _, files in cells for digest in files.values())

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Where the content of each file lies, by the order of the digests: [files, 2], from `_start` on.

        Read when it is first asked for, since most segments are opened for their keys alone; `DamagedError`.
        """
        try:
            header = json.loads(os.pread(self.file.fileno(), self._start - LENGTH, LENGTH))
            offsets = {name: entry.get("data_offsets") for name, entry in header.items()}
            nowhere = (0, 0)  # which has another digest
            found = [offsets.get(digest.hex(), nowhere) for digest in self._digests.tolist()]
            places = np.array(found, np.int64) if found else np.empty((0, 2), np.int64)
            if places.shape != (len(found), 2):
                raise ValueError("a file does not lie between two places")
            return places
        except FAULTS as error:
            raise DamagedError(f"{self.path.name}: {error}") from error

    @property
    def length(self) -> int:
        """Bytes of the file, by what its header says; `DamagedError` where that cannot be read."""
        return self._start + int(self._places[:, 1].max(initial=0))

    @property
    def keys(self) -> list[str]:
        """The cells that it holds, in the order in which they were put there."""
        return unpacked_keys(self.packed)

    def read(self, key: str) -> dict[str, bytes]:
        """The files of a cell; `DamagedError` where one is not what was written, `KeyError` without it."""
        return {name: self._content(key, n) for name, n in self._files(key).items()}

    def read_some(self, key: str, names: Collection[str]) -> tuple[dict[str, bytes], dict[str, int]]:
        """Its files of some names, and the bytes of all, which are not read."""
        found = self._files(key)
        places = {name: self._places[n].tolist() for name, n in found.items()}
        lengths = {name: end - start for name, (start, end) in places.items()}
        return {name: self._content(key, found[name]) for name in names if name in found}, lengths

    def check(self, keys: Sequence[str]) -> None:
        """Reads all files of some cells, equal ones once; `DamagedError` where one is not what was written.

        Raises `KeyError` without a cell.
        """
        cells = self._cells(packed_keys(keys))
        if not (cells >= 0).all():
            raise KeyError(keys[int(cells.argmin())])
        whose = {n: key for key, cell in zip(keys, cells.tolist(), strict=True) for n in self._numbers(cell)}
        once = dict(zip(self._digests[list(whose)].tolist(), whose, strict=True))
        for number in once.values():
            self._content(whose[number], number)

    def _files(self, key: str) -> dict[str, int]:
        """The numbers of a cell's files."""
        packed = packed_key(key).rstrip(b"\0")
        at = int(self.packed.searchsorted(packed, sorter=self._order)) if packed else 0
        if at == len(self.packed) or self.packed[self._order[at]] != packed:
            raise KeyError(key)
        return {self._names[self._named[n]]: n for n in self._numbers(int(self._order[at]))}

    def _cells(self, keys: Keys) -> NDArray[np.int32]:
        """The numbers of cells in the order in which they were put there; -1: it is none of them."""
        if not len(self.packed):
            return np.full(len(keys), -1, np.int32)
        at = self.packed.searchsorted(keys, sorter=self._order).clip(max=len(self.packed) - 1)
        cells = self._order[at]
        return np.where(self.packed[cells] == keys, cells, -1)

    def _numbers(self, cell: int) -> range:
        """Those of a cell's files."""
        return range(int(self._ends[cell - 1]) if cell else 0, int(self._ends[cell]))

    def _content(self, key: str, number: int) -> bytes:
        start, end = self._places[number].tolist()
        content = os.pread(self.file.fileno(), max(0, end - start), self._start + max(0, start))
        if _digest(content) != self._digests[number].tobytes().hex():
            name = self._names[self._named[number]]
            raise DamagedError(f"{key}: {name} is not what was written")
        return content


def _listing(header: bytes) -> str:
    """The metadata `cells` of a header, without reading what comes behind it."""
    text = header.decode()
    if not text.startswith(BEGINNING):
        raise ValueError("its header does not begin with a list of cells")
    listing, _ = json.JSONDecoder().raw_decode(text, len(BEGINNING))
    return str(listing)


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


@lru_cache(maxsize=16)
def opened(path: str) -> Segment:
    """The segment at an absolute path, its header read once."""
    return Segment(Path(path))


def write_segment(cells: Mapping[str, Files], folder: Path) -> Path:
    """Writes cells as a segment in `folder`, all of it on the disk. Each is asked for twice, and not kept."""
    listed, lengths = {}, dict[str, int]()
    for key, files in cells.items():
        names = {name: _digest(content) for name, content in sorted(files.items())}
        listed[key] = (_check(key, names), names)
        lengths |= {digest: len(files[name]) for name, digest in names.items()}
    temporary, total = folder / new_name(), hashlib.sha256()
    with temporary.open("wb") as file:

        def put(content: bytes) -> None:
            file.write(content)
            total.update(content)

        put(_header(listed, lengths))
        for key, files in cells.items():
            for name, digest in listed[key][1].items():
                if lengths.pop(digest, None) is not None:
                    put(files[name])
    sync(temporary)
    return temporary.rename(folder / (total.hexdigest() + ENDING))


def _header(listed: Mapping[str, Any], lengths: Mapping[str, int]) -> bytes:
    """What safetensors begins a file with: contents lie behind it in the order of `lengths`, without gaps."""
    text = json.dumps(listed)
    header: dict[str, Any] = {"__metadata__": {"cells": f"{_digest(text.encode())} {text}"}}
    end = 0
    for digest, length in lengths.items():
        start, end = end, end + length
        header[digest] = {"dtype": "U8", "shape": [length], "data_offsets": [start, end]}
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % LENGTH)
    return len(written).to_bytes(LENGTH, "little") + written


def _packed(digests: Iterable[str]) -> NDArray[np.void]:
    return np.frombuffer(bytes.fromhex("".join(digests)), "V16")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _check(key: str, files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([key, files]).encode()).hexdigest()[:8]
