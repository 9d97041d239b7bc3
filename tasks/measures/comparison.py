"""Arms against one of them, user by user: intervals, p-values, effect sizes, users needed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl

from spring.measures.significance import cohens_dz, differences_of, holm, permutation_ps, users_needed
from spring.measures.statistics import Interval, mean_intervals
from spring.settings.params import Params

Key = TypeVar("Key", bound=Hashable)
NOTHING = dict.fromkeys(("difference", "low", "high", "p", "d_z", "users_needed"))


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


def intervals_of(params: Params, columns: Mapping[Key, pl.Series]) -> dict[Key, dict[str, Any]]:
    """The mean of every column over users that have a value (no nulls), its interval, how many they are.

    All that is asked for at once shares its draws, which is what takes long with many users.
    """
    there = {key: values.drop_nulls().to_numpy() for key, values in columns.items()}
    found: dict[Key, dict[str, Any]] = {
        key: {"mean": None, "low": None, "high": None, "users": 0} for key in there
    }
    some = {key: values for key, values in there.items() if len(values)}
    intervals = mean_intervals(list(some.values()), **interval_settings(params))
    for (key, values), interval in zip(some.items(), intervals, strict=True):
        found[key] = as_json(interval, "mean") | {"users": len(values)}
    return found


def compare_arms(params: Params, means: dict[str, pl.DataFrame], columns: Sequence[str]) -> dict[str, Any]:
    """Arm -> metric -> its difference from `evaluate.against`; `means` has a row per user, in one order.

    `p_holm` is corrected for the number of arms compared, within each metric.
    """
    against = means[params.evaluate.against]
    others = [arm for arm in means if arm != params.evaluate.against]
    pairs = {(arm, column): (means[arm], against, column) for arm in others for column in columns}
    compared = compare_all(params, pairs)
    found: dict[str, Any] = {arm: {column: compared[arm, column] for column in columns} for arm in others}
    for column in columns:
        corrected = holm([found[arm][column]["p"] for arm in others])
        for arm, p in zip(others, corrected, strict=True):
            found[arm][column]["p_holm"] = p
    return found


def compare_all(
    params: Params, pairs: Mapping[Key, tuple[pl.DataFrame, pl.DataFrame, str]]
) -> dict[Key, dict[str, Any]]:
    """Of an arm's means, another's and a metric: difference with its interval, p-value, d_z, users needed.

    Over users that have the metric (no null) under both; all null where none has.
    """
    both = {key: of_both(*pair) for key, pair in pairs.items()}
    there = {key: pair for key, pair in both.items() if len(pair[0])}
    intervals = mean_intervals(
        [values - others for values, others in there.values()], **interval_settings(params)
    )
    differences = [differences_of(values, others) for values, others in there.values()]
    ps = permutation_ps(differences, seed=params.seed)
    found: dict[Key, dict[str, Any]] = {key: dict(NOTHING) for key in both}
    for key, interval, own, p in zip(there, intervals, differences, ps, strict=True):
        found[key] = as_json(interval, "difference") | {
            "p": p,
            "d_z": cohens_dz(own),
            "users_needed": users_needed(
                own,
                effect=params.evaluate.detect * float(there[key][1].mean()),
                power=params.evaluate.power,
                alpha=1 - params.evaluate.confidence,
            ),
        }
    return found


def of_both(means: pl.DataFrame, against: pl.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """A metric of two arms, of the users that have it under both: [N] each."""
    assert means["user_id"].equals(against["user_id"]), "coverage was checked, so both have the same users"
    both = pl.DataFrame({"values": means[column], "others": against[column]}).drop_nulls()
    return both["values"].to_numpy(), both["others"].to_numpy()
