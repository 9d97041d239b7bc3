"""The cell store: results that are never computed twice.

A cell is the result for one recipe, user and period. Its key is the sha256 of everything the result depends
on: the code, the parameters that matter, the bytes of the input rows and the key of the cell it starts
from. Cells of one batch become visible together, by renames: after `kill -9` a batch is either there or not.

A cell says what it holds (`MANIFEST`): after a power cut or on a bad disk only whole cells count, and what is
damaged is set aside in `bad/` and computed again. Who computes a cell claims it: of the processes that share
a store only one does.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spring.code import code_digest, modules_of

FORMAT = 2
MANIFEST = ".manifest.json"  # in a cell: size and sha256 of every other file
DAY = 86400  # seconds
EXPIRY = 90  # seconds after which a claim counts no more, unless who holds it says again that it does


def cell_key(module: str, **parts: Any) -> str:
    """sha256 of named parts, and of the code that `module` and the classes of the parts can reach.

    Parts are JSON values, or parameter models and dataclasses of them; a field of a dataclass that takes no
    part in comparisons takes none here.
    """
    code = code_digest(module, *sorted(modules_of(parts) - {module}))
    plain = json.dumps({"format": FORMAT, "code": code, **parts}, sort_keys=True, default=as_json)
    return hashlib.sha256(plain.encode()).hexdigest()


def as_json(value: Any) -> Any:
    """What JSON has no word for: parameter models and dataclasses."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.compare}
    raise TypeError(f"{value!r} is no JSON value")


def fingerprint(value: Any, length: int = 12) -> str:
    """Short, stable name of any combination of parameter models and JSON values."""
    plain = json.dumps(value, sort_keys=True, default=as_json)
    return hashlib.sha256(plain.encode()).hexdigest()[:length]


class CellStore:
    """A folder of cells, each a folder named by its key. Several processes may share it, also of several
    machines that share the disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("cells", "writing", "complete", "claims", "bad"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._whole: set[str] = set()  # keys of cells that this process has checked
        self._recover()

    def path(self, key: str) -> Path:
        """Where the cell `key` lies or would lie."""
        assert len(key) == 64 and key.isalnum(), "keys come from cell_key"
        return self.root / "cells" / key[:2] / key

    def __contains__(self, key: str) -> bool:
        return not self.missing([key])

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those keys that have no whole cell yet, in order; a damaged cell is set aside, and told."""
        return [key for key in keys if key not in self._whole and not self._check(key)]

    def keys(self) -> Iterator[str]:
        """The keys of all cells that are there, whole or not."""
        for folder in sorted((self.root / "cells").iterdir()):
            yield from (path.name for path in sorted(folder.iterdir()))

    def _check(self, key: str) -> bool:
        """Whether a cell is there and whole."""
        path = self.path(key)
        if not path.is_dir():
            return False
        problem = damage(path)
        if problem is None:
            self._whole.add(key)
            return True
        try:
            path.rename(self.root / "bad" / f"{key}-{uuid.uuid4().hex}")
        except FileNotFoundError:  # another process has set it aside
            return False
        print(f"a cell of {self.root} is damaged and computed again: {problem}", file=sys.stderr)
        return False

    # --- writing ------------------------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Cells written inside the block become visible together at its end, or not at all."""
        folder = self.root / "writing" / _folder_name()
        folder.mkdir()
        try:
            yield Batch(folder)
            for cell in folder.iterdir():
                seal(cell)
            complete = self.root / "complete" / folder.name
            folder.rename(complete)
            sync(complete.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._publish(complete)

    def _publish(self, complete: Path) -> None:
        """Moves every cell of a complete batch to its place; safe to repeat after a crash."""
        for cell in sorted(complete.iterdir()):
            target = self.path(cell.name)
            target.parent.mkdir(exist_ok=True)
            try:
                cell.rename(target)
            except OSError:  # another process published the same cell
                if not target.is_dir():
                    raise
                shutil.rmtree(cell)
        complete.rmdir()

    def _recover(self) -> None:
        """Publishes batches that a killed process had completed; clears what it had begun."""
        for complete in sorted((self.root / "complete").iterdir()):
            if not _alive(complete):
                mine = complete.with_name(_folder_name())
                try:
                    complete.rename(mine)
                except FileNotFoundError:  # another process recovers it
                    continue
                self._publish(mine)
        for begun in (self.root / "writing").iterdir():
            if not _alive(begun):
                shutil.rmtree(begun, ignore_errors=True)

    # --- claims -------------------------------------------------------------------------------------------

    @contextmanager
    def claim(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Those of `keys` that nobody else is computing; inside the block they are this process's."""
        mine = [key for key in keys if self._take(key)]
        done = threading.Event()
        pulse = threading.Thread(target=self._hold, args=(mine, done), daemon=True)
        if mine:
            pulse.start()
        try:
            yield mine
        finally:
            done.set()
            for key in mine:
                (self.root / "claims" / key).unlink(missing_ok=True)

    def _take(self, key: str) -> bool:
        """Claims one cell; a claim whose holder is gone is taken over."""
        path = self.root / "claims" / key
        for _ in range(2):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(_folder_name())
                return True
            except FileExistsError:
                if _holds(path):
                    return False
                path.unlink(missing_ok=True)
        return False

    def _hold(self, keys: Sequence[str], done: threading.Event) -> None:
        """Says again and again that the claims count."""
        while not done.wait(EXPIRY / 6):
            for key in keys:
                with suppress(FileNotFoundError):
                    os.utime(self.root / "claims" / key)


class Batch:
    """Cells being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cell(self, key: str) -> Path:
        """A new, empty folder for the cell `key`."""
        path = self.folder / key
        path.mkdir()
        return path


def seal(cell: Path) -> None:
    """Writes a cell's manifest, and all of it to the disk."""
    held = {file.name: _state(file) for file in sorted(cell.iterdir())}
    (cell / MANIFEST).write_text(json.dumps(held), encoding="utf-8")
    for file in cell.iterdir():
        sync(file)
    sync(cell)


def damage(cell: Path) -> str | None:
    """What is wrong with a cell's files; null if it is whole."""
    try:
        held = json.loads((cell / MANIFEST).read_text(encoding="utf-8"))
        there = {file.name for file in cell.iterdir()} - {MANIFEST}
        if there != held.keys():
            return f"{cell.name} lacks or has besides {', '.join(sorted(there ^ held.keys()))}"
        changed = [name for name, state in held.items() if _state(cell / name) != state]
    except (OSError, ValueError, AttributeError) as error:
        return f"{cell.name}: {error}"
    return f"{cell.name}: {', '.join(changed)} is not what was written" if changed else None


def _state(file: Path) -> list[Any]:
    with file.open("rb") as handle:
        return [file.stat().st_size, hashlib.file_digest(handle, "sha256").hexdigest()]


def sync(path: Path) -> None:
    """Has the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _holds(claim: Path) -> bool:
    """Whether a claim counts: its process runs, and has said so lately."""
    try:
        text, age = claim.read_text(encoding="utf-8"), time.time() - claim.stat().st_mtime
    except FileNotFoundError:
        return False
    return age < EXPIRY and (not text or _alive(claim.with_name(text)))


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _folder_name() -> str:
    """A new name that tells which process of which machine writes the folder."""
    return f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex}"


def _alive(folder: Path) -> bool:
    """Whether the process that writes `folder` still runs; on another machine, if it wrote within a day."""
    machine, _, rest = folder.name.partition("-")
    pid, _, unique = rest.partition("-")
    if not unique:  # named by an earlier version
        return False
    if machine != _machine():
        try:
            return time.time() - folder.stat().st_mtime < DAY
        except FileNotFoundError:  # it is done
            return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
