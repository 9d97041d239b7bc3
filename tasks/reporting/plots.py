"""The report's drawings: each `..._panel` fills one pair of axes, the same for a file and for the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from spring.measures.metrics import TEXT_METRICS
from spring.measures.statistics import STABLE
from tasks.reporting.svg import BAND, GRID, INK, MUTED, SERIES, Style

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
CHANGE, NO_CHANGE, UNKNOWN = SERIES[1], SERIES[0], MUTED
KIND_MARKERS = {
    "stable": "o",
    "abrupt": "^",
    "gradual": "D",
    "recurring": "s",
    "transient": "v",
    "noise": "p",
}
SIGNIFICANT = 0.05
MOST_LINES = 12  # arms drawn in full over periods; of more, only the best keep their colours
BEST = 3  # of more arms: how many by each metric keep them
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


def followed(metrics: dict[str, Any]) -> list[str]:
    """The arms that can be told apart over periods: all of a few, else the one compared with and the best."""
    arms = list(metrics["arms"])
    if len(arms) <= MOST_LINES:
        return arms
    found = {metrics["against"]}
    for metric in headlines(metrics):
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
            axes.plot(periods, rows[metric].to_numpy(), color=GRID, linewidth=1)  # a null is a gap
            continue
        low, high = (rows[f"{metric}_{end}"].cast(pl.Float64).to_numpy() for end in ("low", "high"))
        if len(styles) <= MOST_LINES:
            axes.fill_between(periods, low, high, color=style.colour, alpha=0.07, linewidth=0)
        axes.plot(
            periods, rows[metric].to_numpy(), color=style.colour, marker=style.marker, linestyle=style.dash,
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
