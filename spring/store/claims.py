"""Claims: of the processes that share a store only one computes a cell."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from spring.store.disk import alive, new_name

EXPIRY = 90  # seconds after which a claim counts no more, unless who holds it says again that it does


class Claims:
    """A folder of claims, each a file named by what is claimed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def hold(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Those of `keys` that nobody else holds; inside the block they are this process's."""
        name = new_name()
        mine = [key for key in keys if self._take(key, name)]
        done = threading.Event()
        pulse = threading.Thread(target=self._renew, args=(mine, done), daemon=True)
        if mine:
            pulse.start()
        try:
            yield mine
        finally:
            done.set()
            for key in mine:
                (self.folder / key).unlink(missing_ok=True)

    def _take(self, key: str, name: str) -> bool:
        """Claims one; a claim whose holder is gone is taken over."""
        path = self.folder / key
        for _ in range(2):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(name)
                return True
            except FileExistsError:
                with self._alone():
                    if _is_stale(path):
                        path.unlink(missing_ok=True)
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside the block no other process takes claims over: it could take one that is a moment old."""
        with self.folder.with_name("taking-over").open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # gone with this process, if it dies
            yield

    def _renew(self, keys: Sequence[str], done: threading.Event) -> None:
        """Says again and again that the claims count."""
        while not done.wait(EXPIRY / 6):
            for key in keys:
                with suppress(FileNotFoundError):
                    os.utime(self.folder / key)


def _is_stale(claim: Path) -> bool:
    """Whether a claim is there and counts no more: its process is gone, or has been silent for long."""
    try:
        text, age = claim.read_text(encoding="utf-8"), time.time() - claim.stat().st_mtime
        if age >= EXPIRY:
            return True
        # who was there may have ended meanwhile, and the claim be another's by now
        return text != "" and not alive(claim.with_name(text)) and claim.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False
