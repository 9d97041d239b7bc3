"""The report's drawings: each `..._panel` fills one pair of axes, the same for a file and for the page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from spring.statistics import STABLE
from tasks.svg import BAND, GRID, INK, MUTED, SERIES, Style

METRIC_NAMES = {
    "rouge1": "ROUGE-1",
    "rougeL": "ROUGE-L",
    "meteor": "METEOR",
    "logp_per_token": "Log-likelihood per token",
}
TRANSFER_NAMES = {
    "average": "average at the end",
    "backward": "backward transfer",
    "forward": "forward transfer",
    "forgetting": "forgetting",
    "held": "habit held until it returns",
    "personal": "personal part",
}
CHANGE, NO_CHANGE, UNKNOWN = SERIES[1], SERIES[0], MUTED
KIND_MARKERS = {
    "stable": "o",
    "abrupt": "^",
    "gradual": "D",
    "recurring": "s",
    "transient": "v",
    "noise": "p",
}
GAIN, LOSS = SERIES[0], SERIES[1]
SIGNIFICANT = 0.05
MOST_LINES = 12  # arms drawn in full over periods; of more, only the best keep their colours
BEST = 3  # of more arms: how many by each metric keep them
LINE = 8.5  # points from one name to the next
MOST_CURVES = 60  # single users drawn per panel; the median is over all


def arm_handles(styles: dict[str, Style]) -> list[Line2D]:
    """The arms' key, for matplotlib."""
    return [
        Line2D(
            [], [], color=style.colour, marker=style.marker, linestyle=style.dash, markersize=4.5, label=arm
        )
        for arm, style in styles.items()
    ]


def drift_keys(rows: pl.DataFrame) -> list[tuple[str, str, bool, str]]:
    """The key of the drift drawings, only what occurs in them: colour, marker, filled or not, meaning."""
    kinds = rows.select("drift", "is_drift").unique()
    kinds = kinds.sort("is_drift", "drift", descending=[True, False], nulls_last=True)
    keys = [(INK, "o", True, "filled: selected"), (INK, "o", False, "open: left out")]
    for kind, real in kinds.drop_nulls().iter_rows():
        meaning = "" if kind == STABLE else " (a real change)" if real else " (not to be learned)"
        keys.append((*kind_style(kind, real), True, kind + meaning))
    return keys


def drift_handles(rows: pl.DataFrame) -> list[Line2D]:
    """The key of the drift drawings, for matplotlib."""
    return [
        Line2D(
            [], [], color=colour, marker=marker, linestyle="none", markersize=5,
            markerfacecolor=colour if filled else "none", label=text,
        )
        for colour, marker, filled, text in drift_keys(rows)
    ]  # fmt: skip


def followed(metrics: dict[str, Any]) -> list[str]:
    """The arms that can be told apart over periods: all of a few, else the one compared with and the best."""
    arms = list(metrics["arms"])
    if len(arms) <= MOST_LINES:
        return arms
    found = {metrics["against"]}
    for metric in METRIC_NAMES:
        ranked = sorted(((metrics["arms"][arm][metric]["mean"], arm) for arm in arms), reverse=True)
        found |= {arm for _, arm in ranked[:BEST]}
    return [arm for arm in arms if arm in found]


def periods_panel(
    axes: Axes, table: pl.DataFrame, metric: str, styles: dict[str, Style], shown: list[str]
) -> None:
    """One metric over periods: a line per arm, those not `shown` faint; of a few, bands of the intervals."""
    for arm in sorted(styles, key=shown.__contains__):
        style, rows = styles[arm], table.filter(pl.col("arm") == arm).sort("period")
        periods = rows["period"].to_numpy()
        if arm not in shown:
            axes.plot(periods, rows[metric], color=GRID, linewidth=1)
            continue
        low, high = (rows[f"{metric}_{end}"].cast(pl.Float64).to_numpy() for end in ("low", "high"))
        if len(styles) <= MOST_LINES:
            axes.fill_between(periods, low, high, color=style.colour, alpha=0.07, linewidth=0)
        axes.plot(
            periods, rows[metric], color=style.colour, marker=style.marker, linestyle=style.dash,
            linewidth=1.6, markersize=4.5,
        )  # fmt: skip
    axes.set_title(METRIC_NAMES[metric])
    axes.set_xticks(sorted(table["period"].unique()))
    axes.set_xlabel("period")
    if metric == "logp_per_token":
        axes.set_ylabel("nats")
    axes.grid(axis="x", visible=False)


def paired_panel(axes: Axes, metrics: dict[str, Any], metric: str, styles: dict[str, Style]) -> None:
    """Forest plot: differences from the arm compared with and their intervals; filled: significant."""
    arms = [arm for arm in styles if arm in metrics["paired"]]
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, arm in enumerate(arms):
        found = metrics["paired"][arm][metric]
        forest_row(axes, place, found["difference"], found, styles[arm], filled=significant(found))
    forest_axes(axes, arms)
    axes.set_title(METRIC_NAMES[metric])
    axes.set_xlabel(
        f"difference from {metrics['against']}" + (", nats" if metric == "logp_per_token" else "")
    )


def measure_panel(axes: Axes, metrics: dict[str, Any], measure: str, styles: dict[str, Style]) -> None:
    """Forest plot of one measure of transfer; filled: significantly not that of the arm compared with."""
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
    axes.set_title(TRANSFER_NAMES[measure])
    axes.set_xlabel("nats per token")


def significant(found: dict[str, Any]) -> bool:
    """Whether the corrected p-value says so; without one, not."""
    return found["p_holm"] is not None and found["p_holm"] < SIGNIFICANT


def forest_row(
    axes: Axes, place: int, value: float, limits: dict[str, Any], style: Style, *, filled: bool
) -> None:
    """A value with its interval, the `place`-th from above."""
    if limits["low"] is not None:
        axes.plot([limits["low"], limits["high"]], [place, place], color=style.colour, linewidth=2)
    axes.plot(
        value, place, color=style.colour, marker=style.marker, markersize=6,
        markerfacecolor=style.colour if filled else "none",
    )  # fmt: skip


def forest_axes(axes: Axes, arms: list[str]) -> None:
    """Arms as names of rows, from above."""
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def kind_style(kind: str | None, is_drift: bool | None) -> tuple[str, str]:
    """Colour (a real change or not) and marker (which kind) of an item; grey circles without a label."""
    if kind is None or is_drift is None or kind == STABLE:
        return UNKNOWN, "o"
    return (CHANGE if is_drift else NO_CHANGE), KIND_MARKERS.get(kind, "*")


def drift_panel(axes: Axes, rows: pl.DataFrame, user: str) -> None:
    """One user's drift scores in time order: selected items filled, colour and marker by their true label."""
    rows = rows.with_row_index("place", offset=1)
    edges = rows.group_by("period", maintain_order=True).agg(
        first=pl.col("place").min(),
        last=pl.col("place").max(),
        cut=pl.col("drift_score").filter("selected").min(),
    )
    for number, (period, first, last, cut) in enumerate(edges.iter_rows()):
        if number % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color=BAND, linewidth=0, zorder=0)
        axes.text(
            (first + last) / 2, 0.985, f"period {period}", transform=axes.get_xaxis_transform(),
            ha="center", va="top", color=MUTED, fontsize=7.5,
        )  # fmt: skip
        if cut is not None:
            axes.hlines(cut, first - 0.4, last + 0.4, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.plot(rows["place"], rows["drift_score"], color=GRID, linewidth=0.9, zorder=1)
    for place, score, selected, kind, real in rows.select(
        "place", "drift_score", "selected", "drift", "is_drift"
    ).iter_rows():
        colour, marker = kind_style(kind, real)
        axes.plot(
            place, score, marker=marker, color=colour, markersize=6 if selected else 5,
            markerfacecolor=colour if selected else "none", markeredgewidth=1.1, zorder=3,
        )  # fmt: skip
    axes.margins(x=0.01, y=0.16)
    axes.set_title(user)
    axes.set_xlabel("train interactions in time order")
    axes.set_ylabel("drift score")
    axes.grid(axis="x", visible=False)


def curves_panel(axes: Axes, rows: pl.DataFrame, title: str, colour: str) -> None:
    """One recipe's training loss: thin lines per user, the median bold, periods set one after the other."""
    users = sorted(rows["user_id"].unique())
    drawn = [
        users[index] for index in np.unique(np.linspace(0, len(users) - 1, MOST_CURVES).round().astype(int))
    ]
    start = 0
    for (period,), here in sorted(rows.group_by("period"), key=lambda group: group[0]):
        here = here.with_columns(place=start + pl.col("step") - pl.col("step").min()).sort("user_id", "place")
        for user in drawn:
            one = here.filter(pl.col("user_id").eq_missing(user))  # null: an adapter of all users
            axes.plot(one["place"], one["loss"], color=colour, linewidth=0.6, alpha=0.3)
        median = here.group_by("place").agg(pl.col("loss").median()).sort("place")
        axes.plot(median["place"], median["loss"], color=colour, linewidth=2)
        end = median["place"][-1] + 1
        axes.text(
            (start + end - 1) / 2, 0.985, f"{period}", transform=axes.get_xaxis_transform(),
            ha="center", va="top", color=MUTED, fontsize=7.5,
        )  # fmt: skip
        axes.axvline(end - 0.5, color=GRID, linewidth=1)
        start = end
    axes.set_title(title)
    axes.set_xlabel("optimizer steps, period after period")
    axes.set_ylabel("training loss, nats")
    axes.margins(x=0.01, y=0.12)
    axes.grid(axis="x", visible=False)


def largest_gain(metrics: dict[str, Any], metric: str) -> float:
    """How far any state of any arm is from the base model on any period: the end of the heat maps' scale."""
    arms = (of_metric(arm, metric) for arm in metrics["transfer"].values())
    return max(abs(gain) for arm in arms for gain in gains(arm).values())


def of_metric(arm: dict[str, Any], metric: str) -> dict[str, Any]:
    """`matrix` and `untrained` of one arm: of likelihoods, or of a metric of generated texts."""
    return arm["generated"].get(metric, arm)


def gains(arm: dict[str, Any]) -> dict[tuple[str, str], float]:
    """(learned, tested) -> scores[i, j] less what the base model has there."""
    return {
        (learned, tested): score - arm["untrained"][tested]
        for learned, scores in arm["matrix"].items()
        for tested, score in scores.items()
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
            fontsize=7, arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkB": 3},
        )  # fmt: skip


def cost_panel(axes: Axes, metrics: dict[str, Any], metric: str, styles: dict[str, Style]) -> None:
    """One metric over the seconds spent: up and to the left is better; named: what none beats at its cost."""
    for arm, style in styles.items():
        found = metrics["arms"][arm]
        seconds = seconds_spent(found)
        low, mean, high = (found[metric][key] for key in ("low", "mean", "high"))
        if low is not None:
            axes.plot([seconds, seconds], [low, high], color=style.colour, linewidth=1.2, alpha=0.55)
        axes.plot(seconds, mean, color=style.colour, marker=style.marker, markersize=7)
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
    axes.set_xlabel("seconds of training, scoring and generation, all users and periods")
    best = {arm: metrics["arms"][arm] for arm in frontier(metrics, metric)}
    name_front(axes, {arm: (seconds_spent(found), found[metric]["mean"]) for arm, found in best.items()})
