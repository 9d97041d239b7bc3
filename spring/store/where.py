"""Which segment holds each cell: some 36 bytes a cell, since somewhere all cells of all users are listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.bytes_]  # [N], of 32 bytes
LATELY = 4096  # cells, or a sixteenth of all, that lie beside the sorted ones


def packed_key(key: str) -> bytes:
    """A key in half of its bytes; raises `ValueError` where it is none."""
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    if len(found) != 32 or found.hex() != key:  # blanks and capitals are read, too
        raise ValueError(f"{key!r} is no key of a cell: they come from cell_key")
    return found


def packed_keys(keys: Iterable[str]) -> Keys:
    """Keys as `Where` holds them."""
    keys = list(keys)
    text = "".join(keys)
    try:
        packed = bytes.fromhex(text)
    except ValueError:
        packed = b""
    if packed.hex() != text or any(len(key) != 64 for key in keys):
        return np.array([packed_key(key) for key in keys], "S32")  # which says what is no key
    return np.frombuffer(packed, "S32") if keys else np.empty(0, "S32")


def unpacked_keys(keys: Keys) -> list[str]:
    """The same as text; numpy cuts zeros at the end off, and puts them there again to compare."""
    return [packed.ljust(32, b"\0").hex() for packed in keys.tolist()]


class Where:
    """Key -> name of a segment. Most stand sorted in two arrays; what came lately in a dict beside them."""

    def __init__(self) -> None:
        self._keys, self._held = packed_keys(()), np.empty(0, np.int32)
        self._lately: dict[bytes, int] = {}
        self._names: list[str] = []  # by number
        self._numbers: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        return self._number(key) >= 0

    def __getitem__(self, key: str) -> str:
        if (number := self._number(key)) < 0:
            raise KeyError(key)
        return self._names[number]

    def __setitem__(self, key: str, name: str) -> None:
        packed, number = packed_key(key).rstrip(b"\0"), self._numbered(name)
        if (at := self._place(packed)) is None:
            self._lately[packed] = number
        else:
            self._held[at] = number

    def by_segment(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """Keys by the segment that holds their cells, in order; those of which none is known are left out."""
        found: dict[str, list[str]] = {}
        for key, number in zip(keys, self._numbers_of(packed_keys(keys)).tolist(), strict=True):
            if number >= 0:
                found.setdefault(self._names[number], []).append(key)
        return found

    def get(self, key: str) -> str | None:
        """The segment that holds a cell; null: none is known."""
        number = self._number(key)
        return self._names[number] if number >= 0 else None

    def setdefault(self, key: str, name: str) -> str:
        """The segment that holds a cell; `name` where none is known."""
        if (found := self.get(key)) is not None:
            return found
        self[key] = name
        return name

    def add(self, segments: Iterable[tuple[str, Keys]]) -> None:
        """Segments with the keys of their cells; a cell that has one already keeps it."""
        new = [(self._numbered(name), keys) for name, keys in segments]
        if sum(len(keys) for _, keys in new) > LATELY:
            self._merge(new)
            return
        for number, keys in new:
            for packed in keys.tolist():
                if self._place(packed) is None:
                    self._lately.setdefault(packed, number)
        if len(self._lately) > max(LATELY, len(self._keys) // 16):
            self._merge(())

    def _merge(self, segments: Iterable[tuple[int, Keys]]) -> None:
        """Sorts all into the arrays; of equal keys the first counts."""
        lately = np.array(list(self._lately), "S32"), np.array(list(self._lately.values()), np.int32)
        more = [(keys, np.full(len(keys), number, np.int32)) for number, keys in segments]
        keys, held = (
            np.concatenate(all) for all in zip((self._keys, self._held), lately, *more, strict=True)
        )
        self._keys, first = np.unique(keys, return_index=True)
        self._held, self._lately = held[first], {}

    def drop(self, names: set[str]) -> Keys:
        """Forgets segments; the keys that they were known to hold."""
        gone = {self._numbers[name] for name in names if name in self._numbers}
        out = np.isin(self._held, list(gone))
        late = [packed for packed, number in self._lately.items() if number in gone]
        lost = np.concatenate([self._keys[out], np.array(late, "S32")])
        self._keys, self._held = self._keys[~out], self._held[~out]
        for packed in late:
            del self._lately[packed]
        return lost

    def has_all(self, keys: Keys) -> bool:
        """Whether a segment is known for each of `keys`."""
        return bool((self._numbers_of(keys) >= 0).all())

    def names(self) -> set[str]:
        """The segments that hold cells."""
        numbers = {*np.unique(self._held).tolist(), *self._lately.values()}
        return {self._names[number] for number in numbers}

    def __iter__(self) -> Iterator[str]:
        lately = np.array(list(self._lately), "S32")
        return iter(unpacked_keys(np.concatenate([self._keys, lately])))

    def _numbered(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def _numbers_of(self, keys: Keys) -> NDArray[np.int32]:
        """The numbers of the segments that hold cells; -1: none is known."""
        found = np.full(len(keys), -1, np.int32)
        if len(self._keys):
            at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
            found = np.where(self._keys[at] == keys, self._held[at], found)
        if self._lately:
            late = [self._lately.get(packed, -1) for packed in keys.tolist()]
            found = np.where(found < 0, np.array(late, np.int32), found)
        return found

    def _number(self, key: str) -> int:
        """The number of the segment that holds a cell; -1: none is known."""
        return self._find(packed_key(key).rstrip(b"\0"))

    def _find(self, packed: bytes) -> int:
        if (number := self._lately.get(packed)) is not None:
            return number
        at = self._place(packed)
        return -1 if at is None else int(self._held[at])

    def _place(self, packed: bytes) -> int | None:
        """Where a key without the zeros at its end stands in the arrays; null: it does not."""
        at = int(self._keys.searchsorted(packed)) if packed else 0
        return at if at < len(self._keys) and self._keys[at] == packed else None
