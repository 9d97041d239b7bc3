"""The drawings of transfer: every state on every period, and which measures any arm has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.reporting.names import METRIC_NAMES, TRANSFER_NAMES, is_headline
from tasks.reporting.vega import CONFIG, TIP, Spec, axis, layer, short, words

GAIN, LOSS = "var(--series-0)", "var(--series-1)"
TOLD = (  # of a cell, in Vega's language: the texts of all would be as long as all else on the page
    "datum.arm + ', after period ' + datum.learned + '\\n' + datum.text + ' on the tests of period ' + "
    "datum.tested + ', ' + format(datum.gain, '+.2f') + ' over the base model'"
)


def measured(metrics: dict[str, Any]) -> list[str]:
    """The measures that any arm has: without returning habits none is held."""
    found = metrics["transfer"].values()
    return [name for name in TRANSFER_NAMES if any(arm[name]["users"] for arm in found)]


def of_metric(arm: dict[str, Any], metric: str) -> dict[str, Any]:
    """`matrix` and `untrained` of one arm: of likelihoods, or of a metric of generated texts."""
    return arm["generated"].get(metric, arm)


def drawable(arm: dict[str, Any]) -> list[str]:
    """The headline metrics whose matrix has any number: one may not apply to any text."""
    shown = [metric for metric in arm["generated"] if is_headline(metric)]
    return ["logp_per_token", *(metric for metric in shown if gains(of_metric(arm, metric)))]


def gains(arm: dict[str, Any]) -> dict[tuple[str, str], float]:
    """(learned, tested) -> scores[i, j] less what the base model has there; not where no text has either."""
    return {
        (learned, tested): score - arm["untrained"][tested]
        for learned, scores in arm["matrix"].items()
        for tested, score in scores.items()
        if score is not None and arm["untrained"][tested] is not None
    }


def transfer_plot(metrics: dict[str, Any], metric: str, on: Sequence[str], *, columns: int = 4) -> Spec:
    """Heat maps of scores[i, j], one per arm in `on`: colour by the gain over the base model on one scale.

    The diagonal, the period just learned, is framed.
    """
    rows = []
    for arm, entry in metrics["transfer"].items():
        found = of_metric(entry, metric)
        for (learned, tested), gain in gains(found).items():
            score = found["matrix"][learned][tested]
            rows.append(
                {"arm": arm, "learned": learned, "tested": tested, "score": short(score), "gain": short(gain)}
            )
    end = max((abs(row["gain"]) for row in rows), default=1.0) or 1.0
    strength = {
        "field": "size",
        "type": "quantitative",
        "scale": {"domain": [0, end], "range": [0, 0.6]},
        "legend": None,
    }
    at = {
        "x": {"field": "tested", "type": "ordinal"} | axis("tested on period", labelAngle=0, orient="bottom"),
        "y": {"field": "learned", "type": "ordinal"} | axis("after learning period"),
    }
    colour = {"condition": {"test": "datum.gain > 0", "value": GAIN}, "value": LOSS}
    frame = {"type": "rect", "fill": None, "stroke": "var(--ink)", "strokeWidth": 1.3, "aria": False}
    cells = [
        layer({"type": "rect"}, at | {"color": colour, "opacity": strength} | TIP),
        layer(frame, at, "datum.learned == datum.tested"),
        layer(words(fontSize=10, color="var(--ink)"), at | {"text": {"field": "text"}}),
    ]
    side = 34 * len({row["learned"] for row in rows})
    return {
        "title": METRIC_NAMES[metric],
        "params": [{"name": "on", "value": list(on)}, {"name": "others", "value": True}],
        "data": {"values": rows},
        "transform": [
            {"filter": "indexof(on, datum.arm) >= 0"},
            {"calculate": "abs(datum.gain)", "as": "size"},
            {"calculate": "replace(format(datum.score, '.2f'), '-', '−')", "as": "text"},
            {"calculate": TOLD, "as": "tip"},
        ],
        "facet": {"field": "arm", "type": "nominal", "sort": list(on), "header": {"title": None}},
        "columns": columns,
        "spacing": 14,
        "spec": {"width": side, "height": 22 * len({row["learned"] for row in rows}), "layer": cells},
        "config": CONFIG,
    }
