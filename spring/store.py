"""The cell store: results that are never computed twice.

A cell is the result for one recipe, user and period. Its key is the sha256 of everything the result depends
on: the code, the parameters that matter, the bytes of the input rows and the key of the cell it starts
from. Cells of one batch become visible together, by renames: after `kill -9` a batch is either there or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spring.code import code_digest, modules_of

FORMAT = 1
DAY = 86400  # seconds


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
        for name in ("cells", "writing", "complete"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._recover()

    def path(self, key: str) -> Path:
        """Where the cell `key` lies or would lie."""
        assert len(key) == 64 and key.isalnum(), "keys come from cell_key"
        return self.root / "cells" / key[:2] / key

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_dir()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those keys that have no cell yet, in order."""
        return [key for key in keys if key not in self]

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Cells written inside the block become visible together at its end, or not at all."""
        folder = self.root / "writing" / _folder_name()
        folder.mkdir()
        try:
            yield Batch(folder)
            complete = self.root / "complete" / folder.name
            folder.rename(complete)
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


class Batch:
    """Cells being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cell(self, key: str) -> Path:
        """A new, empty folder for the cell `key`."""
        path = self.folder / key
        path.mkdir()
        return path


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
