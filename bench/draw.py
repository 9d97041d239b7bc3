"""One drawing of what bench.engine and bench.growth found: `python -m bench.draw`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.machine import RESULTS
from tasks.reporting.svg import INK, MUTED, SERIES, draw

TARGET = Path("docs/img/performance.svg")
SHOWN = ("score", "train", "generate", "long")  # of the jobs


def bars(axes: Axes, jobs: list[dict[str, Any]], key: str, spread: str, form: str) -> None:
    """One group of bars for each job, one bar for each kind of text, with the range of the rounds."""
    names = list(dict.fromkeys(job["job"] for job in jobs))
    sources = list(dict.fromkeys(job["source"] for job in jobs))
    for number, source in enumerate(sources):
        mine = [job for job in jobs if job["source"] == source]
        places = [names.index(job["job"]) + 0.38 * (number - (len(sources) - 1) / 2) for job in mine]
        axes.bar(places, [job[key] for job in mine], width=0.34, color=SERIES[number], label=source)
        for place, job in zip(places, mine, strict=True):
            low, high = min(job[spread]), max(job[spread])
            axes.plot([place, place], [low, high], color=INK, linewidth=0.8)
            text = format(job[key], form)
            axes.annotate(text, (place, high), (0, 3), textcoords="offset points", ha="center", color=INK)
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")


def paint(figure: Figure, engine: dict[str, Any], growth: dict[str, Any]) -> None:
    """Times faster, share of the machine's limit, and cost per user."""
    faster, share, cost = figure.subplots(1, 3, width_ratios=(1.1, 1, 0.9))
    bars(faster, engine["jobs"], "ratio", "ratios", ".1f")
    faster.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    faster.set_title("Times faster than one user,\none query after another")
    bars(share, engine["jobs"], "of_limit", "of_limits", ".0%")
    share.set_ylim(0, 1)
    share.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    share.set_title("Share of what the machine\ncould do at best")
    share.legend(loc="lower center", bbox_to_anchor=(0.5, -0.28), ncols=2)
    users = [int(number) for number in growth["users"]]
    for number, (key, label) in enumerate(
        [("train_seconds_per_user", "train"), ("generate_seconds_per_user", "generate")]
    ):
        values = [point[key] for point in growth["users"].values()]
        axes_style = {"color": SERIES[number + 2], "marker": "os"[number], "markersize": 4}
        cost.plot(users, values, label=label, **axes_style)
    cost.set_xscale("log", base=2)
    cost.set_xticks(users, [str(number) for number in users])
    cost.set_ylim(bottom=0)
    cost.set_xlabel("users")
    cost.set_title("Seconds per user")
    cost.legend(loc="lower left")


def main() -> None:
    """Reads both results and writes the drawing."""
    engine = json.loads((RESULTS / "engine.json").read_text(encoding="utf-8"))
    engine["jobs"] = [job for job in engine["jobs"] if job["job"] in SHOWN]
    growth = json.loads((RESULTS / "growth.json").read_text(encoding="utf-8"))
    svg = draw((9, 2.9), partial(paint, engine=engine, growth=growth), paper=True)
    TARGET.write_text(svg, encoding="utf-8")
    print(TARGET)


if __name__ == "__main__":
    main()
