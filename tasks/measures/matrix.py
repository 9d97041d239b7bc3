"""What is read off scores[i, j]: transfer and forgetting per arm, with intervals over users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from spring.measures.meteor import wordnet_is_installed
from spring.measures.metrics import TEXT_METRICS, score_texts
from spring.measures.statistics import STABLE
from spring.measures.transfer import (
    Follow,
    average,
    backward_transfer,
    delays,
    follow,
    forgetting,
    forward_transfer,
    held,
    personal,
)
from spring.settings.params import Params
from tasks.files import DATA, read_parquet, read_tests
from tasks.measures.comparison import compare_arms, intervals_of


@dataclass(frozen=True)
class States:
    """One user under one arm: a metric of every state on every period, and what goes with it.

    P periods: those in which the user has test items, in their order.
    """

    scores: np.ndarray  # [P, P]: learned, tested; NaN: the metric does not apply to any of the texts
    untrained: np.ndarray  # [P]: the base model
    swapped: np.ndarray | None  # [P]: each period's state with another user's adapter; null: has no own
    changed: np.ndarray  # [P] bool: the tests are written in a new way
    returned: np.ndarray  # [P] bool: in an old way again

    @property
    def whole(self) -> bool:
        """Whether the metric applies to every period, of which there are two or more."""
        return len(self.scores) > 1 and bool(
            np.isfinite(self.scores).all() and np.isfinite(self.untrained).all()
        )

    @property
    def personal(self) -> float | None:
        """What the user's own adapter gives beyond a stranger's."""
        return None if self.swapped is None else personal(self.scores.diagonal(), self.swapped)


MEASURES: dict[str, Callable[[States], float | None]] = {  # in the unit of the metric
    "average": lambda of: average(of.scores),
    "backward": lambda of: backward_transfer(of.scores),
    "forward": lambda of: forward_transfer(of.scores, of.untrained),
    "forgetting": lambda of: forgetting(of.scores),
    "held": lambda of: held(of.scores, changed=of.changed, returned=of.returned),
    "personal": lambda of: of.personal,
}
LIKELIHOOD = "logp_per_token"
MEASURED: dict[str, Any] = {
    "arm": pl.String,
    "user_id": pl.String,
    "kinds": pl.List(pl.String),  # of change in this user
    "metric": pl.String,
    **dict.fromkeys(MEASURES, pl.Float64),
}


def transfer_metrics(params: Params, interactions: pl.DataFrame) -> tuple[dict[str, Any], pl.DataFrame]:
    """Per arm: the mean matrix, what the base model has in its place, every measure; and `MEASURED` of users.

    Measures are taken user by user and averaged, since the largest of means is not the mean of the largest,
    each over the periods in which the user has tests; a user has none of a metric that does not apply to any
    text of one of them, and none with tests in a single period. Both are empty if the matrix is off.
    """
    if params.transfer is None:
        return {}, pl.DataFrame(schema=MEASURED)
    alone = read_untrained(params)
    users, periods = alone["user_id"].unique().sort().to_list(), len(params.periods)
    untrained = cube(alone, users, periods)
    there = [np.flatnonzero(np.isfinite(row)) for row in untrained]  # of each user: periods with tests
    labels = read_labels(interactions)
    kinds, told = kinds_of(labels), probes(labels, users, periods)
    matrix = read_matrix()
    check_matrix(matrix, alone, list(params.arms))
    texts = read_texts(params) if params.transfer == "generation" else None
    found: dict[str, Any] = {}
    curves: dict[str, list[Follow]] = {}
    measured = [pl.DataFrame(schema=MEASURED)]
    for arm in params.arms:
        mine = matrix.filter(pl.col("arm") == arm)
        states = cube(mine.filter(pl.col("adapter") == "own"), users, periods, periods)
        swapped = read_swapped(mine, dict(zip(users, there, strict=True)))
        pairs = {LIKELIHOOD: (states, untrained)}
        if texts is not None:
            pairs |= of_texts(texts.filter(pl.col("arm") == arm), users, periods)
        rows = pl.DataFrame(
            [
                {"arm": arm, "user_id": user, "kinds": kinds.get(user, []), "metric": metric}
                | {name: taken(of) if of.whole else None for name, taken in MEASURES.items()}
                for metric, (scores, base) in pairs.items()
                for i, user in enumerate(users)
                for of in [
                    States(
                        scores[i][np.ix_(there[i], there[i])],
                        base[i][there[i]],
                        swapped.get(user) if metric == LIKELIHOOD else None,
                        told["changed"][i][there[i]],
                        told["returned"][i][there[i]],
                    )
                ]
            ],
            schema=MEASURED,
        )
        measured.append(rows)
        curves[arm] = follow(states, **told)
        found[arm] = means(params, *pairs[LIKELIHOOD]) | summarise(params, rows)
        for metric in TEXT_METRICS if texts is not None else ():
            found[arm]["generated"][metric] |= means(params, *pairs[metric])
    for arm, said in following(curves).items():
        found[arm] |= said
    return found, pl.concat(measured)


def of_texts(rows: pl.DataFrame, users: list[str], periods: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Metric of one arm's texts -> scores [N, P, P], and [N, P] of the base model's answers."""
    states, base = (rows.filter(keep) for keep in (pl.col("learned") >= 0, pl.col("learned").is_null()))
    return {
        metric: (
            cube(states.with_columns(value=metric), users, periods, periods),
            cube(base.with_columns(value=metric), users, periods),
        )
        for metric in TEXT_METRICS
    }


def summarise(params: Params, rows: pl.DataFrame) -> dict[str, Any]:
    """One arm's `MEASURED` rows: every measure with its interval, by kind of change, and of texts."""
    by_metric = {str(metric): own for (metric,), own in rows.group_by("metric", maintain_order=True)}
    likelihoods = by_metric.pop(LIKELIHOOD)
    by_kind = (
        likelihoods.explode("kinds")
        .drop_nulls("kinds")
        .group_by("kinds")
        .agg(pl.len().alias("users"), *(pl.col(name).mean() for name in MEASURES))
    )
    return intervals(params, likelihoods) | {
        "kinds": {row.pop("kinds"): row for row in by_kind.sort("kinds").to_dicts()},
        "generated": {metric: intervals(params, own) for metric, own in by_metric.items()},
    }


def following(curves: Mapping[str, Sequence[Follow]]) -> dict[str, dict[str, Any]]:
    """Arm -> `follow` (periods after a change -> gain and changes) and `delay`."""
    found = delays(curves)
    return {
        arm: {
            "follow": {str(at.periods): {"excess": at.excess, "changes": at.changes} for at in curve},
            "delay": found[arm],
        }
        for arm, curve in curves.items()
    }


def intervals(params: Params, rows: pl.DataFrame) -> dict[str, Any]:
    """Every measure's mean over users with its interval; null where no user has it."""
    return intervals_of(params, {name: rows[name] for name in MEASURES})


def compare_measures(params: Params, measured: pl.DataFrame) -> dict[str, Any]:
    """Arm -> measure of likelihoods -> its difference from `evaluate.against`, over users that have both."""
    rows = measured.filter(pl.col("metric") == LIKELIHOOD).sort("user_id")
    if rows.is_empty():
        return {}
    means = {arm: rows.filter(pl.col("arm") == arm) for arm in params.arms}
    return compare_arms(params, means, list(MEASURES))


def read_texts(params: Params) -> pl.DataFrame:
    """One row per arm, user, learned (null: base model) and tested period: means of the metrics of texts."""
    tests = pl.concat(read_parquet(DATA / f"split/{period}.parquet") for period in params.periods)
    rows = read_parquet(DATA / "transfer/texts.parquet").join(
        tests.select("interaction_id", "response"), on="interaction_id", how="left", validate="m:1"
    )
    assert not rows["response"].null_count(), "a generated text answers no test item"
    pairs = list(rows.select("response", "text").iter_rows())
    scores = score_texts(pairs, synonyms=wordnet_is_installed())
    rows = rows.with_columns(pl.Series(name, values).fill_nan(None) for name, values in scores.items())
    return rows.group_by("arm", "user_id", "learned", "tested").agg(pl.col(list(TEXT_METRICS)).mean())


def read_matrix() -> pl.DataFrame:
    """One row per arm, user, adapter, learned and tested period: the mean over the user's test items."""
    keys = ["arm", "user_id", "adapter", "learned", "tested"]
    cells = read_parquet(DATA / "transfer/likelihoods.parquet", [*keys, "logp", "ref_tokens"])
    cells = cells.with_columns(value=pl.col("logp") / pl.col("ref_tokens"))
    return cells.group_by(keys).agg(pl.col("value").mean())


def check_matrix(matrix: pl.DataFrame, alone: pl.DataFrame, arms: list[str]) -> None:
    """Raises `ValueError` if a state has no value for its own period's tests: they are of another split."""
    own = matrix.filter((pl.col("learned") == pl.col("tested")) & (pl.col("adapter") == "own"))
    keys = ["arm", "user_id", "tested"]
    wanted = pl.DataFrame({"arm": arms}).join(alone.select(keys[1:]), how="cross")
    missing = wanted.join(own.filter(pl.col("value").is_finite()), on=keys, how="anti").sort(keys)
    if missing.height:
        raise ValueError(
            f"data/transfer lacks {missing.height} values (arm/user/period), the first of "
            f"{'/'.join(map(str, missing.row(0)))}: run `dvc repro --force transfer`"
        )


def read_swapped(rows: pl.DataFrame, there: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """User -> [P], every period's state with another user's adapter; from one arm's rows of the matrix.

    `there`: the periods in which each user has tests. Without users who had no adapter of their own, or no
    other's to take, in one of them: what is personal would be of other periods.
    """
    swapped = rows.filter(pl.col("adapter") == "swapped").sort("tested")
    of_users = {str(user): own["value"].to_numpy() for (user,), own in swapped.group_by("user_id")}
    return {user: values for user, values in of_users.items() if len(values) == len(there[user])}


def read_untrained(params: Params) -> pl.DataFrame:
    """The same under the base model alone, per user and tested period."""
    frames = []
    for period in params.periods:
        tests = read_tests(period)
        scored = read_parquet(DATA / f"score_base/{period}.parquet")
        scored = scored.select("interaction_id", value=pl.col("logp") / pl.col("tokens"))
        rows = tests.select("user_id", "interaction_id", tested="period")
        rows = rows.join(scored, on="interaction_id", how="left", validate="1:1")
        assert not rows["value"].null_count(), f"period {period} has test items without a base likelihood"
        frames.append(rows)
    return pl.concat(frames).group_by("user_id", "tested").agg(pl.col("value").mean())


def cube(rows: pl.DataFrame, users: list[str], *periods: int) -> np.ndarray:
    """`value` as [N, P] or [N, P, P], users by name; NaN where there is none."""
    keys = ["learned", "tested"] if len(periods) == 2 else ["tested"]
    places = {user: place for place, user in enumerate(users)}
    at = rows["user_id"].replace_strict(places, return_dtype=pl.Int64).to_numpy()
    found = np.full((len(users), *periods), np.nan)
    found[(at, *(rows[key].to_numpy() for key in keys))] = rows["value"].to_numpy()
    return found


def means(params: Params, scores: np.ndarray, untrained: np.ndarray) -> dict[str, Any]:
    """`matrix` (learned -> tested -> mean over users) and `untrained` of scores [N, P, P] and [N, P].

    Means are over the users that have a value; null where none has.
    """
    states, alone = (np.ma.masked_invalid(values).mean(axis=0).tolist() for values in (scores, untrained))
    names = [str(period) for period in params.periods]
    rows = (dict(zip(names, row, strict=True)) for row in states)
    return {
        "matrix": dict(zip(names, rows, strict=True)),
        "untrained": dict(zip(names, alone, strict=True)),
    }


def read_labels(interactions: pl.DataFrame) -> pl.DataFrame:
    """user_id, period, part, drift and is_drift of the labelled interactions; no rows without labels."""
    labels = read_parquet(DATA / "ingest/labels.parquet").drop_nulls("drift")
    labels = labels.join(interactions, on="interaction_id")
    return labels.select("user_id", "period", "part", "drift", "is_drift")


def kinds_of(labels: pl.DataFrame) -> dict[str, list[str]]:
    """The kinds of lasting change in each user (personas): new styles and returning ones, no noise."""
    lasting = labels.filter((pl.col("drift") != STABLE) & pl.col("is_drift").fill_null(True))
    kinds = lasting.group_by("user_id").agg(pl.col("drift").unique().sort())
    return dict(kinds.iter_rows())


def probes(labels: pl.DataFrame, users: list[str], periods: int) -> dict[str, np.ndarray]:
    """Where all tests of a user's period are in a new style, as before, in an old one again: bool [N, P]."""
    tests = labels.filter(pl.col("part") == "test").group_by("user_id", "period")
    told = tests.agg(
        changed=pl.col("is_drift").fill_null(False).all(),
        stable=(pl.col("drift") == STABLE).all(),
        returned=pl.col("is_drift").is_null().all(),
    )
    places = {user: place for place, user in enumerate(users)}
    at = told["user_id"].replace_strict(places, return_dtype=pl.Int64).to_numpy(), told["period"].to_numpy()
    found = {}
    for name in ("changed", "stable", "returned"):
        found[name] = np.zeros((len(users), periods), dtype=bool)
        found[name][at] = told[name].to_numpy()
    return found
