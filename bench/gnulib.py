"""A Git repository from Gnulib's public history, for who cannot clone it.

    python -m bench.gnulib changelog.gz ../gnulib

Gnulib's commits carry their ChangeLog entry as their message, so that a release's ChangeLog (changelog.gz of
Debian's package `gnulib`) is their history but for what the files hold. The same file makes the same
repository, hash for hash.
"""

from __future__ import annotations

import argparse
import gzip
import re
import subprocess
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

HEAD = re.compile(r"(\d{4}-\d\d-\d\d)\s+(\S.*?)\s+<([^<>]+@[^<>]+)>\s*")
# Whoever wrote from more than one address, as the entries' names and addresses show
MAILMAP = """\
Ben Pfaff <blp@cs.stanford.edu> <blp@gnu.org>
Bruno Haible <bruno@clisp.org> <haible@clisp.cons.org>
Derek Price <derek@ximbiot.com> <dprice@collab.net>
Eric Blake <eblake@redhat.com> <ebb9@byu.net>
Jim Meyering <meyering@redhat.com> <jim@meyering.net>
Jim Meyering <meyering@redhat.com> <meyering@ascend.com>
Jim Meyering <meyering@redhat.com> <meyering@fb.com>
Jim Meyering <meyering@redhat.com> <meyering@lucent.com>
Paul Eggert <eggert@cs.ucla.edu> <eggert@twinsun.com>
Simon Josefsson <simon@josefsson.org> <jas@extundo.com>
"""


class Entry(NamedTuple):
    """A commit: day, author, and message lines."""

    day: str
    name: str
    mail: str
    lines: list[str]

    @property
    def message(self) -> str:
        """Subject, empty line, body: the subject ends at an empty line or at the first changed file."""
        lines = [line.strip() for line in self.lines]
        while lines and not lines[0]:
            lines.pop(0)
        subject: list[str] = []
        while lines and lines[0] and not (subject and lines[0].startswith("* ")):
            subject.append(lines.pop(0))
        body = "\n".join(lines).strip()
        return f"{' '.join(subject)}\n\n{body}\n"


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a ChangeLog, newest first, as it has them."""
    entry = None
    for line in lines:
        head = HEAD.fullmatch(line.rstrip("\n"))
        if entry and line[:1].isspace():
            entry.lines.append(line)
        elif entry:
            yield entry
            entry = None
        if head:
            entry = Entry(head[1], head[2], head[3], [])
    if entry:
        yield entry


def stream(entries: Iterable[Entry]) -> Iterator[bytes]:
    """What `git fast-import` reads: commits of noon, oldest first, one second apart, and the mailmap."""
    number, when = 0, 0
    for number, entry in enumerate(entries, start=1):
        when = int(datetime.fromisoformat(f"{entry.day}T12:00:00+00:00").timestamp()) + number % 3600
        yield commit(number, f"{entry.name} <{entry.mail}> {when} +0000", entry.message)
    mailmap = MAILMAP.encode()
    yield commit(number + 1, f"Gnulib <bug-gnulib@gnu.org> {when} +0000", "Who is who\n")
    yield b"M 100644 inline .mailmap\ndata %d\n%s\n" % (len(mailmap), mailmap)


def commit(number: int, who: str, message: str) -> bytes:
    """The commit of this number, counted from 1, after the one before."""
    data = message.encode()
    head = f"commit refs/heads/main\nmark :{number}\nauthor {who}\ncommitter {who}\ndata {len(data)}\n"
    return head.encode() + data + (f"from :{number - 1}\n".encode() if number > 1 else b"")


def main() -> None:
    """Reads the ChangeLog and writes the repository, which must not be there."""
    parser = argparse.ArgumentParser(prog="python -m bench.gnulib", description=__doc__.splitlines()[0])
    parser.add_argument("changelog", type=Path, help="Gnulib's ChangeLog, gzipped")
    parser.add_argument("folder", type=Path, help="where to write the repository")
    asked = parser.parse_args()
    with gzip.open(asked.changelog, "rt", encoding="utf-8") as file:
        entries = list(read_entries(file))
    asked.folder.mkdir(parents=True)
    git = ["git", "-C", str(asked.folder)]
    subprocess.run([*git, "init", "--quiet", "--initial-branch", "main"], check=True)
    subprocess.run([*git, "fast-import", "--quiet"], input=b"".join(stream(reversed(entries))), check=True)
    subprocess.run([*git, "reset", "--quiet", "--hard", "main"], check=True)
    print(f"{asked.folder}: {len(entries)} commits")


if __name__ == "__main__":
    main()
