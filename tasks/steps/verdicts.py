"""What new adapters are asked before they are published, and the table of what was decided of them.

Held-out texts judge publishing here and nothing else: no adapter learns from a verdict, no experiment asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from spring.live.verdict import Rules, Verdict, judge, worst_slice
from spring.settings.live import Gate
from spring.store.keys import fingerprint
from tasks.cells.scoring import ScoreJob, score
from tasks.cells.shifts import ShiftJob, shifts
from tasks.cells.workbench import Adapter, Row
from tasks.files import read_tests
from tasks.steps.experiment import Experiment
from tasks.steps.index import read_index

Served = Mapping[str, int | None]  # user -> the period of the lesson in service; null or not there: none
VERDICTS: dict[str, Any] = {
    "user_id": pl.String,
    "period": pl.Int32,
    "served": pl.Int32,  # null: none, the candidate is compared with the base model
    "cell": pl.String,
    "question": pl.String,  # by which rules, against which cell
    "ruling": pl.String,
    "reason": pl.String,
    "items": pl.Int32,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "drift_base": pl.Float64,
    "drift_before": pl.Float64,
    "worse_by": pl.String,  # the slice that got worse: task or age
    "worse": pl.String,
    "worse_items": pl.Int32,
    "worse_difference": pl.Float64,
}


@dataclass(frozen=True)
class Asked:
    """Which adapters are to be judged."""

    recipe: str
    period: int  # whose state the candidates are
    before: int  # up to where all were judged or published; -1: nothing was
    served: Served


@dataclass
class News:
    """A user whose adapter after the period is another than the one in service."""

    user: str
    cell: str
    served: int | None
    against: str | None  # the cell in service
    tests: list[list[Row]] = field(default_factory=list)  # latest first, a list per period


def verdicts_file(kept: Path, period: int) -> Path:
    """Where the verdicts after a period lie."""
    return kept / "verdicts" / f"{period:05}.parquet"


def find_news(asked: Asked) -> list[News]:
    """Who is to be judged, by user id: whoever has another adapter than before, and than is in service."""
    served = asked.served
    periods = {asked.period, asked.before} | {t for t in served.values() if t is not None}
    held = {t: _cells(asked.recipe, t) for t in periods}
    found = []
    for user, cell in sorted(held[asked.period].items()):
        since = served.get(user)
        against = None if since is None else held[since].get(user)
        if cell not in (against, held[asked.before].get(user)):
            found.append(News(user, cell, since if against else None, against))
    return found


def _cells(recipe: str, period: int) -> dict[str, str]:
    """The cells of users' own adapters after a period."""
    rows = read_index(period).filter((pl.col("recipe") == recipe) & pl.col("user_id").is_not_null())
    return dict(rows.select("user_id", "cell").iter_rows())


def is_judged(table: pl.DataFrame, news: Sequence[News], gate: Gate) -> bool:
    """Whether a table of verdicts is of all these, against what is in service, by these rules."""
    there = set(table.select("user_id", "cell", "question").iter_rows())
    return {(one.user, one.cell, question(one, gate)) for one in news} <= there


def question(one: News, gate: Gate) -> str:
    """Names the rules, and what a candidate is compared with."""
    return fingerprint([gate, one.against])


def judge_all(bench: Experiment, asked: Asked, gate: Gate) -> pl.DataFrame:
    """The verdicts (`VERDICTS`) on all candidates."""
    recipe, period, news = asked.recipe, asked.period, find_news(asked)
    give_tests(news, period, gate.items)
    candidates = bench.adapters(period)
    states = {one.served: bench.adapters(one.served) for one in news if one.served is not None}
    pairs = [
        (
            candidates.of(recipe, one.user),
            None if one.served is None else states[one.served].of(recipe, one.user),
        )
        for one in news
    ]
    gains = measure_gains(bench, news, pairs)
    drifts = measure_drifts(bench, pairs)
    rules = Rules(gate.margin, gate.least, gate.level, gate.drift.model_dump())
    rows = []
    for one, gained, drifted in zip(news, gains, drifts, strict=True):
        items = [row for rows in one.tests for row in rows]
        found = judge(gained, drifted, rules)
        rows.append(row_of(one, period, gate, found, drifted) | worse(one, items, gained))
    return pl.DataFrame(rows, schema=VERDICTS)


def give_tests(news: Sequence[News], period: int, most: int) -> None:
    """Sets `tests`: each user's latest held-out texts up to a period, `most` of them."""
    lacking = {one.user: one for one in news}
    for t in range(period, -1, -1):
        rows = read_tests(t).filter(pl.col("user_id").is_in(list(lacking)))
        for (user,), mine in rows.group_by(["user_id"], maintain_order=True):
            one = lacking[str(user)]
            room = most - sum(map(len, one.tests))
            one.tests.append(mine.sort("timestamp", maintain_order=True).tail(room).to_dicts())
            if len(one.tests[-1]) == room:
                del lacking[one.user]


Pair = tuple[Adapter | None, Adapter | None]  # candidate, and the one in service


def measure_gains(bench: Experiment, news: Sequence[News], pairs: Sequence[Pair]) -> list[list[float]]:
    """Per user and held-out text: what the candidate's log-likelihood per token is above the other's."""
    jobs = [
        ScoreJob(rows, adapter)
        for one, pair in zip(news, pairs, strict=True)
        for rows in one.tests
        for adapter in pair
    ]
    found = iter(score(bench, jobs, "judge held-out texts"))
    gains: list[list[float]] = []
    for one in news:
        gains.append([])
        for _ in one.tests:
            mine, other = next(found), next(found)
            gains[-1] += ((mine.logp - other.logp) / mine.tokens).tolist()
    return gains


def measure_drifts(bench: Experiment, pairs: Sequence[Pair]) -> list[dict[str, float]]:
    """Per user: how far outputs on neutral texts drifted from the base model, and from the one in service."""
    jobs, names = [], []
    for i, (mine, other) in enumerate(pairs):
        assert mine is not None, "news are adapters"
        jobs.append(ShiftJob(mine, None))
        names.append((i, "base"))
        if other is not None:
            jobs.append(ShiftJob(mine, other))
            names.append((i, "before"))
    drifts: list[dict[str, float]] = [{} for _ in pairs]
    for (i, name), shift in zip(names, shifts(bench, jobs, "judge drift"), strict=True):
        drifts[i][name] = shift
    return drifts


def row_of(
    one: News, period: int, gate: Gate, found: Verdict, drifted: Mapping[str, float]
) -> dict[str, Any]:
    """A verdict as the table has it."""
    return (
        {"user_id": one.user, "period": period, "served": one.served, "cell": one.cell}
        | {"question": question(one, gate)}
        | asdict(found)
        | {"drift_base": drifted["base"], "drift_before": drifted.get("before")}
    )


def worse(one: News, items: Sequence[Row], gained: Sequence[float]) -> dict[str, Any]:
    """The slice that got worse, as the table has it: by task, or by age.

    New are texts of periods that the candidate has learned and the one in service has not.
    """
    new = [one.served is None or row["period"] > one.served for row in items]
    labels = {"task": [row["task"] for row in items], "age": ["new" if yes else "old" for yes in new]}
    found = worst_slice(gained, labels)
    names = ("worse_by", "worse", "worse_items", "worse_difference")
    return dict(zip(names, found or (None,) * 4, strict=True))
