"""Pooling kept runs: users of every seed together, with the metrics that all runs have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

import polars as pl

from spring.measures.transfer import Follow
from spring.settings.params import Params
from tasks.evaluate import arm_metrics, metrics_in, over_periods
from tasks.measures.comparison import compare_arms
from tasks.measures.detection import drift_metrics
from tasks.measures.matrix import compare_measures, following, summarise
from tasks.measures.scores import METRICS
from tasks.seeds.keeping import KEPT, Run


def lacking(runs: dict[int, Run]) -> list[str]:
    """The metrics that not every run has: some were kept before there was such a metric."""
    there = [metrics_in(tables["users"]) for _, tables in runs.values()]
    return [metric for metric in METRICS if not all(metric in found for found in there)]


def without(run: Run, left: list[str]) -> Run:
    """A run less some metrics of answers."""
    metrics, tables = run
    arms = {name: leave_out(found, left) for name, found in metrics["arms"].items()}
    transfer = {
        name: found | {"generated": leave_out(found["generated"], left)}
        for name, found in metrics["transfer"].items()
    }
    users = tables["users"].drop(left, strict=False)
    measured = tables["transfer"].filter(~pl.col("metric").is_in(left))
    counted = leave_out(metrics.get("inapplicable", {}), left)
    metrics = metrics | {"arms": arms, "transfer": transfer, "inapplicable": counted}
    return metrics, tables | {"users": users, "transfer": measured}


def leave_out(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A mapping less some names."""
    return {name: value for name, value in found.items() if name not in names}


def pool(params: Params, runs: dict[int, Run]) -> dict[str, Any]:
    """A metrics.json of all runs together, with the metrics that all of them have."""
    params = params.model_copy(update={"seed": min(runs)})  # of the resampling, whichever run was the last
    left = lacking(runs)
    runs = {seed: without(run, left) for seed, run in runs.items()}
    every = [metrics for metrics, _ in runs.values()]
    users, measured, detected = (
        together(params, {seed: tables[name] for seed, (_, tables) in runs.items()}, ["arm", "user_id", key])
        for name, key in zip(KEPT, ("period", "metric", "kind"), strict=True)
    )
    means = {name: over_periods(users, name) for name in params.arms}
    pooled: dict[str, Any] = average(every)
    del pooled["seed"]
    if params.ingest.seeded:
        pooled["interactions"] = sum(metrics["interactions"] for metrics in every)
    for name, quality in arm_metrics(params, users, means).items():
        pooled["arms"][name] |= quality
    if not measured.is_empty():
        with_matrix = [metrics for metrics in every if metrics["transfer"]]
        pooled["transfer"] = average([metrics["transfer"] for metrics in with_matrix])
        pool_transfer(params, pooled["transfer"], with_matrix, measured)
    return pooled | {
        "users": users["user_id"].n_unique(),
        "inapplicable": inapplicable(params, every),
        "seeds": list(runs),
        "against": params.evaluate.against,
        "periods": every[0]["periods"],
        "paired": compare_arms(params, means, metrics_in(users)),
        "by_seed": by_seed(params, [tables["users"] for _, tables in runs.values()]),
        "transfer_paired": compare_measures(params, measured),
        "drift": drift_metrics(params, detected),
    }


def inapplicable(params: Params, every: list[dict[str, Any]]) -> dict[str, int]:
    """Metric -> to how many test items it does not apply; of users that no seed makes, in one run."""
    counts = Counter[str]()
    for metrics in every if params.ingest.seeded else every[:1]:
        counts.update(metrics["inapplicable"])
    return dict(counts)


def by_seed(params: Params, every: list[pl.DataFrame]) -> dict[str, dict[str, list[float | None]]]:
    """Arm -> metric -> mean difference from `evaluate.against` in each run, from their tables of users.

    Null where a metric does not apply to any text of a run.
    """
    metrics = metrics_in(every[0])
    found = [
        {
            arm: over_periods(users, arm).select(pl.col(metrics).mean()).row(0, named=True)
            for arm in params.arms
        }
        for users in every
    ]
    against = params.evaluate.against
    return {
        arm: {name: [less(means[arm][name], means[against][name]) for means in found] for name in metrics}
        for arm in params.arms
        if arm != against
    }


def less(value: float | None, other: float | None) -> float | None:
    """A difference; null where there is nothing to take it from."""
    return None if value is None or other is None else value - other


def pool_transfer(
    params: Params, pooled: dict[str, Any], every: list[dict[str, Any]], measured: pl.DataFrame
) -> None:
    """Puts the measures of all users in the place of means over runs, in the block `transfer` of metrics."""
    curves = {
        name: follow_together([metrics["transfer"][name]["follow"] for metrics in every])
        for name in params.arms
    }
    for name, said in following(curves).items():
        found = summarise(params, measured.filter(pl.col("arm") == name))
        for metric, measures in found.pop("generated").items():
            pooled[name]["generated"][metric] |= measures
        pooled[name] |= found | said


def together(params: Params, runs: dict[int, pl.DataFrame], keys: list[str]) -> pl.DataFrame:
    """One row per `keys`: users that a seed makes apart, others once with their means over seeds."""
    if params.ingest.seeded:
        named = (
            frame.with_columns(user_id=pl.format("{}/{}", pl.lit(seed), "user_id"))
            for seed, frame in runs.items()
        )
        return pl.concat(named)
    rows = pl.concat(runs.values())
    groups = rows.group_by(keys, maintain_order=True)
    return groups.agg(pl.exclude(pl.Float64).first(), pl.col(pl.Float64).mean()).select(rows.columns)


def follow_together(curves: list[dict[str, Any]]) -> list[Follow]:
    """The curves of several runs as one: every change counts once."""
    found = []
    for periods in sorted({int(periods) for curve in curves for periods in curve}):
        points = [curve[str(periods)] for curve in curves if str(periods) in curve]
        changes = sum(point["changes"] for point in points)
        excess = sum(point["excess"] * point["changes"] for point in points) / changes
        found.append(Follow(periods, excess, changes))
    return found


def average(values: list[Any], middle: Callable[[list[Any]], float] = fmean) -> Any:
    """Means of numbers at the same place in equally built values; what is no number is the first one's.

    Of seconds the median: a machine that did other work beside one of the seeds made no method slower.
    """
    first = values[0]
    if isinstance(first, dict):
        return {
            key: average(
                [value[key] for value in values if key in value],
                median if key.startswith("seconds") else middle,
            )
            for key in first
        }
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not numbers:
        return first
    found = middle(numbers)
    return round(found) if all(isinstance(number, int) for number in numbers) else found
