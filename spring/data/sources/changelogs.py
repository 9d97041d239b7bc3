"""Debian's changelogs on this machine: package and version -> entry, per maintainer.

Format: deb-changelog(5). Read are ROOT/*/changelog.Debian.gz and, where a folder has none, changelog.gz if
it is a native package's; either also unpacked, or packed by xz or bzip2. Entries are told apart by source
package and version, since every binary package of a source ships the same file. A maintainer is a name; an
address used with several names counts for the most frequent of them, unless it is a mailing list's or
nobody's.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import textwrap
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from spring.data.rows import Problem, RawRow, Reason, Skip, SourceError
from spring.data.sources.addresses import clean_name, usual_names, without_addresses
from spring.data.values import parse_time
from spring.engine.strict import PositiveInt, Strict

TASK = "changelog"

# Distributions are missing in old entries, and so is the rest of the line in some
_HEADING = re.compile(
    r"^(?P<package>\w[-+0-9a-z.]*) \((?P<version>[^()\s]+)\)(?:(?:\s+[-+0-9a-z.]+)*\s*;|(?<=\d\))\s*$)", re.I
)
_TRAILER = re.compile(r"^ ?-- ?(?P<name>(?!-)[^<]*?)\s*<(?P<mail>[^>]*)>\s*(?P<date>.*?)\s*$")
_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress, "": bytes,
}  # fmt: skip
_NAMES = [
    f"{name}{ending}" for name in ("changelog.Debian", "changelog") for ending in _UNPACK
]  # the first there
_COLON = re.compile(r"([+-]\d{2}):(\d{2})$")  # in an offset, which would pass for no offset at all


class ChangelogsSource(Strict):
    """Debian changelog entries found on this machine: package and version -> entry, per maintainer."""

    root: str
    max_per_user: PositiveInt | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a source package; both empty without a heading, `name` None without a signature."""

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
        raise SourceError(
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
    """Entries of a changelog, newest first as they stand there. One without a heading has no version."""
    heading: re.Match[str] | None = None
    lines: list[str] = []  # of the entry, or outside of any
    everything = text.split("\n")
    for place, line in enumerate(everything):
        found = _HEADING.match(line)
        trailer = _signature(everything, place)
        if heading is not None and (found or trailer):
            yield _entry(where, heading, lines, trailer)
            heading, lines = None, []
        elif trailer is not None and any(other.strip() for other in lines):
            yield _entry(where, None, lines, trailer)
            lines = []
        elif not found:
            lines.append(line)
        if found:
            yield from _outside(lines)
            heading, lines = found, []
    if heading is not None:
        yield _entry(where, heading, lines, None)
    else:
        yield from _outside(lines)


def _signature(lines: list[str], place: int) -> re.Match[str] | None:
    """The line as the signature of an entry, if it is one: with a date, or at the very end of the entry.

    "-- see the manual <page>" amid the changes is none.
    """
    found = _TRAILER.match(lines[place])
    if found is None or _date_of(found["date"]) is not None:
        return found
    rest = (line for line in lines[place + 1 :] if line.strip())
    following = next(rest, None)
    return found if following is None or _HEADING.match(following) else None


def _outside(lines: list[str]) -> Iterator[Skip]:
    return (Skip("line outside of any entry") for line in lines if line.strip())


def _read_files(root: Path) -> Iterator[Entry | Skip | RawRow]:
    for folder in sorted(root.iterdir()):
        path = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
        if path is None:
            yield from _others(folder)
            continue
        where = f"{folder.name}/{path.name}"
        try:
            data = _UNPACK.get(path.suffix, bytes)(path.read_bytes())
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            yield RawRow(row=0, where=where, damage=Problem("file", Reason.MALFORMED, str(error)))
            continue
        text = data.decode("utf-8-sig", errors="replace")
        if not text.strip():
            yield Skip("empty changelog")
        elif "Debian" not in path.name and not _HEADING.match(text.lstrip()):
            yield Skip("upstream's changelog, not Debian's")
        else:
            yield from reversed(list(parse(text, where)))


def _others(folder: Path) -> Iterator[Skip]:
    """Changelogs of a folder that has none of `_NAMES`: rebuilt binaries', upstreams', links to nothing."""
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.name.lower().startswith("changelog"))
        yield from [Skip("changelog under a name that is not read")] * len(names)


def _entry(
    where: str, heading: re.Match[str] | None, lines: list[str], trailer: re.Match[str] | None
) -> Entry:
    package, version = (heading["package"], heading["version"]) if heading else ("", "")
    return Entry(
        where=f"{where}: {package} ({version})" if heading else where,
        package=package,
        version=version,
        name=trailer["name"] if trailer else None,
        mail=trailer["mail"].strip().lower() if trailer else "",
        time=_iso_time(trailer["date"]) if trailer else "",
        text=_entry_text(lines),
    )


def _iso_time(date: str) -> str:
    time = _date_of(date)
    return date if time is None else time.isoformat()


def _date_of(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(_COLON.sub(r"\1\2", text))
    except ValueError:
        return None


def _entry_text(lines: list[str]) -> str:
    """Without addresses and common indentation, and with single blank lines."""
    text = "\n".join(without_addresses(line.expandtabs()).rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", textwrap.dedent(text)).strip()


def _name_users(entries: list[Entry]) -> list[str | None]:
    """The maintainer of each entry."""
    names = [clean_name(entry.name or "") for entry in entries]
    usual = usual_names((name, entry.mail) for entry, name in zip(entries, names, strict=True))
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
    damage = None
    if entry.name is None:
        damage = Problem("entry", Reason.MALFORMED, f"no maintainer line: {entry.text}")
    elif not entry.package:
        damage = Problem(
            "entry", Reason.MALFORMED, f"no heading, PACKAGE (VERSION) DISTRIBUTION; ...: {entry.text}"
        )
    return RawRow(
        row=number,
        where=entry.where,
        user_id=user,
        interaction_id=f"{entry.package}_{entry.version}",
        timestamp=entry.time,
        task=TASK,
        query={"PACKAGE": entry.package, "VERSION": entry.version},
        response=entry.text,
        damage=damage,
    )
