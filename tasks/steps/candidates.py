"""Whose new adapters are to be judged before they are published, against what, and on which texts.

Held-out texts judge publishing here and nothing else: no adapter learns from a verdict, no experiment asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from tasks.cells.workbench import Row
from tasks.files import read_tests
from tasks.steps.index import read_index

Served = Mapping[str, int | None]  # user -> the period of the lesson in service; null or not there: none


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
    tests: list[list[Row]] = field(default_factory=list)  # a list per period; all latest first

    def is_new(self, period: int) -> bool:
        """Whether the candidate has learned a period that the version in service has not."""
        return self.served is None or period > self.served

    def room(self, period: int, most: int) -> int:
        """How many texts of a period are still to be asked, of `most` new ones each and older ones in all."""
        if self.served is not None and self.is_new(period):
            return most
        kind = self.is_new(period)
        return most - sum(len(rows) for rows in self.tests if self.is_new(rows[0]["period"]) == kind)


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


def give_tests(news: Sequence[News], period: int, most: int) -> None:
    """Sets `tests`: each user's latest held-out texts up to a period: `most` of the older ones.

    And `most` of every period that only the candidate has learned, or of all where nothing is in service.
    """
    lacking = {one.user: one for one in news}
    for t in range(period, -1, -1):
        rows = read_tests(t).filter(pl.col("user_id").is_in(list(lacking)))
        for (user,), mine in rows.group_by(["user_id"], maintain_order=True):
            one = lacking[str(user)]
            latest = mine.sort("timestamp", descending=True, maintain_order=True)
            one.tests.append(latest.head(one.room(t, most)).to_dicts())
        lacking = {user: one for user, one in lacking.items() if one.room(t - 1, most) > 0}
