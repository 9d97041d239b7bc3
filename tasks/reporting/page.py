"""The one-page report: what the numbers say in words, and everything the template `report.html.j2` shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spring.measures.significance import smallest_p
from spring.measures.statistics import EVERY
from spring.method.learned_gate import OPEN
from spring.settings.params import Params
from tasks.params import load_start
from tasks.reporting.descriptions import describe
from tasks.reporting.findings import probability, tables
from tasks.reporting.plots import SIGNIFICANT, drift_keys, followed, is_headline, significant, titles
from tasks.reporting.published import published_table
from tasks.reporting.svg import COLOURS, arm_styles, glyph
from tasks.reporting.table import Table, excludes_zero, interval, left_out, number, with_interval
from tasks.suites import read_suite

FEW_USERS = 10  # below, even expanded bootstrap intervals are rough
MOST_NAMED = 4  # arms named in one sentence; more are counted
NOTE = (
    "Intervals and tests are over users only: they hold no variation between training runs (this is one "
    "seed). Corrected p-values allow for looking at several arms, intervals do not, and nothing allows for "
    "looking at several metrics."
)


@dataclass(frozen=True)
class Sample:
    """One query with its reference and what every arm wrote: (arm, text, ROUGE-1 or null, contexts)."""

    user: str
    period: int
    query: dict[str, str]
    reference: str
    answers: list[tuple[str, str, float | None, int]]


def names(arms: Sequence[str]) -> str:
    """Arms as a list in a sentence."""
    return arms[0] if len(arms) == 1 else f"{', '.join(arms[:-1])} and {arms[-1]}"


def reading(metrics: dict[str, Any], order: Sequence[str]) -> list[tuple[str, str]]:
    """What the numbers say, claim by claim: (heading, sentence)."""
    told = {metric: title for metric, title in titles(metrics).items() if is_headline(metric)}
    said = [(title, metric_reading(metrics, order, metric)) for metric, title in told.items()]
    said += [("Transfer", sentence) for sentence in transfer_reading(metrics, order)]
    said += [("Drift", sentence) for sentence in drift_reading(metrics, order)]
    users = metrics["users"]
    few = ""
    if users == 1:
        few = "A single user gives no intervals at all. "
    elif users < FEW_USERS:
        few = f"Intervals from only {users} users are rough. "
    return [*said, ("Caution", few + NOTE)]


def metric_reading(metrics: dict[str, Any], order: Sequence[str], metric: str) -> str:
    """The arm with the highest mean, whether it can be told from the one compared with, and who else can."""
    against, paired = metrics["against"], metrics["paired"]
    means = {arm: metrics["arms"][arm][metric]["mean"] for arm in order}
    if None in means.values():
        return "Applies to no test item: none has a word to compare."
    best = [arm for arm in order if means[arm] == max(means.values())]
    if against in best:
        text = f"No arm has a higher mean than {against} ({number(means[against])})."
    else:
        found = paired[best[0]][metric]
        limits = interval(found["low"], found["high"], signed=True)
        verdict = told_apart(found, users=metrics["users"], tests=len(paired))
        have = "has" if len(best) == 1 else "have"
        text = (
            f"{names(best)} {have} the highest mean, {number(means[best[0]])}: "
            f"{number(found['difference'], signed=True)} {limits} against {against}; {verdict}."
        )
    for side, sign in (("above", 1), ("below", -1)):
        others = [arm for arm in order if arm in paired and arm not in best]
        others = [arm for arm in others if significant(paired[arm][metric])]
        others = [arm for arm in others if sign * paired[arm][metric]["difference"] > 0]
        if others:
            start = "Arms" if against in best else "Other arms"
            shown = names(others) if len(others) <= MOST_NAMED else f"{len(others)} of {len(order) - 1}"
            text += f" {start} {side} {against} (corrected p < {SIGNIFICANT}): {shown}."
    return text


def told_apart(found: dict[str, Any], *, users: int, tests: int) -> str:
    """Whether two arms can be told apart, by the corrected p-value, and whether so few users ever could."""
    if found["p_holm"] is None:
        return "a single user gives no p-value"
    p = probability(found["p_holm"])
    text = f"corrected p {p if p.startswith('<') else f'= {p}'}"
    if significant(found):
        return text
    floor = smallest_p(users, tests=tests)
    never = f" (with {users} users it cannot be below {floor:.2g})" if floor >= SIGNIFICANT else ""
    return f"{text}{never}, so these data do not tell the two apart"


def transfer_reading(metrics: dict[str, Any], order: Sequence[str]) -> list[str]:
    """Which arms lost or gained on earlier periods by learning on, as far as their intervals tell."""
    arms = [arm for arm in order if arm in metrics["transfer"]]
    told = {arm: metrics["transfer"][arm]["backward"] for arm in arms}
    parts = []
    for what, sign in (("lost", -1), ("gained", 1)):
        some = [arm for arm in arms if excludes_zero(told[arm]) and sign * told[arm]["mean"] > 0]
        if some:
            some.sort(key=lambda arm: -abs(told[arm]["mean"]))
            listed = [f"{arm} ({number(told[arm]['mean'], signed=True)})" for arm in some[:MOST_NAMED]]
            more = f" and {len(some) - MOST_NAMED} more" if len(some) > MOST_NAMED else ""
            parts.append(f"by learning on, earlier periods {what} under {', '.join(listed)}{more}")
    if not arms:
        return []
    if not parts:
        return ["No arm's interval of backward transfer excludes zero: nothing says that any forgets."]
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}, in nats per token; no other interval excludes zero."]


def drift_reading(metrics: dict[str, Any], order: Sequence[str]) -> list[str]:
    """How well the first arm that selects by drift finds the real changes; the others are in the table."""
    arms = [arm for arm in order if arm in metrics["drift"]]
    if not arms:
        return []
    found = metrics["drift"][arms[0]][EVERY]
    if found["auroc"]["mean"] is None:
        return ["No period of any user holds real changes and others, so that none can be told apart."]
    text = (
        f"Under {arms[0]}, a real change scores above the rest of its period with probability "
        f"{with_interval(found['auroc'], 'mean')} (0.5 is chance); {found['precision']['mean']:.0%} of what "
        f"was selected is a real change, where a blind selection would reach {found['blind']['mean']:.0%}."
    )
    different = any(metrics["drift"][arm] != metrics["drift"][arms[0]] for arm in arms)
    return [text + " Other selections are in the table below." * different]


def parameters(params: Params) -> str:
    """All parameters, written out arm by arm."""
    return yaml.safe_dump(
        json.loads(json.dumps(params.model_dump(mode="json"))), sort_keys=False, allow_unicode=True
    )


def render(
    params: Params,
    metrics: dict[str, Any],
    *,
    drawings: dict[str, list[str]],
    drift_rows: pl.DataFrame,
    drift_arm: str | None,
    samples: list[Sample],
) -> str:
    """The page; `drawings` are SVG elements per section, everything else is escaped by the template."""
    order, styles = list(params.arms), arm_styles(params)
    shown: dict[str, Table] = {table.name: table for table in tables(metrics, order)}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number}
    return environment.get_template("report.html.j2").render(
        params=params,
        metrics=metrics,
        metric_names=titles(metrics),
        order=order,
        followed=followed(metrics),
        keys={
            arm: Markup(glyph(style.colour, style.marker, dash=style.dash)) for arm, style in styles.items()
        },
        colours=COLOURS,
        reading=reading(metrics, order),
        left_out=left_out(metrics),
        tables=shown,
        drawings={name: [Markup(svg) for svg in drawn] for name, drawn in drawings.items()},
        drift_arm=drift_arm,
        drift_keys=[
            (Markup(glyph(c, m, filled=filled)), text) for c, m, filled, text in drift_keys(drift_rows)
        ],
        samples=samples,
        descriptions=describe(params.arms, load_start()),
        parameters=parameters(params),
        suite=read_suite(params.suite),
        published=published_table(params, metrics),
        significant=significant,
        interval=interval,
        open=OPEN,
        smallest_p=smallest_p(metrics["users"]),
        smallest_corrected=smallest_p(metrics["users"], tests=len(order) - 1),
    )
