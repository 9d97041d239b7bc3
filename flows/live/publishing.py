"""The step `publish` of an update: every user's new lesson becomes `live`, unless the gate withheld it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from spring.live.aliases import Aliases, VersionError
from spring.live.verdict import WITHHELD
from tasks.cells.workbench import Row
from tasks.reporting.update import Offer
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
    withheld = {row["user_id"]: row["ruling"] for row in update.verdicts if row["ruling"] in WITHHELD}
    after = before.publish_news(lessons, withheld)
    if after != before:
        write_aliases(after, kept)
        news = before.news(lessons).keys()
        rulings = [withheld[user] for user in news & withheld.keys()]
        counts = [f", {rulings.count(name)} {name}" for name in WITHHELD if name in rulings]
        update.say(f"published: {len(news - withheld.keys())} new versions{''.join(counts)}")
    update.offers = offers(after, update.due, update.verdicts)
    note_aliases(update)


def offers(aliases: Aliases, due: Collection[int], verdicts: Iterable[Row]) -> list[Offer]:
    """What became of every user's lesson of the periods that were closed, by user id."""
    rulings = {row["user_id"]: row["ruling"] for row in verdicts}
    found = []
    for user, served in sorted(aliases.users.items()):
        if (newest := served.newest) is None or newest.period not in due:
            continue
        published = newest == served.live
        before = served.previous if published else served.live
        ruling = rulings.get(user, "not judged")
        found.append(Offer(user, newest.period, before.period if before else None, ruling, published))
    return found


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
