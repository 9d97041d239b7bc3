"""The chunks of one filling on their way: which go out next, and which have come back.

The driver claims the cells of a chunk while it is out, as every process does that shares the store, and looks
for them in the store when it is back: only what it sees there is done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from spring.store.cells import CellStore
from spring.store.shared import Shared
from tasks.cells.cluster.nodes import ClusterError
from tasks.cells.fill import PATIENCE, Packing
from tasks.cells.workbench import Chunk

LOST = 3  # workers that one chunk may lose
SEEN = 5.0  # seconds in which what other drivers have made may be overlooked, and be computed again
LAG = 120.0  # seconds in which what a worker wrote must be seen here: disks of networks take some


@dataclass(eq=False)
class Task:
    """A chunk; what of it is claimed, was sent, and since when that is written; how many workers it lost."""

    chunk: Chunk
    claim: ExitStack = field(default_factory=ExitStack)
    sent: set[str] = field(default_factory=set)
    written: float | None = None
    due: float = 0.0  # when it may go out
    waited: bool = False  # for another process, or a slow disk
    lost: int = 0

    @property
    def amount(self) -> int:
        """What the bar counts of it."""
        return sum(self.chunk.amounts.values())


class Queue:
    """The longest chunk goes out first, so that no worker is busy for long when there is nothing left."""

    def __init__(self, store: CellStore, chunks: Sequence[Chunk]) -> None:
        self.store = store
        tasks = sorted((Task(chunk) for chunk in chunks), key=lambda task: task.amount, reverse=True)
        self.waiting, self.out = deque(tasks), set[Task]()
        self.finished = 0  # amount
        self.packing = Packing(store)

    def __len__(self) -> int:
        """Chunks that are not done."""
        return len(self.waiting) + len(self.out)

    def take(self) -> tuple[Task, Chunk] | None:
        """The next chunk, and what of it is missing and nobody else computes; null: nothing may go out."""
        for _ in range(len(self.waiting)):
            task = self.waiting.popleft()
            if task.due > time.monotonic():
                self.waiting.append(task)
                continue
            mine = task.claim.enter_context(self.store.claim(task.chunk.jobs))
            if some := self.store.missing(mine, seen=0 if task.waited else SEEN):
                self.out.add(task)
                task.sent.update(some)
                return task, task.chunk.only(some)
            self._settle(task)
        return None

    def back(self, task: Task, segments: Sequence[str]) -> None:
        """Its worker says that all it was sent is in the store, in these segments."""
        self.store.learn(segments)
        task.written = task.written or time.monotonic()
        self.out.remove(task)
        self._settle(task)

    def lose(self, task: Task, reason: str) -> None:
        """Its worker is gone: it goes out again, but not for ever."""
        self.out.remove(task)
        task.claim.close()
        task.lost += 1
        if task.lost == LOST:
            raise ClusterError(
                f"{LOST} workers ended over the same {len(task.chunk.jobs)} cells ({reason}): if memory ran "
                f"out, lower execution.workers or model.memory_gb; what is finished is kept"
            )
        self.waiting.appendleft(task)

    def release(self) -> None:
        """Nothing is claimed any more."""
        for task in (*self.out, *self.waiting):
            task.claim.close()

    def _settle(self, task: Task) -> None:
        """It is done if all its cells are there; else it waits, for another process or a slow disk."""
        task.claim.close()
        left = self.store.missing(task.chunk.jobs)
        if not left:
            self.finished += task.amount
            self.packing.add(task.chunk.shared, list(task.chunk.jobs))
            return
        if task.written is not None and time.monotonic() - task.written > LAG and task.sent & set(left):
            place = self.store.remote.url if isinstance(self.store, Shared) else self.store.root
            raise ClusterError(
                f"workers wrote cells into {place} that do not appear here after {LAG:.0f} s: it must show "
                f"all machines the same"
            )
        task.due, task.waited = time.monotonic() + PATIENCE, True
        self.waiting.append(task)
