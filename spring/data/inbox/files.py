"""The files of an inbox: which are there, which rest, and whether their bytes were looked at before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spring.data.inbox.digest import digest_file
from spring.data.inbox.ledger import WRITING
from spring.data.rows import SourceError
from spring.data.sources.formats.parts import known_format
from spring.data.sources.table import FORMATS

SETTLE = 3.0  # seconds since the last write after which a file rests
UNFINISHED = (".part", ".tmp", ".partial", ".crdownload", ".filepart")  # what writers call a file meanwhile
SEEN = "seen.json"


@dataclass(frozen=True)
class Found:
    """A file as it was when it was found."""

    path: Path
    name: str  # in the inbox, with slashes
    state: tuple[int, ...]

    def changed(self) -> bool:
        """Whether it was written to since, replaced or removed."""
        return not self.path.is_file() or state_of(self.path) != self.state

    def digest(self) -> str:
        """The sha256 of its bytes."""
        return digest_file(self.path)


class Seen:
    """Files that were read before, by size and times, so that they need not be read again to be known."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, dict[str, list[object]]()
        try:
            self.before: dict[str, list[object]] = json.loads((folder / SEEN).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # it only spares reading
            self.before = {}

    def digest(self, found: Found) -> str | None:
        """The digest of a file; null where it was written to while it was read."""
        state, digest = self.before.get(found.name, [None, None])
        if state != list(found.state):
            digest = found.digest()
            if found.changed():
                return None
        self.now[found.name] = [list(found.state), digest]
        return str(digest)

    def keep(self) -> None:
        """Notes what is there now."""
        new = self.folder / WRITING / SEEN
        new.write_text(json.dumps(self.now), encoding="utf-8")
        new.replace(self.folder / SEEN)


def state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def look(inbox: Path, waiting: list[str], others: list[str]) -> Iterator[Found]:
    """The tables of an inbox that rest, by name; `waiting` and `others` get the names of what is none.

    Of a single file, that file. Raises SourceError where there is no inbox.
    """
    if not inbox.exists():
        raise SourceError(f"ingest.inbox.folder: {inbox} does not exist (seen from {Path.cwd()})")
    within = inbox if inbox.is_dir() else inbox.parent
    paths = sorted(path for path in inbox.rglob("*") if path.is_file()) if inbox.is_dir() else [inbox]
    for path in paths:
        name = path.relative_to(within).as_posix()
        if any(part.startswith((".", "_")) for part in Path(name).parts):
            continue  # the writers' own notes
        if path.name.lower().endswith(UNFINISHED):
            waiting.append(name)
        elif known_format(path, FORMATS) is None:
            others.append(name)
        elif (state := state_of(path))[1] == 0 or abs(time.time() - path.stat().st_mtime) < SETTLE:
            waiting.append(name)
        else:
            yield Found(path, name, state)
