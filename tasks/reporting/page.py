"""The one-page report: everything that the template `report.html.j2` shows, of one run or of kept ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
import yaml
from jinja2 import Environment
from markupsafe import Markup

from spring.measures.significance import smallest_p
from spring.method.learned_gate import OPEN
from spring.settings.params import Params
from tasks.evaluate import arms_by_recipe
from tasks.measures.comparison import intervals_of
from tasks.reporting import templates
from tasks.reporting.answer import MAIN, Answer, times
from tasks.reporting.choice import evenly_said
from tasks.reporting.cost_plots import cost_plot, curves_plot
from tasks.reporting.descriptions import describe
from tasks.reporting.findings import tables
from tasks.reporting.looks import COLOURS, Style, arm_styles, first_arms, glyph, glyphs
from tasks.reporting.names import headlines, significant, titles
from tasks.reporting.people import Person, shown_arm
from tasks.reporting.plots import answer_plot, leads_plot, measure_plot, paired_plot, periods_plot
from tasks.reporting.provenance import Provenance, duration, total_seconds
from tasks.reporting.published import published_table
from tasks.reporting.reading import reading
from tasks.reporting.table import Table, interval, left_out, number, p_value
from tasks.reporting.templates import HERE
from tasks.reporting.timeline import periods, timeline
from tasks.reporting.transfer_plots import drawable, measured, transfer_plot
from tasks.reporting.vega import Spec, library
from tasks.suites import Suite

FEW_ARMS = 12  # of more, the drawings over periods go without intervals
PAPER = "https://arxiv.org/abs/2601.09974"
DOCS = {
    "What every number means": "statistics.md",
    "The method": "method.md",
    "The methods it is compared with": "methods.md",
    "Results so far": "results.md",
    "How to run and schedule it": "operate.md",
}


@dataclass(frozen=True)
class Content:
    """What a page shows. Kept runs hold no texts and no learning curves.

    `users`: arm, user_id, period and every metric; `curves`: recipe, user_id, period, step, loss; `root`: the
    way from the page to the project; `files`: what to call a file that lies beside the page -> its path.
    """

    params: Params
    metrics: dict[str, Any]
    suite: Suite
    start: Mapping[str, Any]
    users: pl.DataFrame
    provenance: Provenance
    root: str
    files: dict[str, str]
    answer: Answer
    curves: pl.DataFrame | None = None
    people: list[Person] = field(default_factory=list)

    @cached_property
    def drawings(self) -> tuple[dict[str, dict[str, Spec]], dict[str, Style], list[str]]:
        """Section -> name -> drawing; and the arms' looks, and those in colour at first."""
        return draw(self)


def draw(content: Content) -> tuple[dict[str, dict[str, Spec]], dict[str, Style], list[str]]:
    """`Content.drawings`, which both the page and the files are made from."""
    metrics, found = content.metrics, content.answer
    told = [arm for line in found.lines for arm in (line.arm, line.other)]
    on = first_arms(metrics, told)
    styles = arm_styles(metrics, on)
    by = sorted(headlines(metrics), key=lambda metric: metric != MAIN)
    limits = period_limits(content, by) if len(styles) <= FEW_ARMS else {}
    drawn: dict[str, dict[str, Spec]] = {
        "answer": {"answer": answer_plot(found)} if found.lines else {},
        "periods": {m: periods_plot(metrics, limits.get(m, {}), m, styles, on) for m in by},
        "paired": {m: paired_plot(metrics, m, styles, on) for m in by if metrics["paired"]},
        "cost": {m: cost_plot(metrics, m, styles, on) for m in by},
        "measures": {name: measure_plot(metrics, name, styles, on) for name in measured(metrics)},
        "transfer": {},
        "leads": {"leads": leads_plot(found)} if any(person.why for person in content.people) else {},
        "drift": {
            str(place): timeline(person) for place, person in enumerate(content.people) if scored(person)
        },
        "curves": {},
    }
    if metrics["transfer"]:
        first = next(iter(metrics["transfer"].values()))
        drawn["transfer"] = {m: transfer_plot(metrics, m, on) for m in drawable(first)}
    if content.curves is not None and not content.curves.is_empty():
        arms = arms_by_recipe(content.params)
        drawn["curves"] = {"curves": curves_plot(content.curves, arms, styles, on)}
    return drawn, styles, on


def scored(person: Person) -> bool:
    """Whether any item of a user has a drift score."""
    return any(item.score is not None for item in person.items)


def period_limits(content: Content, by: Sequence[str]) -> dict[str, dict[tuple[str, str], tuple[Any, Any]]]:
    """Metric -> (arm, period) -> the ends of its interval over users."""
    parts = content.users.sort("user_id").partition_by("arm", "period", as_dict=True)
    values = {(metric, place): rows[metric] for place, rows in parts.items() for metric in by}
    found: dict[str, dict[tuple[str, str], tuple[Any, Any]]] = {metric: {} for metric in by}
    for (metric, (arm, period)), limits in intervals_of(content.params, values).items():
        found[metric][str(arm), str(period)] = limits["low"], limits["high"]
    return found


def parameters(params: Params) -> str:
    """All parameters, written out arm by arm."""
    return yaml.safe_dump(json.loads(params.model_dump_json()), sort_keys=False, allow_unicode=True)


def environment() -> Environment:
    """Jinja (templates.py), and what reports show numbers with."""
    made = templates.environment()
    made.filters |= {"number": number, "times": times, "p_value": p_value, "embedded": embedded}
    made.globals |= {"colours": COLOURS, "style": Markup((HERE / "report.css").read_text(encoding="utf-8"))}
    made.globals["ticks_of"] = evenly_said
    return made


def embedded(value: Any) -> Markup:
    """JSON for a <script> element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def render(content: Content) -> str:
    """The page."""
    params, metrics, found = content.params, content.metrics, content.answer
    drawn, styles, on = content.drawings
    order = list(params.arms)
    shown: dict[str, Table] = {table.name: table for table in tables(metrics, order)}
    return environment().get_template("report.html.j2").render(
        content=content,
        params=params,
        metrics=metrics,
        metric_names=titles(metrics),
        order=order,
        answer=found,
        main=MAIN,
        drawn={section: list(specs) for section, specs in drawn.items()},
        specs={f"{section}-{name}": spec for section, specs in drawn.items() for name, spec in specs.items()},
        glyphs=Markup(glyphs(styles)),
        keys={arm: Markup(glyph(place)) for place, arm in enumerate(styles)},
        on=on,
        reading=reading(metrics, order),
        left_out=left_out(metrics),
        tables=shown,
        people_arm=shown_arm(params),
        selects=any(arm.train is not None and arm.train.data == "drift" for arm in params.arms.values()),
        periods=periods,
        descriptions=describe(params.arms, content.start),
        parameters=parameters(params),
        published=published_table(params, metrics, content.suite),
        significant=significant,
        interval=interval,
        open=OPEN,
        spent=duration(total_seconds(params, metrics)),
        seeds=metrics.get("seeds") or [metrics["seed"]],
        smallest_p=smallest_p(metrics["users"]),
        smallest_corrected=smallest_p(metrics["users"], tests=max(1, len(order) - 1)),
        paper=PAPER,
        docs=DOCS,
        library=Markup(library()),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
    )  # fmt: skip
