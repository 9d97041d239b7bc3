"""What new adapters are asked before they are published, and the table of what was decided of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from spring.live.verdict import Answer, Rules, Verdict, judge, worst_slice
from spring.settings.live import Gate
from spring.store.keys import fingerprint
from tasks.cells.scoring import ScoreJob, score
from tasks.cells.shifts import ShiftJob, shifts
from tasks.cells.workbench import Adapter
from tasks.files import read_parquet
from tasks.steps.candidates import Asked, News, find_news, give_tests
from tasks.steps.experiment import Experiment

ANSWER: dict[str, Any] = {  # what new held-out texts say; with old_ before the names, what older ones do
    "items": pl.Int32,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "beyond": pl.Float64,  # probability beyond either bound: of few texts, above live.gate.level
}
VERDICTS: dict[str, Any] = {
    "user_id": pl.String,
    "period": pl.Int32,
    "served": pl.Int32,  # null: none, the candidate is compared with the base model
    "cell": pl.String,
    "question": pl.String,  # by which rules, against which cell
    "ruling": pl.String,
    "reason": pl.String,
    **ANSWER,
    **{f"old_{name}": kind for name, kind in ANSWER.items()},
    "drift_base": pl.Float64,
    "drift_before": pl.Float64,
    "worse_by": pl.String,  # the slice that got worse: task or age
    "worse": pl.String,
    "worse_items": pl.Int32,
    "worse_difference": pl.Float64,
}


def verdicts_file(kept: Path, period: int) -> Path:
    """Where the verdicts after a period lie."""
    return kept / "verdicts" / f"{period:05}.parquet"


def rulings_on(kept: Path, user: str) -> dict[str, str]:
    """Cell -> what was said of a user's adapter, and why, in all tables that this machine has."""
    found = {}
    for file in sorted(verdicts_file(kept, 0).parent.glob("*.parquet")):
        for cell, ruling, reason in (
            read_parquet(file).filter(user_id=user).select("cell", "ruling", "reason").iter_rows()
        ):
            found[cell] = f"{ruling}: {reason}"
    return found


def is_judged(table: pl.DataFrame, news: Sequence[News], gate: Gate) -> bool:
    """Whether a table of verdicts is of all these, against what is in service, by these rules."""
    there = set(table.select("user_id", "cell", "question").iter_rows())
    return {(one.user, one.cell, question(one, gate)) for one in news} <= there


def question(one: News, gate: Gate) -> str:
    """Names the rules, what a candidate is compared with, and what is written down."""
    return fingerprint([gate, one.against, list(VERDICTS)])


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
    drift = gate.drift.model_dump()
    rules = Rules(gate.margin, gate.least, gate.items, gate.level, gate.confirm, drift)
    rows = []
    for one, gained, drifted in zip(news, gains, drifts, strict=True):
        found = judge(*split(one, gained), drifted, rules)
        rows.append(row_of(one, period, gate, found, drifted) | worse(one, gained))
    return pl.DataFrame(rows, schema=VERDICTS)


Gains = list[list[float]]  # per period, as `News.tests`


def split(one: News, gained: Gains) -> tuple[Gains, list[float]]:
    """The differences of new texts, by period, and those of older ones."""
    new: Gains = []
    old: list[float] = []
    for rows, values in zip(one.tests, gained, strict=True):
        if one.is_new(rows[0]["period"]):
            new.append(values)
        else:
            old += values
    return new, old


Pair = tuple[Adapter | None, Adapter | None]  # candidate, and the one in service


def measure_gains(bench: Experiment, news: Sequence[News], pairs: Sequence[Pair]) -> list[Gains]:
    """Per user and test: what the candidate's log-likelihood per token is above the other's."""
    jobs = [
        ScoreJob(rows, adapter)
        for one, pair in zip(news, pairs, strict=True)
        for rows in one.tests
        for adapter in pair
    ]
    found = iter(score(bench, jobs, "judge held-out texts"))
    gains: list[Gains] = []
    for one in news:
        gains.append([])
        for _ in one.tests:
            mine, other = next(found), next(found)
            gains[-1].append(((mine.logp - other.logp) / mine.tokens).tolist())
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
        | {"ruling": found.ruling, "reason": found.reason}
        | columns_of(found.new)
        | {f"old_{name}": value for name, value in columns_of(found.old).items()}
        | {"drift_base": drifted["base"], "drift_before": drifted.get("before")}
    )


def columns_of(answer: Answer) -> dict[str, Any]:
    """An answer as the table has it (`ANSWER`)."""
    found = (answer.items, answer.difference, *(answer.bounds or (None,) * 3))
    return dict(zip(ANSWER, found, strict=True))


def worse(one: News, gained: Gains) -> dict[str, Any]:
    """The slice that got worse, as the table has it: by task, or by age, new or old."""
    items = [row for rows in one.tests for row in rows]
    ages = ["new" if one.is_new(row["period"]) else "old" for row in items]
    labels = {"task": [row["task"] for row in items], "age": ages}
    found = worst_slice([value for period in gained for value in period], labels)
    names = ("worse_by", "worse", "worse_items", "worse_difference")
    return dict(zip(names, found or (None,) * 4, strict=True))
