"""The step `publish` of an update: every user's new lesson becomes `live`, unless the gate refused it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from spring.live.aliases import VersionError
from tasks.serving.registry import ALIASES, read_aliases, read_lessons, served_arm, write_aliases
from tasks.verify import md5_of

if TYPE_CHECKING:
    from flows.live.update import Update


def publish_news(update: Update) -> None:
    """Publishes what was learned since the last time; said twice, it changes nothing."""
    try:
        _, arm = served_arm(update.params)
    except VersionError as error:
        update.say(f"nothing is published: {error}")
        return
    kept = update.versions.kept
    before, lessons = read_aliases(kept), read_lessons(arm.recipe, update.closed)
    refused = [user for user, no in update.refused.items() if no]
    after = before.publish_news(lessons, refused)
    if after != before:
        write_aliases(after, kept)
        news = before.news(lessons)
        kept_out = f", {len(news.keys() & set(refused))} refused" if news.keys() & set(refused) else ""
        update.say(f"published: {len(news.keys() - set(refused))} new versions{kept_out}")
    note_aliases(update)


def note_aliases(update: Update) -> None:
    """Lets DVC take the file of aliases, where it has not."""
    if not noted_whole(update.versions.kept):
        update.dvc("add", "--quiet", str(update.versions.kept / ALIASES))


def noted_whole(kept: Path) -> bool:
    """Whether DVC has taken the file of aliases as it is now."""
    file, note = kept / ALIASES, kept / f"{ALIASES}.dvc"
    if not file.exists():
        return True
    if not note.exists():
        return False
    noted: str = yaml.safe_load(note.read_text(encoding="utf-8"))["outs"][0]["md5"]
    return noted == md5_of(file)
