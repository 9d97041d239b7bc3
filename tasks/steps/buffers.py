"""Replay buffers after a period (Eq. 3, 4): what each arm keeps of each user, and by which scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from spring.method import drift
from spring.method.policies import POLICIES, consolidate
from spring.method.replay import Candidates
from spring.method.retrieval import document_text
from spring.method.scorers import Select
from spring.settings.arm import Arm
from tasks.cells.scoring import ScoreJob, Scores, score
from tasks.cells.workbench import Row
from tasks.files import Users
from tasks.steps.experiment import BUFFER, Experiment
from tasks.steps.index import Place, read_chosen
from tasks.steps.rows import Growing, Rows, by_user, grouped, named

BUFFERS: dict[str, Any] = {
    "memory": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "from_period": pl.Int32,
    "score": pl.Float64,
    "rank": pl.Int32,
    "seen": pl.Int32,  # interactions offered to this buffer so far
    "seconds": pl.Float64,  # of scoring the candidates, shared out among those that are kept
}
CANDIDATES: dict[str, Any] = {
    "memory": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "score": pl.Float64,  # S', the drift score under the updated adapter
    "loss": pl.Float64,  # under the updated adapter, by `select.normalise`
}
Lessons = Mapping[Place, Rows]  # of `read_chosen`
DEFAULT_SELECT = Select(scorer="likelihood", alpha=1.0, share=1.0, normalise="token")


def update_buffers(
    bench: Experiment, users: Users, history: pl.DataFrame, before: pl.DataFrame, period: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """B^(t) of every arm and user from C^(t) = D_drift^(t) U B^(t-1), and all of C^(t) (`CANDIDATES`).

    Both are scored under the updated adapter. Who has nothing new keeps what is held, and pays nothing.
    """
    held = grouped(before, "memory", "user_id")
    lessons = read_chosen(period, users), read_chosen(period - 1, users)
    adapters = bench.adapters(period, users)
    cases: list[tuple[str, Arm, str, Sequence[Row]]] = []
    kept, offered = Growing(BUFFERS), Growing(CANDIDATES)
    for name, arm in bench.memories.items():
        if arm.memory is None or arm.memory.scope != "buffer" or period < arm.memory.first_period:
            continue
        for user, rows in by_user(history).items():
            known = {row["interaction_id"] for row in held.get((name, user), ())}
            candidates = candidates_of(arm, user, rows, known, lessons, period)
            nothing_new = all(row["period"] != period for row in rows)
            if nothing_new and all(row["interaction_id"] in known for row in candidates):
                kept.add(row | {"seconds": 0.0} for row in held.get((name, user), ()))
            else:
                cases.append((name, arm, user, candidates))
    jobs = [ScoreJob(candidates, adapters.of(arm.recipe, user)) for _, arm, user, candidates in cases]
    found = score(bench, jobs, f"consolidate@{period}{users.told}")
    for (name, arm, user, candidates), under in zip(cases, found, strict=True):
        before_it = {row["interaction_id"]: row for row in held.get((name, user), ())}
        mine = [{**row, "held": before_it.get(row["interaction_id"])} for row in candidates]
        scored = _scored(bench, arm, mine, under)
        names = {"memory": name, "user_id": user}
        kept.add(names | row for row in _keep(bench, arm, user, mine, scored, under.seconds, period))
        offered.add(
            names | {"interaction_id": row["interaction_id"], "score": score, "loss": loss}
            for row, score, loss in zip(mine, scored.scores, scored.losses, strict=True)
        )
    return kept.frame(), offered.frame()


def candidates_of(
    arm: Arm, user: str, rows: Rows, known: set[str], lessons: Sequence[Lessons], period: int
) -> Sequence[Row]:
    """C^(t) of one user: `known` is B^(t-1), `lessons` are those after this period and the one before."""
    assert arm.memory is not None
    first, (chosen, before) = arm.memory.first_period, lessons
    new = {row["interaction_id"] for row in rows if row["period"] == period}
    if arm.train and not arm.train.foundation_alone:  # what it has learned that it had not before
        place = next(key for key in ((arm.recipe or "", user), (arm.recipe or "", None)) if key in chosen)
        new = _ids(chosen[place]) - _ids(before.get(place, ()))
    kept = known | {row["interaction_id"] for row in rows if row["period"] >= first} & new
    return named(rows, kept)


def _ids(lesson: Sequence[Row]) -> set[str]:
    return {item for row in lesson for item in row["chosen"]}


def overflown(buffers: pl.DataFrame) -> set[str]:
    """The memories of which a buffer was offered more than it holds."""
    held = buffers.group_by("memory", "user_id").agg(pl.len(), pl.col("seen").max())
    return set(held.filter(pl.col("seen") > pl.col("len"))["memory"])


def tell_what_decided_nothing(memories: dict[str, Arm], full: set[str]) -> None:
    """Names the policies that arms differ in although nothing ever had to go from any of their buffers."""
    policies = {
        memory.policy
        for name, arm in memories.items()
        if (memory := arm.memory) is not None and memory.scope == "buffer" and name not in full
    }
    if len(policies) > 1:
        print(
            f"consolidate: nothing ever had to go from the buffers of {', '.join(sorted(policies))}, so that "
            f"these policies decided nothing; a smaller memory.capacity (in suites: suite_values) parts them",
            file=sys.stderr,
        )


def _scored(bench: Experiment, arm: Arm, rows: list[Row], under: Scores) -> Candidates:
    """What one user's buffer may keep, with all that policies ask of it; `under` the updated adapter."""
    memory = arm.memory
    assert memory is not None
    select = arm.train.select if arm.train else DEFAULT_SELECT
    logp_base = np.array([row["logp"] for row in rows], dtype=np.float64)
    tokens = np.array([row["tokens"] for row in rows], dtype=np.int32)
    known: dict[str, Any] = {"logp_adap": under.logp, "tokens": tokens, "normalise": select.normalise}
    embeddings = None
    if "embeddings" in POLICIES[memory.policy].reads:
        embeddings = bench.embedder.embed([document_text(row["query"], row["response"]) for row in rows])
    return Candidates(
        scores=drift.drift_score(logp_base=logp_base, **known, alpha=select.alpha),
        losses=drift.loss(**known),
        novelties=drift.novelty(logp_base=logp_base, **known),
        times=[row["timestamp"] for row in rows],
        previous_rank=[row["held"]["rank"] if row["held"] else -1 for row in rows],
        seen=max((row["held"]["seen"] for row in rows if row["held"]), default=0),
        embeddings=embeddings,
    )


def _keep(
    bench: Experiment,
    arm: Arm,
    user: str,
    rows: list[Row],
    candidates: Candidates,
    seconds: float,
    period: int,
) -> list[dict[str, Any]]:
    """The rows of buffers.parquet of one user and memory, less its name and theirs."""
    memory = arm.memory
    assert memory is not None
    policy = POLICIES[memory.policy]
    moment = -1 if policy.one_stream else period
    ranked = consolidate(
        candidates, policy=memory.policy, capacity=memory.capacity, seed=bench.seed(user, moment + BUFFER)
    )
    offered = candidates.seen + sum(row["held"] is None for row in rows)
    timed = {"adapter"} if arm.train else {"base", "adapter"}  # without adapters the base model stands in
    return [
        {
            "interaction_id": rows[i]["interaction_id"],
            "from_period": rows[i]["period"],
            "score": candidates.scores[i],
            "rank": rank,
            "seen": offered,
            "seconds": seconds / len(ranked) if timed.intersection(policy.reads) else 0.0,
        }
        for rank, i in enumerate(ranked.tolist())
    ]
