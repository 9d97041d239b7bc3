"""The run of one arm and seed: config, periods, learning curves, users, summary, adapters.

config   the arm's own settings at the top level, experiment, suite, seed, data, model, fingerprint
history  `by_period/METRIC/mean|low|high` over `period`; `train/loss|lr|grad_norm` over `train/step`
users    a table of means per user and period, users under pseudonyms
summary  means with intervals, differences from `against` (config), transfer, drift detection, costs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from spring.measures.statistics import EVERY
from spring.settings.params import Params
from tasks.evaluate import read_curves
from tasks.files import DATA, read_parquet, read_tests
from tasks.measures.costs import COSTS
from tasks.measures.scores import METRICS, stream
from tasks.params import sample_users
from tasks.reporting.names import TRANSFER_NAMES
from tasks.tracking.artifacts import log_adapters, use_data
from tasks.tracking.naming import Identity, Pseudonym, anonymous, experiment_of, run_id
from tasks.tracking.runs import started

if TYPE_CHECKING:
    import wandb

SAMPLE = ("period", "user_id", "query", "reference", "text")  # columns of the table of generations
TRAINED = ("loss", "lr", "grad_norm")
DIFFERENCE = {
    "low": "difference_low",
    "high": "difference_high",
}  # of `against`, beside the arm's own interval
ENDS = {"mean": "", "low": "_low", "high": "_high"}  # of an interval, and its columns
MOST_ROWS = 10_000  # of a table that W&B draws


def log_arm(params: Params, metrics: dict[str, Any], arm: str, identity: Identity) -> None:
    """Logs one arm as one finished run."""
    import wandb

    with started(
        params.tracking.model_dump(),
        id=run_id(params, arm, identity.shape(arm)),
        name=f"{arm}/{params.seed}",
        group=params.suite,
        job_type=experiment_of(params),
        config=identity.config(arm) | {"against": metrics["against"]},
    ) as run:
        use_data(run, params, identity)
        define_axes(run)
        for row in period_rows(params, arm):
            run.log(row)
        for row in curve_rows(params, arm):
            run.log(row)
        users = user_rows(arm, identity.pseudonym)
        run.log({"users": wandb.Table(columns=list(users.columns), data=users.rows())})
        if params.tracking.log_text:
            samples = sample_generations(params, arm)
            run.log({"generations": wandb.Table(columns=list(samples.columns), data=samples.rows())})
        run.summary.update(summary(metrics, arm))
        log_adapters(run, params, arm, identity)


def define_axes(run: wandb.Run) -> None:
    """Periods and optimizer steps are axes of their own, and what is over them has no last value."""
    for axis, over in (("period", "by_period/*"), ("train/step", "train/*")):
        run.define_metric(axis, hidden=True, summary="none")
        run.define_metric(over, step_metric=axis, summary="none")


def period_rows(params: Params, arm: str) -> Iterator[dict[str, Any]]:
    """Each period's means over users with their intervals; what is not defined (null) is left out."""
    numbers = {f"{metric}{end}": pl.Float64 for metric in METRICS for end in ENDS.values()}
    table = pl.read_csv(
        DATA / "evaluate/plots/periods.csv", schema_overrides={"arm": pl.String, **numbers}
    ).filter(pl.col("arm") == arm)
    for found in table.sort("period").iter_rows(named=True):
        values = {
            f"by_period/{metric}/{name}": found[f"{metric}{end}"]
            for metric in METRICS
            for name, end in ENDS.items()
        }
        yield {"period": found["period"]} | {key: value for key, value in values.items() if value is not None}


def curve_rows(params: Params, arm: str) -> Iterator[dict[str, Any]]:
    """The median over users of each optimizer step, period after period; none where nothing is learned."""
    curves = read_curves(params).filter(pl.col("recipe") == (params.arms[arm].recipe or ""))
    medians = curves.group_by("period", "step").agg(
        *(pl.col(name).median() for name in TRAINED), pl.len().alias("users")
    )
    for place, found in enumerate(medians.sort("period", "step").iter_rows(named=True)):
        values = {f"train/{name}": found[name] for name in ("period", "users", *TRAINED)}
        yield {"train/step": place} | {key: value for key, value in values.items() if value is not None}


def user_rows(arm: str, pseudonym: Pseudonym) -> pl.DataFrame:
    """Means per user and period; of so many users that no table could hold them, over all periods."""
    rows = read_parquet(DATA / "evaluate/users.parquet").filter(pl.col("arm") == arm).drop("arm")
    rows = anonymous(rows, pseudonym)
    if rows.height > MOST_ROWS:
        rows = rows.group_by("user").agg(pl.col("items").sum(), pl.col(*METRICS).mean()).sort("user")
    return rows.head(MOST_ROWS)


def summary(metrics: dict[str, Any], arm: str) -> dict[str, float]:
    """One arm's numbers over all periods under flat names; what is not defined (null) is left out."""
    found: dict[str, Any] = metrics["arms"][arm]
    flat: dict[str, Any] = {}
    for metric in METRICS:
        flat |= {f"{metric}/{name}": found[metric][name] for name in ("mean", "low", "high")}
        flat[f"{metric}/inapplicable"] = metrics.get("inapplicable", {}).get(metric)
        for name, value in metrics["paired"].get(arm, {}).get(metric, {}).items():
            flat[f"{metric}/{DIFFERENCE.get(name, name)}"] = value
    transfer = metrics["transfer"].get(arm)
    if transfer is not None:
        flat |= {f"transfer/{name}": transfer[name]["mean"] for name in TRANSFER_NAMES}
    for kind, found_there in metrics["drift"].get(arm, {}).items():
        end = "" if kind == EVERY else f"_{kind}"
        flat |= {f"drift/{name}{end}": entry["mean"] for name, entry in found_there.items()}
    flat |= {f"cost/{name}": found[name] for name in COSTS} | {"pass_rate": found["pass_rate"]}
    flat["cost/seconds"] = sum(found[name] for name in COSTS if name.startswith("seconds_"))
    return {name: value for name, value in flat.items() if value is not None}


def sample_generations(params: Params, arm: str) -> pl.DataFrame:
    """For the first `report.sample_users` users by name: each period's first test query and the answer."""
    frames = []
    for period in stream(params):
        tests = read_tests(period)
        shown = pl.col("user_id").is_in(sample_users(params, tests))
        tests = tests.filter(shown).group_by("user_id", maintain_order=True).first()
        answers = read_parquet(DATA / f"generate/{period}/generations.parquet").filter(pl.col("arm") == arm)
        rows = tests.join(answers.select("interaction_id", "text"), on="interaction_id", how="inner")
        frames.append(rows.rename({"response": "reference"}).select(SAMPLE))
    return pl.concat(frames)
