"""What sources are tested with: repositories and changelogs, and strategies for these and for tables.

Every text that a strategy makes says whose it is (`signed`), so that a test can ask of any row that comes out
whether it is under its own user's id.
"""

from __future__ import annotations

import gzip
import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from bench.sources import signed, table
from spring.data.checking import Checked, check_rows
from spring.data.rows import Opened, RawRow, Skip
from spring.data.sources.git import GitSource
from spring.data.sources.table import TableSource

CASES = Path(__file__).parents[3] / "shared/cases"  # small inputs from the field, where they are at hand
COLUMNS = ("who", "when", "title", "text")
Item = RawRow | Skip | Opened


def rows_in(items: Iterable[Item]) -> list[RawRow]:
    return [item for item in items if isinstance(item, RawRow)]


def skips_in(items: Iterable[Item]) -> Counter[str]:
    return Counter(item.reason for item in items if isinstance(item, Skip))


def opened_in(items: Iterable[Item]) -> dict[str, object]:
    return dict(item for item in items if isinstance(item, Opened))


def check(items: Iterable[Item]) -> Checked:
    """As the stage does it, with limits that refuse nothing for its length."""
    return check_rows(items, min_chars=1, max_chars=10**9)


def said(items: Iterable[Item]) -> list[tuple[str, str]]:
    """User and text of the rows that can be used, sorted."""
    return sorted(check(items).interactions.select("user_id", "response").iter_rows())


# --- tables -----------------------------------------------------------------------------------------------


def table_of(path: Path, **changes: object) -> TableSource:
    """The columns of `COLUMNS`, mapped."""
    columns: dict[str, object] = {
        "path": str(path), "task": "abstract", "user_id": "who", "interaction_id": None, "response": "text",
        "timestamp": "when", "year": None, "month": None, "query": {"TITLE": "title"}, "rating": None,
    }  # fmt: skip
    return TableSource.model_validate(columns | changes)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Good rows, each text beginning with its user and its number."""
    return table(draw(st.randoms(use_true_random=False)))


# --- repositories -----------------------------------------------------------------------------------------


class Message(NamedTuple):
    """A commit to be made."""

    name: str
    mail: str
    text: str  # subject, an empty line, body


def call_git(folder: Path, *arguments: str, **environment: str) -> bytes:
    """Git as nobody configured it."""
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(folder)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env={**inherited, **quiet, **environment}, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_repository(folder: Path, messages: Iterable[Message], *options: str) -> Path:
    """A repository of these commits, a second apart, all of the empty tree: one process makes them."""
    folder.mkdir(parents=True, exist_ok=True)
    call_git(folder, "init", "-q", "-b", "main", *options)
    stream = b""
    for number, (name, mail, text) in enumerate(messages):
        who = f"{name} <{mail}> {1_600_000_000 + number} +0000".encode()
        data = text.encode()
        stream += b"commit refs/heads/main\nauthor %b\ncommitter %b\n" % (who, who)
        stream += b"data %d\n%b\n" % (len(data), data)
    command = ["git", "-C", str(folder), "fast-import", "--quiet", "--date-format=raw-permissive"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, input=stream, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def git_of(folder: Path, revision: str = "HEAD") -> GitSource:
    return GitSource(repository=str(folder), revision=revision)


_PROSE = st.sampled_from(
    ["Solution: close it.", "Note: mind the gap.", "https://example.org/manual.html", "It was slow",
     "Fixes: all of it", "  indented code", "- a point", "Stand-by: it sleeps", "See: the manual",
     "TODO: more", "Cc: nobody at all"]
)  # fmt: skip
_TRAILERS = st.sampled_from(
    ["Signed-off-by: X <x@x.example>", "Reviewed-by: someone", "Change-Id: I0123abcd", "Fixes: #12",
     "Cc: y@y.example", "Link: https://lists.example/1", "Co-Authored-By: Z <z@z.example>",
     'Fixes: 0123456789ab ("The one before")']
)  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> tuple[Message, str]:
    """A commit, and the body that is its author's own."""
    who = draw(st.sampled_from(["Ada", "Ben", "Cem"]))
    prose = "\n".join(draw(st.lists(_PROSE, max_size=4)))
    body = f"{signed(who, 0, 'text')}\n{prose}".strip()
    trailers = draw(st.lists(_TRAILERS, max_size=3))
    glue = draw(st.sampled_from(["\n\n", "\n"]))
    text = "Subject\n\n" + body + (glue + "\n".join(trailers) if trailers else "") + "\n"
    return Message(who, f"{who.lower()}@one.example", text), body


# --- changelogs -------------------------------------------------------------------------------------------

DATE = "Mon, 01 Jan 2001 10:00:00 +0000"


def entry(version: str, *lines: str, heading: str | None = None, signature: str | None = None) -> str:
    """One entry of the package `pkg`, signed by Ada unless told otherwise."""
    first = f"pkg ({version}) unstable; urgency=low" if heading is None else heading
    last = f" -- Ada L <ada@one.example>  {DATE}" if signature is None else signature
    return "\n".join([first, "", *(f"  {line}" for line in lines), "", last, "", ""])


def write_changelog(root: Path, package: str, text: str, name: str = "changelog.Debian.gz") -> Path:
    (root / package).mkdir(parents=True, exist_ok=True)
    data = text.encode()
    (root / package / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return root


_CHANGES = st.sampled_from(
    [
        "* A change.",
        "-- see the manual <page>",
        "* Thanks (to all); more",
        "- with -- dashes",
        "  deeper",
        "(1.0)",
    ]
)


@st.composite
def changelogs(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A changelog, newest first, and version -> the one who signed it."""
    count = draw(st.integers(1, 5))
    text, signers = "", {}
    for version in map(str, range(count, 0, -1)):
        who = draw(st.sampled_from(["Ada", "Ben", "Cem"]))
        heading = draw(
            st.sampled_from(["pkg ({}) unstable; urgency=low", "pkg ({}) sid main; urgency=low",
                             "pkg ({}); priority=low", "pkg ({})", "PKG ({}) unstable;urgency=low"])
        ).format(version)  # fmt: skip
        signature = f" -- {who} <{who.lower()}@one.example>  {DATE}"
        changes = draw(st.lists(_CHANGES, max_size=3))
        text += entry(
            version, f"* {signed(who, int(version), '')}", *changes, heading=heading, signature=signature
        )
        signers[version] = who
    return text, signers
