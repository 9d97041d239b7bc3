"""How long the stages take that DVC runs, by what it prints."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

BEGINS = re.compile(r"Running stage '(.*?)':")
SILENT = ("code",)  # a digest of the code, which runs every time


class StageClock:
    """Hears the lines of `dvc repro`; says each stage that ran, with its seconds."""

    def __init__(self, say: Callable[[str], None], pass_on: Callable[[str], None]) -> None:
        self.say, self.pass_on = say, pass_on
        self.stage: str | None = None
        self.began = 0.0
        self.seconds: dict[str, float] = {}

    def hear(self, line: str) -> None:
        """Takes a line."""
        self.pass_on(line)
        if found := BEGINS.match(line):
            self.stop()
            self.stage, self.began = found[1], time.monotonic()

    def stop(self) -> dict[str, float]:
        """Ends the stage at work; the seconds of all."""
        if self.stage is not None:
            spent = time.monotonic() - self.began
            self.seconds[self.stage] = spent
            if self.stage not in SILENT:
                self.say(f"{self.stage}: {spent:.1f} s")
            self.stage = None
        return self.seconds
