"""What the stage ingest made of a source that nothing outside decides (personas): kept in data/.made.

The stage runs with every `dvc repro`, since sources lie outside; what follows from parameters and code alone
would be made again each time, which takes half a minute with 10,000 users. One such state is kept, beside
what DVC empties, under a name for all that it follows from; each file with its digest.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Collection
from pathlib import Path

import polars as pl

from spring.code import Code
from spring.settings.params import Params
from spring.store.keys import fingerprint
from tasks.files import DATA, atomic, write_json

KEPT = DATA / ".made"
DIGESTS = KEPT / "digests.json"


def state_of(params: Params, forgotten: Collection[str] = ()) -> str:
    """A name for all that the tables of a made source follow from; `forgotten`: marks of who is left out."""
    versions = platform.python_version(), pl.__version__
    settings = params.ingest.model_dump(mode="json"), params.prompts
    parts = [Code().digest("tasks.ingest"), versions, params.seed, settings]
    return fingerprint([*parts, sorted(forgotten)] if forgotten else parts, length=64)


def lay_out(state: str, files: list[Path]) -> bool:
    """Copies the files of `state` to their places; false, and nothing done, where any is not kept whole."""
    told = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.exists() else {}
    if told.get("state") != state or any(
        told["files"].get(file.name) != digest(kept(file)) for file in files
    ):
        return False
    for file in files:
        with atomic(file) as temporary:
            shutil.copyfile(kept(file), temporary)
    return True


def keep(state: str, files: list[Path]) -> None:
    """Keeps files in place of those of before; the digests come last, so that no half of it counts."""
    DIGESTS.unlink(missing_ok=True)
    for file in files:
        with atomic(kept(file)) as temporary:
            shutil.copyfile(file, temporary)
    write_json({"state": state, "files": {file.name: digest(kept(file)) for file in files}}, DIGESTS)


def kept(file: Path) -> Path:
    """Where a file of the stage is kept."""
    return KEPT / file.name


def digest(file: Path) -> str | None:
    """sha256 of a file; null: there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
