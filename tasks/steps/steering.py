"""Steering vectors in the making (spring/rivals/fints.py): once per past item, in cells, and carried on.

data/consolidate/{t}/steers.parquet    which there are, and the embeddings that they are found by
data/consolidate/{t}/steer_seconds.parquet    what making them took
data/consolidate/{t}/steers/           segments with the cells of the period's vectors, as for adapters
"""

from __future__ import annotations

import shutil
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from spring.rivals.fints import draw_others
from spring.settings.arm import Arm
from tasks.cells.decoding import GenerateJob, Request, generate
from tasks.cells.pairs import Made, PairJob, extract, read_pair
from tasks.cells.workbench import Row
from tasks.files import DATA, read_parquet, write_parquet
from tasks.steps.experiment import Experiment
from tasks.steps.index import from_before

STEERS: dict[str, Any] = {
    "steer": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "period": pl.Int32,
    "timestamp": pl.Datetime("us", "UTC"),
    "rouge": pl.Float64,  # ROUGE-L of the pair
    "cell": pl.String,
    "file": pl.String,  # the segment that holds its vectors, as in the index of adapters
    "bytes": pl.Int64,  # of the vectors
    "embedding": pl.List(pl.Float32),
}
STEER_SECONDS: dict[str, Any] = {
    "steer": pl.String,
    "user_id": pl.String,
    "period": pl.Int32,
    "seconds": pl.Float64,  # of the period's pairs, also of those without a vector
}
SITES = ("attn", "mlp")
Users = Mapping[str, Sequence[Row]]


# --- after a period ---------------------------------------------------------------------------------------


def write_vectors(bench: Experiment, users: Users, period: int) -> None:
    """This period's vectors, behind those of the periods before; `users` holds all train rows so far."""
    out, before = (DATA / "consolidate" / str(t) for t in (period, period - 1))
    shutil.rmtree(out / "steers", ignore_errors=True)
    index, spent = pl.DataFrame(schema=STEERS), pl.DataFrame(schema=STEER_SECONDS)
    if period > 0:
        index, spent = (read_parquet(before / f"{name}.parquet") for name in ("steers", "steer_seconds"))
        index = index.with_columns(file=from_before(period))
    fresh, costs = [], []
    for name, arm in bench.steers.items():
        made, seconds = _make(bench, arm, users, period)
        files = bench.store.link([key for _, key, _ in made], out / "steers")
        fresh += [_entry(name, row, key, files[key], pair) for row, key, pair in made]
        costs += [{"steer": name, "user_id": u, "period": period, "seconds": s} for u, s in seconds.items()]
    write_parquet(pl.concat([index, pl.DataFrame(fresh, schema=STEERS)]), out / "steers.parquet")
    write_parquet(
        pl.concat([spent, pl.DataFrame(costs, schema=STEER_SECONDS)]), out / "steer_seconds.parquet"
    )


def _entry(steer: str, row: Row, key: str, file: str, made: Made) -> dict[str, Any]:
    """A row of steers.parquet."""
    assert made.vectors is not None
    return {
        "steer": steer,
        **{name: row[name] for name in ("user_id", "interaction_id", "period", "timestamp")},
        "rouge": made.rouge,
        "cell": key,
        "file": f"steers/{file}",
        "bytes": sum(made.vectors[site].nbytes for site in SITES),
        "embedding": made.vectors["embedding"].tolist(),
    }


def _make(
    bench: Experiment, arm: Arm, users: Users, period: int
) -> tuple[list[tuple[Row, str, Made]], dict[str, float]]:
    """The items of this period that gave a vector, with their cells, and each user's seconds of all pairs."""
    assert arm.steer is not None
    what, pool = f"consolidate@{period} steering", Pool(users)
    mine = [(user, row) for user, rows in users.items() for row in rows if row["period"] == period]
    drawn = [pool.draw(user, row, k=arm.steer.others, seed=bench.chance) for user, row in mine]
    asked = [(*item, others) for item, others in zip(mine, drawn, strict=True) if others]
    requests = [Request(row | {"response": ""}, others, 1.0, len(others), None) for _, row, others in asked]
    answers = generate(
        bench, [GenerateJob("", "", [r], arm.rejecting.decoding, None) for r in requests], what
    )
    jobs = [
        PairJob(user, row, others, answer["text"], arm.steer)
        for (user, row, others), [answer] in zip(asked, answers, strict=True)
    ]
    found: list[tuple[Row, str, Made]] = []
    spent: dict[str, float] = {}
    for job, key, [answer] in zip(jobs, extract(bench, jobs, what), answers, strict=True):
        made = read_pair(bench, key)
        spent[job.user] = spent.get(job.user, 0.0) + answer["seconds"] + made.seconds
        if made.vectors is not None:
            found.append((job.row, key, made))
    print(f"{what}: {len(found)} of {len(mine)} items give a vector, {len(jobs)} had a pair", file=sys.stderr)
    return found, spent


class Pool:
    """All train rows so far, for drawing those of other users."""

    def __init__(self, users: Users) -> None:
        self.items = {row["interaction_id"]: row for rows in users.values() for row in rows}
        self.tasks: dict[str, dict[str, list[Row]]] = {}  # by task and user, in time order
        for user, rows in users.items():
            for row in rows:
                self.tasks.setdefault(row["task"], {}).setdefault(user, []).append(row)
        self.times = {
            task: {user: [row["timestamp"] for row in rows] for user, rows in of_users.items()}
            for task, of_users in self.tasks.items()
        }

    def draw(self, user: str, row: Row, *, k: int, seed: int) -> list[Row]:
        """K items of other users, of the same task and earlier than `row`."""
        times = self.times[row["task"]]
        earlier = {
            other: [item["interaction_id"] for item in rows[: bisect_left(times[other], row["timestamp"])]]
            for other, rows in self.tasks[row["task"]].items()
            if other != user
        }
        drawn = draw_others(row["interaction_id"], earlier, k=k, seed=seed)
        return [self.items[name] for name in drawn]
