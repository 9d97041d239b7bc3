"""Stage `consolidate@t`: what each arm remembers after period t (Eq. 3, 4), and how memories score.

Arms with a profile also get what the model writes about each user (tasks/cells/profiles.py).
"""

from __future__ import annotations

import argparse
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
from tasks.cells.vectors import FollowJob, follow_all
from tasks.cells.workbench import Row
from tasks.files import DATA, read_parquet, read_tests, write_parquet
from tasks.stage import run
from tasks.steps.calibration import GAINS, gain_pairs, score_pairs, searches
from tasks.steps.experiment import BUFFER, Experiment
from tasks.steps.index import Place, read_chosen, vector_id
from tasks.steps.memory import Library
from tasks.steps.profiles import PROFILES, Profiles, write_profiles
from tasks.steps.rows import Growing, Rows, by_user, grouped, named, those
from tasks.steps.steering import write_vectors
from tasks.steps.vectors import profilings, read_profile_vectors, table

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


def main() -> None:
    """The state after adapt@t and the memory of period t-1 -> data/consolidate/{t}/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--period", type=int, required=True)
    period = parser.parse_args().period
    bench = Experiment()
    out, arms = DATA / "consolidate" / str(period), list(bench.params.arms.values())
    history = remembered(period)
    news = of_period(by_user(history), period)
    gains = measure_gains(bench, news, period)
    buffers, candidates = update_buffers(bench, history, read_before("buffers", BUFFERS, period), period)
    if period == max(bench.params.periods):
        tell_what_decided_nothing(bench.memories, buffers)
    library = Library(bench, history, buffers, period)
    fresh = {"gate_scores": score_pairs(library, news, searches(arms)), "gains": gains}
    tested = searches(arms, sigma_from="transductive")
    fresh["transductive"] = score_pairs(library, by_user(read_tests(period)) if tested else {}, tested)
    write_vectors(bench, library.history, period)
    write_parquet(history, out / "history.parquet")
    write_parquet(buffers, out / "buffers.parquet")
    write_parquet(candidates, out / "candidates.parquet")
    write_parquet(move_profiles(bench, news, period), out / "vectors.parquet")
    written = read_before("profiles", PROFILES, period)
    written = write_profiles(bench, library.history, written, period, news=set(news))
    write_parquet(written, out / "profiles.parquet")
    for name, rows in fresh.items():
        write_parquet(pl.concat([read_before(name, rows.schema, period), rows]), out / f"{name}.parquet")


def remembered(period: int) -> pl.DataFrame:
    """All train rows so far, with their likelihoods under the base model."""
    rows = read_parquet(DATA / "split" / f"{period}.parquet").filter(pl.col("part") == "train")
    scored = read_parquet(DATA / "score_base" / f"{period}.parquet", ["interaction_id", "logp", "tokens"])
    history = rows.join(scored, on="interaction_id", how="left", maintain_order="left")
    if period == 0:
        return history
    earlier = read_before("history", history.schema, period)
    return pl.concat([earlier, history]).sort("user_id", "timestamp", maintain_order=True)


def read_before(name: str, schema: Mapping[str, Any], period: int) -> pl.DataFrame:
    """A table that the period before left; before period 0 there is none."""
    if period == 0:
        return pl.DataFrame(schema=schema)
    return read_parquet(DATA / "consolidate" / str(period - 1) / f"{name}.parquet")


def of_period(users: Mapping[str, Rows], period: int) -> dict[str, Sequence[Row]]:
    """The rows of a period, of all users who have some."""
    found = {user: those(rows, lambda row: row["period"] == period) for user, rows in users.items()}
    return {user: rows for user, rows in found.items() if rows}


def measure_gains(bench: Experiment, news: Mapping[str, Sequence[Row]], period: int) -> pl.DataFrame:
    """The period's pairs of learned gates (`GAINS`)."""
    if period == 0 or not bench.gates:
        return pl.DataFrame(schema=GAINS)
    history, buffers, profiles, scores = (
        read_before(name, {}, period) for name in ("history", "buffers", "profiles", "gate_scores")
    )
    library = Library(bench, history, buffers, period - 1)
    return gain_pairs(bench, library, news, scores, Profiles(profiles), period)


def move_profiles(bench: Experiment, users: Mapping[str, Sequence[Row]], period: int) -> pl.DataFrame:
    """Every profile of every user after the train rows of the period; of who has none, as it was."""
    before = read_profile_vectors(period - 1)
    jobs = [
        FollowJob(how, user, rows, before.get((vector_id(how), user)))
        for how in profilings(list(bench.params.arms.values()))
        for user, rows in users.items()
    ]
    moved = table(jobs, follow_all(bench, jobs, f"consolidate@{period} profiles"))
    if period == 0:
        return moved
    kept = read_before("vectors", {}, period)
    ways = [vector_id(how) for how in profilings(list(bench.params.arms.values()))]
    kept = kept.filter(pl.col("profile").is_in(ways))
    return pl.concat([moved, kept.join(moved, on=["profile", "user_id"], how="anti")])


def update_buffers(
    bench: Experiment, history: pl.DataFrame, before: pl.DataFrame, period: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """B^(t) of every arm and user from C^(t) = D_drift^(t) U B^(t-1), and all of C^(t) (`CANDIDATES`).

    Both are scored under the updated adapter. Who has nothing new keeps what is held, and pays nothing.
    """
    held = grouped(before, "memory", "user_id")
    lessons = read_chosen(period), read_chosen(period - 1)
    adapters = bench.adapters(period)
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
    found = score(bench, jobs, f"consolidate@{period}")
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


def tell_what_decided_nothing(memories: dict[str, Arm], buffers: pl.DataFrame) -> None:
    """Names the policies that arms differ in although nothing ever had to go from any of their buffers."""
    held = buffers.group_by("memory", "user_id").agg(pl.len(), pl.col("seen").max())
    full = set(held.filter(pl.col("seen") > pl.col("len"))["memory"])
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


if __name__ == "__main__":
    run(main)
