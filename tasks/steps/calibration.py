"""What gates are calibrated with: retrieval scores, and gains of past pairs (Eq. 6).

Both are made after a period from train queries, each with the time from which it is known. Only scores for
`sigma_from: transductive` come from test queries; they go to a file of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from spring.method.gate import Past, standing
from spring.method.learned_gate import Features, features
from spring.method.retrieval import document_text, query_text
from spring.settings.arm import Arm
from spring.words import terms
from tasks.cells.decoding import Request
from tasks.cells.likelihood import Ask, likelihoods
from tasks.cells.workbench import Row
from tasks.files import DATA, scan_parquet
from tasks.steps.experiment import Adapters, Experiment
from tasks.steps.memory import Library
from tasks.steps.profiles import Profiles
from tasks.steps.rows import those

GATE_SCORES: dict[str, Any] = {
    "memory": pl.String,
    "by": pl.String,
    "period": pl.Int32,
    "user_id": pl.String,
    "known_at": pl.Datetime("us", "UTC"),  # when the user's last query of the period was here
    "score": pl.Float64,
}
Queries = Mapping[str, Sequence[Row]]  # of each user
START = datetime(1970, 1, 1, tzinfo=UTC)
TOGETHER = 256  # users whose scores stand in memory as Python's objects
FEATURES = tuple(Features.__dataclass_fields__)
GAINS: dict[str, Any] = {
    "gate": pl.String,
    "period": pl.Int32,
    "user_id": pl.String,
    "known_at": pl.Datetime("us", "UTC"),  # when the query was here, whose reference comes with it
    **dict.fromkeys(FEATURES, pl.Float64),
    "gain": pl.Float64,  # nats per response token
    "seconds": pl.Float64,  # of measuring it
}


class Known:
    """Retrieval scores, from the time on from which each is known; `at_once`: all are, at any time."""

    def __init__(self, scores: pl.DataFrame, *, at_once: bool = False) -> None:
        scores = scores.sort("known_at")
        self.times = None if at_once else times_of(scores)
        self.scores = scores["score"]

    @cached_property
    def past(self) -> Past:
        """All of them, in the order of their times."""
        return Past(self.scores.to_numpy())

    def until(self, when: datetime) -> int:
        """How many are known at a time."""
        return len(self.scores) if self.times is None else not_later(self.times, when)

    def standing(self, scores: Any, when: datetime) -> np.ndarray:
        """Where other scores stand among those that are known at a time. [K] -> [K]."""
        return standing(scores, self.past, self.until(when))


def known_after(period: int, memory: str, by: str, transductive: bool = False) -> Known:
    """The scores of a memory after a period, of all users; `transductive`: of test queries."""
    name = "transductive" if transductive else "gate_scores"
    table = scan_parquet(DATA / "consolidate" / str(period) / f"{name}.parquet")
    mine = table.filter(pl.col("memory") == memory, pl.col("by") == by)
    return Known(mine.select("known_at", "score").collect(), at_once=transductive)


def times_of(rows: pl.DataFrame) -> np.ndarray:
    """When rows were known, microseconds since 1970. [N]."""
    return rows["known_at"].to_physical().to_numpy()


def not_later(times: np.ndarray, when: datetime) -> int:
    """How many of some times, in order, are not later than another."""
    return int(np.searchsorted(times, (when - START) // timedelta(microseconds=1), "right"))


def searches(arms: Iterable[Arm], *, sigma_from: str | None = None) -> list[tuple[str, str]]:
    """(memory, by) of the arms whose gates need the scores of other queries."""
    found = {
        (arm.memory_id, arm.retrieve.by)
        for arm in arms
        if arm.memory_id
        and arm.retrieves
        and arm.retrieve.calibrated
        and sigma_from in (None, arm.retrieve.sigma_from)
    }
    return sorted(found)


def score_pairs(library: Library, queries: Queries, pairs: list[tuple[str, str]]) -> pl.DataFrame:
    """Retrieval scores of each user's queries against each memory, the query itself left out [ours].

    Their quartiles are the gate's threshold (Eq. 6). A score is known from the last of the user's queries on:
    the memory is that after the whole period, and so are the word counts that scores depend on.
    """
    users = list(queries)
    found = [
        _score_some(library, {user: queries[user] for user in users[start : start + TOGETHER]}, memory, by)
        for memory, by in pairs
        for start in range(0, len(users), TOGETHER)
    ]
    return pl.concat([pl.DataFrame(schema=GATE_SCORES), *found], rechunk=True)


def _score_some(library: Library, queries: Queries, memory: str, by: str) -> pl.DataFrame:
    """The scores of some users."""
    asked: list[tuple[Any, ...]] = []  # all but the scores, once for each query
    found = [np.empty(0)]
    for user, rows in queries.items():
        shelf = library.shelf(memory, user, by)
        items = np.array([item["interaction_id"] for item in shelf.rows], dtype=object)
        known_at = max(arrived(row) for row in rows)
        for row in rows:
            asked.append((memory, by, library.period, user, known_at))
            found.append(shelf.scores(query_text(row["query"]))[items != row["interaction_id"]])
    common = {name: kind for name, kind in GATE_SCORES.items() if name != "score"}
    places = np.repeat(np.arange(len(asked)), [len(scores) for scores in found[1:]])
    queried = pl.DataFrame(asked, schema=common, orient="row")[places]
    return queried.with_columns(score=pl.Series(np.concatenate(found), dtype=pl.Float64))


def gain_pairs(
    bench: Experiment,
    before: Library,
    queries: Queries,
    past: Mapping[str, Known],
    profiles: Profiles,
    adapters: Adapters,
    period: int,
    *,
    told: str = "",
) -> pl.DataFrame:
    """Past pairs of every learned gate with their gains, at most `retrieve.pairs` per user and period [ours].

    A gain is by how much the item, alone in the context, raises the reference's likelihood as the arm would
    have answered: mixed with the path without it (Eq. 8), under the adapter of the period before, which has
    not seen the reference; queries that are dated before what the memories hold are left out, as none of the
    kind is ever asked. `before` holds the memories, `past` the retrieval scores of each gate, `profiles` and
    `adapters` what there was after that period.
    """
    found = []
    asks: list[Ask] = []
    for name, arm in bench.gates.items():
        for user, all_rows in queries.items():
            rows = in_order(all_rows, before.history.get(user, ()))
            pairs = retrieve_pairs(bench, arm, before, user, rows, past[name])
            if pairs:
                found.append((name, user, pairs))
                adapter, profile = adapters.of(arm.recipe, user), profiles.of(arm, user, queries=rows)
                without = [Request(row, (), 0.0, 0, None) for row, _, _ in pairs]
                with_ = [Request(row, [item], arm.decode.lmbda, 1, None) for row, item, _ in pairs]
                asks.append(Ask([*without, *with_], adapter, arm.decode.decoding, profile))
    read = likelihoods(bench, asks, f"consolidate@{period} gains{told}")
    rows_out = [
        {
            "gate": name,
            "period": period,
            "user_id": user,
            "known_at": arrived(row),
            **vars(seen),
            "gain": given.mean - alone.mean,
            "seconds": given.seconds + alone.seconds,
        }
        for (name, user, pairs), of_user in zip(found, read, strict=True)
        for (row, _, seen), alone, given in zip(
            pairs, of_user[: len(pairs)], of_user[len(pairs) :], strict=True
        )
    ]
    return pl.DataFrame(rows_out, schema=GAINS)


def arrived(row: Row) -> datetime:
    """When an interaction was here: at its own date, where nothing else is known."""
    when: datetime = row.get("arrived") or row["timestamp"]
    return when


def in_order(rows: Sequence[Row], earlier: Sequence[Row]) -> Sequence[Row]:
    """Those rows that are not dated before any that was here earlier; both in time order."""
    latest = earlier[-1]["timestamp"] if earlier else None
    return those(rows, lambda row: latest is None or row["timestamp"] >= latest)


def retrieve_pairs(
    bench: Experiment, arm: Arm, before: Library, user: str, rows: Sequence[Row], known: Known
) -> list[tuple[Row, Row, Features]]:
    """What the arm would have retrieved for a seeded draw of one user's train queries."""
    assert arm.memory_id is not None
    shelf = before.shelf(arm.memory_id, user, arm.retrieve.by)
    pairs: list[tuple[Row, Row, Features]] = []
    for i in np.random.default_rng(bench.seed(user, before.period)).permutation(len(rows)).tolist():
        if len(pairs) >= arm.retrieve.pairs:
            break
        items, scores = shelf.top(query_text(rows[i]["query"]), arm.retrieve.top_k)
        seen = describe(rows[i], items, scores, known)
        pairs += [(rows[i], item, one) for item, one in zip(items, seen, strict=True)]
    return pairs[: arm.retrieve.pairs]


def describe(row: Row, items: Sequence[Row], scores: Any, known: Known) -> list[Features]:
    """Features of what was retrieved for a query, best first."""
    places = known.standing(scores, row["timestamp"])
    words = len(terms(query_text(row["query"])))
    return [
        features(
            score=scores[k],
            standing=places[k],
            rank=k + 1,
            query_words=words,
            item_words=len(terms(document_text(item["query"], item["response"]))),
            days=(row["timestamp"] - item["timestamp"]).total_seconds() / 86_400,
        )
        for k, item in enumerate(items)
    ]
