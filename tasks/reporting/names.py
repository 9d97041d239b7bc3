"""What metrics and measures are called, which are spoken of, and when a difference counts as shown."""

from __future__ import annotations

from typing import Any

from spring.measures.metrics import TEXT_METRICS

METRIC_NAMES = {name: metric.title for name, metric in TEXT_METRICS.items()} | {
    "logp_per_token": "Log-likelihood per token"
}
TRANSFER_NAMES = {
    "average": "average at the end",
    "backward": "backward transfer",
    "forward": "forward transfer",
    "forgetting": "forgetting",
    "held": "habit held until it returns",
    "personal": "personal part",
}
SIGNIFICANT = 0.05


def titles(metrics: dict[str, Any]) -> dict[str, str]:
    """Name -> title of the metrics that the arms have; runs that were kept before one existed lack it."""
    found = next(iter(metrics["arms"].values()))
    return {name: title for name, title in METRIC_NAMES.items() if name in found}


def headlines(metrics: dict[str, Any]) -> dict[str, str]:
    """Those of `titles` that are drawn: headline metrics, if they apply to any text."""
    found = next(iter(metrics["arms"].values()))
    return {
        name: title
        for name, title in titles(metrics).items()
        if is_headline(name) and found[name]["mean"] is not None
    }


def is_headline(metric: str) -> bool:
    """Whether a metric is drawn and spoken of, or stands in tables only."""
    return metric not in TEXT_METRICS or TEXT_METRICS[metric].headline


def significant(found: dict[str, Any]) -> bool:
    """Whether the corrected p-value says so; without one, not."""
    return found["p_holm"] is not None and found["p_holm"] < SIGNIFICANT


def listed(words: list[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
