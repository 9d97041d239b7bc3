"""What the projection goes on from: the committed measurements of bench/results/."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from bench.machine import RESULTS
from bench.projection.schedule import Driver
from bench.stages import summed

EARLIER = 15.8  # seconds of 1,000 tasks without work, two workers, beside much other work
STAGES = ("ingest", "split", "score_base", "adapt", "consolidate", "generate", "evaluate", "report")
HELD_OUT = "10000"  # users whose measurements lines are checked against, and not drawn through


@dataclass(frozen=True)
class Line:
    """What grows with users: a fixed part, and as much for each."""

    fixed: float
    each: float

    def at(self, users: float) -> float:
        """For so many."""
        return self.fixed + self.each * users


def line(values: Mapping[str, float]) -> Line:
    """Through the measurements with fewer users than `HELD_OUT`, by least squares of relative errors."""
    known = {int(users): value for users, value in values.items() if users != HELD_OUT}
    each, fixed = np.polyfit(list(known), list(known.values()), 1, w=[1 / value for value in known.values()])
    return Line(float(fixed), float(each))


def read(name: str) -> dict[str, Any]:
    """A result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def means(tell: Callable[[Any], Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Name -> users -> what `tell` says of a run of `bench.storage --hollow`; the mean of those kept."""
    every: dict[str, dict[str, list[float]]] = {}
    for run in read("storage")["hollow"]:
        for users, one in run.items():
            for name, value in tell(one).items():
                every.setdefault(name, {}).setdefault(users, []).append(value)
    return {name: {users: fmean(values) for users, values in of.items()} for name, of in every.items()}


def stage_seconds() -> dict[str, dict[str, float]]:
    """Stage -> users -> seconds of a processor without the engine's, all periods; of 3 periods and 2 arms."""
    return means(lambda one: {stage: summed(one["stages"])[stage]["cpu_seconds"] for stage in STAGES})


def sizes() -> dict[str, dict[str, float]]:
    """What lies on the disk -> users -> how much: MB, files; and the seconds of commands that read it."""
    return means(
        lambda one: {
            "all three places, MB": one["mb"]["all"],
            "cell store, MB": one["mb"][".cells"],
            "index of adapters, MB": one["mb"]["index"],
            "files": sum(one["files"].values()),
            "`dvc repro` with nothing to do, s": one["nothing_to_do"]["cpu_seconds"],
            "a stage whose cells are there, s": one["laid_out"]["cpu_seconds"],
            "`make verify`, s": one["verify"]["cpu_seconds"],
        }
    )


def share(job: str) -> float:
    """The share of a machine's limit that the engine reaches in a job, mean of all texts (`bench.engine`)."""
    return fmean(one["of_limit"] for one in read("engine")["jobs"] if one["job"] == job)


def driver() -> Driver:
    """What handing out costs, from the two runs of `bench.cluster` with the fewest tasks without work.

    Without its results: what one run of 1,000 tasks took in all (docs/scale.md), no part of it the listing's.
    """
    if not (RESULTS / "cluster.json").exists():
        return Driver(EARLIER / 1000, 0.0)
    empty = {int(tasks): seconds for tasks, seconds in read("cluster")["empty_seconds"].items()}
    few, many, *_ = sorted(empty)
    per_task = {tasks: empty[tasks] / tasks for tasks in (few, many)}
    listing = max(0.0, 2 * (per_task[many] - per_task[few]) / (many - few))
    return Driver(per_task[few] - listing * (few - 1) / 2, listing)
