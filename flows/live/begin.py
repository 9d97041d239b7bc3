"""Makes a clone of the project a live one: a branch of its own, on which updates are committed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dvc.exceptions import DvcException

from flows.live.closing import LEAST, lay
from flows.live.versions import LiveError, Versions, git
from flows.named_experiments import current, lay_options
from tasks.params import PARAMS
from tasks.suites import parse_with_suite

KEPT = "live"  # the folder of ledger, parts and pages


def begin(sets: Sequence[str], *, branch: str, inbox: str, say: Callable[[str], None]) -> None:
    """Writes what a live project needs into params.yaml, with `sets` on top, and commits that on `branch`.

    Raises `LiveError` or `ParameterError` before anything is changed.
    """
    if git("status", "--porcelain", "--untracked-files=no"):
        raise LiveError(
            "there are edits that are not committed: commit or undo them before a live project begins"
        )
    options = [*needed(current(), branch, inbox), *sets]
    try:
        tree = lay_options(options, current())
    except DvcException as error:
        raise LiveError(f"cannot be used: {str(error.__cause__ or error).splitlines()[0]}") from None
    parse_with_suite(tree, f"{PARAMS} of a live project")
    if git("rev-parse", "--abbrev-ref", "HEAD").strip() != branch:
        git("switch", "--quiet", "--create", branch)
    lay(options)
    Path(KEPT).mkdir(exist_ok=True)
    if not Path(inbox).exists():
        Path(inbox).mkdir(parents=True)
    versions = Versions(branch, Path(KEPT))
    (versions.kept / ".writing").mkdir(exist_ok=True)
    made = versions.commit("Live: data from an inbox, periods of the calendar")
    versions.align(say)
    shutil.rmtree(versions.kept / ".writing")
    say(f"{PARAMS} is that of a live project, committed on the branch {branch} ({made[:10]}).")
    say(f"Put files into {inbox}, then: python -m flows.live update")


def needed(tree: dict[str, object], branch: str, inbox: str) -> list[str]:
    """Options that make a params.yaml that of a live project, without columns and calendar."""
    if tree.get("live"):
        raise LiveError("this project is live already: python -m flows.live update")
    periods = tree.get("periods")
    assert isinstance(periods, dict), "params.yaml was used before"
    return [
        *(f"~periods.{t}" for t in range(LEAST, len(periods))),
        "ingest.source=inbox",
        f"+ingest.inbox={{folder: '{inbox}', kept: {KEPT}, until: null}}",
        "ingest.min_interactions=1",
        "ingest.max_users=null",
        "ingest.max_interactions=null",
        "split.by=calendar",
        f"+live.branch={branch}",
    ]
