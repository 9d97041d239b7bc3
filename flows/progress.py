"""How far a run is: one progress artifact, moved by ended stages and by the bars that long stages print."""

from __future__ import annotations

import re
import time
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact

BAR = re.compile(r"^(?P<what>.*?):?\s*(?P<percent>\d+)%\|.*\|\s*(?P<count>\S+/\S+) \[")  # as tqdm draws it
EVERY = 5.0  # seconds between two updates within a stage


def bar_of(line: str) -> tuple[float, str] | None:
    """The share done and the words of a line that is a bar of tqdm; null: it is none."""
    found = BAR.match(line)
    if found is None:
        return None
    return int(found["percent"]) / 100, f"{found['what'].strip()} {found['count']}".strip()


class Progress:
    """The artifact `progress` of a run of `total` stages, which may be set later."""

    def __init__(self, total: int = 1) -> None:
        self.total, self.ended = total, 0
        self.stage, self.shown_at = "", 0.0
        made = create_progress_artifact(0.0, key="progress", description="starting")
        self.artifact = cast(UUID, made)  # typed as if it might be awaited

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self.stage = stage
        self._show(0.0, "")

    def hear(self, line: str) -> None:
        """A line of the stage: a bar moves the artifact."""
        found = bar_of(line)
        if found and time.monotonic() - self.shown_at >= EVERY:
            self._show(*found)

    def end(self) -> None:
        """The stage has ended."""
        self.ended += 1
        if self.ended == self.total:
            self.stage = "all stages"
            self._show(0.0, "done")

    def _show(self, share: float, what: str) -> None:
        self.shown_at = time.monotonic()
        number = min(self.ended + 1, self.total)
        description = f"{self.stage} ({number} of {self.total}){': ' if what else ''}{what}"
        try:
            update_progress_artifact(self.artifact, 100 * (self.ended + share) / self.total, description)
        except httpx.HTTPError:  # a server that is away for a moment stops no stage
            return
