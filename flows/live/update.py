"""An update of a live project, step by step: what is new is taken, what is due learned, all of it a version.

Every step does only what is not done, so that an update that was stopped anywhere is finished by the next.
Prefect runs the same steps (flows/update.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.cluster import shared_cluster
from flows.live.closing import Calendar, write_closed
from flows.live.forgetting.command import end_begun
from flows.live.judging import REMEDY, judge_news
from flows.live.project import alone, live_params, ready
from flows.live.publishing import publish_news
from flows.live.stage_clock import StageClock
from flows.live.versions import TRAILER, Versions, remote
from flows.stages import CHILD, follow
from spring.data.inbox.ledger import LEDGER, PARTS, Line, read_ledger, read_parts
from spring.data.inbox.taking import Rules, Taken, take
from spring.live.aliases import VersionError
from spring.settings.params import Params
from tasks.files import write_text
from tasks.params import load_params
from tasks.reporting.fleet import FleetPeriod, fleet_periods
from tasks.reporting.update import News, Offer, closed_period, days_of, page
from tasks.serving.registry import served_arm

Say = Callable[[str], None]
STEPS = ("resume", "take", "close", "learn", "judge", "publish", "describe", "commit", "push")


@dataclass
class Update:
    """One update; its steps are the methods that `STEPS` names."""

    params: Params
    versions: Versions
    now: datetime
    say: Say  # what is done, a line each
    hear: Say  # what the stages print
    taken: Taken = field(default_factory=Taken)
    closed: int = 0  # how many periods are
    due: list[int] = field(default_factory=list)  # those of them that the last version has not
    seconds: dict[str, float] = field(default_factory=dict)  # of each stage that ran
    verdicts: list[dict[str, Any]] = field(default_factory=list)  # rows of the table of those judged
    offers: list[Offer] = field(default_factory=list)  # what became of each new lesson
    alarm: str = ""  # what is wrong where too many were held or refused
    page: Path | None = None
    made: str | None = None  # the commit

    def resume(self) -> None:
        """Finishes forgetting a person, where that was stopped."""
        end_begun(self)

    def take(self) -> None:
        """Takes the inbox."""
        ingest = self.params.ingest
        rules = Rules(
            columns=ingest.table,
            min_chars=ingest.min_chars,
            max_chars=ingest.max_chars,
            max_quarantined=ingest.max_quarantined,
            earliest=ingest.inbox.until or Calendar(self.params).start,
        )
        self.taken = take(Path(ingest.inbox.folder), self.versions.kept, rules, now=self.now)
        for line in self.taken.lines:
            self.say(f"taken: {told(line)}")
        for file, why in self.taken.refused.items():
            self.say(f"refused: {file}: {why}")
        if self.taken.waiting:
            self.say(f"still being written: {', '.join(self.taken.waiting)}")

    def close(self) -> None:
        """Closes the periods that are over."""
        calendar = Calendar(self.params)
        self.closed, due = calendar.closed, calendar.due(self.now)
        if due > self.closed and (self.closed or calendar.begins(read_parts(self.versions.kept), self.say)):
            write_closed(calendar, due)
            self.params, self.closed = load_params(), due
        self.due = list(range(calendar.closed_in(self.versions.text("params.yaml")), self.closed))
        if self.due:
            self.say(f"closed: {name_periods(self.due)}")

    def learn(self) -> None:
        """Brings every stage up to date that the closed periods need."""
        if not self.closed:
            return
        last, lock = f"consolidate@{self.closed - 1}", Path("dvc.lock")
        known = lock.exists() and f"  {last}:\n" in lock.read_text(encoding="utf-8")
        if known and not {"params.yaml", "dvc.lock"} & self.versions.differing().keys():
            return
        clock = StageClock(self.say, self.hear)
        self.dvc("repro", last, hear=clock.hear)
        self.seconds = clock.stop()

    def judge(self) -> None:
        """Asks of new adapters what must hold before they are published."""
        judge_news(self)

    def publish(self) -> None:
        """Hands over those that passed."""
        publish_news(self)

    def describe(self) -> None:
        """Writes the page of this update."""
        if not self.versions.differing():
            return
        kept, calendar = self.versions.kept, Calendar(self.params)
        number = self.versions.number() + 1
        self.page = kept / "pages" / f"{number:05}.html"
        news = News(
            number=number,
            when=self.now,
            lines=self.new_lines(),
            refused=self.taken.refused,
            waiting=self.taken.waiting,
            closed=[closed_period(t, *calendar.shown(t)) for t in self.due],
            seconds=self.seconds,
            parts=kept / PARTS,
            verdicts=self.verdicts,
            offers=self.offers,
            fleet=self.fleet(calendar),
            alarm_at=self.params.live.gate.alarm if self.params.live and self.params.live.gate else None,
        )
        write_text(page(news), self.page)

    def fleet(self, calendar: Calendar) -> list[FleetPeriod]:
        """How all users went, period by period."""
        try:
            _, arm = served_arm(self.params)
        except VersionError:  # nothing is served, as `publish` has said
            return []
        kept = self.versions.kept
        return fleet_periods(kept, arm.recipe, self.closed, lambda t: days_of(*calendar.shown(t)))

    def commit(self) -> None:
        """Makes what was done a version of Git and DVC."""
        ledger, parts = (f"{self.versions.kept}/{name}" for name in (LEDGER, PARTS))
        differing = self.versions.differing()
        if ledger in differing:
            self.dvc("add", "--quiet", parts)
        if differing:
            message = self.message()
            self.made = self.versions.commit(message)
            self.say(f"version {self.made[:10]}: {message.splitlines()[0]}")
        self.versions.align(self.say)

    def push(self) -> None:
        """Sends versions to DVC's remote, where there is one."""
        target, noted = remote(), self.versions.kept / ".pushed"
        state = f"{target} {self.versions.head()}"
        before = noted.read_text(encoding="utf-8") if noted.exists() else ""
        if target is None or state == before:
            return
        self.dvc(
            "push",
            "--quiet",
            *([] if self.versions.one_since(before.partition(" ")[2]) else ["--all-commits"]),
        )
        write_text(state, noted)
        self.say(f"pushed to {target}")

    def new_lines(self) -> list[Line]:
        """What the ledger has and that of the last version has not."""
        committed = self.versions.text(f"{self.versions.kept}/{LEDGER}") or ""
        return read_ledger(self.versions.kept)[len(committed.splitlines()) :]

    def message(self) -> str:
        """What the commit says: no users, no texts."""
        number, lines = self.versions.number() + 1, self.new_lines()
        done = []
        if lines:
            files = "1 file" if len(lines) == 1 else f"{len(lines)} files"
            done.append(f"{files} with {sum(line.new for line in lines)} new rows")
        if self.due:
            done.append(f"{name_periods(self.due)} closed")
        if not done and self.versions.differing().keys() == {self.versions.aliases}:
            done.append("adapters published")
        return f"Update {number}: {', '.join(done) or 'stages brought up to date'}\n\n{TRAILER}: {number}\n"

    def dvc(self, *words: str, hear: Say | None = None) -> None:
        """Runs DVC, which ends with this process; `StageError` where it fails."""
        command = [sys.executable, str(CHILD), "--wait-for-lock", *words]
        follow(command, Path(), hear or self.hear, what=f"dvc {' '.join(words)}", remedy=REMEDY)


@contextmanager
def updating(say: Say, hear: Say, now: datetime | None = None) -> Iterator[Update]:
    """An update of the current folder that may run its steps; `LiveError` where none may begin."""
    params = live_params()
    assert params.live is not None, "live_params has seen to it"
    versions = Versions(params.live.branch, Path(params.ingest.inbox.kept))
    with alone(versions.kept):
        ready(params, versions, say)
        with shared_cluster(params.execution, Path()):
            yield Update(params, versions, now or datetime.now(UTC), say, hear)


def run_steps(update: Update) -> str:
    """All steps; what came of it, in a line."""
    for step in STEPS:
        getattr(update, step)()
    return outcome(update)


def outcome(update: Update) -> str:
    """What came of an update, in a line."""
    if update.made is None:
        return "Nothing is new and no period is due."
    return f"The page: {update.page}"


def told(line: Line) -> str:
    """What was taken of a file."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in line.quarantined.items())
    return f"{line.file}, {line.new} new rows, {line.known} known{reasons and f'; quarantined: {reasons}'}"


def name_periods(periods: list[int]) -> str:
    """Periods in words."""
    if len(periods) == 1:
        return f"period {periods[0]}"
    return f"periods {periods[0]} to {periods[-1]}"
