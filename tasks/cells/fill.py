"""Filling the store: what is missing among the cells that a stage asks for is computed, group by group.

Here, or by a crew of other processes (tasks/cells/cluster): the same cells together either way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from spring.store.cells import CellStore
from tasks.cells.workbench import Chunk, Tell, Workbench, silent

Job = TypeVar("Job")
Group = TypeVar("Group")  # can be hashed
PATIENCE = 1.0  # seconds between two looks at what others compute
UNPACKED = 256  # segments of one group that may lie unpacked: each look lists them all


def fill(
    bench: Workbench,
    jobs: Sequence[Job],
    *,
    key: Callable[[Workbench, Job], str],
    compute: Callable[[Workbench, Group, dict[str, Job], Meter], None],
    group: Callable[[Job], Group],
    at_once: int,
    amount: Callable[[Job], int],
    what: str,
    unit: str,
) -> list[str]:
    """Keys of the cells of all jobs, in order; those that are missing are computed.

    Cells of one group are computed together, `at_once` of them at a time. `amount` of a job is what the bar
    counts, in `unit`.
    """
    keys = [key(bench, job) for job in jobs]
    named = dict(zip(keys, jobs, strict=True))
    lacking = set(bench.store.missing(named))
    groups: dict[Group, list[str]] = {}
    for name, job in named.items():
        groups.setdefault(group(job), []).append(name)
    todo = {shared: [n for n in members if n in lacking] for shared, members in groups.items()}
    todo = {shared: members for shared, members in todo.items() if members}
    if todo:
        sizes = {name: amount(named[name]) for members in todo.values() for name in members}

        def chunk(shared: Group, some: Sequence[str]) -> Chunk:
            return Chunk(compute, shared, {n: named[n] for n in some}, {n: sizes[n] for n in some})

        with progress(sum(sizes.values()), what, unit, bench.tell) as meter:
            if bench.crew is None:
                packing = Packing(bench.store)
                for shared, members in todo.items():
                    for some in ours(bench.store, members, at_once):
                        chunk(shared, some).run(bench, meter)
                        packing.add(shared, some)
            else:
                size = bench.crew.per_task or at_once
                chunks = [chunk(shared, some) for shared, all in todo.items() for some in parts(all, size)]
                bench.crew.compute(chunks, meter, what)
        for shared in todo:  # with what a run that was killed had left in small pieces
            bench.store.pack(groups[shared])
    return keys


def parts(names: Sequence[str], size: int) -> list[Sequence[str]]:
    """`names` in order, so many at a time."""
    return [names[start : start + size] for start in range(0, len(names), size)]


def ours(store: CellStore, names: Sequence[str], at_once: int) -> Iterator[list[str]]:
    """`names` in parts, each claimed while it is out; what another process computes is waited for."""
    left = list(names)
    while left:
        taken = 0
        for part in parts(left, at_once):
            with store.claim(part) as mine:
                taken += len(mine)
                if some := store.missing(mine):
                    yield some
        left = store.missing(left)
        if left and not taken:
            time.sleep(PATIENCE)


class Packing:
    """Packs the cells of each group as they come, many segments at a time."""

    def __init__(self, store: CellStore) -> None:
        self.store = store
        self._new: dict[Any, list[Sequence[str]]] = {}  # by group: the cells of each segment

    def add(self, shared: Any, keys: Sequence[str]) -> None:
        """A segment with these cells of a group is there."""
        new = self._new.setdefault(shared, [])
        new.append(keys)
        if len(new) == UNPACKED:
            self.store.pack([key for part in new for key in part])
            new.clear()


class Meter:
    """How far one filling is: a bar, and what is told to those who follow it from outside."""

    def __init__(self, bar: tqdm[Any], what: str, tell: Tell) -> None:
        self.bar, self.what, self.tell = bar, what, tell

    def __call__(self, amount: int) -> None:
        """So much more is done."""
        self.bar.update(amount)
        self._told()

    def losses(self, losses: Sequence[float]) -> None:
        """The training loss of every adapter at its last step, nats per response token."""
        self._told(loss=sum(losses) / len(losses))

    def _told(self, **numbers: float) -> None:
        self.tell(
            {"what": self.what, "unit": self.bar.unit, "done": self.bar.n, "of": self.bar.total} | numbers
        )


@contextmanager
def progress(total: int, what: str, unit: str, tell: Tell = silent) -> Iterator[Meter]:
    """A bar with rate and estimate; in a log, a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30
    with tqdm(
        total=total, desc=what, unit=unit, unit_scale=unit == "tok", mininterval=interval, dynamic_ncols=True
    ) as bar:
        yield Meter(bar, what, tell)
