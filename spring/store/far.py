"""The segments of a remote, as one folder knows them: listed anew each time, headers read once and kept.

STORE/remotes/URL/   url, headers/NAME, and gone/NAME for what is known to be forgotten
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from spring.store.disk import new_name
from spring.store.remote import Entry, Remote, at_once
from spring.store.segments import ENDING, LENGTH, DamagedError, Segment

REMOTES = "remotes"
GUESS = 2**16  # bytes that most headers are shorter than
LATE = 3600.0  # seconds in which others may still be writing a segment, or reading one that was packed


class Far:
    """What is known in the folder `root` of a remote's segments."""

    def __init__(self, remote: Remote, root: Path) -> None:
        self.remote, self.root = remote, root
        self.place = place_of(root, remote.url)
        for name in ("headers", "gone"):
            (self.place / name).mkdir(parents=True, exist_ok=True)
        (self.place / "url").write_text(remote.url, encoding="utf-8")
        self.entries: dict[str, Entry] = {}  # those that can be used

    def look(self, is_here: Callable[[str], bool]) -> tuple[set[str], list[str]]:
        """Lists the segments: those that are new, and those that are damaged. Headers of others are read."""
        kept = {file.name for file in (self.place / "headers").iterdir()}
        before, found = set(self.entries), self.remote.listed("segments")
        self.entries = {name: entry for name, entry in found.items() if name.endswith(ENDING)}
        unread = [name for name in self.entries if name not in kept and not is_here(name)]
        damaged = []
        for name, state in zip(unread, at_once(self._learn, unread), strict=True):
            if state != "known":
                del self.entries[name]
            if state == "damaged":
                damaged.append(name)
        for name in kept - set(self.entries):
            self.forget(name)
        return set(self.entries) - before, damaged

    def meet(self, names: Iterable[str]) -> None:
        """Learns of segments that somebody has named, without a list of all; of those that are there."""
        for name in names:
            with suppress(FileNotFoundError):
                self.entries[name] = self.remote.entry(f"segments/{name}")
                if self._learn(name) != "known":
                    del self.entries[name]

    def header(self, name: str) -> Path:
        """Where the header of a segment is kept."""
        return self.place / "headers" / name

    def forget(self, name: str) -> None:
        """A segment is there no more, or its header is not what was written."""
        self.entries.pop(name, None)
        self.header(name).unlink(missing_ok=True)

    def put(self, file: Path, *, again: bool = False) -> None:
        """Puts a segment of the folder there, and keeps its header for when it is here no more."""
        try:
            with file.open("rb") as handle:
                head = handle.read(LENGTH)
                head += handle.read(int.from_bytes(head, "little"))
            entry = Entry(file.stat().st_size, time.time())
        except FileNotFoundError:  # another process has packed it away, and put that
            return
        self.remote.put(file, f"segments/{file.name}", again=again)
        self._keep(file.name, head)
        self.entries.setdefault(file.name, entry)

    def forgotten(self) -> Iterator[tuple[str, float]]:
        """Segments that were forgotten since this was last asked, and when."""
        for name, entry in self.remote.listed("gone").items():
            kept = self.place / "gone" / name
            if not kept.exists():
                yield from ((gone, entry.time) for gone in json.loads(self.remote.read(f"gone/{name}")))
                kept.touch()

    def _learn(self, name: str) -> str:
        """Reads a header: `known`, `damaged`, or `cut`, as while it is written where that can be seen."""
        entry = self.entries[name]
        try:
            head = self.remote.read(f"segments/{name}", min(GUESS, entry.size)) if entry.size else b""
            size = LENGTH + int.from_bytes(head[:LENGTH], "little")
            if len(head) < size <= entry.size:
                head = self.remote.read(f"segments/{name}", size)
        except FileNotFoundError:
            return "gone"
        found, length = None, 0
        if len(head) > LENGTH and size <= entry.size:
            try:
                found = self._keep(name, head[:size])
                length = found.length
            except DamagedError:
                self.header(name).unlink(missing_ok=True)
                return "damaged"
        if found is None or length > entry.size:
            self.header(name).unlink(missing_ok=True)
            return "cut" if time.time() - entry.time < LATE else "damaged"
        if length < entry.size or not found.list_is_whole:
            self.header(name).unlink()
            return "damaged"
        return "known"

    def _keep(self, name: str, head: bytes) -> Segment:
        with passing(self.root, name) as file:
            file.write_bytes(head)
            found = Segment(file)
            file.rename(self.header(name))
        return found


def place_of(root: Path, url: str) -> Path:
    """Where a store notes what it knows of a remote."""
    return root / REMOTES / hashlib.sha256(url.encode()).hexdigest()[:16]


def urls_of(root: Path) -> list[str]:
    """The remotes that a store was ever opened with."""
    return sorted(file.read_text(encoding="utf-8") for file in root.glob(f"{REMOTES}/*/url"))


def packed(cells: Mapping[str, Sequence[str]]) -> set[str]:
    """Of segments and the keys they hold: those all of whose cells one with more holds, or an equal one."""
    holding: dict[str, set[str]] = defaultdict(set)
    for name, held in cells.items():
        for key in held:
            holding[key].add(name)
    rank = {name: (len(held), name) for name, held in cells.items()}  # so that of equal ones one stays
    return {
        name
        for name, held in cells.items()
        if held and any(rank[o] > rank[name] for o in set.intersection(*(holding[key] for key in held)))
    }


@contextmanager
def passing(root: Path, name: str) -> Iterator[Path]:
    """A file to be written in a store; gone at the end if it was not moved."""
    folder = root / "writing" / new_name()
    folder.mkdir()
    try:
        yield folder / name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
