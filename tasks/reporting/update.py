"""The page of an update of a live project: what was taken and set aside, who had news, what was learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from spring.data.inbox.ledger import Line
from tasks.cells.workbench import Row
from tasks.files import DATA, read_parquet
from tasks.reporting.fleet import FleetPeriod, bounds, place
from tasks.reporting.looks import COLOURS
from tasks.reporting.templates import environment
from tasks.steps.index import read_index

MOST = 200  # rows of a table that the page shows


@dataclass(frozen=True)
class Closed:
    """A period that was closed, and whoever had texts in it."""

    period: int
    begins: datetime  # by the clock that periods begin by
    ends: datetime
    users: pl.DataFrame  # user_id, train, test, learned (items, of the lesson with most), seconds

    @property
    def days(self) -> str:
        """The first and the last day."""
        return days_of(self.begins, self.ends)


@dataclass(frozen=True)
class Offer:
    """What became of a user's new lesson."""

    user: str
    period: int
    before: int | None  # the period of the version that answered; null: the base model did
    ruling: str
    published: bool

    @property
    def before_now(self) -> tuple[str, str]:
        """What answered, and what answers."""
        before = "the base model" if self.before is None else f"{self.user}@{self.before}"
        return before, f"{self.user}@{self.period}" if self.published else before


@dataclass(frozen=True)
class News:
    """All that the page says."""

    number: int
    when: datetime
    lines: list[Line]  # of the ledger
    refused: dict[str, str]  # file -> why
    waiting: list[str]  # files
    closed: list[Closed]
    seconds: dict[str, float]  # of each stage that ran
    parts: Path  # where the rows that were taken are
    verdicts: list[Row] = field(default_factory=list)  # on new adapters (tasks/steps/verdicts.py)
    offers: list[Offer] = field(default_factory=list)
    fleet: list[FleetPeriod] = field(default_factory=list)  # newest first
    alarm_at: float | None = None  # the share held or refused above which it rings


def days_of(begins: datetime, ends: datetime) -> str:
    """The first and the last day of a period."""
    first, last = (f"{when:%Y-%m-%d}" for when in (begins, ends - timedelta(seconds=1)))
    return first if first == last else f"{first} to {last}"


def closed_period(period: int, begins: datetime, ends: datetime) -> Closed:
    """What a period brought: the split, and what the stage adapt learned from it."""
    rows = read_parquet(DATA / "split" / f"{period}.parquet")
    counts = rows.group_by("user_id").agg(
        train=(pl.col("part") == "train").sum(), test=(pl.col("part") == "test").sum()
    )
    lessons = read_index(period).filter(pl.col("items") > 0)  # not what was kept from before
    learned = lessons.group_by("user_id").agg(
        learned=pl.col("chosen").list.len().max(), seconds=(pl.col("seconds") + pl.col("seconds_score")).sum()
    )
    users = counts.join(learned, on="user_id", how="left").with_columns(
        pl.col("learned").fill_null(0), pl.col("seconds").fill_null(0.0)
    )
    return Closed(
        period, begins, ends, users.sort("train", "test", "user_id", descending=[True, True, False])
    )


def page(news: News) -> str:
    """The page, whole: no other file, no script, no network."""
    aside = quarantined(news.lines, news.parts)
    withheld = [offer for offer in news.offers if not offer.published]
    verdicts = {row["user_id"]: row for row in news.verdicts}
    listed = (withheld + [offer for offer in news.offers if offer.published])[:MOST]
    return (
        environment()
        .get_template("update.html.j2")
        .render(
            news=news,
            colours=COLOURS,
            most=MOST,
            new_rows=sum(line.new for line in news.lines),
            aside=aside.head(MOST).to_dicts(),
            aside_count=aside.height,
            later=later(news.lines, news.parts, news.when),
            people=len({user for closed in news.closed for user in closed.users["user_id"]}),
            withheld=withheld,
            offers=[(offer, in_words(verdicts.get(offer.user, {}))) for offer in listed],
            closed=[(one, one.users.head(MOST).to_dicts()) for one in news.closed],
            fleet=news.fleet,
            judged=any(one.rulings for one in news.fleet),
            alarm_at=news.alarm_at,
            drift_ends=bounds(one.drift for one in news.fleet),
            moved_ends=bounds(one.moved for one in news.fleet),
            place=place,
        )
    )


def in_words(verdict: Row) -> Row:
    """What a line says of a verdict; empty where there is none."""
    worst = ""
    if verdict.get("worse"):
        by, name, count = (verdict[key] for key in ("worse_by", "worse", "worse_items"))
        worst = f"{by} {name}: {verdict['worse_difference']:+.3f} of {count}"
    figures = []
    for slice_ in ("", "old_"):
        mean, count = verdict.get(f"{slice_}difference"), verdict.get(f"{slice_}items")
        figures.append(("" if mean is None else f"{mean:+.3f}", count))
    return {"reason": verdict.get("reason", ""), "figures": figures, "worse": worst}


def quarantined(lines: Iterable[Line], parts: Path) -> pl.DataFrame:
    """Rows that were set aside, each with its reason."""
    columns = ("where", "user_id", "field", "reason", "value")
    found = [frame.filter(pl.col("reason").is_not_null()).select(columns) for frame in of_lines(lines, parts)]
    return pl.concat(found) if found else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def later(lines: Iterable[Line], parts: Path, now: datetime) -> int:
    """How many rows are dated later than now: they wait for their period."""
    return sum(frame.filter(pl.col("arrived") > now).height for frame in of_lines(lines, parts))


def of_lines(lines: Iterable[Line], parts: Path) -> list[pl.DataFrame]:
    """The parts of some lines."""
    return [pl.read_parquet(parts / line.part) for line in lines if line.part is not None]
