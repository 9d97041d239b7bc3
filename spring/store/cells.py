"""The cell store: a folder of segments, and who works on what.

A cell is the result for one recipe, user and period: a few small files under a key that stands for everything
the result depends on (spring/store/keys.py). Cells of one batch become visible together, by one rename: after
`kill -9` a batch is either there or not. What is damaged is set aside in `bad/` and computed again.

Segments are only ever added, and small ones replaced by one that holds the same cells (`pack`): so others can
link to them (`link`), and they may lie on any disk that several machines share.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from spring.store.claims import Claims
from spring.store.disk import alive, link, new_name, sync
from spring.store.segments import ENDING, DamagedError, Files, Segment, opened, whole_cells, write_segment
from spring.store.where import Keys, Where, packed_keys

Told = TypeVar("Told")

LIMIT = 64 * 2**20  # bytes; cells are packed into segments of about this size
CHECKED = 65_536  # keys that are remembered to be whole: of more they are looked at again
PACKING = "pack"  # the claim of who packs


class StoreError(RuntimeError):
    """A folder is no store that this version can use; the message says what to do."""


class CellStore:
    """A folder of cells. Several processes may share it, also of several machines that share the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if (root / "cells").is_dir():
            raise StoreError(
                f"{root} holds cells of an earlier version, which this one cannot read: delete {root} (they "
                f"are computed again), or set SPRING_CELLS to another folder"
            )
        for name in ("segments", "writing", "claims", "bad"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.claims = Claims(root / "claims")
        self._segments = (root / "segments").resolve()
        self._where = Where()
        self._seen: set[str] = set()  # segments whose keys are known
        self._whole: set[str] = set()  # keys of cells that this process has checked
        self._looked = -math.inf  # when all segments were listed last
        for begun in (root / "writing").iterdir():
            if not alive(begun):
                shutil.rmtree(begun, ignore_errors=True)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process is sent where it lies, and has one for all that it is sent."""
        return store_at, (self.root.resolve(),)

    def __contains__(self, key: str) -> bool:
        return not self.missing([key])

    def missing(self, keys: Iterable[str], *, seen: float = 0.0) -> list[str]:
        """Those keys that have no whole cell yet, in order; a damaged cell is set aside, and told.

        seen: what others have made in the last so many seconds may be overlooked.
        """
        unchecked = [key for key in keys if key not in self._whole]
        if not self._where.has_all(packed_keys(unchecked)) and time.monotonic() - self._looked >= seen:
            self._look()
        whole = self._check(unchecked)
        return [key for key in unchecked if key not in whole]

    def __iter__(self) -> Iterator[str]:
        """The keys of all cells that are there, whole or not."""
        self._look()
        return iter(list(self._where))

    def read(self, key: str) -> dict[str, bytes]:
        """The files of a cell; `DamagedError` if they are not what was written, `KeyError` without it."""
        return self._from_segment(key, lambda segment: segment.read(key))

    def read_some(self, key: str, names: Collection[str]) -> tuple[dict[str, bytes], dict[str, int]]:
        """The same of files of some names alone, and the bytes of all."""
        return self._from_segment(key, lambda segment: segment.read_some(key, names))

    def _from_segment(self, key: str, tell: Callable[[Segment], Told]) -> Told:
        """What the segment that holds a cell tells."""
        if key not in self._where:
            self._look()
        try:
            return tell(self._segment(self._where[key]))
        except FileNotFoundError:  # another process has packed it away
            self._look()
            return tell(self._segment(self._where[key]))

    def claim(self, keys: Iterable[str]) -> AbstractContextManager[list[str]]:
        """Those of `keys` that nobody else is computing; inside the block they are this process's."""
        return self.claims.hold(keys)

    # --- what is there ------------------------------------------------------------------------------------

    def segments(self) -> list[Path]:
        """The files of all cells."""
        return [self.root / "segments" / name for name in sorted(self._listed())]

    def _look(self) -> None:
        """Learns what other segments are there by now, and which are gone."""
        there = self._names()
        self._looked = time.monotonic()
        gone = self._seen - there
        lost = self._where.drop(gone) if gone else packed_keys(())
        self._seen -= gone
        self.learn(there - self._seen)
        if not self._where.has_all(lost):  # a key that two segments hold is known by one of them
            self.learn(there)

    def learn(self, names: Iterable[str]) -> None:
        """Learns what these segments hold, where they are there: others are not looked for."""
        new: list[tuple[str, Keys]] = []
        for name in sorted(names):
            try:
                segment = self._segment(name)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                problem = str(error)
            else:
                if segment.list_is_whole:
                    self._seen.add(name)
                    new.append((name, segment.packed))
                    continue
                problem = f"the list of cells of {name} is not what was written"
            self._where.add(new)
            new = []
            self.set_aside(name, problem)
        self._where.add(new)

    def holding(self, keys: Iterable[str]) -> list[str]:
        """The segments that hold those of `keys` that are there."""
        return sorted(self._where.by_segment(list(keys)))

    def _names(self) -> set[str]:
        """The segments that are there; one look may miss both what another process packs and the result."""
        found = self._listed()
        while found != (again := self._listed()):
            found = again
        return found

    def _listed(self) -> set[str]:
        return {file.name for file in os.scandir(self.root / "segments") if file.name.endswith(ENDING)}

    def _segment(self, name: str) -> Segment:
        path = f"{self._segments}/{name}"
        if not os.path.exists(path):  # noqa: PTH110  # a Path would take longer than all else
            raise FileNotFoundError(path)
        return opened(path)

    def _check(self, keys: Sequence[str]) -> set[str]:
        """Those whose cells are there and whole."""
        whole = set[str]()
        for name, some in self._where.by_segment(keys).items():
            try:
                self._segment(name).check(some)
            except (KeyError, FileNotFoundError, DamagedError):  # one of them, or gone: each by itself
                some = [key for key in some if self._is_whole(key)]
            whole.update(some)
        if len(self._whole) + len(whole) > CHECKED:
            self._whole.clear()
        self._whole.update(list(whole)[:CHECKED])
        return whole

    def _is_whole(self, key: str) -> bool:
        """Whether a cell is there and whole; a damaged one is set aside."""
        if key not in self._where:
            return False
        try:
            self.read(key)
        except (KeyError, FileNotFoundError):
            return False
        except DamagedError as error:
            self.set_aside(self._where[key], str(error))
            return False
        return True

    def set_aside(self, name: str, problem: str) -> None:
        """Moves a damaged segment to `bad/`, and keeps the whole cells that it holds in another."""
        try:
            whole = whole_cells(self._segment(name))
        except DamagedError:
            whole = {}
        except FileNotFoundError:  # another process has set it aside
            return
        if whole:
            self._publish(whole)
        try:
            (self.root / "segments" / name).rename(self.root / "bad" / f"{name}-{uuid.uuid4().hex}")
        except FileNotFoundError:
            return
        opened.cache_clear()
        self._look()
        print(f"a cell of {self.root} is damaged and computed again: {problem}", file=sys.stderr)

    # --- writing ------------------------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[dict[str, Files]]:
        """Cells, by key, put into it inside the block become visible together at its end, or not at all.

        A key that is there already keeps the cell that it has.
        """
        cells: dict[str, Files] = {}
        yield cells
        self._look()
        if new := {key: files for key, files in cells.items() if key not in self._where}:
            self.learn([self._publish(new)])

    def _publish(self, cells: Mapping[str, Files]) -> str:
        """Writes a segment and makes it visible."""
        folder = self.root / "writing" / new_name()
        folder.mkdir()
        try:
            written = write_segment(cells, folder)
            written.rename(self.root / "segments" / written.name)
            sync(self.root / "segments")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return written.name

    def pack(self, keys: Sequence[str]) -> None:
        """Puts cells of small segments together, up to `LIMIT`; of segments that hold none but `keys`."""
        with self.claims.hold([PACKING]) as mine:
            if not mine:  # another process packs
                return
            self._look()
            for names in self._small(keys):
                held = [key for key in keys if self._where.get(key) in names]
                kept = self._publish(Kept(held, self.read))
                for name in names - {kept}:
                    (self.root / "segments" / name).unlink(missing_ok=True)
            self._look()

    def _small(self, keys: Sequence[str]) -> list[set[str]]:
        """Segments to be put together: neighbours in the order of `keys`, of `LIMIT` bytes in all."""
        wanted, parts, room = set(keys), [set[str]()], LIMIT
        for name in dict.fromkeys(self._where[key] for key in keys if key in self._where):
            size = (self.root / "segments" / name).stat().st_size
            if size > LIMIT // 2 or not wanted.issuperset(self._segment(name).keys):
                continue
            if size > room:
                parts.append(set())
                room = LIMIT
            parts[-1].add(name)
            room -= size
        return [names for names in parts if len(names) > 1]

    def link(self, keys: Iterable[str], folder: Path) -> dict[str, str]:
        """Gives `folder` the segments that hold `keys`; key -> file there.

        The bytes are not copied, unless `folder` is on another disk.
        """
        keys = list(keys)
        while True:
            found = {key: self._where[key] for key in keys}
            try:
                for name in sorted(set(found.values())):
                    link(self.root / "segments" / name, folder / name)
            except FileNotFoundError:  # another process has packed it away
                self._look()
            else:
                return found


class Kept(Mapping[str, Files]):
    """Cells that are there, each read when it is asked for."""

    def __init__(self, keys: Sequence[str], read: Callable[[str], Files]) -> None:
        self._keys, self._read = dict.fromkeys(keys), read

    def __getitem__(self, key: str) -> Files:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@cache
def store_at(root: Path) -> CellStore:
    """This process's store at an absolute path."""
    return CellStore(root)
