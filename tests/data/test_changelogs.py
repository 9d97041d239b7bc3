"""Debian's changelogs: headings of all times, what looks like a signature, and every loss under its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from kit.sources import changelogs as made_changelogs
from kit.sources import check, entry, rows_in, skips_in, write_changelog

from bench.sources import signed
from spring.data.rows import RawRow, Reason, Skip
from spring.data.sources import changelogs
from spring.data.sources.changelogs import ChangelogsSource


def read(root: Path) -> list[RawRow | Skip]:
    return list(changelogs.read(ChangelogsSource(root=str(root), max_per_user=None)))


def texts(items: list[RawRow | Skip]) -> dict[str | None, str | None]:
    return {one.interaction_id: one.response for one in rows_in(items) if one.damage is None}


@pytest.mark.parametrize(
    "heading",
    [
        "pkg (2) unstable; urgency=low",
        "pkg (2); urgency=low",
        "pkg (2);",
        "pkg (2)",
        "pkg (2) ;urgency=low",
        "pkg (2)  ",
    ],
)
def test_headings_with_and_without_a_distribution(tmp_path: Path, heading: str) -> None:
    text = entry("2", "* new", heading=heading) + entry("1", "* old")
    items = read(write_changelog(tmp_path, "pkg", text))
    assert texts(items) == {"pkg_2": "* new", "pkg_1": "* old"} and not skips_in(items)


@pytest.mark.parametrize(
    "heading", ["pkg unstable", "pkg (0.93) ALPHA", "pkg 2.0 released", "(2) unstable; urgency=low"]
)
def test_an_entry_whose_heading_cannot_be_read_is_a_row_in_quarantine(tmp_path: Path, heading: str) -> None:
    text = entry("3", "* new") + entry("2", "* lost", heading=heading) + entry("1", "* old")
    items = read(write_changelog(tmp_path, "pkg", text))
    assert texts(items) == {"pkg_3": "* new", "pkg_1": "* old"} and not skips_in(items)
    [lost] = check(items).quarantine.rows(named=True)
    assert (lost["field"], lost["reason"], lost["user_id"]) == ("entry", Reason.MALFORMED, "Ada L")
    assert lost["value"].startswith(f"no heading, PACKAGE (VERSION) DISTRIBUTION; ...: {heading}"[:80])


@pytest.mark.parametrize(
    "line",
    [
        "-- see the manual <page>",
        "-- see the manual <page> for more",
        "-- mail <list@lists.example> about it",
        "-- <x>",
    ],
)
@pytest.mark.parametrize("indent", ["", " ", "  "])
def test_a_change_that_looks_like_a_signature_is_a_change(tmp_path: Path, line: str, indent: str) -> None:
    """Amid the changes, and as the last of them."""
    for changes in (["  * One.", indent + line, "  * Two."], ["  * One.", indent + line]):
        body = "\n".join(changes)
        text = entry("2", "* new") + entry("1").replace("\n\n\n", f"\n\n{body}\n\n", 1)
        items = read(write_changelog(tmp_path, "pkg", text))
        assert not skips_in(items) and not check(items).quarantine.height
        found = texts(items)["pkg_1"]
        assert found is not None and found.count("*") == len(changes) - 1
        assert "see the manual <page>" in found or "page" not in line


def test_a_signature_without_a_date_ends_its_entry(tmp_path: Path) -> None:
    text = entry("2", "* new", signature=" -- Ada L <ada@one.example>  some day") + entry("1", "* old")
    items = read(write_changelog(tmp_path, "pkg", text))
    assert texts(items) == {"pkg_2": "* new", "pkg_1": "* old"}
    assert check(items).quarantine.select("field", "reason").rows() == [("timestamp", Reason.BAD_TIME)]


@pytest.mark.parametrize("ending", ["", ".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("stem", ["changelog.Debian", "changelog"])
def test_every_packing_is_read_in_full_or_refused(tmp_path: Path, stem: str, ending: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[ending]
    write_changelog(tmp_path, "pkg", "", stem + ending)
    path, data = tmp_path / "pkg" / (stem + ending), pack(("\ufeff" + entry("1", "* old")).encode())
    path.write_bytes(data)
    assert texts(read(tmp_path)) == {"pkg_1": "* old"}
    path.write_bytes(data[:-9] if ending else b"")
    items = read(tmp_path)
    assert not texts(items) and (check(items).quarantine.height, skips_in(items).total()) in ((1, 0), (0, 1))


def test_changelogs_that_are_not_read_are_counted(tmp_path: Path) -> None:
    for name in ("changelog.Debian.amd64.gz", "CHANGELOG.gz", "changelog.html.gz", "changelog.Debian.zst"):
        write_changelog(tmp_path, name, entry("1", "* x"), name)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/changelog.Debian.gz").symlink_to("nowhere")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/copyright").touch()
    assert skips_in(read(tmp_path)) == {"changelog under a name that is not read": 5}


@pytest.mark.parametrize(
    ("signature", "hour"),
    [
        (" -- Ada L <a@a.example>  Mon, 01 Jan 2001 10:00:00 +0100", 9),
        (" -- Ada L <a@a.example>  Mon, 01 Jan 2001 10:00:00 +01:00", 9),
        (" --- Ada L <a@a.example>  Mon, 01 Jan 2001 10:00:00 +0100", None),
        (" -- Ada L <a@a.example>  Mon, 30 Feb 2001 10:00:00 +0100", None),
        (" \u2014 Ada L <a@a.example>  Mon, 01 Jan 2001 10:00:00 +0100", None),
    ],
)
def test_a_signature_is_read_as_it_stands_or_refused(
    tmp_path: Path, signature: str, hour: int | None
) -> None:
    text = entry("2", "* new") + entry("1", "* old", signature=signature)
    checked = check(read(write_changelog(tmp_path, "pkg", text)))
    found = checked.interactions.filter(interaction_id="pkg_1").select("user_id", "timestamp").rows()
    assert found == ([] if hour is None else [("Ada L", datetime(2001, 1, 1, hour, tzinfo=UTC))])
    assert checked.quarantine.height == (hour is None)


@pytest.mark.parametrize("name", ["changelog.Debian.gz", "changelog.Debian", "changelog.gz", "changelog"])
def test_packed_or_not(tmp_path: Path, name: str) -> None:
    assert texts(read(write_changelog(tmp_path, "pkg", entry("1", "* old"), name))) == {"pkg_1": "* old"}


def test_upstreams_own_changelog_is_counted_packed_or_not(tmp_path: Path) -> None:
    for name in ("changelog.gz", "changelog"):
        write_changelog(tmp_path, name, "Version 2: everything is new\n", name)
    items = read(tmp_path)
    assert skips_in(items) == {"upstream's changelog, not Debian's": 2} and not rows_in(items)


def test_notes_between_entries_are_counted_by_line(tmp_path: Path) -> None:
    text = entry("2", "* new") + "Old entries:\n\n" + entry("1", "* old") + "Local variables:\nmode: debian\n"
    items = read(write_changelog(tmp_path, "pkg", text))
    assert texts(items) == {"pkg_2": "* new", "pkg_1": "* old"}
    assert skips_in(items) == {"line outside of any entry": 3}


def test_an_address_that_is_nobodys_joins_nobody(tmp_path: Path) -> None:
    names = ["Ada", "Ada", "Ben"]
    entries = [
        entry(str(n), "* x", signature=f" -- {name} <root@localhost>  Mon, 01 Jan 2001 10:00:00 +0000")
        for n, name in enumerate(names)
    ]
    found = rows_in(read(write_changelog(tmp_path, "pkg", "".join(entries))))
    assert sorted(str(one.user_id) for one in found) == names


@settings(deadline=None, max_examples=80)
@given(made=made_changelogs())
def test_every_entry_comes_out_under_the_one_who_signed_it(made: tuple[str, dict[str, str]]) -> None:
    text, signers = made
    with TemporaryDirectory() as folder:
        items = read(write_changelog(Path(folder), "pkg", text))
    assert not skips_in(items) and len(rows_in(items)) == len(signers)
    for one in rows_in(items):
        version = one.query["VERSION"]
        assert version is not None and one.damage is None
        assert one.user_id == signers[version]
        assert str(one.response).startswith(f"* {signed(signers[version], int(version), '')}")
        assert str(one.response).count("#") == 1
