"""Commits of any git repository: subject -> body, per author.

Authors go by the repository's mailmap. Merges are not read; trailers (Signed-off-by, Change-Id, ...) are cut
off where git itself sees them, and e-mail addresses are removed.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from spring.data.rows import RawRow, Skip
from spring.data.sources.addresses import clean_name, without_addresses
from spring.engine.strict import Strict

TASK = "commit"

logger = logging.getLogger(__name__)

_FIELDS = ("%H", "%aN", "%aE", "%at", "%s", "%b", "%(trailers)")
_SIGNATURE = re.compile(r"^(?:[A-Z]\w*(?:-\w+)*-by|Change-Id): .*\n?", re.M)  # also amid a squashed body


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
    trailers: str


def read(source: GitSource) -> Iterator[RawRow | Skip]:
    """Raw rows of the commits that have a body, oldest first. Raises ValueError if git cannot read them."""
    commits = list(list_commits(source))
    users = _name_users(commits)
    number = 0
    for commit in commits:
        body = text_of(commit)
        if not body:
            yield Skip("commit without a body")
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


def list_commits(source: GitSource) -> Iterator[Commit]:
    """All commits that lead to `source.revision`, oldest first."""
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
    done = subprocess.run(["git", "-C", source.repository, *arguments], capture_output=True)
    if done.returncode != 0:
        raise ValueError(
            f"git cannot list the commits (ingest.git.repository: {source.repository}, "
            f"ingest.git.revision: {source.revision}): {done.stderr.decode(errors='replace').strip()}"
        )
    return done.stdout.decode("utf-8", errors="replace")


def text_of(commit: Commit) -> str:
    """The body without trailers and addresses."""
    body = commit.body.strip()
    if trailers := commit.trailers.strip():
        body = body.removesuffix(trailers)
    return without_addresses(_SIGNATURE.sub("", body)).strip()


def _name_users(commits: list[Commit]) -> dict[tuple[str, str], str | None]:
    """A name per author; authors who share one are told apart by a hash of their address."""
    mails: dict[str | None, set[str]] = defaultdict(set)
    for commit in commits:
        mails[clean_name(commit.name)].add(commit.mail.lower())
    users = {}
    for commit in commits:
        name, mail = clean_name(commit.name), commit.mail.lower()
        if name is not None and len(mails[name]) > 1:
            name = f"{name} ({hashlib.sha256(mail.encode('utf-8', 'replace')).hexdigest()[:6]})"
        users[commit.name, mail] = name
    return users
