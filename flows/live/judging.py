"""The step `judge` of an update: which new adapters may be published, and an alarm when many may not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from flows.stages import follow
from spring.live.aliases import VersionError
from spring.live.fleet import alarm, fleet, in_words
from tasks.files import read_parquet, write_text
from tasks.serving.registry import read_aliases, served_arm
from tasks.steps.candidates import Asked, Served, find_news
from tasks.steps.verdicts import is_judged, verdicts_file

if TYPE_CHECKING:
    from flows.live.update import Update

REMEDY = "Mend the cause, and update again."  # of whatever an update runs


def judge_news(update: Update) -> None:
    """Sets `verdicts` and `alarm`; asks only what no table has yet. Without `live.gate`, nothing."""
    live = update.params.live
    if live is None or live.gate is None or not update.due:
        return
    try:
        _, arm = served_arm(update.params)
    except VersionError:  # nothing is served, as `publish` will say
        return
    assert arm.recipe is not None, "an arm that is served learns"
    kept, before = update.versions.kept, update.due[0] - 1
    asked = Asked(arm.recipe, update.closed - 1, before, in_service(kept))
    news, file = find_news(asked), verdicts_file(kept, asked.period)
    if not news:
        return
    if not file.exists() or not is_judged(read_parquet(file), news, live.gate):
        ask(update, asked)
    update.verdicts = read_parquet(file).to_dicts()
    found = fleet([row["ruling"] for row in update.verdicts])
    update.say(in_words(found))
    update.alarm = alarm(found, most=live.gate.alarm)
    if update.alarm:
        update.say(update.alarm)


def in_service(kept: Path) -> Served:
    """User -> the period of the lesson that answers, by the aliases in the live folder; null: none yet."""
    users = read_aliases(kept).users
    return {user: served.live.period if served.live else None for user, served in users.items()}


def ask(update: Update, asked: Asked) -> None:
    """Runs tasks/judge.py, in a process of its own: what a model takes goes with it."""
    told = update.versions.kept / ".asked.json"
    write_text(json.dumps(asdict(asked)), told)
    command = [sys.executable, "-m", "tasks.judge", str(told)]
    follow(command, Path(), update.hear, what="Judging the new adapters", remedy=REMEDY)
