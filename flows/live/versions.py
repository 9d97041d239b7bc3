"""Versions of a live project: a commit of Git names parameters, ledger and DVC's locks, and those all bytes.

Only the files of `Versions.files` are committed, through an index of its own: what somebody has staged stays
staged and is not committed. No hook of Git's runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

from flows.before import at_head
from spring.data.forgotten import FORGOTTEN
from spring.data.inbox.ledger import LEDGER, PARTS
from tasks.serving.registry import ALIASES

AUTHOR = {"NAME": "SPRInG update", "EMAIL": "update@localhost"}
STALE = 10.0  # seconds: no command of Git's holds a branch's lock for so long
TRAILER = "Update"  # of a commit's message: the number of the update
SERVED = "Served"  # of one between updates, that says which versions answer
LEFT = "Forgotten"  # of one without a person who was forgotten


class LiveError(RuntimeError):
    """An update that cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Versions:
    """What an update commits, in the current folder, the root of a repository."""

    branch: str
    kept: Path  # the ledger's folder

    @property
    def files(self) -> list[str]:
        """What is committed, where it is there."""
        return [
            "params.yaml",
            "dvc.lock",
            "data/ingest.json",
            f"{self.kept}/{LEDGER}",
            f"{self.kept}/{PARTS}.dvc",
            self.aliases,
            f"{self.kept}/{FORGOTTEN}",
        ]

    @property
    def aliases(self) -> str:
        """What DVC notes of the aliases."""
        return f"{self.kept}/{ALIASES}.dvc"

    def differing(self) -> dict[str, str]:
        """File -> blob of those that the last commit has otherwise or not at all."""
        listed = git("ls-tree", "HEAD", "--", *self.files).splitlines()
        committed = {line.partition("\t")[2]: line.split()[2] for line in listed}
        there = [name for name in self.files if Path(name).is_file()]
        blobs = dict(zip(there, git("hash-object", "-w", "--", *there).split(), strict=True))
        return {name: blob for name, blob in blobs.items() if committed.get(name) != blob}

    def commit(self, message: str, only: Collection[str] | None = None) -> str:
        """Commits the files that differ, or of them `only` these, and gives the commit."""
        head, index = self.head(), self.kept / ".writing" / "index"
        index.parent.mkdir(exist_ok=True)
        index.unlink(missing_ok=True)
        own = {"GIT_INDEX_FILE": str(index.resolve())}
        git("read-tree", head, more=own)
        for name, blob in self.differing().items():
            if only is not None and name not in only:
                continue
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", more=own)
        people = {f"GIT_{who}_{what}": AUTHOR[what] for who in ("AUTHOR", "COMMITTER") for what in AUTHOR}
        tree = git("write-tree", more=own).strip()
        made = git("commit-tree", tree, "-p", head, "-m", message, more=people).strip()
        git("update-ref", "-m", "update", f"refs/heads/{self.branch}", made, head, more=people)
        return made

    def head(self) -> str:
        """The last commit."""
        return git("rev-parse", "HEAD").strip()

    def number(self) -> int:
        """How many updates there were."""
        last = git("log", "-1", f"--grep=^{TRAILER}: ", f"--format=%(trailers:key={TRAILER},valueonly)")
        return int(last.strip() or 0)

    def one_since(self, commit: str) -> bool:
        """Whether the last commit is the only version since `commit`, which may be none (empty)."""
        since = [f"{commit}..HEAD"] if commit else ["HEAD"]
        marks = [f"--grep=^{trailer}: " for trailer in (TRAILER, SERVED, LEFT)]
        named = git("log", *since, *marks, "--format=%H").split()
        return len(named) < 2

    def text(self, name: str) -> str | None:
        """A file as the last commit has it; null: it has none."""
        return at_head(Path(name))

    def align(self, say: Callable[[str], None]) -> None:
        """Lets Git's index agree with the last commit in these files; whatever else is staged stays.

        The new index is its own lock, as Git has it: what a killed update left of that is known as ours.
        """
        index, own = Path(git("rev-parse", "--git-path", "index").strip()), self.kept / ".index"
        lock = index.with_name("index.lock")
        if lock.exists() and own.exists() and lock.samefile(own):
            lock.replace(index)
        own.unlink(missing_ok=True)
        files = [name for name in self.files if Path(name).is_file()]
        if not index.exists() or not git("diff-index", "--cached", "--name-only", "HEAD", "--", *files):
            return
        shutil.copy2(index, own)
        git("reset", "--quiet", "--", *files, more={"GIT_INDEX_FILE": str(own.resolve())})
        try:
            os.link(own, lock)
        except FileExistsError:
            say(f"Git's index is in use ({lock}): it is brought up to date by the next update.")
            return
        lock.replace(index)
        own.unlink()

    def unlock(self) -> None:
        """Removes locks of the branch that a killed Git left."""
        for name in ("HEAD.lock", f"refs/heads/{self.branch}.lock"):
            lock = Path(git("rev-parse", "--git-path", name).strip())
            while lock.exists():
                if time.time() - lock.stat().st_mtime > STALE:
                    lock.unlink(missing_ok=True)
                time.sleep(0.2)


def git(*arguments: str, more: dict[str, str] | None = None, errors: str = "strict") -> str:
    """What a Git command prints; `LiveError` where it fails. `errors`: of bytes that are no text."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", **(more or {})}
    done = subprocess.run(
        ["git", *arguments], env=environment, capture_output=True, encoding="utf-8", errors=errors
    )
    if done.returncode:
        raise LiveError(f"git {arguments[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def remote() -> str | None:
    """DVC's remote that the project or this machine pushes to by default."""
    config = ConfigParser(interpolation=None)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    return config.get("core", "remote", fallback=None)
