"""The versions of a live project's served arm, and the file that says which of them answer.

FOLDER/aliases.json     {USER: {"newest": [PERIOD, CELL], "trail": [[PERIOD, CELL], ...]}}, replaced by one
                        atomic rename; with users' names in it, it is DVC's to keep (aliases.json.dvc)
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from spring.live.aliases import Aliases, Lesson, Lessons, Served, VersionError
from spring.settings.arm import Arm
from spring.settings.params import Params
from tasks.files import write_text
from tasks.steps.index import read_index

ALIASES = "aliases.json"
SHOWN = 16  # digits of a cell's key that stand for it


def read_aliases(folder: Path) -> Aliases:
    """Which version of every user is served; none where nothing was published yet."""
    file = folder / ALIASES
    if not file.exists():
        return Aliases()
    try:
        return Aliases({user: _served(kept) for user, kept in json.loads(file.read_bytes()).items()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise VersionError(f"{file} is damaged ({error}): `dvc checkout {file}` brings it back") from None


def _served(kept: dict[str, list[list[int | str]]]) -> Served:
    trail = tuple(Lesson(int(period), str(cell)) for period, cell in kept["trail"])
    period, cell = kept["newest"]
    return Served(trail, Lesson(int(str(period)), str(cell)))


def write_aliases(aliases: Aliases, folder: Path) -> None:
    """Writes them, a line a user: killed at any moment, the file is the old or the new one."""
    lines = []
    for user, served in sorted(aliases.users.items()):
        assert served.newest is not None, user
        newest, *trail = ([lesson.period, lesson.cell] for lesson in (served.newest, *served.trail))
        kept = json.dumps({"newest": newest, "trail": trail})
        lines.append(f"  {json.dumps(user, ensure_ascii=False)}: {kept}")
    write_text("{\n" + ",\n".join(lines) + "\n}\n", folder / ALIASES)


def served_arm(params: Params) -> tuple[str, Arm]:
    """The arm that answers: `live.arm`, or the first one that learns; `VersionError` where none does."""
    named = params.live.arm if params.live else None
    for name, arm in params.arms.items():
        if arm.recipe is not None and named in (None, name):
            return name, arm
    raise VersionError("no arm of this project learns: there are no versions")


def read_lessons(recipe: str | None, periods: int) -> Lessons:
    """The lessons of every user in the first `periods` periods, oldest first."""
    found: dict[str, tuple[Lesson, ...]] = {}
    for period in range(periods):
        rows = read_index(period).filter(
            pl.col("recipe") == recipe,
            pl.col("user_id").is_not_null(),
            ~pl.col("file").str.starts_with("../"),  # learned in this period, not carried on
        )
        for user, cell in rows.select("user_id", "cell").sort("user_id").iter_rows():
            found[user] = (*found.get(user, ()), Lesson(period, cell[:SHOWN]))
    return found
