"""Whether the current folder is a live project in which an update may begin, and one update at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from flows.before import mend
from flows.live.versions import LiveError, Versions, git
from flows.named_experiments import changed, current
from spring.data.inbox.ledger import PARTS
from spring.settings.params import Params
from tasks.params import load_params
from tasks.serving.registry import ALIASES

OURS = ("periods", "ingest.inbox.until")  # keys of params.yaml that updates write
CODE = ("spring", "tasks", "suites", "dvc.yaml")  # what shapes results, and must be committed


class BusyError(LiveError):
    """Another update is at work."""


def live_params() -> Params:
    """The parameters of a live project; `LiveError` where it is none."""
    params = load_params()
    if params.live is None:
        raise LiveError(
            "this project is not live: nothing is updated or committed here; docs/live.md says how to begin"
        )
    return params


@contextmanager
def alone(kept: Path) -> Iterator[None]:
    """One update at a time; `BusyError` where another is at work."""
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("Another update is at work; nothing was done.") from None
        yield


def ready(params: Params, versions: Versions, say: Callable[[str], None]) -> None:
    """Raises `LiveError` unless all that shapes results is committed, on the branch of updates."""
    if git("rev-parse", "--show-prefix").strip():
        raise LiveError("a live project must be the root of its Git repository")
    head = git("rev-parse", "--symbolic-full-name", "HEAD").strip()
    if head != f"refs/heads/{versions.branch}":
        where = head.removeprefix("refs/heads/") if head != "HEAD" else "an earlier version"
        raise LiveError(
            f"updates belong to the branch {versions.branch} (live.branch), and this is {where}: "
            f"git switch {versions.branch}"
        )
    edited = git("status", "--porcelain", "--", *(name for name in CODE if Path(name).exists()))
    if edited:
        names = ", ".join(line[3:] for line in edited.splitlines()[:5])
        raise LiveError(f"not committed: {names}; a version would not name what made it. Commit or undo that")
    edits = changed(yaml.safe_load(versions.text("params.yaml") or ""), current())
    own = [key for key in edits if not key.startswith(OURS)]
    if own:
        raise LiveError(f"params.yaml has another {', '.join(own)} than the last commit: commit or undo that")
    mend(say, [versions.kept / f"{name}.dvc" for name in (PARTS, ALIASES)])
    versions.unlock()
    versions.align(say)
