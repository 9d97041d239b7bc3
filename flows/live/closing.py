"""The calendar of a live project: which periods are closed, which are over, and params.yaml that says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from dvc.utils.hydra import apply_overrides

from flows.live.versions import LiveError
from spring.data.calendar import period_starts, read_zone
from spring.data.inbox.due import ends
from spring.settings.params import Params
from tasks.params import PARAMS

LEAST = 2  # entries of `periods`: one that is not closed yet may stand there


@dataclass(frozen=True)
class Calendar:
    """When periods begin and end; those up to `params.ingest.inbox.until` are closed."""

    params: Params

    @property
    def unit(self) -> dict[str, str]:
        """How long a period is, and whose midnights count."""
        assert self.params.split.every is not None, "params need it"
        return {"every": self.params.split.every, "time_zone": self.params.split.time_zone}

    @property
    def start(self) -> datetime:
        """When period 0 begins."""
        return self.span(0)[0]

    @property
    def closed(self) -> int:
        """How many periods are closed."""
        return self.count(self.params.ingest.inbox.until)

    def span(self, period: int) -> tuple[datetime, datetime]:
        """When a period begins and ends."""
        assert self.params.split.start is not None, "params need it"
        starts = period_starts(self.params.split.start, periods=period + 1, **self.unit)
        return starts[-2], starts[-1]

    def shown(self, period: int) -> tuple[datetime, datetime]:
        """When a period begins and ends, by the clock whose midnights count."""
        begins, ends = (when.astimezone(read_zone(self.params.split.time_zone)) for when in self.span(period))
        return begins, ends

    def over(self, now: datetime) -> list[datetime]:
        """The ends of all periods that are over."""
        assert self.params.split.start is not None, "params need it"
        return ends(self.params.split.start, now=now, **self.unit)

    def count(self, until: datetime | None) -> int:
        """How many periods end at `until` or before; `LiveError` if none ends just then."""
        if until is None:
            return 0
        over = self.over(until)
        if not over or over[-1] != until:
            raise LiveError(
                f"ingest.inbox.until is {until.isoformat()}, and no period of {self.unit['every']} from "
                f"{self.params.split.start} on ({self.unit['time_zone']}) ends then: split.every, start or "
                f"time_zone was changed after periods were closed. Set them back"
            )
        return len(over)

    def closed_in(self, text: str | None) -> int:
        """How many periods are closed by the text of a params.yaml; null: there was none."""
        return self.count(until_of(yaml.safe_load(text or "")))

    def due(self, now: datetime) -> int:
        """How many periods are to be closed, with those that are: a clock that goes back opens none."""
        return max(self.closed, len(self.over(now)))

    def begins(self, parts: Iterable[pl.DataFrame], say: Callable[[str], None]) -> bool:
        """Whether there is anything to begin with; `LiveError` where all texts are later than period 0."""
        arrived = [when for part in parts for when in part["arrived"].drop_nulls().to_list()]
        if not arrived:
            say("no text was taken yet: no period is closed")
            return False
        if min(arrived) >= self.span(0)[1]:
            raise LiveError(
                f"the first text is of {min(arrived):%Y-%m-%d}, and period 0, where all learning starts, "
                f"ends before: set split.start to that day or an earlier one of its period, and commit it"
            )
        return True


def write_closed(calendar: Calendar, closed: int) -> None:
    """Says in params.yaml that periods are closed, in one atomic write; comments stay."""
    there = len(calendar.params.periods)
    options = [f"+periods.{t}={t - 1 if t else 'base'}" for t in range(there, max(LEAST, closed))]
    options.append(f"ingest.inbox.until='{calendar.span(closed - 1)[1].isoformat()}'")
    lay(options)


def lay(options: list[str]) -> None:
    """Lays options, as `dvc exp run -S` has them, over params.yaml."""
    new = Path(f"{PARAMS}.new")
    shutil.copyfile(PARAMS, new)
    try:
        apply_overrides(new, options)
        new.replace(PARAMS)
    finally:
        new.unlink(missing_ok=True)


def until_of(tree: Any) -> datetime | None:
    """What a parsed params.yaml says was closed last."""
    inbox = (tree or {}).get("ingest", {}).get("inbox") or {}
    return datetime.fromisoformat(str(inbox["until"])) if inbox.get("until") else None
