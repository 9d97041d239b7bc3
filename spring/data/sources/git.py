"""Commits of any git repository: subject -> body, per author.

A person is an address, whatever the name, by the repository's mailmap. Merges are not read; trailers that are
known (`trailers.py`) are cut off, and e-mail addresses are removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from spring.data.rows import Opened, RawRow, Skip, SourceError
from spring.data.sources.addresses import clean_name, usual_names, without_addresses
from spring.data.sources.trailers import cut_trailers
from spring.engine.strict import Strict

TASK = "commit"

logger = logging.getLogger(__name__)

_FIELDS = ("%H", "%aN", "%aE", "%at", "%s", "%b")
# Git's other variables belong to whoever starts us: a hook's GIT_DIR would open the hook's repository
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH")
# Commits as their hashes say: what replaces one, or cuts off those before it, is this copy's own
_PLAIN = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull}


class GitSource(Strict):
    """Commits of a repository: subject -> body, per author."""

    repository: str
    revision: str


class Commit(NamedTuple):
    """One commit, as git prints it; `time` in seconds since 1970."""

    hash: str
    name: str
    mail: str
    time: str
    subject: str
    body: str


def read(source: GitSource) -> Iterator[RawRow | Skip | Opened]:
    """Raw rows of the commits that have a body, oldest first. Raises SourceError if git cannot read them."""
    check_repository(source)
    yield Opened("repository", source.repository)
    yield Opened("revision", source.revision)
    yield Opened(
        "commit", _run(source, "log", "-1", "--format=%H", "--end-of-options", source.revision, "--").strip()
    )
    commits = list(list_commits(source))
    users = _name_users(commits)
    merges = _run(source, "rev-list", "--count", "--merges", "--end-of-options", source.revision, "--")
    yield from [Skip("merge")] * int(merges)
    number = 0
    for commit in commits:
        body = text_of(commit)
        if not body:
            yield Skip("commit with only trailers" if commit.body.strip() else "commit without a body")
            continue
        number += 1
        yield RawRow(
            row=number,
            where=commit.hash,
            user_id=users[commit.name, commit.mail.lower()],
            interaction_id=commit.hash,
            timestamp=commit.time,
            task=TASK,
            query={"SUBJECT": without_addresses(commit.subject)},
            response=body,
        )


def check_repository(source: GitSource) -> None:
    """Raises SourceError unless the folder is a repository of its own, and not just somewhere inside one.

    Git would look through all folders above: an empty submodule gives the commits of what it is part of.
    """
    named = Path(source.repository)
    own = Path(_run(source, "rev-parse", "--absolute-git-dir").strip())
    if _run(source, "rev-parse", "--is-inside-work-tree").strip() == "true":
        own = Path(_run(source, "rev-parse", "--show-toplevel").strip("\n"))
    if not own.samefile(named):
        raise SourceError(
            f"ingest.git.repository: {named} is no repository of its own: git would read {own}, in which it "
            f"lies. Name that one if it is meant; a submodule is filled by "
            f"git -C {own} submodule update --init"
        )


def list_commits(source: GitSource) -> Iterator[Commit]:
    """All commits but merges that lead to `source.revision`, oldest first."""
    fields = f"--format=tformat:{'%x00'.join(_FIELDS)}"
    options = ["--use-mailmap", "--no-merges", "--reverse", "-z", "--no-show-signature", "--encoding=UTF-8"]
    output = _run(source, "log", *options, fields, "--end-of-options", source.revision, "--")
    if _run(source, "rev-parse", "--is-shallow-repository").strip() == "true":
        logger.warning(
            "%s is a shallow clone: its earlier commits are missing (git fetch --unshallow)",
            source.repository,
        )
    parts = output.split("\0")[:-1]
    assert len(parts) % len(_FIELDS) == 0, "git's output does not have the fields it was asked for"
    for start in range(0, len(parts), len(_FIELDS)):
        yield Commit(*parts[start : start + len(_FIELDS)])


def _run(source: GitSource, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith("GIT_")}
    # the mailmap is the repository's, and none that is configured on this machine
    command = ["git", "-C", source.repository, "-c", f"mailmap.file={os.devnull}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, env=kept | _PLAIN)
    except FileNotFoundError:
        raise SourceError("ingest.source is git, and there is no command git here: install it") from None
    if done.returncode != 0:
        raise SourceError(
            f"git cannot list the commits (ingest.git.repository: {source.repository}, "
            f"ingest.git.revision: {source.revision}): {done.stderr.decode(errors='replace').strip()}"
        )
    return done.stdout.decode("utf-8", errors="replace")


def text_of(commit: Commit) -> str:
    """The body without trailers and addresses."""
    return without_addresses(cut_trailers(commit.body)).strip()


def _name_users(commits: list[Commit]) -> dict[tuple[str, str], str | None]:
    """A name per author: an address's usual one; who share a name are told apart by a hash of the address."""
    usual = usual_names((clean_name(commit.name), commit.mail.lower()) for commit in commits)
    names = {
        (commit.name, mail): usual.get(mail, clean_name(commit.name))
        for commit in commits
        for mail in [commit.mail.lower()]
    }
    mails: dict[str | None, set[str]] = defaultdict(set)
    for (_, mail), name in names.items():
        mails[name].add(mail)
    return {
        key: f"{name} ({_short(key[1])})" if name is not None and len(mails[name]) > 1 else name
        for key, name in names.items()
    }


def _short(mail: str) -> str:
    return hashlib.sha256(mail.encode("utf-8", "replace")).hexdigest()[:6]
