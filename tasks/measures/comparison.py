"""Arms against one of them, user by user: intervals, p-values, effect sizes, users needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from spring.measures.significance import cohens_dz, differences_of, holm, permutation_p, users_needed
from spring.measures.statistics import Interval, mean_interval, paired_difference
from spring.settings.params import Params


def interval_settings(params: Params) -> dict[str, Any]:
    """What every interval is made with."""
    return {
        "resamples": params.evaluate.resamples,
        "confidence": params.evaluate.confidence,
        "seed": params.seed,
    }


def as_json(interval: Interval, name: str) -> dict[str, float | None]:
    """An interval under the name of its middle."""
    return {name: interval.mean, "low": interval.low, "high": interval.high}


def interval_of(params: Params, values: pl.Series) -> dict[str, float | int | None]:
    """The mean over users that have a value (no nulls), its interval, and how many they are."""
    there = values.drop_nulls().to_numpy()
    if not len(there):
        return {"mean": None, "low": None, "high": None, "users": 0}
    return as_json(mean_interval(there, **interval_settings(params)), "mean") | {"users": len(there)}


def compare_arms(params: Params, means: dict[str, pl.DataFrame], columns: Sequence[str]) -> dict[str, Any]:
    """Arm -> metric -> its difference from `evaluate.against`; `means` has a row per user, in one order.

    `p_holm` is corrected for the number of arms compared, within each metric.
    """
    against = means[params.evaluate.against]
    others = [arm for arm in means if arm != params.evaluate.against]
    found: dict[str, Any] = {
        arm: {column: compare(params, means[arm], against, column) for column in columns} for arm in others
    }
    for column in columns:
        corrected = holm([found[arm][column]["p"] for arm in others])
        for arm, p in zip(others, corrected, strict=True):
            found[arm][column]["p_holm"] = p
    return found


def compare(params: Params, means: pl.DataFrame, against: pl.DataFrame, column: str) -> dict[str, Any]:
    """One arm and metric: difference with its interval, p-value, d_z, users that would find a small one.

    Over users that have the metric (no null) under both; all null where none has.
    """
    assert means["user_id"].equals(against["user_id"]), "coverage was checked, so both have the same users"
    both = pl.DataFrame({"values": means[column], "others": against[column]}).drop_nulls()
    if both.is_empty():
        return dict.fromkeys(("difference", "low", "high", "p", "d_z", "users_needed"))
    values, others = both["values"].to_numpy(), both["others"].to_numpy()
    settings = params.evaluate
    difference = paired_difference(values, against=others, **interval_settings(params))
    differences = differences_of(values, others)
    return as_json(difference, "difference") | {
        "p": permutation_p(differences, seed=params.seed),
        "d_z": cohens_dz(differences),
        "users_needed": users_needed(
            differences,
            effect=settings.detect * float(others.mean()),
            power=settings.power,
            alpha=1 - settings.confidence,
        ),
    }
