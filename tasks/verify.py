"""Checks every stored byte: cells, here and in their remote, DVC's cache, and data/ against dvc.lock.

    python -m tasks.verify        or: make verify

A damaged cell is set aside in the store's `bad/`, and so is a damaged file of DVC's cache; what in data/ is
the same file under another name is removed: `make repro` computes it again. Other damage is named with what
brings it back; nothing else is changed. A remote (SPRING_CELLS_REMOTE) is read whole: what is damaged there
is put again from here, or set aside as cells are. Exit status 1: something was damaged.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from spring.store.segments import is_whole
from spring.store.shared import Shared, open_store
from tasks.cells.fill import progress
from tasks.files import DATA, cells_folder

CACHE = Path(".dvc/cache/files/md5")
LOCK = Path("dvc.lock")


def main() -> None:
    """Prints what is damaged, and how much was checked."""
    store = open_store(cells_folder())
    segments, cached, outs = store.segments(), sorted(cached_files()), sorted(recorded().items())
    lost: set[tuple[int, int]] = set()  # damaged files, by what tells that two names are one file
    bad = 0
    with progress(len(segments), "cells", "file") as done:
        for file in segments:
            if not is_whole(file):
                bad += 1
                lost.add(same(file))
                store.set_aside(file.name, f"{file.name} is not what was written")
            done(1)
    there = sorted(store.far.entries) if isinstance(store, Shared) else []
    with progress(len(there), "remote", "file") as done:
        for name in there:
            assert isinstance(store, Shared)
            bad += not store.is_whole_there(name)
            done(1)
    with progress(len(cached) + len(outs), "results", "file") as done:
        for file in cached:
            if same(file) in lost or md5_of(file) != file.parent.name + file.name.removesuffix(".dir"):
                bad += same(file) not in lost
                lost.add(same(file))
                file.rename(store.root / "bad" / f"{file.parent.name}{file.name}-{uuid.uuid4().hex}")
                tell(f"{file} is damaged and set aside: `dvc commit` puts it back where data/ is whole")
            done(1)
        for file in [file for file in DATA.rglob("*") if file.is_file() and same(file) in lost]:
            file.unlink()
            tell(f"{file} is damaged and removed: `make repro` computes it again")
        for out, (stage, md5) in outs:
            if problem := differs(Path(out), md5):
                bad += 1
                tell(
                    f"{problem}: `dvc checkout --force {out}` brings it back from the cache, "
                    f"`dvc repro --force --single-item {stage}` makes it again"
                )
            done(1)
    print(
        f"{len(list(store))} cells in {len(segments)} files"
        f"{f' and {len(there)} of the remote' if there else ''}, {len(cached)} files of DVC's cache, "
        f"{len(outs)} results: {bad} damaged"
    )
    sys.exit(bad > 0)


def same(file: Path) -> tuple[int, int]:
    """What two names of one file have in common."""
    state = file.stat()
    return state.st_dev, state.st_ino


def tell(line: str) -> None:
    """What is damaged, apart from what was asked for."""
    print(line, file=sys.stderr)


def cached_files() -> Iterator[Path]:
    """The files of DVC's cache, each named by the md5 of its content."""
    return (file for file in CACHE.glob("??/*") if file.is_file())


def recorded() -> dict[str, tuple[str, str]]:
    """Path of a result -> the stage that made it, and its md5, by dvc.lock."""
    if not LOCK.exists():
        return {}
    stages: dict[str, Any] = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]
    return {
        out["path"]: (name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", [])
    }


def differs(path: Path, md5: str) -> str | None:
    """What of a result is not as it was recorded; null where all is."""
    if not path.exists():
        return f"{path} is missing"
    found = folder_md5(path) if path.is_dir() else md5_of(path)
    return None if found == md5 else f"{path} is not what dvc.lock says"


def md5_of(file: Path) -> str:
    """The md5 of a file's content, as DVC takes it."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def folder_md5(folder: Path) -> str:
    """What DVC calls a folder: the md5 of the list of its files."""
    files = sorted(
        (file.relative_to(folder) for file in folder.rglob("*") if file.is_file()), key=lambda p: p.parts
    )
    held = [{"md5": md5_of(folder / file), "relpath": file.as_posix()} for file in files]
    text = json.dumps(held, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


if __name__ == "__main__":
    main()
