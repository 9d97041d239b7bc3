"""The experiment in Weights & Biases: one run per arm, all of them in one group.

    config   every parameter, the arm with all it inherits, and a fingerprint of what shapes the numbers
    history  the metrics over `period`
    summary  their means with intervals, differences from `evaluate.against`, transfer, drift detection, costs

Runs go to the folder wandb/; `tracking.mode: offline`, the default, sends nothing, and `wandb sync` (see
docs/operate.md) sends what was written so. No user's name or text is in them unless `tracking.log_text` is
true. A rerun makes new runs and overwrites none: equal fingerprints say that they are comparable.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from spring.measures.statistics import EVERY
from spring.settings.params import Params
from spring.store import fingerprint
from tasks.evaluate import METRICS, stream
from tasks.files import DATA, read_parquet, read_tests
from tasks.measures.costs import COSTS
from tasks.params import sample_users
from tasks.reporting.plots import TRANSFER_NAMES

if TYPE_CHECKING:
    import wandb

# Read when wandb is imported. Without it even an offline run looks up the address of an error collector.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

SAMPLE = ("period", "user_id", "query", "reference", "text")  # columns of the table of generations


class TrackingError(RuntimeError):
    """W&B could not take the runs; the message says why and what to do."""


def log_experiment(params: Params, metrics: dict[str, Any]) -> None:
    """Logs every arm of `metrics` (data/metrics.json); does nothing where `tracking.mode` is disabled.

    Raises `TrackingError` where W&B cannot be reached within `tracking.init_timeout` seconds.
    """
    if params.tracking.mode == "disabled":
        return
    for arm in params.arms:
        samples = sample_generations(params, arm) if params.tracking.log_text else None
        log_arm(params, metrics, arm, samples)


def log_arm(params: Params, metrics: dict[str, Any], arm: str, samples: pl.DataFrame | None) -> None:
    """Logs one arm as one finished run."""
    import wandb  # here: it takes a second, and is not needed where tracking is disabled

    found = metrics["arms"][arm]
    with start(params, arm) as run:
        run.define_metric("period", hidden=True)
        for metric in METRICS:
            run.define_metric(metric, step_metric="period", summary="none")
        for period in metrics["periods"]:
            values = {metric: found[metric]["periods"][str(period)] for metric in METRICS}
            run.log({"period": period} | {name: value for name, value in values.items() if value is not None})
        if samples is not None:
            run.log({"generations": wandb.Table(columns=list(samples.columns), data=samples.rows())})
        run.summary.update(summary(metrics, arm))


def start(params: Params, arm: str) -> wandb.Run:
    """Begins the run of one arm: quiet, light, with an explicit mode and a time limit."""
    import wandb

    tracking = params.tracking
    settings = wandb.Settings(
        init_timeout=tracking.init_timeout,
        silent=True,  # also: never ask for a key at the terminal, where a night's run would wait
        console="off",
        save_code=False,
        disable_code=True,
        x_disable_stats=True,
    )
    wandb.setup(settings)  # first: `init` alone would apply `silent` too late
    try:
        return wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            group=params.experiment,
            job_type="arm",
            name=arm,
            tags=list(tracking.tags),
            config=config(params, arm),
            mode=tracking.mode,
            dir=str(Path.cwd()),  # W&B's own process may have been started elsewhere
            settings=settings,
        )
    except wandb.errors.Error as error:
        raise TrackingError(
            f"W&B took no run of arm {arm!r} (tracking.mode: {tracking.mode}): {error}\n"
            f"The report is written. Mend it (`wandb login`, the network), or set tracking.mode: offline in "
            f"params.yaml and send the runs later with `wandb sync`; then `dvc repro report`"
        ) from error


def config(params: Params, arm: str) -> dict[str, Any]:
    """Every parameter, plus `arm`: the resolved one of this run, and the fingerprint."""
    plain = params.model_dump(mode="json")
    shaping = {key: value for key, value in plain.items() if key not in ("report", "tracking")}
    return plain | {"arm": {"name": arm, **plain["arms"][arm]}, "fingerprint": fingerprint(shaping)}


def summary(metrics: dict[str, Any], arm: str) -> dict[str, float]:
    """One arm's numbers over all periods under flat names; what is not defined (null) is left out."""
    found: dict[str, Any] = metrics["arms"][arm]
    flat: dict[str, Any] = {}
    for metric in METRICS:
        flat |= {f"{metric}/{name}": found[metric][name] for name in ("mean", "low", "high")}
        flat[f"{metric}/inapplicable"] = metrics.get("inapplicable", {}).get(metric)
        for name, value in metrics["paired"].get(arm, {}).get(metric, {}).items():
            flat[f"{metric}/against_{metrics['against']}/{name}"] = value
    transfer = metrics["transfer"].get(arm)
    if transfer is not None:
        flat |= {f"transfer/{name}": transfer[name]["mean"] for name in TRANSFER_NAMES}
    for kind, found_there in metrics["drift"].get(arm, {}).items():
        end = "" if kind == EVERY else f"_{kind}"
        flat |= {f"drift/{name}{end}": entry["mean"] for name, entry in found_there.items()}
    flat |= {f"cost/{name}": found[name] for name in COSTS} | {"pass_rate": found["pass_rate"]}
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
