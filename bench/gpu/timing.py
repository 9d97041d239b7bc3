"""Both sides of a job by turns, with the memory they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from bench.machine import wait

ROUNDS = 5


@dataclass(frozen=True)
class Job:
    """One job on both sides, where PEFT does a part: its cost does not depend on how many users there are."""

    name: str
    users: int
    engine: Callable[[], object]
    plain: Callable[[], object]
    useful: int  # tokens of the engine's job: those of the texts, or those generated
    plain_useful: int
    least: float  # seconds that the card needs at least for the engine's job

    @property
    def key(self) -> str:
        """What it is called in the table."""
        return f"{self.name}, {self.users} user{'s' if self.users > 1 else ''}"


def timed(job: Job, device: torch.device, allowed: float) -> dict[str, Any]:
    """Once each to warm up, then by turns for as long as `allowed` seconds go, once at least."""
    began = perf_counter()
    peaks = [peak(work, device) for work in (job.plain, job.engine)]
    ours: list[float] = []
    theirs: list[float] = []
    while not ours or (len(ours) < ROUNDS and perf_counter() - began + ours[-1] + theirs[-1] < allowed):
        theirs.append(seconds(job.plain, device))
        ours.append(seconds(job.engine, device))
    rates = [job.useful / s for s in ours]
    plain = [job.plain_useful / s for s in theirs]
    ratios = [a / b for a, b in zip(rates, plain, strict=True)]
    return {
        "job": job.name,
        "users": job.users,
        "rounds": len(ours),
        "seconds": median(ours),
        "peft_seconds": median(theirs),
        "tokens_per_second": median(rates),
        "peft_tokens_per_second": median(plain),
        "ratio": median(ratios),
        "ratios": ratios,
        "of_limit": job.least / median(ours),
        "peft_peak_gb": peaks[0],
        "peak_gb": peaks[1],
    }


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, until the device is done."""
    wait(device)
    began = perf_counter()
    work()
    wait(device)
    return perf_counter() - began


def peak(work: Callable[[], object], device: torch.device) -> float | None:
    """The most memory of the device that tensors take meanwhile, in GB; null on a processor."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 1e9
