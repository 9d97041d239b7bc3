"""The relevance gate of an arm: which memories a test query gets to see and what they weigh (Eq. 5, 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import polars as pl

from spring.method.gate import effective_lambda, find_sigma, relevance_gate, scale_from
from spring.method.learned_gate import LearnedGate, learned_from
from spring.method.retrieval import query_text
from spring.settings.arm import Arm
from tasks.cells.decoding import Request
from tasks.cells.workbench import Row
from tasks.files import DATA, scan_parquet
from tasks.steps.calibration import FEATURES, Known, describe, known_after, not_later, times_of
from tasks.steps.memory import Library
from tasks.steps.rows import pick


@dataclass(frozen=True)
class Found:
    """What retrieval finds for a query, best first, with scores and weights at the gate, both [N]."""

    items: Sequence[Row]
    scores: np.ndarray
    weights: np.ndarray


class Requests(Sequence[Request]):
    """What is asked for some rows, which are not held but read; another process is sent a list."""

    __slots__ = ("asked", "rows")

    def __init__(self, rows: Sequence[Row], requests: Sequence[Request]) -> None:
        self.rows = rows
        self.asked = [(one.context, one.lmbda, one.candidates, one.sigma) for one in requests]

    def __len__(self) -> int:
        return len(self.asked)

    def __iter__(self) -> Iterator[Request]:
        return (Request(row, *asked) for row, asked in zip(self.rows, self.asked, strict=True))

    @overload
    def __getitem__(self, at: int) -> Request: ...
    @overload
    def __getitem__(self, at: slice) -> list[Request]: ...
    def __getitem__(self, at: int | slice) -> Request | list[Request]:
        return list(self)[at]

    def __reduce__(self) -> tuple[object, ...]:
        return list, (list(self),)


def read_gates(arms: Mapping[str, Arm], period: int) -> dict[str, Gate]:
    """The gate of every arm, calibrated with what consolidate@t knew of all users."""
    known: dict[tuple[Any, ...], Known] = {}
    pairs, found = scan_parquet(DATA / "consolidate" / str(period) / "gains.parquet"), {}
    for name, arm in arms.items():
        how = arm.retrieve
        scores = arm.memory_id or "", how.by, how.sigma_from == "transductive"
        if scores not in known:
            known[scores] = known_after(period, *scores)
        found[name] = Gate(arm, known[scores], pairs.filter(gate=arm.gate_id or "").collect())
    return found


class Gate:
    """Retrieval and relevance gate of one arm.

    known: scores of train queries, or of test queries where the arm says `sigma_from: transductive`; pairs:
    gains of train queries, for the learned gate. Of train queries only what was known at the query's time
    counts: periods of different users overlap.
    """

    def __init__(self, arm: Arm, known: Known, pairs: pl.DataFrame) -> None:
        self.arm, self.known = arm, known
        pairs = pairs.sort("known_at", maintain_order=True)
        self.pair_times, self.gains = times_of(pairs), pairs["gain"].to_numpy()
        self.seen = pairs.select(FEATURES).cast(pl.Float64).to_numpy()  # [K, 6]
        self.closed = 0  # queries that a learned gate had nothing to learn from for
        self._learned: dict[int, LearnedGate] = {}  # by how many pairs are known
        self._thresholds: dict[int, tuple[float, float | None]] = {}  # by how many scores are known

    def request(self, row: Row, library: Library, user: str) -> Request:
        """One test query with the context that passes the gate."""
        return self.request_with(row, self.search(row, library, user))

    def search(self, row: Row, library: Library, user: str) -> Found | None:
        """What the arm's retrieval finds for a query; null for an arm that does not search."""
        arm = self.arm
        if arm.memory_id is None or not arm.retrieves:
            return None
        shelf = library.shelf(arm.memory_id, user, arm.retrieve.by, arm.retrieve.profile)
        items, scores = shelf.top(query_text(row["query"]), arm.retrieve.top_k)
        return Found(items, scores, self.weights(row, items, scores))

    def request_with(self, row: Row, found: Found | None) -> Request:
        """One test query with that of what was found that passes the gate."""
        if found is None:
            return Request(row, (), 0.0, 0, None)
        arm = self.arm
        context = pick(found.items, np.flatnonzero(found.weights > 0).tolist())
        late = [item["interaction_id"] for item in context if item["timestamp"] > row["timestamp"]]
        assert not late, f"{late} are later than the query {row['interaction_id']} they would serve"
        lmbda = effective_lambda(arm.decode.lmbda, found.weights)
        sigma, _ = self.threshold(row)
        used = sigma if arm.retrieve.gate in ("strict", "soft") and math.isfinite(sigma) else None
        return Request(row, context, lmbda, len(found.items), used)

    def threshold(self, row: Row) -> tuple[float, float | None]:
        """Sigma, and the width of a soft gate; they change only when more scores are known."""
        past, count = self.known.past, self.known.until(row["timestamp"])
        if count not in self._thresholds:
            scale = scale_from(past, count) if self.arm.retrieve.gate == "soft" else None
            self._thresholds[count] = find_sigma(past, self.arm.retrieve.sigma, count), scale
        return self._thresholds[count]

    def weights(self, row: Row, items: Sequence[Row], scores: np.ndarray) -> np.ndarray:
        """Weight of each retrieved item; it enters the context if above 0."""
        gate = self.arm.retrieve.gate
        if gate == "learned":
            weights = self.learned(row).weights(describe(row, items, scores, self.known))
        else:
            sigma, scale = self.threshold(row)
            weights = relevance_gate(scores, gate=gate, sigma=sigma, scale=scale)
        if self.arm.retrieve.weight == "score":
            return np.where(weights > 0, self.known.standing(scores, row["timestamp"]), 0.0)
        return weights

    def learned(self, row: Row) -> LearnedGate:
        """The learned gate as it was at a query's time."""
        count = learned_from(not_later(self.pair_times, row["timestamp"]))
        if count not in self._learned:
            self._learned[count] = LearnedGate(self.seen[:count], self.gains[:count])
        self.closed += self._learned[count].closed
        return self._learned[count]
