"""A cell store whose segments lie in a remote, too: what machines without a common disk share.

The folder is what everything reads, links to and checks; behind it lies the remote (spring/store/remote.py).
A segment is written and synced here, and then put there; what is missing here is looked up there by its
header, and fetched whole when it is read. So the folder may be deleted, once all is put.

    segments/NAME   as in the folder, named by their content: nothing is overwritten with other bytes
    claims/         who works on what (spring/store/remote_claims.py)
    gone/NAME       lists of segments that were forgotten (`keep_only`): folders drop them when opened
    writing/NAME    shown by the driver of a cluster, so that workers can tell that they have the same remote
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from spring.store.cells import LIMIT, CellStore, StoreError
from spring.store.claims import Claims
from spring.store.far import LATE, packed, passing
from spring.store.fetching import Fetching
from spring.store.remote import at_once, remote_url
from spring.store.remote_claims import RemoteClaims
from spring.store.segments import Files, is_whole

PUTTING = "put"  # the claim of who puts what is missing there


class Shared(Fetching):
    """A folder of cells that puts into the remote behind it whatever is written."""

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root, url)
        self.claims = RemoteClaims(root / "claims", self.remote)
        for name, when in self.far.forgotten():
            file = self._segments / name
            if file.exists() and file.stat().st_mtime < when:
                file.unlink()
        self._look_far()
        self._put_missing()

    def __reduce__(self) -> tuple[object, ...]:
        """Another process is sent the URL, and uses the store that it has for it."""
        return store_for, (self.remote.url, self.root.resolve())

    @contextmanager
    def batch(self) -> Iterator[dict[str, Files]]:
        """Cells, by key, put into it inside the block become visible together at its end, or not at all."""
        with super().batch() as cells:
            yield cells
            if any(key not in self._where for key in cells):
                self._look_far()

    def _publish(self, cells: Mapping[str, Files]) -> str:
        """Writes a segment, and makes it visible here, then there."""
        name = super()._publish(cells)
        self.far.put(self._segments / name)
        self._prefer([name])
        return name

    def _put_missing(self) -> None:
        """Puts what was computed while the remote could not be reached, or none was named."""
        if not self._unput():
            return
        with Claims(self.root / "claims").hold([PUTTING]) as mine:  # of the processes of this folder one
            files = [self._segments / name for name in self._unput()] if mine else []
            if whole := [file for file in files if is_whole(file)]:
                size = sum(file.stat().st_size for file in whole) / 1e6
                what = f"{len(whole)} files of cells, {size:.1f} MB"
                print(f"putting into {self.remote.url} what is only here: {what}", file=sys.stderr)
                at_once(self.far.put, whole)

    def _unput(self) -> list[str]:
        """Segments that are only here and hold a cell that is not there."""
        names = sorted(self._listed() - set(self.far.entries))
        there = {key for name in self.far.entries for key in self._cells(name)} if names else set()
        return [name for name in names if not there.issuperset(self._cells(name))]

    def pack(self, keys: Sequence[str]) -> None:
        """Puts cells of small segments together. There the small ones stay a while, for who reads them."""
        super().pack(keys)
        self.retire()

    def _small(self, keys: Sequence[str]) -> list[set[str]]:
        """Segments to be put together, of both places, now that nobody else packs."""
        self._look_far()
        self._bring(keys)
        idle = self._listed() - self._where.names()  # another machine has packed them
        for name in idle & packed({name: self._cells(name) for name in self._listed()}) if idle else ():
            (self._segments / name).unlink(missing_ok=True)
        return super()._small(keys)

    def retire(self) -> None:
        """Removes small segments from the remote whose cells a larger one has held for a while."""
        old = {name for name, entry in self.far.entries.items() if time.time() - entry.time > LATE}
        small = {name for name in old if self.far.entries[name].size <= LIMIT // 2}
        if small:
            self._drop(small & packed({name: self._cells(name) for name in old}))

    def _drop(self, names: Iterable[str]) -> None:
        names = sorted(names)
        self.remote.remove(f"segments/{name}" for name in names)
        for name in names:
            self.far.forget(name)

    # --- checking, forgetting -----------------------------------------------------------------------------

    def is_whole_there(self, name: str) -> bool:
        """Whether all bytes of a segment of the remote are those that were written; if not, it is mended."""
        with passing(self.root, name) as file:
            try:
                self.remote.get(f"segments/{name}", file)
            except FileNotFoundError:  # packed meanwhile
                return True
            if is_whole(file):
                return True
            if not self._is_here(name) or not is_whole(self._segments / name):
                self._refuse(name, self._to_bad(file))
                return False
        self.far.put(self._segments / name, again=True)
        print(
            f"{self.remote.url}/segments/{name} is not what was written: put again from here", file=sys.stderr
        )
        return False

    def keep_only(self, names: Iterable[str]) -> None:
        """Leaves only these segments in the remote, and in other folders, when they are next opened."""
        kept = set(names)
        at_once(self.far.put, [self._segments / name for name in sorted(kept)])
        others = sorted((set(self.remote.listed("segments")) | self._listed()) - kept)
        if others:
            told = json.dumps(others).encode()
            self.remote.write(f"gone/{hashlib.sha256(told).hexdigest()}", told)
            self._drop(others)
            if left := set(others) & set(self.remote.listed("segments")):  # file systems do not always say so
                raise StoreError(f"{self.remote.url}: {len(left)} segments cannot be removed: see to rights")


def open_store(root: Path) -> CellStore:
    """The store at `root`, with the remote that the environment names behind it."""
    url = remote_url()
    return CellStore(root) if url is None else Shared(root, url)


STORES: dict[str, Shared] = {}  # this process's, by remote


def store_for(url: str, root: Path) -> Shared:
    """This process's store for a remote; one at `root` where it has none."""
    if url not in STORES:
        STORES[url] = Shared(root, url)
    return STORES[url]
