"""What drift scores find, on sources that label their changes, and which of their parts they follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl

from spring.measures.statistics import detection, rank_correlations, spearman
from spring.method.drift import loss
from spring.settings.arm import Arm, recipe_of
from spring.settings.params import Params
from tasks.files import DATA, read_parquet
from tasks.measures.comparison import intervals_of

MEASURES = (
    "auroc",
    "average_precision",
    "chance",
    "precision",
    "blind",
)  # statistics.detection
DETECTED: dict[str, Any] = {
    "arm": pl.String,
    "user_id": pl.String,
    "kind": pl.String,  # of change; `spring.measures.statistics.EVERY` of them
    **dict.fromkeys(MEASURES, pl.Float64),
}


def selecting(params: Params) -> dict[str, Arm]:
    """The arms that select by drift."""
    return {name: arm for name, arm in params.arms.items() if arm.train and arm.train.data == "drift"}


def read_scores(periods: Iterable[int]) -> pl.DataFrame:
    """Drift scores and their parts, of every recipe that selects."""
    return pl.concat(read_parquet(DATA / f"adapt/{t}/scores.parquet") for t in periods)


def detect(params: Params, scores: pl.DataFrame) -> pl.DataFrame:
    """`DETECTED`: how well each arm that selects by drift tells real changes apart; none without labels.

    Items are compared within a user's period, which is where the selection ranks; a user's number is the mean
    over the periods that have one.
    """
    labels = read_parquet(DATA / "ingest/labels.parquet").drop_nulls("is_drift")
    found: list[dict[str, Any]] = []
    for name, arm in selecting(params).items():
        rows = scores.filter(pl.col("recipe") == arm.recipe).join(labels, on="interaction_id")
        for user, own in by_period(rows, "drift_score", "selected", "is_drift", "drift"):
            score, selected, real, kinds = own.values()
            of_kinds = detection(score, selected=selected, real=real, kinds=kinds)
            found += [
                {"arm": name, "user_id": user, "kind": kind} | of_kind for kind, of_kind in of_kinds.items()
            ]
    keys = ["arm", "user_id", "kind"]
    table = pl.DataFrame(found, schema=DETECTED)
    return table.group_by(keys, maintain_order=True).agg(pl.col(MEASURES).mean())


def drift_metrics(params: Params, detected: pl.DataFrame) -> dict[str, Any]:
    """Arm -> kind -> each of `MEASURES`: its mean over the users that have it, with its interval."""
    parts = detected.partition_by("arm", "kind", maintain_order=True, as_dict=True)
    values = {(*place, name): rows[name] for place, rows in parts.items() for name in MEASURES}
    found: dict[str, Any] = {}
    for (arm, kind, name), interval in intervals_of(params, values).items():
        found.setdefault(arm, {}).setdefault(kind, {})[name] = interval
    return found


def read_candidates(periods: Iterable[int]) -> pl.DataFrame:
    """What every buffer was offered, scored after learning; with the period."""
    return pl.concat(
        read_parquet(DATA / f"consolidate/{t}/candidates.parquet").with_columns(period=pl.lit(t))
        for t in periods
    )


def correlation_metrics(
    params: Params, scores: pl.DataFrame, candidates: pl.DataFrame
) -> dict[str, dict[str, float | None]]:
    """Per arm that selects: rank correlations of the score and its parts, and of what a buffer ranks by.

    Hardness is the loss under the previous adapter. S' and the loss under the updated adapter, of an arm with
    a buffer, are the paper's pair (its appendix). Ranks are those within a user's period, which is where the
    selection and the buffer rank; the mean is taken over periods, then over users.
    """
    return {
        name: before_learning(arm, scores.filter(pl.col("recipe") == arm.recipe))
        | after_learning(candidates.filter(pl.col("memory") == (arm.memory_id or "")))
        for name, arm in selecting(params).items()
    }


def before_learning(arm: Arm, scores: pl.DataFrame) -> dict[str, float | None]:
    """Correlations of the drift score and its parts, of one recipe."""
    normalise = recipe_of(arm).select.normalise
    found = []
    hardness = loss(logp_adap=scores["logp_adap"], tokens=scores["tokens"], normalise=normalise)
    table = scores.with_columns(pl.Series("hardness", hardness), pl.col("drift_score").alias("drift score"))
    for user, columns in by_period(table, "novelty", "quality", "hardness", "drift score"):
        found.append({"user_id": user} | rank_correlations(columns))
    return over_users(found)


def after_learning(candidates: pl.DataFrame) -> dict[str, float | None]:
    """The correlation of S' with the loss under the updated adapter, of one buffer's candidates."""
    return over_users(
        [
            {"user_id": user, "S' ~ loss": spearman(columns["score"], columns["loss"])}
            for user, columns in by_period(candidates, "score", "loss")
        ]
    )


def by_period(rows: pl.DataFrame, *columns: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Each user's rows of each period as columns [n], with the user; in order of their first rows.

    Slices of one table, sorted once: a table for each of many users takes longer than what is measured.
    """
    first = pl.col("row").min().over("user_id", "period")
    rows = rows.with_row_index("row").with_columns(first=first).sort("first", "row")
    values = {column: rows[column].to_numpy() for column in columns}
    users = rows["user_id"].to_list()
    ends = [*np.flatnonzero(np.diff(rows["first"].to_numpy())) + 1, rows.height] if users else []
    for start, end in zip([0, *ends], ends, strict=False):
        yield users[start], {column: every[start:end] for column, every in values.items()}


def over_users(found: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over periods, then over users; None for a pair of which one is constant in every period."""
    if not found:
        return {}
    table = pl.DataFrame(found, schema_overrides=dict.fromkeys(list(found[0])[1:], pl.Float64))
    return table.group_by("user_id").mean().drop("user_id").mean().row(0, named=True)
