"""The report's drawings of quality over cost, and the arms that none beats at theirs."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tasks.reporting.plots import METRIC_NAMES
from tasks.reporting.svg import INK, MUTED, Style
from tasks.reporting.table import whose_cost

LINE = 8.5  # points from one name to the next
LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkB": 3}  # from a name to its point


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


def name_front(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Names the points [x, y] of a front that rises to the right, above and left of it, where no point lies.

    Limits and scales must be settled.
    """
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # settles the layout, hence distances
    lowest, scale = -math.inf, 72 / axes.figure.dpi
    for name, point in points.items():
        y = axes.transData.transform(point)[1] * scale
        lowest = max(y + 5, lowest + LINE)
        axes.annotate(
            name, point, xytext=(-9, lowest - y), textcoords="offset points", ha="right", color=INK,
            fontsize=7, arrowprops=LEADER,
        )  # fmt: skip


def cost_panel(axes: Axes, metrics: dict[str, Any], metric: str, styles: dict[str, Style]) -> None:
    """One metric over the seconds spent: up and to the left is better; named: what none beats at its cost.

    The arm that others are compared with lies on top, and has its name too.
    """
    for arm, style in styles.items():
        found = metrics["arms"][arm]
        seconds = seconds_spent(found)
        low, mean, high = (found[metric][key] for key in ("low", "mean", "high"))
        if low is not None:
            axes.plot([seconds, seconds], [low, high], color=style.colour, linewidth=1.2, alpha=0.55)
        on_top = 4 if arm == metrics["against"] else None
        axes.plot(seconds, mean, color=style.colour, marker=style.marker, markersize=7, zorder=on_top)
    spent = [seconds_spent(arm) for arm in metrics["arms"].values()]
    if min(spent) > 0 and max(spent) / min(spent) > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.12)
    else:
        axes.set_xlim(0, 1.15 * max(spent) or 1)
    axes.set_title(METRIC_NAMES[metric])
    axes.set_xlabel(f"seconds of training, scoring and generation,\n{whose_cost(metrics)}")
    best = {arm: metrics["arms"][arm] for arm in frontier(metrics, metric)}
    name_front(axes, {arm: (seconds_spent(found), found[metric]["mean"]) for arm, found in best.items()})
    if (against := metrics["against"]) not in best:
        point = seconds_spent(metrics["arms"][against]), metrics["arms"][against][metric]["mean"]
        axes.annotate(
            against, point, xytext=(9, -16), textcoords="offset points", color=INK, fontsize=7,
            fontweight="bold", arrowprops=LEADER,
        )  # fmt: skip
