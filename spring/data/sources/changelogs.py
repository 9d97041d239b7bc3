"""Debian's changelogs on this machine: package and version -> entry, per maintainer.

Format: deb-changelog(5). Read are ROOT/*/changelog.Debian.gz and, where a folder has none, changelog.gz if
it is a native package's. Entries are told apart by source package and version, since every binary package of
a source ships the same file. A maintainer is a name; an address used with several names counts for the most
frequent of them, unless it is a mailing list's.
"""

from __future__ import annotations

import gzip
import re
import textwrap
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from spring.data.quarantine import parse_time
from spring.data.rows import Problem, RawRow, Reason, Skip
from spring.data.sources.addresses import clean_name, without_addresses
from spring.engine.strict import PositiveInt, Strict

TASK = "changelog"

_HEADING = re.compile(r"^(?P<package>\w[-+0-9a-z.]*) \((?P<version>[^()\s]+)\)(?:\s+[-+0-9a-z.]+)+;", re.I)
_TRAILER = re.compile(r"^ ?-- ?(?P<name>[^<]*?)\s*<(?P<mail>[^>]*)>\s*(?P<date>.*?)\s*$")
_LIST = re.compile(r"@(lists|packages|alioth-lists)\.")


class ChangelogsSource(Strict):
    """Debian changelog entries found on this machine: package and version -> entry, per maintainer."""

    root: str
    max_per_user: PositiveInt | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a source package; `name` is None when the entry was never signed."""

    where: str
    package: str
    version: str
    name: str | None
    mail: str
    time: str  # ISO 8601, or what stands there if it is no date
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """What tells entries apart."""
        return self.package, self.version


def read(source: ChangelogsSource) -> Iterator[RawRow | Skip]:
    """Raw rows of all entries, oldest first within a file, files in the order of their folders' names."""
    root = Path(source.root)
    if not root.is_dir():
        raise ValueError(
            f"ingest.changelogs.root: {root} is no folder. Slim container images come without documentation; "
            f"give another folder, or use ingest.source: personas"
        )
    entries: list[Entry] = []
    known: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    number = 0
    for item in _read_files(root):
        if isinstance(item, RawRow):
            number += 1
            yield replace(item, row=number)
        elif isinstance(item, Skip):
            yield item
        elif any((other.text, other.time) == (item.text, item.time) for other in known[item.key]):
            yield Skip("entry shipped by several packages")
        else:
            known[item.key].append(item)
            entries.append(item)
    users = _name_users(entries)
    kept = _latest(entries, users, source.max_per_user)
    for place, entry in enumerate(entries):
        if place in kept:
            number += 1
            yield _row(number, entry, users[place])
        else:
            yield Skip("earlier than the latest max_per_user")


def parse(text: str, where: str) -> Iterator[Entry | Skip]:
    """Entries of a changelog, newest first as they stand there."""
    heading: re.Match[str] | None = None
    lines: list[str] = []
    for line in [*text.split("\n"), None]:
        found = _HEADING.match(line) if line is not None else None
        trailer = _TRAILER.match(line) if line is not None else None
        if heading is not None and (found or trailer or line is None):
            yield _entry(where, heading, lines, trailer)
            heading = None
        elif heading is not None and line is not None:
            lines.append(line)
        elif line is not None and line.strip() and not found:
            yield Skip("line outside of any entry")
        if found:
            heading, lines = found, []


def _read_files(root: Path) -> Iterator[Entry | Skip | RawRow]:
    for folder in sorted(root.iterdir()):
        path = folder / "changelog.Debian.gz"
        if not path.is_file():
            path = folder / "changelog.gz"
        if not path.is_file():
            continue
        where = f"{folder.name}/{path.name}"
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        except (OSError, EOFError, zlib.error) as error:
            yield RawRow(row=0, where=where, damage=Problem("file", Reason.MALFORMED, str(error)))
            continue
        if path.name == "changelog.gz" and not _HEADING.match(text.lstrip()):
            yield Skip("upstream's changelog, not Debian's")
        else:
            yield from reversed(list(parse(text, where)))


def _entry(where: str, heading: re.Match[str], lines: list[str], trailer: re.Match[str] | None) -> Entry:
    return Entry(
        where=f"{where}: {heading['package']} ({heading['version']})",
        package=heading["package"],
        version=heading["version"],
        name=trailer["name"] if trailer else None,
        mail=trailer["mail"].strip().lower() if trailer else "",
        time=_iso_time(trailer["date"]) if trailer else "",
        text=_entry_text(lines),
    )


def _iso_time(date: str) -> str:
    try:
        time: datetime = parsedate_to_datetime(date)
    except ValueError:
        return date
    return time.isoformat()


def _entry_text(lines: list[str]) -> str:
    """Without addresses and common indentation, and with single blank lines."""
    text = "\n".join(without_addresses(line.expandtabs()).rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", textwrap.dedent(text)).strip()


def _name_users(entries: list[Entry]) -> list[str | None]:
    """The maintainer of each entry."""
    names = [clean_name(entry.name or "") for entry in entries]
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for entry, name in zip(entries, names, strict=True):
        if name is not None and entry.mail and not _LIST.search(entry.mail):
            used[entry.mail][name] += 1
    usual = {
        mail: min(counts.items(), key=lambda item: (-item[1], item[0]))[0] for mail, counts in used.items()
    }
    return [usual.get(entry.mail, name) for entry, name in zip(entries, names, strict=True)]


def _latest(entries: list[Entry], users: list[str | None], most: int | None) -> set[int]:
    """Places of each user's `most` latest entries, and of all without a time: the check refuses those."""
    if most is None:
        return set(range(len(entries)))
    times = [parse_time(entry.time) for entry in entries]
    dated: dict[str | None, list[tuple[datetime, int]]] = defaultdict(list)
    for place, time in enumerate(times):
        if time is not None:
            dated[users[place]].append((time, place))
    latest = {place for mine in dated.values() for _, place in sorted(mine)[-most:]}
    return latest | {place for place, time in enumerate(times) if time is None}


def _row(number: int, entry: Entry, user: str | None) -> RawRow:
    unsigned = Problem("entry", Reason.MALFORMED, f"no maintainer line: {entry.text}")
    return RawRow(
        row=number,
        where=entry.where,
        user_id=user,
        interaction_id=f"{entry.package}_{entry.version}",
        timestamp=entry.time,
        task=TASK,
        query={"PACKAGE": entry.package, "VERSION": entry.version},
        response=entry.text,
        damage=unsigned if entry.name is None else None,
    )
