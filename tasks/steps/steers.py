"""Steering vectors at work: what each query is steered by, from the files that steering.py writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from safetensors.numpy import load

from spring.method.retrieval import query_text
from spring.rivals.fints import aggregate
from spring.settings.arm import Arm
from tasks.cells.decoding import Request
from tasks.cells.pairs import VECTORS
from tasks.cells.workbench import Row
from tasks.files import DATA, read_parquet
from tasks.steps.experiment import Experiment
from tasks.steps.index import read_held
from tasks.steps.steering import SITES, STEERS

if TYPE_CHECKING:
    from spring.engine.steering import Steer


@dataclass(frozen=True)
class Stack:
    """One user's vectors and where they come from, oldest first."""

    rows: list[Row]
    embeddings: np.ndarray  # [N, E]
    vectors: np.ndarray  # [N, 2, D]


class Steers:
    """The steering vectors of every user after a period."""

    def __init__(self, bench: Experiment, period: int) -> None:
        self.bench, self.folder = bench, DATA / "consolidate" / str(period)
        self.index = pl.DataFrame(schema=STEERS)
        if bench.steers:
            self.index = read_parquet(self.folder / "steers.parquet")
        self._stacks: dict[tuple[str, str], Stack | None] = {}
        self._queries: dict[str, np.ndarray] = {}

    def steer(self, arm: Arm, user: str, requests: Sequence[Request]) -> Sequence[Request]:
        """The requests, each with what steers it; as they are for an arm without steering."""
        if arm.steer is None:
            return requests
        return [replace(request, steer=self.of(arm, user, request.row)) for request in requests]

    def of(self, arm: Arm, user: str, row: Row) -> Steer | None:
        """c * s of a query from the user's own pairs that are earlier; null without any."""
        from spring.engine.steering import Steer

        assert arm.steer is not None and arm.steer_id is not None
        stack = self._stack(arm.steer_id, user)
        known = [
            item["period"] <= row["period"] and item["timestamp"] <= row["timestamp"]
            for item in (stack.rows if stack else ())
        ]
        if stack is None or not any(known):
            return None
        similarity = stack.embeddings[known] @ self._embed(query_text(row["query"]))
        return Steer(arm.steer.layer, aggregate(similarity, stack.vectors[known], arm.steer))

    def _embed(self, query: str) -> np.ndarray:
        """Each query by itself: its last bits, and with them a cell's key, must not depend on the company."""
        if query not in self._queries:
            self._queries[query] = self.bench.embedder.embed([query], "query")[0]
        return self._queries[query]

    def _stack(self, steer: str, user: str) -> Stack | None:
        if (steer, user) not in self._stacks:
            mine = self.index.filter((pl.col("steer") == steer) & (pl.col("user_id") == user))
            stack = None
            if mine.height:
                cells = mine.select("file", "cell").iter_rows()
                held = [load(read_held(self.folder / file, key)[VECTORS]) for file, key in cells]
                vectors = np.stack([[one[site] for site in SITES] for one in held])
                embeddings = np.array(mine["embedding"].to_list(), dtype=np.float32)
                stack = Stack(mine.select("period", "timestamp").to_dicts(), embeddings, vectors)
            self._stacks[steer, user] = stack
        return self._stacks[steer, user]
