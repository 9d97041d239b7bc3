"""Filling the store: what a run that was killed had left in small pieces is packed by the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spring.store.cells import CellStore
from spring.store.keys import cell_key
from tasks.cells.fill import fill
from tasks.cells.workbench import silent


@dataclass
class Bench:
    """What `fill` asks of a workbench."""

    store: CellStore
    tell: Any
    crew: None = None


def write(store: CellStore, jobs: dict[str, int]) -> None:
    with store.batch() as batch:
        for key, job in jobs.items():
            batch[key] = {"value": str(job).encode()}


def test_what_was_left_in_pieces_is_packed_with_its_own_group_alone(tmp_path: Path) -> None:
    """Jobs 0 to 5 of two groups; 0, 1 and 2 lie there one by one, as a killed run leaves them."""
    keys = [cell_key("spring.code", number=job) for job in range(6)]
    for job in range(3):
        write(CellStore(tmp_path), {keys[job]: job})
    asked: list[list[int]] = []

    def compute(bench: Any, shared: int, jobs: dict[str, int], done: Any) -> None:
        asked.append(list(jobs.values()))
        write(bench.store, jobs)
        done(len(jobs))

    bench: Any = Bench(CellStore(tmp_path), silent)
    found = fill(
        bench,
        list(range(6)),
        key=lambda _, job: keys[job],
        compute=compute,
        group=lambda job: job % 2,
        at_once=1,
        amount=lambda _: 1,
        what="test",
        unit="job",
    )
    assert found == keys and sorted(asked) == [[3], [4], [5]]
    held = [CellStore(tmp_path)._segment(path.name).keys for path in bench.store.segments()]
    assert sorted(held) == sorted([keys[0::2], keys[1::2]])
