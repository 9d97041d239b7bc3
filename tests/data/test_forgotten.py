"""Who was forgotten stays out, and ledger, parts and files are those of an inbox that never had them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from spring.data.forgotten import FORGOTTEN, Forgotten, read_forgotten, without
from spring.data.inbox.files import look
from spring.data.inbox.ledger import read_ledger
from spring.data.inbox.removing import Cleared, clear
from spring.data.inbox.rewriting import rewrite
from spring.data.inbox.taking import Rules, Taken, take
from spring.data.rows import RawRow, Skip, SourceError
from spring.data.sources.table import TableSource

NOW, OPEN = datetime(2024, 3, 10, 12, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)
Row = dict[str, str]


def rules() -> Rules:
    columns = TableSource(
        path="unused", task="commit", user_id="who", interaction_id="id", response="body", timestamp="when",
        year=None, month=None, rating=None, query={"SUBJECT": "subject"},
    )  # fmt: skip
    return Rules(columns, min_chars=1, max_chars=50, max_quarantined=0.5, earliest=OPEN)


def row(number: int, user: str, **changes: str) -> Row:
    known = {"id": f"{user}-{number}", "who": user, "when": f"2024-03-{number + 1:02}"}
    return known | {"subject": f"a, {number}", "body": f"two\nlines of {user} {number}"} | changes


ROWS = [row(n, user) for n in range(3) for user in ("ann", "bob", "bobby")]
BAD = [row(4, "bob", body="x" * 60), row(5, "ann", body="y" * 60), row(1, "bob"), row(1, "ann")]
LATER = [row(6, "bob"), row(6, "ann"), row(7, " bob\u200b "), row(7, "bobby")]


def csv(rows: list[Row]) -> bytes:
    quoted = [",".join(f'"{value}"' for value in one.values()) for one in rows]
    return "".join(f"{line}\r\n" for line in (",".join(ROWS[0]), *quoted)).encode("utf-8-sig")


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def array(rows: list[Row]) -> bytes:
    return ("[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in rows) + "\n]\n").encode()


def packed(rows: list[Row]) -> bytes:
    return gzip.compress(csv(rows), mtime=0)


def utf16(rows: list[Row]) -> bytes:
    return csv(rows).decode("utf-8-sig").encode("utf-16-le").join([b"\xff\xfe", b""])


def parquet(rows: list[Row]) -> bytes:
    pl.DataFrame(rows).write_parquet("made.parquet")
    return Path("made.parquet").read_bytes()


FORMATS = {
    "a.csv": csv,
    "a.jsonl": lines,
    "a.json": array,
    "a.csv.gz": packed,
    "b.csv": utf16,
    "a.parquet": parquet,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def drop(inbox: str, name: str, data: bytes) -> Path:
    file = Path(inbox) / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    ago = file.stat().st_mtime - 60
    os.utime(file, (ago, ago))
    return file


def taken(inbox: str, kept: str) -> Taken:
    return take(Path(inbox), Path(kept), rules(), now=NOW)


def is_bob(row: RawRow) -> bool:
    return row.user_id is not None and row.user_id.strip(" \u200b") == "bob"


def cleared(inbox: str, kept: str, rename: Callable[[str], str] = str) -> dict[str, Cleared]:
    found = look(Path(inbox), [], [])
    return {one.name: clear(one, rules().columns, Path(kept), is_bob, rename(one.name)) for one in found}


def forget_bob(inbox: str, kept: str, rename: Callable[[str], str] = str) -> int:
    def theirs(row: dict[str, Any]) -> bool:
        return (row["user_id"] or "").strip(" \u200b") == "bob"

    files = cleared(inbox, kept, rename)
    gone = rewrite(Path(kept), files, theirs, rename)
    for file in files.values():
        if file.changed:
            file.replace()
    return gone


def whole(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_ledger_parts_and_files_are_those_of_who_never_had_them(name: str) -> None:
    """Of a file that grew; with rows that are bad, come twice, or are spelled otherwise."""
    write = FORMATS[name]
    for inbox, kept, with_bob in (("inbox", "live", True), ("other", "never", False)):
        for rows in (ROWS + BAD, ROWS + BAD + LATER):
            mine = [one for one in rows if with_bob or one["who"].strip(" \u200b") != "bob"]
            drop(inbox, name, write(mine))
            assert len(taken(inbox, kept).lines) == 1
    first, last = read_ledger(Path("live"))
    assert (first.rows, first.new, first.known, last.new, last.known) == (13, 9, 2, 4, 13)
    assert forget_bob("inbox", "live") == 6  # 3 and 2 good ones, 1 that was too long
    for left in (Path("live/seen.json"), Path("never/seen.json")):
        left.unlink()
    assert whole("inbox") == whole("other")
    found, never = whole("live"), whole("never")
    digests = [json.loads(line)["digest"] for line in found["ledger.jsonl"].splitlines()]
    assert digests[0] == first.digest  # of bytes that are gone
    text = never["ledger.jsonl"].decode()
    earlier = json.loads(text.splitlines()[0])["digest"]
    assert found == never | {"ledger.jsonl": text.replace(earlier, first.digest).encode()}
    again = whole("live")
    assert forget_bob("inbox", "live") == 0 and whole("live") == again  # said again, nothing changes


def test_of_a_file_that_is_gone_the_digests_stay() -> None:
    drop("inbox", "a.jsonl", lines(ROWS)).rename("aside.jsonl")
    drop("inbox", "a.jsonl", lines(ROWS))
    drop("inbox", "bob.jsonl", lines([row(9, "bob")]))
    taken("inbox", "live")
    (before, _) = read_ledger(Path("live"))
    Path("inbox/a.jsonl").unlink()
    assert forget_bob("inbox", "live") == 4
    Path("live/forgotten.json").write_text(Forgotten().with_user("bob").text())
    (line,) = read_ledger(Path("live"))  # of the file that had nobody else there is none
    assert (line.digest, line.rows, line.new) == (before.digest, before.rows, 6)
    assert not Path("inbox/bob.jsonl").exists()
    drop("inbox", "a.jsonl", lines(ROWS))
    assert not taken("inbox", "live").lines  # the same bytes again
    drop("inbox", "a.jsonl", lines(ROWS + LATER))  # and grown, by who knows nothing of all this
    (line,) = taken("inbox", "live").lines
    assert (line.rows, line.new, line.known, line.quarantined) == (8, 2, 6, {"forgotten": 5})
    drop("inbox", "a.jsonl", lines([*ROWS, *LATER, row(8, "ann")]))
    (line,) = taken("inbox", "live").lines
    assert (line.rows, line.new, line.known) == (9, 1, 8)
    assert b"bob " not in b"".join(whole("live").values())


def test_a_file_named_after_them_is_renamed_and_keeps_its_age_and_mode() -> None:
    """What is left is that of a file of the other name, which had nobody else."""
    state = drop("inbox", "of-bob.jsonl", lines(ROWS)).stat()
    Path("inbox/of-bob.jsonl").chmod(0o640)
    drop("other", "of-x.jsonl", lines([one for one in ROWS if one["who"] != "bob"]))
    for inbox, kept in (("inbox", "live"), ("other", "never")):
        assert len(taken(inbox, kept).lines) == 1
        Path(kept, "seen.json").unlink()
    assert forget_bob("inbox", "live", lambda name: name.replace("of-bob", "of-x")) == 3
    assert whole("inbox") == whole("other") and whole("live") == whole("never")
    now = Path("inbox/of-x.jsonl").stat()
    assert (now.st_mtime_ns, now.st_mode & 0o777) == (state.st_mtime_ns, 0o640)


def test_what_cannot_be_written_without_them_is_refused() -> None:
    """A key that stands twice is no value; written anew it would be one."""
    text = array(ROWS).decode().replace('"who": "ann"', '"who": "ann", "who": "ann"', 1)
    drop("inbox", "a.json", text.encode())
    with pytest.raises(SourceError, match=r"a.json cannot be written without their rows"):
        cleared("inbox", "live")


def test_a_file_that_is_written_to_meanwhile_stays() -> None:
    file = drop("inbox", "a.jsonl", lines(ROWS))
    (one,) = cleared("inbox", "live").values()
    file.write_bytes(lines(ROWS + LATER))
    with pytest.raises(SourceError, match="was written to meanwhile"):
        one.replace()
    assert file.read_bytes() == lines(ROWS + LATER)


def test_marks_know_a_person_in_all_spellings_and_name_nobody() -> None:
    one = Forgotten().with_user("Ada  L").with_user("bob")
    assert "Ada L" in one and "Ada\u00a0L\u200b" in one and "bob" in one
    assert "ada l" not in one and "bobby" not in one and None not in one and "bob" not in Forgotten()
    Path(FORGOTTEN).write_text(one.text())
    assert read_forgotten(Path()) == one and one.with_user(" bob ") == one
    assert "bob" not in one.text() and "Ada" not in one.text()
    other = Forgotten().with_user("bob")
    assert not other.marks & one.marks  # other projects' marks tell nothing
    rows = [RawRow(1, "a:1", user_id="bob"), RawRow(2, "a:2", user_id="bobby"), RawRow(3, "a:3")]
    assert list(without(rows, one)) == [Skip("forgotten"), *rows[1:]]


@pytest.mark.parametrize("text", ["{", "[]", '{"salt": "x", "marks": []}', '{"salt": ""}'])
def test_damaged_marks_stop_everything(text: str) -> None:
    Path(FORGOTTEN).write_text(text)
    with pytest.raises(SourceError, match=r"forgotten.json is damaged .* git checkout -- forgotten.json"):
        read_forgotten(Path())
