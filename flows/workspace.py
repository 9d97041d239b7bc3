"""Where a run works: a copy of the project as it stood when the run began, in `.prefect/workspace/`.

So one run is of one state: whatever is edited meanwhile is for the next run, and no run changes params.yaml,
dvc.lock or data/ of the project, however it ends. It stays: the next run finds there what is up to date.

    copied     what Git tracks or would (edits that are not committed too), but what DVC's stages write
    linked     .cells, wandb, live/parts, and files that you have put into data/
    shared     DVC's cache: what a run has computed, `make repro` in the project takes from there
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(".prefect/workspace")
LINKED = (".cells", "wandb")
TAKEN = "live/parts"  # of a live project: what its stage ingest reads
WRITTEN = ("dvc.lock", "data/")  # by DVC and its stages: taken over once


class WorkspaceError(RuntimeError):
    """The project cannot be copied; the message says why."""


@contextmanager
def workspace(say: Callable[[str], None], project: Path | None = None) -> Iterator[Path]:
    """The folder, made equal to the project, for one run alone: another waits until that has ended."""
    project = (project or Path.cwd()).resolve()
    place = project / FOLDER
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another run works in {FOLDER}; waiting for it to end.")
            fcntl.flock(file, fcntl.LOCK_EX)
        bring_up_to(project, place)
        yield place


def bring_up_to(project: Path, place: Path) -> None:
    """Makes the copy what the project is now."""
    if not (place / ".git").exists():
        shutil.rmtree(place, ignore_errors=True)
        git(project, "clone", "--quiet", "--shared", "--no-checkout", str(project), str(place))
        (place / ".git/info/exclude").write_text("\n".join(LINKED), encoding="utf-8")
    git(place, "reset", "--quiet", "--mixed", git(project, "rev-parse", "HEAD").strip())
    names, noted = files_of(project), place / ".git/copied"
    earlier = noted.read_text(encoding="utf-8").split("\0") if noted.exists() else []
    for name in names:
        copy(project / name, place / name, again=not name.startswith(WRITTEN))
    for name in {name for name in earlier if not name.startswith(WRITTEN)} - names:
        (place / name).unlink(missing_ok=True)
    noted.write_text("\0".join(sorted(names)), encoding="utf-8")
    for name in LINKED:
        (project / name).mkdir(parents=True, exist_ok=True)
        link(project / name, place / name)
    if (project / TAKEN).is_dir():
        link(project / TAKEN, place / TAKEN)
    for path in (project / "data").iterdir():
        if path.is_file() and f"data/{path.name}" not in names:
            link(path, place / "data" / path.name)
    share_cache(project, place)


def files_of(root: Path) -> set[str]:
    """What Git tracks or would, of what is there: no folders that links stand for."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return {name for name in listed if (root / name).is_file() and name not in LINKED}


def copy(source: Path, target: Path, *, again: bool) -> None:
    """Copies a file that is not there; one that is another by size or time, if `again`."""
    if target.exists():
        old, new = target.stat(), source.stat()
        if not again or (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy2(source, target)


def link(source: Path, target: Path) -> None:
    """Makes `target` a link to `source`."""
    if not target.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def share_cache(project: Path, place: Path) -> None:
    """Lets DVC in the copy use the project's cache, and its settings of this machine."""
    config = ConfigParser(interpolation=None)
    config.read(project / ".dvc/config.local", encoding="utf-8")
    if not config.has_section("cache"):
        config.add_section("cache")
    config["cache"]["dir"] = cache_of(project)
    with (place / ".dvc/config.local").open("w", encoding="utf-8") as file:
        config.write(file)


def cache_of(project: Path) -> str:
    """Where DVC keeps what stages made."""
    return run(project, [sys.executable, "-m", "dvc", "cache", "dir"]).strip()


def git(folder: Path, *arguments: str) -> str:
    """What a Git command prints."""
    return run(folder, ["git", *arguments])


def run(folder: Path, command: list[str]) -> str:
    """What a command in a folder prints; `WorkspaceError` where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise WorkspaceError(f"a run needs the project in Git, with a commit: {done.stderr.strip()}")
    return done.stdout
