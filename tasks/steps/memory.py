"""The memories of a period, per user, ready to be searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from spring.method.retrieval import LEXICAL, Retriever, document_text
from spring.rivals.asls import Profiled, liking
from tasks.cells.workbench import Row
from tasks.steps.experiment import Experiment
from tasks.steps.index import vector_id
from tasks.steps.rows import by_user, grouped, named, pick, those
from tasks.steps.vectors import ProfileVectors

SHELVES = 256  # indexes that are kept for another arm; of more users they would fill the memory


@dataclass(frozen=True)
class Shelf:
    """One user's memory and its index."""

    rows: Sequence[Row]
    index: Retriever
    embed: Any  # texts, role -> [N, D]; null for BM25

    def scores(self, query: str) -> np.ndarray:
        """Sim(q, h) of every row."""
        return self.index.scores(query, self._vector(query))

    def top(self, query: str, k: int) -> tuple[Sequence[Row], np.ndarray]:
        """The best k rows, best first, and their scores."""
        best, scores = self.index.top(query, k, self._vector(query))
        return pick(self.rows, best.tolist()), scores

    def _vector(self, query: str) -> Any:
        return self.embed([query], "query")[0] if self.embed and self.rows else None


class Library:
    """Every memory of every user after a period: buffers, the period's train rows, the whole history.

    profiles: what beside a query may rank them.
    """

    def __init__(
        self,
        bench: Experiment,
        history: pl.DataFrame,
        buffers: pl.DataFrame,
        period: int,
        profiles: ProfileVectors | None = None,
    ) -> None:
        self.bench, self.period = bench, period
        self.profiles = profiles or {}
        self.history = by_user(history)
        names = buffers.select("memory", "user_id", "interaction_id")
        self.held = grouped(names, "memory", "user_id")
        self._shelves: dict[tuple[str, str, str, Profiled | None], Shelf] = {}

    def rows(self, memory: str, user: str) -> Sequence[Row]:
        """What `memory` holds of `user`, in time order."""
        settings = self.bench.memories[memory].memory
        assert settings is not None
        rows = self.history.get(user, ())
        if settings.scope == "history":
            return rows
        if settings.scope == "period":
            return those(rows, lambda row: row["period"] == self.period)
        held = {row["interaction_id"] for row in self.held.get((memory, user), ())}
        return named(rows, held)

    def shelf(self, memory: str, user: str, by: str, ranks: Profiled | None = None) -> Shelf:
        """The index of one user's memory; `ranks`: the user's profile counts beside the query."""
        key = (memory, user, by, ranks)
        if key not in self._shelves:
            rows = self.rows(memory, user)
            documents = [document_text(row["query"], row["response"]) for row in rows]
            embed = None if by in LEXICAL else self.bench.embedder.embed
            vectors = embed(documents) if embed and documents else None
            times = [row["timestamp"] for row in rows]
            prior: dict[str, Any] = {}
            if ranks is not None and documents:
                known = self.profiles[vector_id(ranks.profiling), user]
                prior = {"prior": liking(known.profile.vector, vectors), "share": ranks.weight}
            if len(self._shelves) >= SHELVES:
                del self._shelves[next(iter(self._shelves))]
            index = Retriever(documents, by=by, times=times, embeddings=vectors, **prior)  # type: ignore[arg-type]
            self._shelves[key] = Shelf(rows, index, embed)
        return self._shelves[key]
