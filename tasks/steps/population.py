"""One adapter for all users: the lessons of arms that share, and what user adapters start from [ours].

No other module puts interactions of two users into one lesson. A shared lesson holds train items alone, and
under `train.scope: population` none that is dated later than `until`, the first test query of the period of
any user: the adapter answers them all. What came too late for one period is learned in a later one, also of
users who have nothing new in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from spring.engine.turns import Turn
from spring.rivals.proper.fits import Layered
from spring.settings.train import Train
from tasks.cells.workbench import Adapter, Row
from tasks.steps.rows import those


@dataclass(frozen=True, slots=True)
class Drift:
    """How a user's rows were scored, and which were selected."""

    user: str | None
    rows: Sequence[Row]
    found: np.ndarray  # [N], of numbers under the names that scores.parquet has for them


@dataclass(slots=True)
class Case:
    """One recipe and user in this period; the user is null where one lesson is for all of them."""

    recipe: str
    user: str | None
    train: Train
    rows: Sequence[Row]  # train rows of this period, with logp and tokens under the base model
    past: Sequence[Row]  # train rows of earlier periods
    replay: Sequence[Row]  # the buffer, for recipes that replay
    previous: Adapter | None
    lesson: int = 0  # how many came before
    scores: Sequence[Drift] = ()  # of those that select by drift
    confidences: Sequence[dict[str, Any]] = ()  # rows of confidences.parquet
    seconds_score: float = 0.0  # what it took to decide what to learn
    chosen: Sequence[Row] = ()
    until: datetime | None = None  # no item of a shared lesson is later
    turns: Sequence[Turn] = ()  # of recipes that learn online
    over: Layered | None = None  # what lies frozen beneath the user's own adapter


def foundations(cases: list[Case]) -> list[Case]:
    """In period 0: a case per user of every shared adapter that user adapters start from."""
    found = []
    for case in cases:
        how = case.train.foundation
        if how is not None:
            found.append(Case(how.recipe, case.user, how, case.rows, [], [], None))
    return list({(case.recipe, case.user): case for case in found}.values())


def pool(cases: list[Case], *, until: datetime, learned_until: dict[str, datetime]) -> list[Case]:
    """Cases as they are trained: those of a shared recipe become one, the others stay as they are.

    `until` is the first test query of the period, `learned_until` the same of the period before by recipe.
    """
    alone = [case for case in cases if not case.train.shared]
    shared: dict[str, list[Case]] = {}
    for case in cases:
        if case.train.shared:
            shared.setdefault(case.recipe, []).append(case)
    return alone + [_merge(members, until, learned_until.get(name)) for name, members in shared.items()]


def _merge(members: list[Case], until: datetime, before: datetime | None) -> Case:
    """One case of all users' cases of a recipe, items in time order whatever the order of users."""
    if members[0].train.scope == "population":
        members = [_in_time(case, until, before) for case in members]
    merged = replace(
        members[0],
        user=None,
        rows=[row for case in members for row in case.rows],
        past=[row for case in members for row in case.past],
        replay=_by_time([row for case in members for row in case.replay]),
        scores=[one for case in members for one in case.scores],
        confidences=[row for case in members for row in case.confidences],
        seconds_score=sum(case.seconds_score for case in members),
        chosen=_by_time([row for case in members for row in case.chosen]),
        until=until,
    )
    assert merged.chosen, "the train items of whoever has the first test query are earlier than it"
    return merged


def _in_time(case: Case, until: datetime, before: datetime | None) -> Case:
    """Without items later than `until`; where all are learned, with those that were too late `before`."""
    late: Sequence[Row] = ()
    if case.train.data == "current" and before is not None:
        late = those(case.past, lambda row: row["timestamp"] > before)
    return replace(
        case,
        chosen=[row for row in (*late, *case.chosen) if row["timestamp"] <= until],
        replay=[row for row in case.replay if row["timestamp"] <= until],
    )


def _by_time(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["timestamp"], row["user_id"], row["interaction_id"]))
