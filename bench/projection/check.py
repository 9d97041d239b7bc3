"""Predicted beside measured: what more users, and two workers, take by the projection's own parts."""

from __future__ import annotations

from dataclasses import dataclass

from bench.projection import measured
from bench.projection.measured import HELD_OUT
from bench.projection.period import ANSWERS, LESSONS
from bench.projection.schedule import makespan

BOUND = 0.15  # of the measured value


@dataclass(frozen=True)
class Row:
    """One number, said before and found."""

    what: str
    predicted: float
    found: float

    @property
    def error(self) -> float:
        """How far off the prediction is, of what was found."""
        return self.predicted / self.found - 1


def users() -> list[Row]:
    """With 10,000 users, by the lines through what fewer took."""
    rows, stages = [], measured.stage_seconds()
    shared = set.intersection(*map(set, stages.values()))
    all_of_them = {"all stages": {users: sum(one[users] for one in stages.values()) for users in shared}}
    for name, values in (stages | all_of_them | measured.sizes()).items():
        if HELD_OUT in values:
            unit = "" if "," in name or name == "files" else ", s of a processor"
            said = measured.line(values).at(int(HELD_OUT))
            rows.append(Row(f"10,000 users: {name}{unit}", said, values[HELD_OUT]))
    return rows


def workers() -> list[Row]:
    """Workers of one thread each, by what one process with as many threads took; tasks without work.

    Nothing before `bench.cluster` has been run.
    """
    if not (measured.RESULTS / "cluster.json").exists():
        return []
    found, driver = measured.read("cluster"), measured.driver()
    rows, count = [], found["workers"]
    for what, at_once in (("train", LESSONS), ("generate", ANSWERS)):
        if not found["seconds"]["workers"][what]:
            continue
        together, apart = (min(found["seconds"][side][what]) for side in ("process", "workers"))
        full, rest = divmod(found["users"], at_once)
        cells = [at_once] * full + [rest] * (rest > 0)
        chunks = [count * together * one / found["users"] for one in cells]
        rows.append(Row(f"{count} workers: {what}, s", makespan(chunks, count, driver), apart))
    tasks = max(map(int, found["empty_seconds"]))
    empty = found["empty_seconds"][str(tasks)]
    return [*rows, Row(f"{tasks:,} tasks without work, s", makespan([0.0] * tasks, count, driver), empty)]


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| | predicted | measured | error |", "|---|---:|---:|---:|"]
    for row in rows:
        mark = "" if abs(row.error) <= BOUND else " **over**"
        lines.append(f"| {row.what} | {row.predicted:,.1f} | {row.found:,.1f} | {row.error:+.0%}{mark} |")
    return "\n".join(lines)
