"""Claims of processes that share a remote alone: of all machines only one computes a cell.

    claims/KEY.N          made only if it is not there, which a store must be able to: holds the holder's name
    claims/beat-HOLDER    written again and again while the holder works

The highest N counts. Where its holder is gone, or has been silent for long, who makes N + 1 takes over: two
cannot, and nothing is ever deleted under somebody. All times are the store's.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from spring.store import claims
from spring.store.cells import StoreError
from spring.store.claims import Claims
from spring.store.disk import alive, new_name
from spring.store.remote import Entry, Remote, at_once

BEAT = "beat-"
LOOK = 5.0  # seconds in which is not asked again for what another machine holds
NAME = 1024  # bytes that no name of a holder has


class RemoteClaims(Claims):
    """Claims of this machine, which are a matter of its folder, and then of all machines."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        super().__init__(folder)
        self.remote = remote
        self.exclusive: bool | None = None  # null: not tried yet
        self._holders: dict[str, str] = {}  # claim -> who held it when it was read
        self._due: dict[str, float] = {}  # when to ask again for what others hold

    @contextmanager
    def hold(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Those of `keys` that nobody else holds; inside the block they are this process's."""
        with super().hold(keys) as mine:
            if self.exclusive is not False:
                mine = [key for key in mine if time.monotonic() >= self._due.get(key, 0.0)]
            if not mine:
                yield []
                return
            with self._hold_remote(mine) as taken:
                yield taken

    @contextmanager
    def _hold_remote(self, keys: Sequence[str]) -> Iterator[list[str]]:
        holder = new_name()
        if not self._begin(holder):
            yield list(keys)
            return
        rubbish, done = [f"claims/{BEAT}{holder}"], threading.Event()
        threading.Thread(target=self._beat, args=(holder, done), daemon=True).start()
        try:
            yield self._take_free(keys, holder, rubbish)
        finally:
            done.set()
            with suppress(StoreError):  # without a network they expire
                self.remote.remove(dict.fromkeys(rubbish))

    def _begin(self, holder: str) -> bool:
        """Shows that a holder lives; false: the store cannot make an object only if there is none."""
        beat = f"claims/{BEAT}{holder}"
        if self.exclusive is not False:
            made = self.remote.create(beat, b"")
        if self.exclusive is None:
            self.exclusive = made and self.remote.may_create and not self.remote.create(beat, b"")
            if not self.exclusive:
                self.remote.remove([beat])
                print(
                    f"{self.remote.url} cannot make an object only if there is none: machines that share it "
                    f"may compute a cell twice, and the first is kept",
                    file=sys.stderr,
                )
        return self.exclusive

    def _take_free(self, keys: Sequence[str], holder: str, rubbish: list[str]) -> list[str]:
        """Claims what nobody holds. `rubbish`: what goes when it is given back, with what was taken over."""
        there = self.remote.listed("claims")
        now = there.get(f"{BEAT}{holder}", Entry(0, time.time())).time
        latest = latest_of(there)
        held = [key for key in keys if key in latest]
        stale = at_once(lambda key: self._is_stale(f"{key}.{latest[key]}", there, now), held)
        busy = {key for key, gone in zip(held, stale, strict=True) if not gone}
        free = [key for key in keys if key not in busy]
        names = {key: f"{key}.{latest.get(key, -1) + 1}" for key in free}
        made = at_once(lambda key: self.remote.create(f"claims/{names[key]}", holder.encode()), free)
        taken = [key for key, is_mine in zip(free, made, strict=True) if is_mine]
        for key in taken:
            before = [f"{key}.{number}" for number in range(latest.get(key, -1) + 1)]
            rubbish += [f"claims/{name}" for name in (names[key], *before)]
            rubbish += [f"claims/{BEAT}{self._holders[name]}" for name in before if name in self._holders]
        self._due |= dict.fromkeys({*keys} - {*taken}, time.monotonic() + LOOK)
        return taken

    def _is_stale(self, claim: str, there: Mapping[str, Entry], now: float) -> bool:
        """Whether a claim counts no more: its process is gone, or has been silent for long."""
        if claim in self._holders and not silent(self._holders[claim], claim, there, now):
            return False
        try:  # it may be another's by now
            self._holders[claim] = self.remote.read(f"claims/{claim}", NAME).decode()
        except FileNotFoundError:  # given back
            return False
        return silent(self._holders[claim], claim, there, now)

    def _beat(self, holder: str, done: threading.Event) -> None:
        """Says again and again that the claims count."""
        while not done.wait(claims.EXPIRY / 6):
            with suppress(StoreError):
                self.remote.write(f"claims/{BEAT}{holder}", b"")


def latest_of(there: Iterable[str]) -> dict[str, int]:
    """Key -> the highest number of its claims."""
    found: dict[str, int] = {}
    for name in there:
        key, _, number = name.rpartition(".")
        if number.isdigit():
            found[key] = max(found.get(key, 0), int(number))
    return found


def silent(holder: str, claim: str, there: Mapping[str, Entry], now: float) -> bool:
    """Whether nothing was heard of a holder for long, or it is a process of this machine that is gone."""
    if holder and not alive(Path(holder)):
        return True
    last = there.get(f"{BEAT}{holder}", there[claim])
    return now - last.time >= claims.EXPIRY
