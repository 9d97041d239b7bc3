"""Steering vectors in the making (spring/rivals/fints.py): once per past item, in cells, and carried on.

data/consolidate/{t}/steers.parquet    which there are, and the embeddings that they are found by
data/consolidate/{t}/steer_seconds.parquet    what making them took
data/consolidate/{t}/steers/STEER/USER.safetensors    attn and mlp [N, D], in the order of `place`
"""

from __future__ import annotations

import shutil
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from spring.rivals.fints import draw_others
from spring.settings.arm import Arm
from tasks.cells.decoding import GenerateJob, Request, generate
from tasks.cells.pairs import PairJob, extract, pair_of
from tasks.cells.workbench import Row
from tasks.files import DATA, read_parquet, write_parquet
from tasks.steps.experiment import Experiment
from tasks.steps.index import user_folder

STEERS: dict[str, Any] = {
    "steer": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "period": pl.Int32,
    "timestamp": pl.Datetime("us", "UTC"),
    "rouge": pl.Float64,  # ROUGE-L of the pair
    "place": pl.Int32,  # of the vectors in the user's file
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
Made = tuple[Row, Path]  # an item, and the cell of its vectors


# --- after a period ---------------------------------------------------------------------------------------


def write_vectors(bench: Experiment, users: Users, period: int) -> None:
    """This period's vectors, behind those of the periods before; `users` holds all train rows so far."""
    out, before = (DATA / "consolidate" / str(t) for t in (period, period - 1))
    shutil.rmtree(out / "steers", ignore_errors=True)
    index, spent = pl.DataFrame(schema=STEERS), pl.DataFrame(schema=STEER_SECONDS)
    if period > 0:
        index, spent = (read_parquet(before / f"{name}.parquet") for name in ("steers", "steer_seconds"))
        if (before / "steers").exists():
            shutil.copytree(before / "steers", out / "steers")
    fresh, costs = [], []
    for name, arm in bench.steers.items():
        held = index.filter(pl.col("steer") == name)
        made, seconds = _make(bench, arm, users, period)
        for user, cells in made.items():
            place = held.filter(pl.col("user_id") == user).height
            fresh += [_entry(name, user, place + i, *one) for i, one in enumerate(cells)]
            _append([cell for _, cell in cells], vector_file(out, name, user))
        costs += [{"steer": name, "user_id": u, "period": period, "seconds": s} for u, s in seconds.items()]
    write_parquet(pl.concat([index, pl.DataFrame(fresh, schema=STEERS)]), out / "steers.parquet")
    write_parquet(
        pl.concat([spent, pl.DataFrame(costs, schema=STEER_SECONDS)]), out / "steer_seconds.parquet"
    )


def vector_file(folder: Path, steer: str, user: str) -> Path:
    """Where the vectors of one user lie."""
    return folder / "steers" / steer / f"{user_folder(user)}.safetensors"


def _entry(steer: str, user: str, place: int, row: Row, cell: Path) -> dict[str, Any]:
    """A row of steers.parquet."""
    known = {name: row[name] for name in ("interaction_id", "period", "timestamp")}
    return {
        "steer": steer,
        "user_id": user,
        **known,
        "rouge": pair_of(cell)["rouge"],
        "place": place,
        "embedding": load_file(cell / "vectors.safetensors")["embedding"].tolist(),
    }


def _append(cells: Sequence[Path], file: Path) -> None:
    """Puts the vectors of new cells behind those that the user's file holds."""
    tensors = [load_file(cell / "vectors.safetensors") for cell in cells]
    stacks = {site: np.stack([tensor[site] for tensor in tensors]) for site in SITES}
    if file.exists():
        held = load_file(file)
        stacks = {site: np.concatenate([held[site], stacks[site]]) for site in SITES}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(stacks, file)


def _make(
    bench: Experiment, arm: Arm, users: Users, period: int
) -> tuple[dict[str, list[Made]], dict[str, float]]:
    """Per user the items of this period that gave a vector, and the seconds that all pairs took."""
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
    found: dict[str, list[Made]] = {}
    spent: dict[str, float] = {}
    for job, key, [answer] in zip(jobs, extract(bench, jobs, what), answers, strict=True):
        cell = bench.store.path(key)
        spent[job.user] = spent.get(job.user, 0.0) + answer["seconds"] + pair_of(cell)["seconds"]
        if (cell / "vectors.safetensors").exists():
            found.setdefault(job.user, []).append((job.row, cell))
    made = sum(map(len, found.values()))
    print(f"{what}: {made} of {len(mine)} items give a vector, {len(jobs)} had a pair", file=sys.stderr)
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
