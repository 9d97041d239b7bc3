"""A cell store that finds in a remote what its folder lacks: known by its header, fetched whole when read."""

from __future__ import annotations

import math
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from spring.store.cells import CellStore, Told
from spring.store.disk import link, sync
from spring.store.far import Far, passing
from spring.store.remote import Remote, at_once
from spring.store.segments import DamagedError, Segment, is_whole, opened, whole_cells


class Fetching(CellStore):
    """A folder of cells, and the remote behind it; `StoreError` where that cannot be used."""

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        self.remote = Remote(url)
        self.far = Far(self.remote, root)
        self._looked_far = -math.inf

    def missing(self, keys: Iterable[str], *, seen: float = 0.0) -> list[str]:
        """Those keys that have no whole cell here or there, in order; what is only there is fetched."""
        lacking = self._lacking(list(keys), seen)
        if lacking and time.monotonic() - self._looked_far >= seen:
            self._look_far()
            lacking = self._lacking(lacking, math.inf)
        return lacking

    def _lacking(self, keys: Sequence[str], seen: float) -> list[str]:
        self._bring(key for key in keys if key not in self._whole)
        return super().missing(keys, seen=seen)

    def learn(self, names: Iterable[str]) -> None:
        """Learns what these segments hold, where they are here or there: others are not looked for."""
        names = set(names)
        self.far.meet(name for name in sorted(names - set(self.far.entries)) if not self._is_here(name))
        super().learn(names)

    def __iter__(self) -> Iterator[str]:
        """The keys of all cells that are here or there, whole or not."""
        self._look_far()
        return super().__iter__()

    def _from_segment(self, key: str, tell: Callable[[Segment], Told]) -> Told:
        """What the segment that holds a cell tells, once it is here."""
        if key not in self._where:
            self._look_far()
        while True:
            self._bring([key])
            name = self._where[key]
            if self._is_here(name):
                return tell(opened(f"{self._segments}/{name}"))
            self._look()  # another process has packed it away

    def link(self, keys: Iterable[str], folder: Path) -> dict[str, str]:
        """Gives `folder` the segments that hold `keys`; key -> file there."""
        keys = list(keys)
        while True:
            self._bring(keys)
            found = {key: self._where[key] for key in keys}
            try:
                for name in sorted(set(found.values())):
                    link(self._segments / name, folder / name)
            except FileNotFoundError:  # another process has packed it away
                self._look()
            else:
                return found

    def set_aside(self, name: str, problem: str) -> None:
        """Moves a damaged segment to `bad/`: it is fetched again, where it is there."""
        if not self._is_here(name):  # its header is damaged
            self.far.forget(name)
        elif name not in self.far.entries:
            super().set_aside(name, problem)
        else:
            self._to_bad(self._segments / name)
            opened.cache_clear()
            print(f"a cell of {self.root} is damaged and fetched again: {problem}", file=sys.stderr)

    def _is_here(self, name: str) -> bool:
        return (self._segments / name).exists()

    def _names(self) -> set[str]:
        return super()._names() | set(self.far.entries)

    def _segment(self, name: str) -> Segment:
        """A segment; of one that is only there the header, which tells its keys."""
        kept = self.far.header(name)
        if name in self.far.entries and not self._is_here(name) and kept.exists():
            return opened(str(kept.resolve()))
        return super()._segment(name)

    def _look_far(self) -> None:
        """Learns what is there by now."""
        self._look()
        self._looked_far = time.monotonic()
        new, damaged = self.far.look(self._is_here)
        self._fetch(damaged)  # which says so
        self._prefer(new)
        self._look()

    def _prefer(self, names: Iterable[str]) -> None:
        """Where several segments hold a cell, the largest counts: small ones are packed, and go."""
        sizes = {name: entry.size for name, entry in self.far.entries.items()}
        for name in sorted(set(names) & set(sizes), key=lambda name: (-sizes[name], name)):
            for key in (cells := self._cells(name)):
                if sizes.get(self._where.setdefault(key, name), sizes[name]) < sizes[name]:
                    self._where[key] = name
            if cells:
                self._seen.add(name)

    def _cells(self, name: str) -> list[str]:
        """The keys of a segment; none where it is gone or unreadable by now."""
        try:
            return self._segment(name).keys
        except (FileNotFoundError, DamagedError):
            return []

    def _bring(self, keys: Iterable[str]) -> None:
        """Fetches the segments that hold `keys`, where any is known to."""
        keys = list(keys)
        while True:
            if self._fetch(name for name in sorted(self._where.by_segment(keys)) if not self._is_here(name)):
                return
            self._look_far()  # it was packed meanwhile, or is damaged

    def _fetch(self, names: Iterable[str]) -> bool:
        """Fetches segments; false where one is gone, or damaged and set aside."""
        names = list(names)
        found = at_once(self._get, names)
        for name, file in zip(names, found, strict=True):
            if file is not None and not self._is_here(name):
                self._refuse(name, file)
        return all(self._is_here(name) for name in names)

    def _get(self, name: str) -> Path | None:
        """Gets a segment; one that is damaged lies in `bad/`, null where it is gone."""
        with passing(self.root, name) as file:
            for _ in range(2):  # it may have been damaged on its way
                try:
                    self.remote.get(f"segments/{name}", file)
                except FileNotFoundError:
                    self.far.forget(name)
                    return None
                if is_whole(file):
                    sync(file)
                    file.rename(self._segments / name)
                    sync(self._segments)
                    return self._segments / name
            return self._to_bad(file)

    def _to_bad(self, file: Path) -> Path:
        return file.rename(self.root / "bad" / f"{file.name}-{uuid.uuid4().hex}")

    def _refuse(self, name: str, file: Path) -> None:
        """Takes a damaged segment out of the remote, and keeps the whole cells that it holds in another."""
        try:
            whole = whole_cells(Segment(file))
        except DamagedError:
            whole = {}
        if whole:
            self._publish(whole)
        self.remote.remove([f"segments/{name}"])
        self.far.forget(name)
        print(
            f"{self.remote.url}/segments/{name} is not what was written: it is set aside as {file}; "
            f"{len(whole)} cells of it are whole and kept, others are computed again",
            file=sys.stderr,
        )
