"""One more period of many users on many GPUs: seconds of every stage, bytes, cost.

A stage is its start, what the driver does for each user (tables, keys: one process), and its chunks, which
the driver hands out, block by block of users. A chunk takes what the engine's least work takes at the share
of the limit that was measured, and reading and writing at the disk's rate; workers load the model first.
After that DVC reads what the stage has written. Like `paper.py` for the model, the GPU and the texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.projection import measured
from bench.projection.paper import (
    CAPACITY,
    DOLLARS_PER_HOUR,
    GEMMA,
    H100,
    PERIODS,
    REVIEWS,
    SHARE,
    Task,
    generation_seconds,
    operations,
)
from bench.projection.schedule import Driver, makespan
from tasks.steps.blocks import TOGETHER
from tasks.steps.experiment import OF_A_CREW

ADAPTER = GEMMA.lora * 4  # bytes, float32
WEIGHTS = (GEMMA.linear + GEMMA.head) * GEMMA.itemsize  # bytes that every worker reads
LESSONS, ANSWERS = 16, 48  # cells of a chunk
BLOCK = TOGETHER * OF_A_CREW  # users whose chunks are handed out before those of others
SPREAD = 0.4  # of the logarithm of a user's amount of text [assumed]
DISK = 1e9  # bytes per second that one machine reads or writes of the shared disk [assumed]
SHARED = 20e9  # the same of all machines together [assumed]
MD5 = 0.5e9  # bytes per second that DVC takes the md5 of, one thread [assumed]
WORKER_START = 60.0  # seconds: Ray, imports, the model from a warm disk [assumed]
DRIVER_DOLLARS_PER_HOUR = 0.5
STAGES = ("score_base", "adapt", "consolidate", "generate")
MEASURED_PERIODS, MEASURED_ARMS = 3, 2  # of what `measured.stage_seconds` tells


@dataclass(frozen=True)
class Stage:
    """One stage: what its chunks take and move, per user."""

    name: str
    at_once: int  # cells of a chunk
    seconds: float  # of a GPU
    reads: float  # adapters
    writes: float  # adapters


@dataclass(frozen=True)
class Rates:
    """What was measured."""

    driver: Driver
    lines: dict[str, measured.Line]
    share: dict[str, float]
    row: float = 0.0  # bytes of the index for one adapter


@dataclass
class Found:
    """A period: hours by stage, bytes and dollars."""

    users: int
    workers: int
    hours: dict[str, float] = field(default_factory=dict)
    driven: dict[str, float] = field(default_factory=dict)  # of these the driver alone, hours
    moved: float = 0.0  # bytes read and written on the shared disk
    index: float = 0.0  # bytes of the table that says whose adapter lies where

    @property
    def all_hours(self) -> float:
        """From beginning to end."""
        return sum(self.hours.values())

    @property
    def dollars(self) -> float:
        """All machines for the whole time."""
        return self.all_hours * (self.workers * DOLLARS_PER_HOUR + DRIVER_DOLLARS_PER_HOUR)

    @property
    def stored(self) -> float:
        """Bytes that the period adds to the disk: adapters, which have several names there."""
        return float(self.users * ADAPTER)


def rates() -> Rates:
    """Reads all results."""
    lines = {name: measured.line(values) for name, values in measured.stage_seconds().items()}
    share = {job: measured.share(job) for job in ("score", "train", "generate")}
    row = (
        1e6 * measured.line(measured.sizes()["index of adapters, MB"]).each / MEASURED_PERIODS / MEASURED_ARMS
    )
    return Rates(measured.driver(), lines, share, row)


def stages(task: Task, share: dict[str, float]) -> list[Stage]:
    """A later period of one arm with drift selection and a full buffer."""
    work = operations(task, periods=1, first=False)
    scoring = work["score"] / H100.flops / share["score"]
    items = task.interactions / PERIODS * 0.9
    again = SHARE * items + CAPACITY * 0.7  # scored under the updated adapter: what is new, what is held
    item = scoring / (2 * items + again)
    answers = generation_seconds(task, task.interactions / PERIODS * 0.1) / share["generate"]
    training = work["train"] / H100.flops / share["train"]
    return [
        Stage("score_base", LESSONS, item * items, 0, 0),
        Stage("adapt", LESSONS, item * items + training, 2, 1),
        Stage("consolidate", LESSONS, item * again, 1, 0),
        Stage("generate", ANSWERS, answers, 1, 0),
    ]


def one_period(users: int, workers: int, known: Rates, task: Task = REVIEWS) -> Found:
    """A period of so many users, on a GPU for each worker."""
    found, random = Found(users, workers, index=users * known.row), np.random.default_rng(0)
    rate = min(DISK, SHARED / workers)
    for stage in stages(task, known.share):
        number = -(-users // stage.at_once)
        amounts = random.lognormal(-(SPREAD**2) / 2, SPREAD / np.sqrt(stage.at_once), number)
        moved = (stage.reads + 2 * stage.writes) * ADAPTER  # what is written is read once more, to be packed
        each = stage.seconds + moved / rate
        chunks: list[float] = (amounts * each * users / number).tolist()
        size = BLOCK // stage.at_once
        blocks = [chunks[first : first + size] for first in range(0, number, size)]
        own = known.lines[stage.name]
        tables = own.each / MEASURED_PERIODS / MEASURED_ARMS * users
        start = own.fixed / MEASURED_PERIODS
        hired = WORKER_START + WEIGHTS / rate
        hashed = stage.writes * ADAPTER * users / MD5
        filled = sum(makespan(block, workers, known.driver) for block in blocks)
        found.hours[stage.name] = (start + hired + tables + filled + hashed) / 3600
        alone = start + tables + hashed + sum(known.driver.all(len(block)) for block in blocks)
        found.driven[stage.name] = alone / 3600
        found.moved += (moved + stage.writes * ADAPTER) * users + min(workers, number) * WEIGHTS
    return found
