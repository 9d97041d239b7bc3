"""What is read off scores[i, j]: transfer and forgetting per arm, with intervals over users."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from spring.metrics import TEXT_METRICS, score_texts, wordnet_is_installed
from spring.params import Params
from spring.statistics import STABLE, mean_interval
from spring.transfer import average, backward_transfer, delay, follow, forgetting, forward_transfer
from tasks.comparison import as_json, interval_settings
from tasks.files import DATA, read_parquet

Measure = Callable[[np.ndarray, np.ndarray], float]  # scores [P, P], untrained [P] -> unit of the metric
MEASURES: dict[str, Measure] = {
    "average": lambda scores, _: average(scores),
    "backward": lambda scores, _: backward_transfer(scores),
    "forward": forward_transfer,
    "forgetting": lambda scores, _: forgetting(scores),
}


def transfer_metrics(params: Params, interactions: pl.DataFrame) -> dict[str, Any]:
    """Per arm: the mean matrix, what the base model has in its place, and every measure; empty if off.

    Measures are taken user by user and averaged, since the largest of means is not the mean of the largest.
    """
    if params.transfer is None:
        return {}
    untrained = read_untrained(params)
    users = untrained["user_id"].unique().sort().to_list()
    before = cube(untrained, users, len(params.periods))
    labels = read_labels(interactions)
    kinds = users_by_kind(labels)
    changed, stable = probes(labels, users, len(params.periods))
    generated = measure_texts(params, users) if params.transfer == "generation" else {}
    found = {}
    for arm, rows in read_matrix().partition_by("arm", as_dict=True, include_key=False).items():
        scores = cube(rows, users, len(params.periods), len(params.periods))
        curve = follow(scores, changed=changed, stable=stable)
        found[str(arm[0])] = measure(params, scores, before) | {
            "follow": {str(at.periods): {"excess": at.excess, "changes": at.changes} for at in curve},
            "delay": delay(curve),
            "generated": generated.get(str(arm[0]), {}),
            "kinds": {
                kind: measure_kind(scores, before, [users.index(user) for user in members])
                for kind, members in kinds.items()
            },
        }
    return {arm: found[arm] for arm in params.arms}


def measure_texts(params: Params, users: list[str]) -> dict[str, dict[str, Any]]:
    """Per arm and metric of texts what `measure` gives; the base model's answers stand for the untrained."""
    rows, periods = read_texts(params), len(params.periods)
    found: dict[str, dict[str, Any]] = {arm: {} for arm in params.arms}
    for arm, metric in product(params.arms, TEXT_METRICS):
        own = rows.filter(pl.col("arm") == arm).with_columns(value=metric)
        states, base = (own.filter(keep) for keep in (pl.col("learned") >= 0, pl.col("learned").is_null()))
        scores = cube(states, users, periods, periods)
        found[arm][metric] = measure(params, scores, cube(base, users, periods))
    return found


def read_texts(params: Params) -> pl.DataFrame:
    """One row per arm, user, learned (null: base model) and tested period: means of the metrics of texts."""
    tests = pl.concat(read_parquet(DATA / f"split/{period}.parquet") for period in params.periods)
    rows = read_parquet(DATA / "transfer/texts.parquet").join(
        tests.select("interaction_id", "response"), on="interaction_id", how="left", validate="m:1"
    )
    pairs = list(rows.select("response", "text").iter_rows())
    scores = score_texts(pairs, synonyms=wordnet_is_installed())
    rows = rows.with_columns(pl.Series(name, values) for name, values in scores.items())
    return rows.group_by("arm", "user_id", "learned", "tested").agg(pl.col(TEXT_METRICS).mean())


def read_matrix() -> pl.DataFrame:
    """One row per arm, user, learned and tested period: the mean over the user's test items."""
    cells = read_parquet(DATA / "transfer/likelihoods.parquet")
    cells = cells.with_columns(value=pl.col("logp") / pl.col("ref_tokens"))
    return cells.group_by("arm", "user_id", "learned", "tested").agg(pl.col("value").mean())


def read_untrained(params: Params) -> pl.DataFrame:
    """The same under the base model alone, per user and tested period."""
    frames = []
    for period in params.periods:
        tests = read_parquet(DATA / f"split/{period}.parquet").filter(pl.col("part") == "test")
        scored = read_parquet(DATA / f"score_base/{period}.parquet")
        scored = scored.select("interaction_id", value=pl.col("logp") / pl.col("tokens"))
        rows = tests.select("user_id", "interaction_id", tested="period")
        frames.append(rows.join(scored, on="interaction_id", how="left"))
    return pl.concat(frames).group_by("user_id", "tested").agg(pl.col("value").mean())


def cube(rows: pl.DataFrame, users: list[str], *periods: int) -> np.ndarray:
    """`value` as [N, P] or [N, P, P], users by name."""
    keys = ["user_id", "learned", "tested"] if len(periods) == 2 else ["user_id", "tested"]
    values = rows.sort(keys)["value"].to_numpy()
    shape = (len(users), *periods)
    assert len(values) == np.prod(shape), (
        f"{len(values)} cells, not {shape}: run `dvc repro --force transfer`"
    )
    return values.reshape(shape)


def measure(params: Params, scores: np.ndarray, untrained: np.ndarray) -> dict[str, Any]:
    """One arm: `matrix` (learned -> tested -> mean over users), `untrained`, and all of `MEASURES`."""
    names = [str(period) for period in params.periods]
    rows = (dict(zip(names, row, strict=True)) for row in scores.mean(axis=0).tolist())
    found: dict[str, Any] = {
        "matrix": dict(zip(names, rows, strict=True)),
        "untrained": dict(zip(names, untrained.mean(axis=0).tolist(), strict=True)),
    }
    for name, taken in MEASURES.items():
        values = np.array([taken(*user) for user in zip(scores, untrained, strict=True)])
        found[name] = as_json(mean_interval(values, **interval_settings(params)), "mean")
    return found


def measure_kind(scores: np.ndarray, untrained: np.ndarray, members: list[int]) -> dict[str, Any]:
    """All of `MEASURES` over the users of one kind of change, without intervals: they are few."""
    return {"users": len(members)} | {
        name: float(np.mean([taken(scores[user], untrained[user]) for user in members]))
        for name, taken in MEASURES.items()
    }


def read_labels(interactions: pl.DataFrame) -> pl.DataFrame:
    """user_id, period, part, drift and is_drift of the labelled interactions; no rows without labels."""
    labels = read_parquet(DATA / "ingest/labels.parquet").drop_nulls("drift")
    labels = labels.join(interactions, on="interaction_id")
    return labels.select("user_id", "period", "part", "drift", "is_drift")


def users_by_kind(labels: pl.DataFrame) -> dict[str, list[str]]:
    """Users by the kind of lasting change in them (personas): new styles and returning ones, no noise."""
    lasting = labels.filter((pl.col("drift") != STABLE) & pl.col("is_drift").fill_null(True))
    pairs = lasting.select("drift", "user_id").unique().sort(pl.all())
    return {
        str(kind): rows["user_id"].to_list() for (kind,), rows in pairs.group_by("drift", maintain_order=True)
    }


def probes(labels: pl.DataFrame, users: list[str], periods: int) -> tuple[np.ndarray, np.ndarray]:
    """Where all tests of a user's period are new in style, and where all are stable: bool [N, P] each."""
    tests = labels.filter(pl.col("part") == "test").group_by("user_id", "period")
    told = tests.agg(
        changed=pl.col("is_drift").fill_null(False).all(), stable=(pl.col("drift") == STABLE).all()
    )
    changed, stable = np.zeros((2, len(users), periods), dtype=bool)
    for user, period, is_new, is_stable in told.iter_rows():
        changed[users.index(user), period] = is_new
        stable[users.index(user), period] = is_stable
    return changed, stable
