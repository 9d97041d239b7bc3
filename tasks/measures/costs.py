"""What an arm costs: seconds, tokens, bytes."""

from __future__ import annotations

from typing import Any

import polars as pl

from spring.method.policies import POLICIES
from spring.method.scorers import SCORERS
from spring.settings.arm import Arm
from spring.settings.params import Params
from tasks.files import DATA, read_parquet, scan_parquet
from tasks.steps.index import read_index, vector_id

COSTS = (  # of an arm, over all periods
    "seconds_train",
    "seconds_score",
    "seconds_generate",
    "tokens_trained",
    "tokens_generated",
    "rows_per_step",
    "adapter_bytes",
    "memory_bytes",
)


def costs(params: Params, arm: str, generations: pl.DataFrame) -> dict[str, Any]:
    """What one arm took over all periods, as if it shared no training; and how often its gate let text in.

    `seconds_train`: adapters, what they start from, profiles in words, and steering vectors. `seconds_score`:
    likelihoods that decide what to learn, what to keep and, behind a learned gate, what to let in. Embeddings
    are in neither.
    """
    recipe, train, last = params.arms[arm].recipe, params.arms[arm].train, max(params.periods)
    columns = ["recipe", "seconds", "seconds_score", "tokens"]
    found = (read_index(t, columns=columns).with_columns(period=pl.lit(t)) for t in params.periods)
    trained = pl.concat(found)
    mine = pl.col("recipe") == (recipe or "")
    foundation = train.foundation if train and train.experts is None else None  # levels charge theirs
    if foundation is not None:  # learned in period 0 alone, though another arm may go on from it
        mine |= (pl.col("recipe") == foundation.recipe) & (pl.col("period") == 0)
    trained = trained.filter(mine)
    return {
        "pass_rate": (generations["contexts"].list.len() > 0).mean() if params.arms[arm].retrieves else None,
        "seconds_train": float(trained["seconds"].sum())
        + profile_seconds(params, arm)
        + seconds_of("steer_seconds", "steer", params.arms[arm].steer_id, last),
        "seconds_score": float(trained["seconds_score"].sum())
        + buffer_seconds(params, arm)
        + seconds_of("gains", "gate", params.arms[arm].gate_id, last),
        "seconds_generate": float(generations["seconds"].sum()),
        "tokens_trained": int(trained["tokens"].sum()),
        "tokens_generated": int(generations["tokens"].sum()),
        "rows_per_step": rows_per_step(generations, params.arms[arm].decode.max_new_tokens),
        "adapter_bytes": adapter_bytes(recipe, last),
        "memory_bytes": memory_bytes(params.arms[arm], last),
    }


def adapter_bytes(recipe: str | None, last: int) -> int:
    """Size of all adapters of a recipe after period `last`, wherever they were learned; 0 without any."""
    return int(
        read_index(last, columns=["recipe", "bytes"])
        .filter(pl.col("recipe") == (recipe or ""))["bytes"]
        .sum()
    )


def read_written(arm: Arm, period: int) -> pl.DataFrame:
    """What the model wrote for an arm that has a profile, after `period`."""
    rows = read_parquet(DATA / f"consolidate/{period}/profiles.parquet")
    return rows.filter(pl.col("profile") == arm.profile_id)


def profile_seconds(params: Params, name: str) -> float:
    """Seconds that an arm's profiles took to write, all users and periods; 0 without any."""
    arm = params.arms[name]
    if arm.profile is None:
        return 0.0
    return sum(float(read_written(arm, t)["seconds"].sum()) for t in params.periods)


def buffer_seconds(params: Params, name: str) -> float:
    """Seconds that scoring the candidates of an arm's buffers took, all users and periods; 0 without any."""
    memory = params.arms[name].memory_id
    if memory is None:  # none, or one that nothing reads
        return 0.0
    columns = ["memory", "seconds"]
    kept = [read_parquet(DATA / f"consolidate/{t}/buffers.parquet", columns) for t in params.periods]
    adapted = sum(float(rows.filter(pl.col("memory") == memory)["seconds"].sum()) for rows in kept)
    return adapted + sum(base_seconds(params.arms[name], t) for t in params.periods)


def base_seconds(arm: Arm, period: int) -> float:
    """What the base model took to score the items offered to a buffer in `period`, if nothing else paid.

    Eq. 4 needs its likelihoods, and so do drift scores and, in period 0, the choice of confident items, which
    `seconds_score` of the index then holds.
    """
    memory, train = arm.memory, arm.train
    if memory is None or memory.scope != "buffer" or period < memory.first_period:
        return 0.0
    if train is None:  # under the base model: `buffers` has timed it
        return 0.0
    drifts = train.data == "drift" and "base" in SCORERS[train.select.scorer].reads
    paid = (drifts and period > 0) or (train.data == "confident" and period == 0)
    if paid or "base" not in POLICIES[memory.policy].reads:
        return 0.0
    new = learned(arm, period) - learned(arm, period - 1)
    periods, columns = range(memory.first_period, period + 1), ["interaction_id", "seconds"]
    scored = [read_parquet(DATA / f"score_base/{t}.parquet", columns) for t in periods]
    offered = pl.col("interaction_id").is_in(list(new))  # of earlier periods what came too late for them
    return sum(float(rows.filter(offered)["seconds"].sum()) for rows in scored)


def learned(arm: Arm, period: int) -> set[str]:
    """Ids of what an arm's adapters learned in `period`, all users; before period 0 nothing."""
    lessons = read_index(period, columns=["recipe", "chosen"]).filter(pl.col("recipe") == arm.recipe)
    return set(lessons["chosen"].explode().drop_nulls())


def seconds_of(table: str, column: str, key: str | None, last: int) -> float:
    """Seconds of the rows of data/consolidate/`last`/`table` whose `column` is `key`; 0 without a key."""
    if key is None:
        return 0.0
    rows = read_parquet(DATA / f"consolidate/{last}/{table}.parquet")
    return float(rows.filter(pl.col(column) == key)["seconds"].sum())


def profile_bytes(arm: Arm, last: int) -> int:
    """Size in UTF-8 of an arm's profiles after period `last`, all users; 0 without any."""
    return 0 if arm.profile is None else int(read_written(arm, last)["text"].str.len_bytes().sum())


def rows_per_step(generations: pl.DataFrame, max_new_tokens: int) -> float:
    """Rows read per token: 2 with both paths, 1 with one; what `adaptive` saves shows in it."""
    steps = (generations["tokens"] + 1).clip(upper_bound=max_new_tokens)  # the stop token takes one too
    return float(generations["row_steps"].sum()) / float(steps.sum())


def memory_bytes(arm: Arm, last: int) -> int:
    """What an arm keeps after period `last` besides adapters, all users: texts (UTF-8), profiles, vectors."""
    return text_bytes(arm, last) + profile_bytes(arm, last) + vector_bytes(arm, last) + steer_bytes(arm, last)


def text_bytes(arm: Arm, last: int) -> int:
    """Size in UTF-8 of the queries and responses that an arm keeps to search or to learn again, all users."""
    scope = arm.memory.scope if arm.memory and arm.memory_id else None
    if (arm.train and arm.train.data == "cumulative") or getattr(arm.profile, "scope", None) == "history":
        scope = "history"
    if arm.steer is not None:  # later vectors are made with earlier items of all users
        scope = "history"
    if scope is None:
        return 0
    rows = scan_parquet(DATA / f"consolidate/{last}/history.parquet")
    if scope == "period":
        rows = rows.filter(pl.col("period") == last)
    elif scope == "buffer":
        held = scan_parquet(DATA / f"consolidate/{last}/buffers.parquet")
        rows = rows.join(held.filter(pl.col("memory") == arm.memory_id), on="interaction_id", how="semi")
    sizes = rows.select(pl.col("query", "response").str.len_bytes().cast(pl.Int64).sum())
    return sum(sizes.collect(engine="streaming").row(0))


def vector_bytes(arm: Arm, last: int) -> int:
    """Size of an arm's profile vectors: D + 3 numbers of 4 bytes a user; 0 without any."""
    if arm.profiling is None:
        return 0
    rows = read_parquet(DATA / f"consolidate/{last}/vectors.parquet")
    rows = rows.filter(pl.col("profile") == vector_id(arm.profiling))
    return 4 * int((rows["vector"].list.len() + 3).sum())


def steer_bytes(arm: Arm, last: int) -> int:
    """Size of an arm's steering vectors and of the embeddings that they are found by; 0 without any."""
    if arm.steer_id is None:
        return 0
    rows = read_parquet(DATA / f"consolidate/{last}/steers.parquet").filter(pl.col("steer") == arm.steer_id)
    return 4 * int(rows["embedding"].list.len().sum()) + int(rows["bytes"].sum())
