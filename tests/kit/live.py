"""A live project for tests, whose updates run in processes that start in no time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from bench.live import BATCHES, START, WEEK, call, environment, make_live, update_command, write_batch

HOUR = timedelta(hours=1)


class LiveProject:
    """A repository with the project's code, live; the weeks of `BATCHES` come when a test says so."""

    def __init__(self, folder: Path, model: Path, python: Path, sets: Iterable[str] = ()) -> None:
        self.folder, self.python = folder, str(python)
        make_live(folder, model, python=self.python, sets=sets)

    def drop(self, week: int) -> None:
        """Puts the texts of a week into the inbox."""
        write_batch(self.folder / f"inbox/week-{week}.jsonl", week, BATCHES[week])

    def update(self, now: datetime) -> str:
        """What an update says that ends well."""
        done = self.run(now)
        assert done.returncode == 0, done.stdout + done.stderr
        return "\n".join(done.stdout.splitlines()[1:])  # without the number of its process

    def run(self, now: datetime, program: str = "flows.live.__main__") -> subprocess.CompletedProcess[str]:
        """An update, however it ends."""
        command = update_command(now, self.python, program=program)
        return subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=300
        )

    def git(self, *words: str) -> str:
        """What Git prints."""
        return call(["git", *words], self.folder)

    def dvc(self, *words: str) -> str:
        """What DVC prints."""
        return call([self.python, "-m", "dvc", *words], self.folder)


def after(weeks: int) -> datetime:
    """An hour after so many weeks."""
    return START + weeks * WEEK + HOUR
