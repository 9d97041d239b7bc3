"""The drawing of docs/scale.md: hours and dollars of a period, and what the driver alone takes of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.projection.period import Found
from tasks.reporting.svg import MUTED, SERIES, draw

TARGET = Path("docs/img/projection.svg")


def paint(figure: Figure, found: list[Found]) -> None:
    """By workers: a line for every number of users."""
    hours, dollars = figure.subplots(1, 2)
    sizes = sorted({one.users for one in found})
    for colour, users in zip(SERIES, sizes, strict=False):
        mine = [one for one in found if one.users == users]
        workers = [one.workers for one in mine]
        label = f"{users:,} users"
        hours.plot(
            workers, [one.all_hours for one in mine], color=colour, label=label, marker="o", markersize=3
        )
        hours.axhline(sum(mine[0].driven.values()), color=colour, linewidth=0.8, linestyle=(0, (2, 2)))
        each = [1000 * one.dollars / users for one in mine]
        dollars.plot(workers, each, color=colour, label=label, marker="o", markersize=3)
    for axes, title in ((hours, "Hours of one more period"), (dollars, "Dollars for 1,000 users")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):  # without the powers that need mathematics in labels
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("workers, a GPU each")
        axes.set_title(title)
    dollars.legend(loc="upper left", fontsize=7)
    hours.annotate(
        "dashed: the driver alone", (1, 1), (-4, -4), "axes fraction", "offset points",
        ha="right", va="top", color=MUTED,
    )  # fmt: skip


def write(found: list[Found]) -> None:
    """Draws what was found."""
    TARGET.write_text(draw((8, 3.2), partial(paint, found=found), paper=True), encoding="utf-8")
    print(TARGET)
