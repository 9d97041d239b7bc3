"""The drawings of arms and metrics: the answer, over periods, differences, measures of transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.reporting.answer import MAIN, Answer, times
from tasks.reporting.choice import evenly, evenly_said
from tasks.reporting.looks import Style
from tasks.reporting.names import METRIC_NAMES, TRANSFER_NAMES, significant
from tasks.reporting.table import number, p_value, with_interval
from tasks.reporting.vega import (
    FAINT,
    LINES,
    OFF,
    ON,
    TIP,
    ZERO,
    Spec,
    axis,
    bar,
    broken,
    chart,
    dot,
    layer,
    line,
    of_arm,
    quantity,
    short,
)

Styles = Mapping[str, Style]
HOLLOW = {"value": "var(--paper)"}  # inside a mark that is not filled
NATS = "nats per token"
BINS = 40
LIKELIER = "every token so many times as likely"
RATIO = "datum.value == 0 ? '1' : format(exp(datum.value), '.3~r') + '×'"
RATIOS = {  # up to how many nats -> ratios to mark
    0.12: (0.9, 0.95, 0.98, 1, 1.02, 1.05, 1.1),
    0.7: (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2),
    1.4: (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4),
    math.inf: (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000),
}


def answer_plot(found: Answer) -> Spec:
    """The comparisons of the first sentence by likelihood: users as ticks, the mean with its interval.

    Of many users some, evenly spaced in rank, so that they lie as all do; the axis says so.
    """
    rows, ticks = means_told(found), users_told(found)
    at = {
        "field": "words",
        "type": "nominal",
        "sort": [row["words"] for row in rows],
        "axis": {
            "title": None,
            "labelExpr": LINES,
            "labelColor": "var(--ink)",
            "labelLimit": 170,
            "grid": False,
        },
    }
    colour = {"value": "var(--series-0)"}
    values = [end for row in rows for end in (row["low"], row["high"])] + [tick["user"] for tick in ticks]
    x = ratios("value", min(values), max(values))
    if said := evenly_said(len(found.lines[0].users)):
        x["axis"]["title"] = [LIKELIER, said]
    ends_of = {"y": at, "x": x | {"field": "low"}, "x2": {"field": "high"}, "color": colour}
    each = {"y": at, "x": x | {"field": "user"}, "color": {"value": "var(--muted)"}} | TIP
    mean = [
        layer(bar(strokeWidth=9, opacity=0.28), ends_of),
        layer(dot(size=130), {"y": at, "x": x, "color": colour} | TIP),
    ]
    singles = layer({"type": "tick", "thickness": 1.5, "size": 13}, each) | {"data": {"values": ticks}}
    if said:  # so many ticks would cover the mean
        singles["mark"] |= {"thickness": 1, "size": 26, "opacity": 0.5}
    layers = [ZERO, singles, *mean] if said else [ZERO, *mean, singles]
    height = 34 + 40 * len(rows)
    return chart("", rows, layers, on=[], height=height)


def means_told(found: Answer) -> list[Spec]:
    """A row for every comparison: its mean with its interval."""
    rows = []
    for one in found.lines:
        entry, users = one.found[MAIN], one.users.values()
        who = f"{found.lead} over {one.words}" if one.words != one.arm else f"{one.arm}, {found.lead}"
        tip = (
            f"{who}\n{with_interval(entry, 'difference', signed=True)} {NATS}\n"
            f"every token {times(entry['difference'])}; "
            f"better for {sum(value > 0 for value in users)} of {len(users)}"
        )
        rows.append({"words": broken(one.words), "tip": tip} | ends(entry, "difference"))
    return rows


def users_told(found: Answer) -> list[Spec]:
    """A row for every user of every comparison, or for some of many."""
    return [
        {
            "words": broken(one.words),
            "user": short(value),
            "tip": f"one user: {number(value, signed=True)}",
        }
        for one in found.lines
        for value in evenly(list(one.users.values()))
    ]


def leads_plot(found: Answer) -> Spec:
    """All users by the first comparison's likelihood: a histogram, which no number of them makes larger."""
    first = found.lines[0]
    values = np.array(list(first.users.values()))
    counts, edges = np.histogram(values, bins=BINS)
    rows: list[Spec] = [
        {
            "from": short(low),
            "to": short(high),
            "users": count,
            "tip": f"{count:,} of {len(values):,} users\n{number(low, signed=True)} to "
            f"{number(high, signed=True)} {NATS}",
        }
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        if count
    ]
    who = found.lead if first.words == first.arm else f"{found.lead} over {first.words}"
    x = ratios("from", float(values.min()), float(values.max()))
    x["axis"]["title"] = [f"{who}:", LIKELIER]
    at = {"x": x, "x2": {"field": "to"}, "y": quantity("users", "users", zero=True), "y2": {"datum": 0}}
    mark = {"type": "bar", "color": "var(--series-0)", "opacity": 0.75}
    return chart("", rows, [layer(mark, at | TIP), ZERO], on=[], height=200)


def ratios(field: str, low: float, high: float) -> Spec:
    """A channel of differences in nats whose axis tells them as ratios."""
    x = quantity(field, LIKELIER, zero=True)
    x["axis"] |= {"values": ratio_ticks(low, high), "labelExpr": RATIO}
    return x


def ratio_ticks(low: float, high: float) -> list[float]:
    """Places for ratios of likelihoods on an axis of nats: 1, and round ones as far as the values go."""
    reach = max(0.0, high) - min(0.0, low)
    steps = next(steps for size, steps in RATIOS.items() if reach <= size)
    return [short(math.log(step)) or 0.0 for step in steps if min(0, low) <= math.log(step) <= max(0, high)]


def ends(entry: Mapping[str, Any], name: str) -> Spec:
    """A value with its interval, as fields of a row; without an interval both ends are the value."""
    value = entry[name]
    low, high = (value if entry[end] is None else entry[end] for end in ("low", "high"))
    return {"value": short(value), "low": short(low), "high": short(high)}


def periods_plot(
    metrics: dict[str, Any],
    limits: Mapping[tuple[str, str], tuple[float | None, float | None]],
    metric: str,
    styles: Styles,
    on: Sequence[str],
) -> Spec:
    """One metric over periods, a line per arm; `limits`: (arm, period) -> its interval."""
    rows = []
    for arm in styles:
        for period, mean in metrics["arms"][arm][metric]["periods"].items():
            low, high = limits.get((arm, period), (None, None))
            text = with_interval({"mean": mean, "low": low, "high": high}, "mean")
            rows.append(
                {
                    "arm": arm,
                    "period": int(period),
                    "value": short(mean),
                    "tip": f"{arm}, period {period}\n{text}",
                }
            )
    at = {
        "x": {"field": "period", "type": "ordinal"} | axis("period", labelAngle=0, grid=False),
        "y": quantity("value", "nats" if metric == MAIN else None),
    }
    colour, detail = of_arm(styles), {"detail": {"field": "arm"}}
    dash, shape = of_arm(styles, only="dash"), of_arm(styles, only="shape")
    layers = [
        layer(line(color=FAINT, strokeWidth=1), at | detail, OFF),
        layer(line(), at | {"color": colour, "strokeDash": dash}, ON),
        layer(dot(), at | {"color": colour, "shape": shape} | TIP, ON),
    ]
    return chart(METRIC_NAMES[metric], rows, layers, on=on)


def forest(title: str, unit: str, rows: list[Spec], styles: Styles, on: Sequence[str]) -> Spec:
    """Values with intervals, an arm a row from above; filled where `sure`. The line stands at zero."""
    at = {
        "field": "arm",
        "type": "nominal",
        "sort": [row["arm"] for row in rows],
        "axis": {"title": None, "labelColor": "var(--ink)", "labelLimit": 170, "grid": False},
    }
    x = quantity("value", unit, tickCount=4)
    lows, end = {"y": at, "x": x | {"field": "low"}}, {"x2": {"field": "high"}}
    colour = of_arm(styles)
    fill = {"condition": colour | {"test": "datum.sure"}} | HOLLOW
    grey = {"condition": {"test": "datum.sure", "value": FAINT}} | HOLLOW
    mark, shape = dot(size=55, filled=False, strokeWidth=1.6), of_arm(styles, only="shape")
    layers = [
        ZERO,
        layer(bar(color=FAINT), lows | end, OFF),
        layer(mark | {"color": FAINT}, {"y": at, "x": x, "fill": grey} | TIP, OFF),
        layer(bar(), lows | end | {"color": colour}, ON),
        layer(mark, {"y": at, "x": x, "color": colour, "fill": fill, "shape": shape} | TIP, ON),
    ]
    row = 20 if len(rows) <= 20 else 15
    return chart(title, rows, layers, on=on, height=row * len(rows), usermeta={"row": row})


def paired_plot(metrics: dict[str, Any], metric: str, styles: Styles, on: Sequence[str]) -> Spec:
    """Every arm's difference from the arm compared with; filled: significant. The highest comes first."""
    rows = []
    for arm, found in metrics["paired"].items():
        entry = found[metric]
        p = f"\ncorrected {p_value(entry['p_holm'])}" if entry["p_holm"] is not None else ""
        tip = f"{arm} over {metrics['against']}\n{with_interval(entry, 'difference', signed=True)}{p}"
        rows.append({"arm": arm, "sure": significant(entry), "tip": tip} | ends(entry, "difference"))
    rows.sort(key=lambda row: -row["value"])
    unit = f"difference from {metrics['against']}" + (", nats" if metric == MAIN else "")
    return forest(METRIC_NAMES[metric], unit, rows, styles, on)


def measure_plot(metrics: dict[str, Any], measure: str, styles: Styles, on: Sequence[str]) -> Spec:
    """One measure of transfer; filled: significantly not that of the arm compared with."""
    rows = []
    for arm in (arm for arm in styles if arm in metrics["transfer"]):
        found = metrics["transfer"][arm][measure]
        tested = metrics["transfer_paired"].get(arm, {}).get(measure)
        if found["mean"] is not None:
            tip = f"{arm}, {TRANSFER_NAMES[measure]}\n{with_interval(found, 'mean', signed=True)} {NATS}"
            sure = tested is not None and significant(tested)
            rows.append({"arm": arm, "sure": sure, "tip": tip} | ends(found, "mean"))
    unit = NATS + (", less is better" if measure == "forgetting" else "")
    drawn = forest(TRANSFER_NAMES[measure].capitalize(), unit, rows, styles, on)
    if measure == "average":  # whose values are far below zero
        drawn["layer"] = drawn["layer"][1:]
    return drawn
