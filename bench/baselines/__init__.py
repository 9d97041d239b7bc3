"""The strongest baselines of `bench.engine`: what a good engineer writes with the libraries there are.

padded    PEFT's mixed batches (`adapter_names`), padded, through transformers' `generate`; padded scoring
poly      PolyLoRA's mixed batches, through the same `generate`
llama     llama.cpp by way of llama-cpp-python, one path, one adapter after another
learning  PEFT user by user in padded batches, on all threads or in two processes side by side

A baseline prepares (wraps the model, loads adapters), which is not timed, and then works, which is. Libraries
that are no requirement of the project may be missing: the baseline is left out then, with a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True)
class Baseline:
    """One way to do a job: within `ready()` is the work, which gives what the engine gives for the job."""

    name: str
    ready: Callable[[], AbstractContextManager[Callable[[], Any]]]


def missing(*modules: str) -> str | None:
    """The first module that is not installed here, if any."""
    return next((name for name in modules if find_spec(name) is None), None)


def by_length(sizes: Sequence[int], count: int) -> Iterator[list[int]]:
    """Places of items of similar size, `count` at a time, the largest first."""
    order = sorted(range(len(sizes)), key=lambda place: -sizes[place])
    for start in range(0, len(order), count):
        yield order[start : start + count]
