"""What is left of a person in the folder once all was made again: what is ours goes, the rest is told.

Pages of updates, reports and workspaces of Prefect's runs, offline runs of W&B, kept experiments and passing
files can be made again or are notes: they are removed. Files of somebody's own stay, and are named.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from flows.live.forgetting.journal import JOURNAL
from flows.live.forgetting.search import Search, files_under
from flows.live.versions import Versions, git
from tasks.files import read_parquet, write_parquet
from tasks.tracking.runs import FOLDER as RUNS

OURS = ("data", "live", ".prefect", ".dvc", ".cells", "dvc_plots")
WHOLE = (RUNS.name, "data/seeds", ".prefect/workspace")  # of these a folder goes as one
NOTES = (JOURNAL, ".lock")  # what is needed until the end, and holds nobody


@dataclass
class Left:
    """What was removed, and what was not and why."""

    removed: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # can be reached, and hold them still
    beyond: list[str] = field(default_factory=list)  # what nobody can change from here


def clean(search: Search, versions: Versions) -> Left:
    """Searches the whole folder; removes what is ours and holds them."""
    left, tracked = Left(), set(git("ls-files", "-z").split("\0"))
    filter_verdicts(search, versions.kept)
    for path in list(files_under(Path())):
        name = path.as_posix()
        if not path.exists() or path in {versions.kept / note for note in NOTES}:
            continue
        words = name not in tracked or name in versions.files  # the project's code has words of its own
        if not (search.holds(path, words=words) or (words and search.traces.in_text(name))):
            continue
        if whole := removable(path, versions.kept, tracked):
            remove(whole)
            left.removed.append(whole.as_posix())
        else:
            left.files.append(name)
    left.beyond += [*in_git(search, versions), *sent()]
    return left


def removable(path: Path, kept: Path, tracked: set[str]) -> Path | None:
    """What goes with a file that holds them; null where that is somebody's own, or a database at work."""
    name = path.as_posix()
    if name in tracked or path.suffix in (".db", ".sqlite", ".db-wal", ".db-shm"):
        return None
    for folder in WHOLE:
        if path.is_relative_to(folder):
            depth = len(Path(folder).parts) + (folder != ".prefect/workspace")
            return Path(*path.parts[:depth])
    return path if path.parts[0] in OURS or path.is_relative_to(kept) else None


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def filter_verdicts(search: Search, kept: Path) -> None:
    """Takes their rows out of the tables of what the gate said."""
    for file in sorted((kept / "verdicts").glob("*.parquet")):
        table = read_parquet(file)
        left = table.filter(~pl.col("user_id").is_in(list(search.traces.names)))
        if left.height < table.height:
            write_parquet(left, file)


def in_git(search: Search, versions: Versions) -> list[str]:
    """What of Git's objects holds them: its history is nobody's to change from here.

    Words are looked for in what updates commit and say; in all other objects texts and long ids.
    """
    own = set()
    for line in git("log", "--all", "--format=", "--raw", "--no-abbrev", "--", *versions.files).splitlines():
        own.add(line.split()[3])
    told = []
    listed = git("cat-file", "--batch-check", "--batch-all-objects").splitlines()
    for name, kind, _ in (line.split() for line in listed):
        if kind not in ("blob", "commit", "tag"):
            continue
        content = git("cat-file", kind, name, errors="surrogateescape").encode("utf-8", "surrogateescape")
        if search.traces.in_bytes(content, words=name in own or kind == "commit"):
            where = (
                name
                if kind == "commit"
                else git("log", "--all", f"--find-object={name}", "--format=%h", "-1")
            )
            told.append(f"Git: {kind} {name[:10]}, commit {where.strip()[:10] or 'none: git gc --prune=now'}")
    return told


def sent() -> list[str]:
    """Runs of W&B that were sent to a server."""
    online = sorted(path.name for path in RUNS.glob("run-*"))
    return (
        [f"W&B: {len(online)} runs were sent, and may name users: {', '.join(online[:5])}"] if online else []
    )
