"""Checks every stored byte: cells, DVC's cache, and the results in data/ against dvc.lock.

    python -m tasks.verify        or: make verify

A damaged cell is set aside in `bad/` and computed again by whoever asks for it. What else is damaged is named
with what brings it back; nothing else is changed. Exit status 1: something was damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from spring.store import MANIFEST, CellStore
from tasks.cells.fill import progress

CACHE = Path(".dvc/cache/files/md5")
LOCK = Path("dvc.lock")


def main() -> None:
    """Prints what is damaged, and how much was checked."""
    store = CellStore(Path(os.environ.get("SPRING_CELLS", ".cells")))
    keys, cached, outs = list(store.keys()), sorted(cached_files()), sorted(recorded().items())
    bad = old = 0
    with progress(len(keys), "cells", "cell") as done:
        for key in keys:
            if (store.path(key) / MANIFEST).exists():
                bad += bool(store.missing([key]))
            else:
                old += 1
            done(1)
    with progress(len(cached) + len(outs), "results", "file") as done:
        for file in cached:
            if md5_of(file) != file.parent.name + file.name.removesuffix(".dir"):
                bad += 1
                print(
                    f"{file} is damaged: delete it, then `dvc commit` puts it back from data/",
                    file=sys.stderr,
                )
            done(1)
        for out, (stage, md5) in outs:
            if problem := differs(Path(out), md5):
                bad += 1
                tell(
                    f"{problem}: `dvc checkout --force {out}` brings it back from the cache, "
                    f"`dvc repro --force --single-item {stage}` makes it again"
                )
            done(1)
    if old:
        print(f"{old} cells are of an earlier version, or have lost their manifest: nothing reads them")
    print(f"{len(keys)} cells, {len(cached)} files of DVC's cache, {len(outs)} results: {bad} damaged")
    sys.exit(bad > 0)


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
