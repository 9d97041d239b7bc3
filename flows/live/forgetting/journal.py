"""What a forgetting needs to be finished after it was stopped: whom, and what tells of them. Removed last.

LIVE/.forgetting.json   for its owner's eyes only (mode 600), in neither Git nor DVC
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from flows.live.versions import LiveError
from spring.live.traces import Traces
from spring.store.disk import sync

JOURNAL = ".forgetting.json"


@dataclass(frozen=True)
class Journal:
    """A forgetting that has begun."""

    traces: Traces
    cells: frozenset[str]  # keys of cells that learned from them, by all tables that are there
    stages: tuple[str, ...] = ()  # in order, those whose results were there when it began
    learned: bool = False  # whether all stages have run again without them

    def write(self, folder: Path) -> None:
        """Begins: from now on it is finished, by whichever command comes next."""
        new = folder / f"{JOURNAL}.new"
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            more = {"cells": sorted(self.cells), "stages": self.stages, "learned": self.learned}
            json.dump(self.traces.as_json() | more, file)
        sync(new)
        new.replace(folder / JOURNAL)
        sync(folder)


def read_journal(folder: Path) -> Journal | None:
    """The one that was begun; null: none was."""
    file = folder / JOURNAL
    if not file.exists():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        cells, stages = frozenset(kept["cells"]), tuple(kept["stages"])
        return Journal(Traces.from_json(kept), cells, stages, bool(kept["learned"]))
    except (ValueError, LookupError, TypeError) as error:
        raise LiveError(f"{file} is damaged ({error}): remove it, and say spring forget USER again") from None


def end_journal(folder: Path) -> None:
    """All is done: the last file that has them goes."""
    (folder / f"{JOURNAL}.new").unlink(missing_ok=True)
    (folder / JOURNAL).unlink(missing_ok=True)
