"""Draws docs/img/leaders.svg, the README's picture, from results/personas-compare: `python docs/leaders.py`.

A few methods with their names, the others in grey; every number is in docs/results.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tasks.reporting.cost_plots import seconds_spent
from tasks.reporting.svg import GRID, INK, MUTED, SERIES, draw
from tasks.seeds.keeping import params_of, read_kept
from tasks.seeds.pooling import pool

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results/personas-compare"
PICTURE = ROOT / "docs/img/leaders.svg"
METRIC = "logp_per_token"
SHOWN = {  # arm: its name, and where that stands (points to the right and up)
    "base": ("the model alone", (10, -3)),
    "rag-accum": ("retrieval alone", (10, -14)),
    "oppu-each": ("a fresh adapter\neach period (OPPU)", (0, -38)),
    "spring": ("SPRInG", (-10, -3)),
    "current": ("all of each period\ninto one adapter", (-10, 0)),
    "current-ffn": ("the same, on\nfeed-forward layers", (-10, -8)),
    "surprise": ("replay of what\nsurprises (SuRe)", (10, -16)),
    "cope": ("CoPe", (10, -3)),
    "proper": ("levels shared\nby users (PROPER)", (-10, 2)),
}


def paint(figure: Figure, metrics: dict[str, Any]) -> None:
    """One pair of axes: quality over cost."""
    axes = figure.subplots()
    for arm, found in metrics["arms"].items():
        seconds, value = seconds_spent(found), found[METRIC]
        if arm not in SHOWN:
            axes.plot(seconds, value["mean"], "o", color=MUTED, alpha=0.35, markersize=4.5, markeredgewidth=0)
            continue
        colour = SERIES[1] if arm == "spring" else SERIES[0]
        axes.plot([seconds] * 2, [value["low"], value["high"]], color=colour, linewidth=1.6, alpha=0.5)
        axes.plot(seconds, value["mean"], "o", color=colour, markersize=8)
        name, (x, y) = SHOWN[arm]
        side = "center" if x == 0 else "right" if x < 0 else "left"
        axes.annotate(
            name, (seconds, value["mean"]), xytext=(x, y), textcoords="offset points", ha=side, fontsize=9,
            color=INK, fontweight="bold" if arm == "spring" else None,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([10, 20, 50, 100, 200, 500, 1000]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.12)
    axes.set_xlabel("seconds for all users and periods, 2 cores  (left: cheaper)", fontsize=9)
    axes.set_ylabel("log-likelihood of what the user wrote,\nnats per token  (up: better)", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(color=GRID)


def picture() -> str:
    """The drawing as SVG."""
    params = params_of(RESULTS)
    metrics = pool(params, read_kept(params, RESULTS))
    return draw((8.6, 4.2), lambda figure: paint(figure, metrics), paper=True)


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
