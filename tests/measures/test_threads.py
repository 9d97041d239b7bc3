"""Chunks side by side: in order, few at a time, and what fails is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from spring.measures.threads import THREADS, cores, in_threads

AT_ONCE = min(cores(), THREADS)


def test_results_come_in_order_and_items_are_not_drawn_ahead() -> None:
    drawn, done = [], []

    def items() -> Iterator[int]:
        for item in range(40 * AT_ONCE):
            drawn.append(item)
            yield item

    def square(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    for found in in_threads(square, items()):
        done.append(found)
        assert len(drawn) <= len(done) + 2 * AT_ONCE
    assert done == [item * item for item in range(40 * AT_ONCE)]


def test_a_thread_for_every_core_and_no_items_at_all() -> None:
    """Each waits for all others: fewer threads than cores would never come together."""
    together = threading.Barrier(AT_ONCE, timeout=20)
    assert len(list(in_threads(lambda _: together.wait(), range(AT_ONCE)))) == AT_ONCE
    assert list(in_threads(str, [])) == []


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    found = in_threads(lambda item: 1 / item, [1, 2, 0, 4])
    assert [next(found), next(found)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(found)
