"""The drawings of what arms cost: quality over seconds, and training loss over steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from tasks.reporting.answer import MAIN
from tasks.reporting.names import METRIC_NAMES
from tasks.reporting.plots import Styles, ends
from tasks.reporting.table import number, whose_cost, with_interval
from tasks.reporting.vega import (
    FAINT,
    OFF,
    ON,
    TIP,
    Spec,
    bar,
    chart,
    dot,
    layer,
    line,
    of_arm,
    quantity,
    short,
    words,
)


def seconds_spent(arm: dict[str, Any]) -> float:
    """Training, scoring and generation of one arm, from its entry in metrics.json."""
    return arm["seconds_train"] + arm["seconds_score"] + arm["seconds_generate"]


def frontier(metrics: dict[str, Any], metric: str) -> list[str]:
    """Arms that no arm beats in `metric` without spending more (the Pareto front), cheapest first."""
    front: list[str] = []
    best = -math.inf
    cost = {arm: (seconds_spent(found), -found[metric]["mean"]) for arm, found in metrics["arms"].items()}
    for arm in sorted(cost, key=cost.__getitem__):
        if -cost[arm][1] > best:
            front.append(arm)
            best = -cost[arm][1]
    return front


def cost_plot(metrics: dict[str, Any], metric: str, styles: Styles, on: Sequence[str]) -> Spec:
    """One metric over the seconds spent: up and to the left is better. Arms in colour have their names."""
    means = {arm: found[metric]["mean"] for arm, found in metrics["arms"].items()}
    spent = {arm: seconds_spent(found) for arm, found in metrics["arms"].items()}
    middle = math.sqrt(max(min(spent.values()), 1e-3) * max(*spent.values(), 1e-3))
    heights = spread([(arm, means[arm]) for arm in on], 0.05 * span_of(metrics, metric))
    rows = [
        {
            "arm": arm,
            "seconds": short(spent[arm]),
            "at": short(heights.get(arm, means[arm])),
            "left": spent[arm] > middle,
            "tip": f"{arm}\n{with_interval(found[metric], 'mean')}\nin {spent[arm]:,.0f} s",
        }
        | ends(found[metric], "mean")
        for arm, found in metrics["arms"].items()
    ]
    logarithmic = min(spent.values()) > 0 and max(spent.values()) / min(spent.values()) > 10
    x = quantity("seconds", f"seconds, {whose_cost(metrics)}", zero=True, grid=False)
    x["scale"] = {"type": "log" if logarithmic else "linear", "nice": False, "padding": 24}
    x["axis"] |= {"labelExpr": "datum.value < 0 ? '' : format(datum.value, '~s')", "labelOverlap": True}
    at, colour = {"x": x, "y": quantity("value", "nats" if metric == MAIN else None)}, of_arm(styles)
    ends_of = {"x": x, "y": at["y"] | {"field": "low"}, "y2": {"field": "high"}, "color": colour}
    name = {"x": x, "y": at["y"] | {"field": "at"}, "color": colour, "text": {"field": "arm"}}
    shape = of_arm(styles, only="shape")
    layers = [
        layer(dot(color=FAINT, size=36), at | TIP, OFF),
        layer(bar(strokeWidth=1, opacity=0.4), ends_of, ON),
        layer(dot(size=75), at | {"color": colour, "shape": shape} | TIP, ON),
        layer(words(align="left", dx=9), name, ON, "!datum.left"),
        layer(words(align="right", dx=-9), name, ON, "datum.left"),
    ]
    return chart(METRIC_NAMES[metric], rows, layers, on=on, height=300)


def span_of(metrics: dict[str, Any], metric: str) -> float:
    """From the lowest to the highest value drawn, ends of intervals among them."""
    ends_of = [ends(found[metric], "mean") for found in metrics["arms"].values()]
    return max(one["high"] for one in ends_of) - min(one["low"] for one in ends_of) or 1.0


def spread(points: Iterable[tuple[str, float]], gap: float) -> dict[str, float]:
    """Heights of labels, each as near to its point as it can be, `gap` above the one beneath it."""
    found: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(points, key=lambda point: point[1]):
        last = found[name] = max(height, last + gap)
    return found


def curves_plot(
    curves: pl.DataFrame, arms: Mapping[str, Sequence[str]], styles: Styles, on: Sequence[str]
) -> Spec:
    """Median training loss over users, a line per arm that trains; a period is as wide as any other.

    `curves`: recipe, user_id, period, step, loss; `arms`: recipe -> the arms that share it.
    """
    medians = curves.group_by("recipe", "period", "step").agg(
        pl.col("loss").median(), pl.len().alias("users")
    )
    medians = medians.with_columns(steps=pl.col("step").max().over("recipe", "period") + 1).sort(
        "recipe", "period", "step"
    )
    rows = [
        {
            "arm": arm,
            "run": f"{arm}/{row['period']}",
            "at": short(row["period"] + (row["step"] + 0.5) / row["steps"]),
            "loss": short(row["loss"]),
            "tip": f"{arm}, period {row['period']}, step {row['step'] + 1} of {row['steps']}\n"
            f"{number(row['loss'])} nats, median of {row['users']} adapters",
        }
        for row in medians.iter_rows(named=True)
        for arm in arms.get(row["recipe"], ())
    ]
    periods = sorted(curves["period"].unique())
    x = {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [min(periods), max(periods) + 1], "nice": False},
        "axis": {
            "title": "period, from its first step to its last",
            "values": periods,
            "labelAlign": "left",
            "format": "d",
        },
    }
    at = {"x": x, "y": quantity("loss", "training loss, nats")}
    colour, detail = of_arm(styles), {"detail": {"field": "run"}}
    dash = of_arm(styles, only="dash")
    layers = [
        layer(line(color=FAINT, strokeWidth=1), at | detail, OFF),
        layer(line(), at | detail | {"color": colour, "strokeDash": dash}, ON),
        layer(dot(size=18, opacity=0.7), at | {"color": colour} | TIP, ON),
    ]
    return chart("Training loss", rows, layers, on=on, height=280)
