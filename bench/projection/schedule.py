"""The driver and its workers: chunks are handed out one after the other, to whoever is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace


@dataclass(frozen=True)
class Driver:
    """What one process does for each chunk, seconds: claims, sends, looks for its cells, settles."""

    each: float
    listing: float  # more for every segment that is there by then: each look lists their names

    def seconds(self, number: int) -> float:
        """For the chunk after so many others."""
        return self.each + self.listing * number

    def all(self, chunks: int) -> float:
        """For so many chunks."""
        return chunks * self.each + self.listing * chunks * (chunks - 1) / 2


def makespan(chunks: Sequence[float], workers: int, driver: Driver, *, start: float = 0.0) -> float:
    """Seconds until chunks of so many seconds each are done, the longest first (cells/cluster/queue.py).

    `start`: until a worker can compute. The driver does one thing at a time; workers wait for it.
    """
    free = [start] * min(workers, len(chunks))
    heapify(free)
    driven, last = 0.0, 0.0
    for number, seconds in enumerate(sorted(chunks, reverse=True)):
        driven = max(driven, free[0]) + driver.seconds(number)
        last = max(last, driven + seconds)
        heapreplace(free, driven + seconds)
    return last
