"""The few numbers of data/metrics.json that DVC compares between runs: data/headline.json."""

from __future__ import annotations

from typing import Any

from spring.measures.metrics import TEXT_METRICS

NAMES = {"logp_per_token": "logp"} | {name: name for name, metric in TEXT_METRICS.items() if metric.headline}


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """What is most telling comes first: `dvc exp show --no-pager` leaves out what a terminal has no room for.

    lead    the arm whose likelihood is highest, and its gain; the report says whether chance would do as well
    gain    arm -> difference from `evaluate.against` in log-likelihood, nats per token
    logp    arm -> log-likelihood, nats per token; then arm -> mean of every text metric that is a headline,
            but for arms that have no text to which it applies
    """
    arms, paired = metrics["arms"], metrics["paired"]
    gain = {arm: paired[arm]["logp_per_token"]["difference"] for arm in arms if arm in paired}
    lead = max(arms, key=lambda arm: arms[arm]["logp_per_token"]["mean"])
    means = {
        name: {arm: arms[arm][metric]["mean"] for arm in arms if arms[arm][metric]["mean"] is not None}
        for metric, name in NAMES.items()
    }
    return {"lead": {"arm": lead, "gain": gain.get(lead, 0.0)}, "gain": gain, **means}
