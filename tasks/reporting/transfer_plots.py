"""The report's drawings of transfer: every state on every period, and what is read off them."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from spring.measures.significance import smallest_p
from tasks.reporting.plots import (
    METRIC_NAMES,
    SIGNIFICANT,
    TRANSFER_NAMES,
    forest_axes,
    forest_row,
    is_headline,
    significant,
)
from tasks.reporting.svg import INK, MUTED, SERIES, Style

GAIN, LOSS = SERIES[0], SERIES[1]


def measured(metrics: dict[str, Any]) -> list[str]:
    """The measures that any arm has: without returning habits none is held."""
    found = metrics["transfer"].values()
    return [name for name in TRANSFER_NAMES if any(arm[name]["users"] for arm in found)]


def measure_panel(axes: Axes, metrics: dict[str, Any], measure: str, styles: dict[str, Style]) -> None:
    """Forest plot of one measure of transfer; filled: significantly not that of the arm compared with.

    The title says of how many users where they are not all, and where they are too few to fill any mark.
    """
    arms = [arm for arm in styles if arm in metrics["transfer"]]
    if measure != "average":  # whose values are far below zero
        axes.axvline(0, color=MUTED, linewidth=1)
    for place, arm in enumerate(arms):
        found = metrics["transfer"][arm][measure]
        tested = metrics["transfer_paired"].get(arm, {}).get(measure)
        if found["mean"] is not None:
            filled = tested is not None and significant(tested)
            forest_row(axes, place, found["mean"], found, styles[arm], filled=filled)
    forest_axes(axes, arms)
    axes.set_title(measure_title(metrics, measure))
    axes.set_xlabel("nats per token" + (", less is better" if measure == "forgetting" else ""))


def measure_title(metrics: dict[str, Any], measure: str) -> str:
    """A measure's name, its users where they are not all, and whether they can tell any arm apart."""
    users = max(found[measure]["users"] for found in metrics["transfer"].values())
    tests = sum(found[measure]["p"] is not None for found in metrics["transfer_paired"].values())
    said = [f"n={users}"] * (users < metrics["users"])
    said += ["too few for any p < 0.05"] * (tests > 0 and smallest_p(users, tests=tests) >= SIGNIFICANT)
    return TRANSFER_NAMES[measure] + (f"\n({', '.join(said)})" if said else "")


def largest_gain(metrics: dict[str, Any], metric: str) -> float:
    """How far any state of any arm is from the base model on any period: the end of the heat maps' scale."""
    arms = (of_metric(arm, metric) for arm in metrics["transfer"].values())
    return max(abs(gain) for arm in arms for gain in gains(arm).values())


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


def transfer_panel(axes: Axes, metrics: dict[str, Any], arm: str, metric: str = "logp_per_token") -> None:
    """Heat map of scores[i, j]: colour by the gain over the base model, the diagonal framed."""
    found, end = of_metric(metrics["transfer"][arm], metric), largest_gain(metrics, metric)
    periods = sorted(found["untrained"], key=int)
    for (learned, tested), gain in gains(found).items():
        row, column = periods.index(learned), periods.index(tested)
        corner = (column - 0.5, row - 0.5)
        colour = GAIN if gain > 0 else LOSS
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=0.6 * abs(gain) / (end or 1)))
        if row == column:
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.2))
        text = f"{found['matrix'][learned][tested]:.2f}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", color=INK, fontsize=7.5)
    axes.set_xlim(-0.5, len(periods) - 0.5)
    axes.set_ylim(len(periods) - 0.5, -0.5)
    axes.set_xticks(range(len(periods)), periods)
    axes.set_yticks(range(len(periods)), periods)
    axes.set_title(
        f"{arm}, {METRIC_NAMES[metric]}" if metric in metrics["transfer"][arm]["generated"] else arm
    )
    axes.set_xlabel("tested on period")
    axes.set_ylabel("after learning period")
    axes.grid(visible=False)
