"""Stage evaluate: what was generated -> scores per item and user, and data/metrics.json with intervals.

    data/evaluate/items.parquet      arm, user_id, interaction_id, period, and the metrics
    data/evaluate/users.parquet      arm, user_id, period, items, and the means of the metrics
    data/evaluate/transfer.parquet   arm, user_id, kinds (of change), metric, and the measures of transfer
    data/evaluate/detection.parquet  arm, user_id, kind (of change), and how well drift scores find it
    data/evaluate/plots/periods.csv  per arm and period: each metric with its interval (for `dvc plots`)
    data/evaluate/plots/curves.csv   per recipe, period and step: median training loss over users
    data/metrics.json                everything the report, W&B and the flow read
    data/headline.json               the few numbers that `dvc metrics` and `dvc exp show` compare

A mean is taken over a user's items within a period, then over periods, then over users: every user counts
once, however much they write. Items to which a metric does not apply (null) are in none of its means, and
`inapplicable` counts them. `adapter_bytes` is what the last period's adapters take on disk. What every number
means: docs/statistics.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from spring.measures.chrf import CHRF_SETTING
from spring.measures.meteor import meteor_setting, wordnet_is_installed
from spring.measures.metrics import scored_by
from spring.measures.rouge import ROUGE_SETTING
from spring.settings.params import Params
from spring.store.keys import fingerprint
from tasks.files import (
    DATA,
    atomic,
    read_parquet,
    read_tests,
    write_json,
    write_parquet,
    write_text,
)
from tasks.machine import read_machine
from tasks.measures.comparison import compare_arms, intervals_of
from tasks.measures.costs import costs
from tasks.measures.detection import (
    correlation_metrics,
    detect,
    drift_metrics,
    read_candidates,
    read_scores,
)
from tasks.measures.gates import gate_metrics
from tasks.measures.headline import headline
from tasks.measures.matrix import compare_measures, transfer_metrics
from tasks.measures.scores import KEYS, METRICS, inapplicable, read_generations, score_all, stream
from tasks.params import load_params
from tasks.stage import run

METRICS_FILE = DATA / "metrics.json"  # beside the stage's directory: DVC leaves it to git, as the next one
HEADLINE_FILE = DATA / "headline.json"
SPENT = ["arm", "contexts", "seconds", "tokens", "row_steps"]  # what costs are of
ENDS = {"": "mean", "_low": "low", "_high": "high"}  # columns of an interval


def main() -> None:
    """Runs the stage."""
    params = load_params()
    tests = pl.concat(
        read_tests(t, columns=KEYS) for t in stream(params)
    )  # what every arm must have answered
    if tests.is_empty():
        raise ValueError(
            "no period after period 0 has a test item, so that there is nothing to evaluate: wait for more "
            "data, or set a shorter split.every or another split.start"
        )
    check_coverage(read_generations(stream(params), ["arm", *KEYS]), tests, list(params.arms))
    items = score_all(params)
    users = user_means(items)
    write_parquet(items, DATA / "evaluate/items.parquet")
    write_parquet(users, DATA / "evaluate/users.parquet")
    write_csv(period_table(params, users), DATA / "evaluate/plots/periods.csv")
    write_csv(median_curves(params), DATA / "evaluate/plots/curves.csv")
    metrics, transfer, detected = all_metrics(params, items, users)
    write_parquet(transfer, DATA / "evaluate/transfer.parquet")
    write_parquet(detected, DATA / "evaluate/detection.parquet")
    write_json(rounded(metrics), METRICS_FILE)
    write_headline(metrics)


def check_coverage(generations: pl.DataFrame, tests: pl.DataFrame, arms: list[str]) -> None:
    """Every arm must have answered each test item once and nothing else; `ValueError` names what is wrong."""
    wanted = pl.DataFrame({"arm": arms}, schema={"arm": pl.String}).join(tests.select(KEYS), how="cross")
    keys = ["arm", *KEYS]
    repeated = generations.group_by(keys).len().filter(pl.col("len") > 1)
    faults = {
        "missing": wanted.join(generations, on=keys, how="anti"),
        "not test items of any arm in params.yaml": generations.join(wanted, on=keys, how="anti"),
        "generated more than once": repeated,
    }
    for fault, rows in faults.items():
        if rows.is_empty():
            continue
        rows = rows.sort(keys)
        some = ", ".join("/".join(row) for row in rows.select(keys).head(5).iter_rows())
        raise ValueError(
            f"data/generate: {rows.height} generations are {fault} (arm/user/interaction): "
            f"{some}{' ...' if rows.height > 5 else ''}; run `dvc repro --force` on the stages generate"
        )


def user_means(items: pl.DataFrame) -> pl.DataFrame:
    """Means over a user's items within a period; null where a metric applies to none."""
    groups = items.group_by("arm", "user_id", "period", maintain_order=True)
    return groups.agg(pl.len().alias("items"), *(pl.col(metric).mean() for metric in METRICS))


def metrics_in(users: pl.DataFrame) -> list[str]:
    """Those of `METRICS` that a table has: of a run that was kept before one existed, not all."""
    return [metric for metric in METRICS if metric in users.columns]


def over_periods(users: pl.DataFrame, arm: str) -> pl.DataFrame:
    """One row per user of `arm`: the means over periods."""
    rows = users.filter(pl.col("arm") == arm).group_by("user_id", maintain_order=True)
    return rows.agg(pl.col(metric).mean() for metric in metrics_in(users)).sort("user_id")


def period_table(params: Params, users: pl.DataFrame) -> pl.DataFrame:
    """Per arm and period: each metric's mean over users with its interval."""
    places = [(arm, period) for arm in params.arms for period in stream(params)]
    values = {
        (arm, period, metric): here[metric]
        for arm, period in places
        for here in [users.filter((pl.col("arm") == arm) & (pl.col("period") == period))]
        for metric in METRICS
    }
    found = intervals_of(params, values)
    rows = [
        {"arm": arm, "period": period}
        | {
            f"{metric}{end}": found[arm, period, metric][key]
            for metric in METRICS
            for end, key in ENDS.items()
        }
        for arm, period in places
    ]
    floats = [f"{metric}{end}" for metric in METRICS for end in ENDS]
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(floats, pl.Float64))


def median_curves(params: Params) -> pl.DataFrame:
    """Per recipe (named by the arms that share it), period and step: the median training loss over users."""
    names = {recipe: " + ".join(arms) for recipe, arms in arms_by_recipe(params).items()}
    curves = read_curves(params).filter(pl.col("recipe").is_in(list(names)))
    curves = curves.with_columns(pl.col("recipe").replace_strict(names, return_dtype=pl.String).alias("arms"))
    medians = curves.group_by("arms", "period", "step").agg(pl.col("loss").median(), pl.len().alias("users"))
    return medians.sort("arms", "period", "step")


def read_curves(params: Params) -> pl.DataFrame:
    """The learning curves of all periods; where users have their own, without those of what they share."""
    curves = pl.concat(read_parquet(DATA / f"adapt/{t}/curves.parquet") for t in params.periods)
    own = pl.col("user_id").is_not_null()
    return curves.filter(own | ~own.any().over("recipe"))


def arms_by_recipe(params: Params) -> dict[str, list[str]]:
    """The arms that share each set of adapters."""
    shared: dict[str, list[str]] = {}
    for name, arm in params.arms.items():
        if arm.recipe is not None:
            shared.setdefault(arm.recipe, []).append(name)
    return shared


def all_metrics(
    params: Params, items: pl.DataFrame, users: pl.DataFrame
) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """The whole of data/metrics.json, and user by user the measures of transfer and of detection."""
    columns = ["user_id", "interaction_id", "period", "part"]
    interactions = pl.concat(read_parquet(DATA / f"split/{t}.parquet", columns) for t in params.periods)
    generations = read_generations(stream(params), SPENT)
    means = {name: over_periods(users, name) for name in params.arms}
    scores = read_scores(stream(params))
    quality = arm_metrics(params, users, means)
    arms = {
        name: quality[name] | costs(params, name, generations.filter(pl.col("arm") == name))
        for name in params.arms
    }
    transfer, measured = transfer_metrics(params, interactions)
    detected = detect(params, scores)
    metrics = {
        "experiment": params.experiment,
        "users": users["user_id"].n_unique(),  # who were asked: what intervals and tests are over
        "interactions": interactions.height,
        "periods": stream(params),
        "seed": params.seed,
        "against": params.evaluate.against,
        "rouge": ROUGE_SETTING,
        "meteor": meteor_setting(wordnet_is_installed()),
        "chrf": CHRF_SETTING,
        "scored_by": scored_by(),
        "inapplicable": inapplicable(items),
        "road": read_machine(DATA / f"generate/{max(params.periods)}").get("road", "packed"),
        "settings": settings(params),
        "arms": arms,
        "paired": compare_arms(params, means, METRICS),
        "transfer": transfer,
        "transfer_paired": compare_measures(params, measured),
        "drift": drift_metrics(params, detected),
        "correlations": correlation_metrics(params, scores, read_candidates(stream(params))),
        "gates": gate_metrics(params),
    }
    return metrics, measured, detected


def read_metrics() -> dict[str, Any]:
    """data/metrics.json; raises `FileNotFoundError` where nothing has been evaluated."""
    if not METRICS_FILE.exists():
        raise FileNotFoundError(f"{METRICS_FILE} is missing: run `dvc repro`, whose stage evaluate writes it")
    return json.loads(METRICS_FILE.read_text(encoding="utf-8"))


def settings(params: Params) -> dict[str, str]:
    """Fingerprints of what shapes numbers, save the seed: runs that are pooled must have them in common."""
    plain = params.model_dump(mode="json", exclude={"report", "tracking", "evaluate", "seed"})
    plain["prompts"] = plain["prompts"].get(params.ingest.task)  # those of other tasks shape nothing
    plain["ingest"] = {
        name: value for name, value in plain["ingest"].items() if name not in params.ingest.unused
    }
    if params.transfer is None:  # of seeds that are pooled, some may go without
        del plain["transfer"]
    return {name: fingerprint(value) for name, value in plain.items()}


def arm_metrics(params: Params, users: pl.DataFrame, means: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Arm -> metric -> mean over users with its interval, and the mean of each period.

    And the number of users, where a metric does not apply to any item of some.
    """
    metrics = metrics_in(users)
    found = intervals_of(params, {(arm, metric): means[arm][metric] for arm in means for metric in metrics})
    by_period = users.group_by("arm", "period").agg(pl.col(metric).mean() for metric in metrics)
    of_stream = pl.DataFrame({"period": stream(params)}, schema={"period": users.schema["period"]})
    told: dict[str, Any] = {}
    for arm, own in means.items():
        of_arm = by_period.filter(pl.col("arm") == arm)
        rows = of_stream.join(of_arm, on="period", how="left", maintain_order="left")
        for metric in metrics:
            interval = found[arm, metric]
            if interval["users"] == own.height:
                del interval["users"]
            periods = {str(period): mean for period, mean in rows.select("period", metric).iter_rows()}
            told.setdefault(arm, {})[metric] = interval | {"periods": periods}
    return told


def rounded(value: Any, digits: int = 6) -> Any:
    """Floats to some decimals: the last bits differ between machines, and DVC should not see them."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return round(value, digits) if isinstance(value, float) else value


def write_headline(metrics: dict[str, Any]) -> None:
    """data/headline.json, its keys in their order."""
    write_text(json.dumps(rounded(headline(metrics), digits=4), indent=2) + "\n", HEADLINE_FILE)


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table for `dvc plots`."""
    with atomic(path) as temporary:
        frame.write_csv(temporary, float_precision=6)


if __name__ == "__main__":
    run(main)
