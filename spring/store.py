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
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

FORMAT = 1
DAY = 86400  # seconds
MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}  # what decides what it computes


def cell_key(**parts: Any) -> str:
    """sha256 of named parts: JSON values, or models that can be dumped to them."""
    plain = json.dumps(
        {"format": FORMAT, **parts}, sort_keys=True, default=lambda model: model.model_dump(mode="json")
    )
    return hashlib.sha256(plain.encode()).hexdigest()


def code_digest(*modules: str) -> str:
    """sha256 of the sources of modules or packages, named from the project's root ("spring/engine/lora")."""
    return _code_digest(tuple(sorted(modules)))


@cache
def _code_digest(modules: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in modules:
        path = root / name
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def model_digest(folder: Path, *, leave_out: Collection[str] = ()) -> str:
    """sha256 over names and contents of everything in a model's folder that changes what it computes."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in MODEL_FILES and file.name not in leave_out:
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                while chunk := handle.read(1 << 22):
                    digest.update(chunk)
    return digest.hexdigest()


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
