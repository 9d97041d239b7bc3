"""What is left of a person in the folder once all was made again: what is ours goes, the rest is told.

Pages of updates, reports and workspaces of Prefect's runs, offline runs of W&B, kept experiments and passing
files can be made again or are notes: they are removed. Files of somebody's own stay, and are named.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import yaml

from flows.live.forgetting.journal import JOURNAL
from flows.live.forgetting.search import CHUNK, Search, files_under
from flows.live.forgetting.server import forget_runs
from flows.live.versions import Versions, git
from tasks.files import read_parquet, write_parquet
from tasks.tracking.runs import FOLDER as RUNS

OURS = (".prefect", ".dvc", ".cells", "dvc_plots")
MADE = ("data/ingest-quarantine.parquet",)  # by stages, beside their outputs
WHOLE = (RUNS.name, "data/seeds", ".prefect/workspace")  # of these a folder goes as one
DATABASE = (".db", ".db-wal", ".db-shm")
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
    ours = (*OURS, *MADE, *outputs(), versions.kept.as_posix())  # and not what somebody has put into data/
    filter_verdicts(search, versions.kept)
    for path in list(files_under(Path())):
        name = path.as_posix()
        if not path.exists() or path in {versions.kept / note for note in NOTES}:
            continue
        words = name not in tracked or name in versions.files  # the project's code has words of its own
        if not (search.holds(path, words=words) or (words and search.traces.in_text(name))):
            continue
        if whole := removable(path, ours, tracked):
            remove(whole)
            left.removed.append(whole.as_posix())
        else:
            database = name.startswith(".prefect/") and path.suffix in DATABASE
            left.files.append(f"{name} (prefect server database reset empties it)" if database else name)
    runs, others = forget_runs(search.traces)
    left.removed += runs
    left.beyond += [*in_git(search, versions), *sent(), *others]
    return left


def removable(path: Path, ours: Iterable[str], tracked: set[str]) -> Path | None:
    """What goes with a file that holds them; null where that is somebody's own, or a database at work."""
    name = path.as_posix()
    if name in tracked or path.suffix in DATABASE:
        return None
    for folder in WHOLE:
        if path.is_relative_to(folder):
            depth = len(Path(folder).parts) + (folder != ".prefect/workspace")
            return Path(*path.parts[:depth])
    return path if any(map(path.is_relative_to, ours)) else None


def outputs() -> set[str]:
    """Where stages write, in data/."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    named = [out for stage in stages for out in stage.get("do", stage).get("outs", [])]
    paths = [Path(next(iter(out)) if isinstance(out, dict) else out) for out in named]
    return {Path(*path.parts[:2]).as_posix() for path in paths}


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
    raw = git("log", "--all", "--format=", "--raw", "--no-abbrev", "--", *versions.files)
    own = {line.split()[3] for line in raw.splitlines()}
    told = []
    for name, kind in held_objects(search, own):
        named = git("log", "--all", f"--find-object={name}", "--format=%h", "-1").strip()
        where = name[:10] if kind == "commit" else named or "none: git gc --prune=now"
        told.append(f"Git: {kind} {name[:10]}, commit {where}")
    return told


def held_objects(search: Search, own: set[str]) -> Iterator[tuple[str, str]]:
    """Name and kind of Git's objects that hold them, those too that no branch leads to; many read at once."""
    for words, some in batches(own):
        if search.traces.in_bytes(b"\n".join(content for _, _, content in some), words=words):
            yield from (
                (name, kind) for name, kind, content in some if search.traces.in_bytes(content, words=words)
            )


def batches(own: set[str]) -> Iterator[tuple[bool, list[tuple[str, str, bytes]]]]:
    """Git's objects, about `CHUNK` bytes of them at a time, those of `own` and commits (true) apart."""
    waiting: dict[bool, list[tuple[str, str, bytes]]] = {True: [], False: []}
    room = dict.fromkeys(waiting, CHUNK)
    command = ["git", "cat-file", "--batch", "--batch-all-objects"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while head := process.stdout.readline().decode().split():
            name, kind, size = head[0], head[1], int(head[2])
            content = process.stdout.read(size + 1)
            if kind == "tree":
                continue
            words = kind != "blob" or name in own
            waiting[words].append((name, kind, content))
            room[words] -= size
            if room[words] < 0:
                yield words, waiting[words]
                waiting[words], room[words] = [], CHUNK
    yield from waiting.items()


def sent() -> list[str]:
    """What was sent elsewhere: runs of W&B."""
    online = sorted(path.name for path in RUNS.glob("run-*"))
    return [f"W&B: {len(online)} runs were sent, and may name users: {some(online)}"] if online else []


def some(names: list[str], most: int = 10) -> str:
    """Names in a line, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
