"""The run of a whole comparison (experiment, suite, seed): all arms, tests, drawings, page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spring.settings.params import Params
from tasks.measures.costs import COSTS
from tasks.measures.scores import METRICS
from tasks.tracking.artifacts import REPORT, log_results, shown, use_data
from tasks.tracking.naming import Identity, run_id
from tasks.tracking.runs import started

COMPARED = (
    *("arm", "metric", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "d_z", "users_needed"),
)
FITTED = "<style>body{margin:0;background:#fff}svg{width:100%;height:auto}</style>"  # a drawing in a panel
PAIRED = ("difference", "low", "high", "p", "p_holm", "d_z", "users_needed")  # as metrics.json has them


def log_comparison(params: Params, metrics: dict[str, Any], identity: Identity) -> None:
    """Logs tables of means, costs and tests, the drawings, and the results as artifacts."""
    import wandb

    with started(
        params.tracking.model_dump(),
        id=run_id(params, "comparison", identity.comparison),
        name=f"comparison/{params.seed}",
        group=params.suite,
        job_type="comparison",
        config=identity.common()
        | {"fingerprint": identity.comparison, "against": metrics["against"], "arms": list(params.arms)},
    ) as run:
        use_data(run, params, identity)
        tables = {
            "comparison": (COMPARED, compared(metrics)),
            "transfer_tests": (("arm", "measure", *PAIRED), transfer_tests(metrics)),
            "costs": (("arm", *COSTS), costs(metrics)),
        }
        for name, (columns, rows) in tables.items():
            run.log({name: wandb.Table(columns=list(columns), data=list(rows))})
        for file in shown(params):
            content, drawing = file.read_text(encoding="utf-8"), file.parent != REPORT
            name = f"plots/{file.stem}" if drawing else "report"
            content = FITTED + content if drawing else content
            run.log({name: wandb.Html(content, inject=False, data_is_not_path=True)})
        run.summary.update(headline(metrics))
        log_results(run, params, identity)


def compared(metrics: dict[str, Any]) -> Iterator[list[Any]]:
    """Rows of `COMPARED`: each arm's mean by each metric, and its difference from the one compared with."""
    for arm, found in metrics["arms"].items():
        for metric in METRICS:
            means = [found[metric][name] for name in ("mean", "low", "high")]
            paired = metrics["paired"].get(arm, {}).get(metric, {})
            yield [arm, metric, *means, *(paired.get(name) for name in PAIRED)]


def transfer_tests(metrics: dict[str, Any]) -> Iterator[list[Any]]:
    """Arm, measure of transfer, and its difference from that of the arm compared with."""
    for arm, measures in metrics["transfer_paired"].items():
        for measure, paired in measures.items():
            yield [arm, measure, *(paired.get(name) for name in PAIRED)]


def costs(metrics: dict[str, Any]) -> Iterator[list[Any]]:
    """Each arm with its `COSTS`."""
    for arm, found in metrics["arms"].items():
        yield [arm, *(found[name] for name in COSTS)]


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """By each metric the arm with the highest mean."""
    told: dict[str, Any] = {}
    for metric in METRICS:
        means = {arm: found[metric]["mean"] for arm, found in metrics["arms"].items()}
        known = {arm: mean for arm, mean in means.items() if mean is not None}
        if known:
            told[f"highest/{metric}"] = max(known, key=lambda arm: known[arm])
    return told
