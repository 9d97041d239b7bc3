"""Independent batches side by side, one processor core each.

A model of this size spends most of its time in operations too small to be split over cores; two batches on
one core each finish sooner than one after the other on both. The memory budget is shared (budget.py), so
that more cores mean smaller batches and, as with any other size of batch, other last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(device: torch.device) -> int:
    """Batches that can run side by side: one per core of a processor, one on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def each(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device, *, one: bool = False
) -> list[Result]:
    """`work` of every item, in order; on a processor each call has one core to itself.

    one: one call at a time, with all cores: for models that keep something from call to call.
    """
    items = list(items)
    workers = 1 if one else min(cores(device), len(items))
    if workers < 2:
        return [work(item) for item in items]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_core() -> Iterator[None]:
    """Inside the block operations are not split: small ones would only wait for the slower core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
