"""What drift scores find, on sources that label their changes, and which of their parts they follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from spring.measures.statistics import detection, rank_correlations, spearman
from spring.method.drift import loss
from spring.settings.arm import Arm, recipe_of
from spring.settings.params import Params
from tasks.files import DATA, read_parquet
from tasks.measures.comparison import interval_of

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
    found = [pl.DataFrame(schema=DETECTED)]
    for name, arm in selecting(params).items():
        rows = scores.filter(pl.col("recipe") == arm.recipe).join(labels, on="interaction_id")
        for (user, _), own in rows.group_by("user_id", "period", maintain_order=True):
            of_kinds = detection(
                own["drift_score"].to_numpy(),
                selected=own["selected"].to_numpy(),
                real=own["is_drift"].to_numpy(),
                kinds=own["drift"].to_numpy(),
            )
            values = [
                {"arm": name, "user_id": user, "kind": kind} | of_kind for kind, of_kind in of_kinds.items()
            ]
            found.append(pl.DataFrame(values, schema=DETECTED))
    keys = ["arm", "user_id", "kind"]
    return pl.concat(found).group_by(keys, maintain_order=True).agg(pl.col(MEASURES).mean())


def drift_metrics(params: Params, detected: pl.DataFrame) -> dict[str, Any]:
    """Arm -> kind -> each of `MEASURES`: its mean over the users that have it, with its interval."""
    found: dict[str, Any] = {}
    for (arm, kind), rows in detected.group_by("arm", "kind", maintain_order=True):
        found.setdefault(arm, {})[kind] = {name: interval_of(params, rows[name]) for name in MEASURES}
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
    for user, rows in by_period(scores):
        columns = {name: rows[name].to_numpy() for name in ("novelty", "quality")}
        columns["hardness"] = loss(logp_adap=rows["logp_adap"], tokens=rows["tokens"], normalise=normalise)
        columns["drift score"] = rows["drift_score"].to_numpy()
        found.append({"user_id": user} | rank_correlations(columns))
    return over_users(found)


def after_learning(candidates: pl.DataFrame) -> dict[str, float | None]:
    """The correlation of S' with the loss under the updated adapter, of one buffer's candidates."""
    return over_users(
        [
            {"user_id": user, "S' ~ loss": spearman(rows["score"].to_numpy(), rows["loss"].to_numpy())}
            for user, rows in by_period(candidates)
        ]
    )


def by_period(rows: pl.DataFrame) -> list[tuple[Any, pl.DataFrame]]:
    """Each user's rows of each period, with the user."""
    groups = rows.group_by("user_id", "period", maintain_order=True)
    return [(user, group) for (user, _), group in groups]


def over_users(found: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over periods, then over users; None for a pair of which one is constant in every period."""
    if not found:
        return {}
    table = pl.DataFrame(found, schema_overrides=dict.fromkeys(list(found[0])[1:], pl.Float64))
    return table.group_by("user_id").mean().drop("user_id").mean().row(0, named=True)
