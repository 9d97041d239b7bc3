"""Somebody to forget: a live project that has had bob since its second week, and one that never had him."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.live import CODE, environment, rest, state, told, write_batch
from kit.live import LiveProject, after
from spring.store.cells import CellStore

WEEKS = (  # bob's id stands in that of another; his rows come in two of three periods
    {"ann": 3, "bobby": 3},
    {"ann": 3, "bob": 5},
    {"bob": 2, "bobby": 2, "cem": 3},
)
END = after(len(WEEKS))
TOGETHER = "+arms.together={train: {scope: population, data: current}, memory: null}"
PROGRAM = "import sys; sys.executable = '{}'; import flows.console; flows.console.main()"


@dataclass(frozen=True)
class Pair:
    """Two projects of one origin, the update of the first week; nobody changes them."""

    begun: LiveProject
    never: LiveProject


def make_pair(folder: Path, model: Path, python: Path) -> Pair:
    """Two further weeks in an update each, with bob and without."""
    first = LiveProject(folder / "first/project", model, python, sets=[TOGETHER])
    drop(first, [0])
    first.update(after(1))
    begun, never = (copied(first, folder / name) for name in ("begun", "never"))
    drop(begun, [1, 2])
    drop(never, [1, 2], without="bob")
    for made in (begun, never):
        made.update(END)
    return Pair(begun, never)


def drop(project: LiveProject, weeks: Iterable[int], *, without: str = "") -> None:
    """Puts the texts of weeks into the inbox, a file each."""
    for week in weeks:
        file = project.folder / f"inbox/week-{week}.jsonl"
        write_batch(file, week, WEEKS[week])
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        rest(file, "".join(line for line in lines if json.loads(line)["who"] != without))


def copied(project: LiveProject, folder: Path) -> LiveProject:
    """The same project in `folder`/project."""
    made = LiveProject.__new__(LiveProject)
    made.folder, made.python = folder / "project", project.python
    shutil.copytree(project.folder, made.folder, symlinks=True)
    return made


def with_remote(project: LiveProject, folder: Path) -> LiveProject:
    """A copy whose remote, `folder`/store, has all versions."""
    made = copied(project, folder)
    made.dvc("remote", "add", "--local", "--default", "store", str(folder / "store"))
    made.dvc("push", "--quiet", "--all-commits")
    return made


def spring(project: LiveProject, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command, however it ends; DVC starts in no time. `settings`: of its environment."""
    command = [project.python, "-c", PROGRAM.format(project.python), *words]
    return subprocess.run(
        command, cwd=project.folder, env=environment() | settings, capture_output=True, text=True
    )


def said(project: LiveProject, *words: str, **settings: str) -> list[str]:
    """The lines of a command that ends well."""
    done = spring(project, *words, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def texts_of(project: LiveProject, user: str) -> set[bytes]:
    """What a user wrote and nobody else, and the ids of that, by the files in the inbox."""
    rows = [json.loads(line) for file in (project.folder / "inbox").glob("*") for line in file.open()]
    others = " ".join(row["body"] for row in rows if row["who"] != user)
    found = {row["body"] for row in rows if row["who"] == user and row["body"] not in others}
    found |= {row["id"] for row in rows if row["who"] == user}
    assert len(found) > 5
    return {text.encode() for text in found}


def holding(folder: Path, user: str, texts: set[bytes]) -> list[str]:
    """Files that hold a user, by means of the tests' own; in Git only what updates have committed counts."""
    found = []
    for file in (file for file in folder.rglob("*") if file.is_file()):
        name, data = str(file.relative_to(folder)), file.read_bytes()
        if name.startswith(("project/.git/", *(f"project/{code}" for code in CODE))):
            continue
        if data.startswith(b"PAR1"):
            data = json.dumps(pl.read_parquet(file).to_dicts(), default=str).encode()
            if f'"{user}"'.encode() in data:
                found.append(name)
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        words = b"bobby" not in data and user.encode() in data and not name.endswith(".safetensors")
        if words or any(text in data for text in texts):
            found.append(name)
    return found


def assert_alike(live: LiveProject, never: LiveProject) -> None:
    """All that is served and what it follows from is the same: rows, scores, adapters, aliases, files."""
    assert state(live.folder) == state(never.folder)  # without seconds and how cells share files
    assert told(live.folder) == told(never.folder)
    for name in ("data/ingest.json", "live/aliases.json", "live/aliases.json.dvc", "live/parts.dvc"):
        assert (live.folder / name).read_bytes() == (never.folder / name).read_bytes()
    files = [
        {file.name: file.read_bytes() for file in (one.folder / "inbox").iterdir()} for one in (live, never)
    ]
    assert files[0] == files[1] and len(files[0]) == len(WEEKS)
    cells = [set(CellStore(one.folder / ".cells")) for one in (live, never)]
    assert cells[0] == cells[1]  # nothing is there that nobody asks for
