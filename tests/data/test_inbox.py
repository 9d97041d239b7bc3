"""An inbox: each file once, each row once, what was closed stays closed, and nothing is half taken."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spring.data import batches
from spring.data.calendar import period_starts
from spring.data.checking import check_rows
from spring.data.inbox import taking
from spring.data.inbox.due import ends
from spring.data.inbox.files import SETTLE
from spring.data.inbox.ledger import read_ledger
from spring.data.inbox.taking import Rules, Taken, take
from spring.data.rows import Opened, RawRow, Reason, Skip, SourceError
from spring.data.sources.formats import parquet_files
from spring.data.sources.inbox import InboxSource, read
from spring.data.sources.table import TableSource

NOW = datetime(2024, 3, 10, 12, tzinfo=UTC)
OPEN = datetime(2024, 3, 1, tzinfo=UTC)  # the end of the last closed period
HEAD = "id,who,when,subject,body\n"


def columns(**changes: Any) -> TableSource:
    plain: dict[str, Any] = {"path": "unused", "task": "commit", "user_id": "who", "interaction_id": "id"}
    plain |= {"response": "body", "timestamp": "when", "year": None, "month": None, "rating": None}
    return TableSource(**(plain | {"query": {"SUBJECT": "subject"}} | changes))


def rules(*, earliest: datetime = OPEN, **changes: Any) -> Rules:
    return Rules(columns(**changes), min_chars=1, max_chars=50, max_quarantined=0.5, earliest=earliest)


def drop(text: str | bytes, name: str = "a.csv") -> Path:
    """Puts a file into the inbox that has rested for a minute."""
    path = Path("inbox") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return age(path, 60)


def age(path: Path, seconds: float) -> Path:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
    return path


def look(*, now: datetime = NOW, how: Rules | None = None) -> Taken:
    return take(Path("inbox"), Path("live"), how or rules(), now=now)


def rows(until: datetime | None = None) -> list[RawRow]:
    source = InboxSource(folder="inbox", kept="live", until=until)
    return [row for row in read(source) if isinstance(row, RawRow)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Ledger and parts."""
    files = [folder / "ledger.jsonl", *folder.glob("parts/*")]
    return {path.name: path.read_bytes() for path in files if path.exists()}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inbox").mkdir()


def test_a_file_is_taken_once_and_left_where_it_is() -> None:
    drop(f"{HEAD}1,ann,2024-03-02,s,one\n2,bob,2024-03-03,s,two\n")
    (line,) = look().lines
    assert (line.file, line.rows, line.new, line.known, line.quarantined) == ("a.csv", 2, 2, 0, {})
    before = bytes_of(Path("live"))
    assert look().lines == [] and bytes_of(Path("live")) == before
    assert Path("inbox/a.csv").exists() and list(before) == ["ledger.jsonl", line.part]
    assert [(row.user_id, row.interaction_id, row.response) for row in rows()] == [
        ("ann", "1", "one"),
        ("bob", "2", "two"),
    ]
    drop(Path("inbox/a.csv").read_bytes(), "copy.csv")  # the same bytes under another name
    os.utime("inbox/a.csv", (1, 1))  # another time, the same bytes
    assert look().lines == [] and bytes_of(Path("live")) == before


def test_rows_arrive_with_their_date_but_in_no_closed_period() -> None:
    """Whatever the clock says, and though it goes back an hour between two looks."""
    drop(f"{HEAD}1,ann,2023-07-01,s,late\n2,ann,2024-03-05T10:00,s,now\n3,ann,2024-04-02,s,to come\n")
    look()
    drop(f"{HEAD}4,ann,2024-02-29T23:59:59,s,a second late\n", "b.csv")
    look(now=NOW - timedelta(hours=1))
    came = {row.interaction_id: datetime.fromisoformat(row.arrived or "") for row in rows()}
    assert came == {
        "1": OPEN,
        "2": datetime(2024, 3, 5, 10, tzinfo=UTC),
        "3": datetime(2024, 4, 2, tzinfo=UTC),
        "4": OPEN,
    }
    assert {row.timestamp for row in rows() if row.interaction_id == "1"} == {"2023-07-01"}  # its own date
    assert [row.interaction_id for row in rows(until=datetime(2024, 4, 1, tzinfo=UTC))] == ["1", "2", "4"]
    assert [row.interaction_id for row in rows(until=datetime(2024, 3, 5, 10, tzinfo=UTC))] == ["1", "4"]


def test_what_waits_for_its_period_changes_nothing_before() -> None:
    """The canonical table up to a closed period is the same, byte for byte, whatever comes later."""
    drop(f"{HEAD}1,ann,2024-03-02,s,one\n2,bob,2024-03-03,s,two\n")
    look()

    def table() -> bytes:
        checked = check_rows(rows(until=datetime(2024, 4, 1, tzinfo=UTC)), min_chars=1, max_chars=50)
        return checked.interactions.write_csv().encode()

    before = table()
    assert before.count(b"\n") == 3
    # of the period that is open now: late ones, one with an id of a closed row, a long copy of a closed text
    how = rules(earliest=datetime(2024, 4, 1, tzinfo=UTC))
    drop(f"{HEAD}3,ann,2024-03-01,s,late\n1,ann,2024-03-02,s,other\n4,cem,2024-04-03,s,new\n", "b.csv")
    (line,) = look(how=how).lines
    assert (line.new, line.quarantined) == (2, {"duplicate interaction id": 1})
    assert table() == before


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_that_grows(kind: str) -> None:
    frame = pl.DataFrame(
        {"id": [1, 2, 3], "who": "ann", "when": "2024-03-02", "subject": "s", "body": ["one", "", "three"]}
    )

    def write(table: pl.DataFrame) -> None:
        path = Path(f"inbox/table.{kind}")
        write = {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[kind]
        write(path)
        age(path, 60)

    write(frame.head(2))
    assert [(line.new, line.quarantined) for line in look().lines] == [(1, {"empty text": 1})]
    write(frame)
    assert [(line.rows, line.new, line.known, line.quarantined) for line in look().lines] == [(3, 1, 2, {})]
    assert [row.interaction_id for row in rows() if row.damage is None] == ["1", "3"]
    assert len([row for row in rows() if row.damage]) == 1  # the bad row is not set aside again
    before = bytes_of(Path("live"))
    write(frame.head(2))  # as it was: these bytes were taken
    assert look() == Taken() and bytes_of(Path("live")) == before
    for other in (frame.head(1), frame.with_columns(body=pl.lit("other")), frame.reverse()):
        write(other)
        taken = look()
        assert not taken.lines and bytes_of(Path("live")) == before
        assert "has other rows than when it was taken" in taken.refused[f"table.{kind}"]
        assert "give what is new under another name" in taken.refused[f"table.{kind}"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_few_rows_at_a_time_are_the_same_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bad rows and copies among them, of a file that grew: as if all rows had been read at once."""
    ids = [n if n % 4 else n // 2 for n in range(40)]
    rows = [{"id": id, "who": f"u{n % 3}", "body": "x" * (n % 5)} for n, id in enumerate(ids)]
    table = pl.DataFrame(rows).with_columns(when=pl.lit("2024-03-02"), subject=pl.lit("s"))
    found = []
    for at_once in (1000, 7):
        monkeypatch.setattr(batches, "AT_ONCE", at_once)
        monkeypatch.setattr(parquet_files, "AT_ONCE", at_once)
        for count in (20, 40):
            path = Path(f"inbox/table.{kind}")
            frame = table.head(count)
            {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
            age(path, 60)
            (line,) = look().lines
            assert line.new and line.quarantined
        found.append(bytes_of(Path("live")))
        shutil.rmtree("live")
    assert found[0] == found[1] and len(found[0]) == 3


def test_the_same_row_again_is_known_and_the_same_id_with_other_bytes_is_set_aside() -> None:
    drop(f"{HEAD}1,ann b,2024-03-02,s,one\n2,bob,2024-03-03,s,two\n3,cem,2024-03-03,s,three\n")
    look()
    # 1: the same, written otherwise; 2: another text; 3: another user; 4 twice in one file
    again = (
        f"{HEAD}1,ann  b,2024-03-02T00:00:00Z,s, one\n2,bob,2024-03-03,s,other\n3,dee,2024-03-03,s,three\n"
    )
    drop(f"{again}4,dee,2024-03-03,s,four\n4,dee,2024-03-03,s,four\n5,dee,2024-03-03,s,five\n", "b.csv")
    (line,) = look().lines
    assert (line.new, line.known, line.quarantined) == (2, 2, {"duplicate interaction id": 2})
    good = [(row.interaction_id, row.response) for row in rows() if row.damage is None]
    assert good == [("1", "one"), ("2", "two"), ("3", "three"), ("4", "four"), ("5", "five")]
    bad = [row for row in rows() if row.damage is not None]
    assert [(row.where, row.user_id, row.damage) for row in bad] == [
        ("b.csv:3", "bob", ("interaction_id", Reason.DUPLICATE_ID, "2")),
        ("b.csv:4", "dee", ("interaction_id", Reason.DUPLICATE_ID, "3")),
    ]


def test_rows_without_ids_are_told_apart_by_what_they_say() -> None:
    how = rules(interaction_id=None)
    drop("who,when,subject,body\nann,2024-03-02,s,one\nann,2024-03-02,s,two\n")
    look(how=how)
    drop("who,when,subject,body\nann,2024-03-02,s,two\nbob,2024-03-02,s,two\n", "b.csv")
    (line,) = look(how=how).lines
    assert (line.new, line.known) == (1, 1)
    assert len({row.interaction_id for row in rows()}) == len(rows()) == 3


def test_what_cannot_be_used_is_refused_as_a_whole_and_the_rest_is_taken() -> None:
    drop("name,words\nann,good\n", "b.csv")
    drop(f"{HEAD}1,ann,2024-03-02,s,one\n")
    drop(f"{HEAD}2,ann,never,s,one\n3,ann,soon,s,two\n4,ann,2024-03-02,s,three\n", "c.csv")
    drop(b"PAR1 and then nothing", "d.parquet")
    drop("read me", "e.txt")
    taken = look()
    assert [line.file for line in taken.lines] == ["a.csv"] and taken.others == ["e.txt"]
    assert taken.refused.keys() == {"b.csv", "c.csv", "d.parquet"}
    assert all("\n" not in why for why in taken.refused.values())
    assert "does not have these columns: ingest.table.user_id: 'who'" in taken.refused["b.csv"]
    assert "2 of 3 rows cannot be used (unparsable time: 2; the first is c.csv:2" in taken.refused["c.csv"]
    before = bytes_of(Path("live"))
    assert len(before) == 2
    assert look().refused == taken.refused and bytes_of(Path("live")) == before  # until they are mended
    drop(f"{HEAD}2,ann,2024-03-02,s,one\n", "c.csv")
    assert [line.file for line in look().lines] == ["c.csv"]


def test_a_file_that_is_being_written_waits() -> None:
    for name in ("a.csv", "b.csv.part", "c.jsonl.tmp", "d.csv"):
        drop(f"{HEAD}1,ann,2024-03-02,s,one\n", name)
    age(Path("inbox/a.csv"), -60 + SETTLE / 2)
    drop("", "empty.csv")
    drop(f"{HEAD}5,ann,2024-03-02,s,one\n", ".hidden.csv")
    taken = look()
    assert [line.file for line in taken.lines] == ["d.csv"]
    assert sorted(taken.waiting) == ["a.csv", "b.csv.part", "c.jsonl.tmp", "empty.csv"]


def test_a_file_that_is_rewritten_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = drop(f"{HEAD}1,ann,2024-03-02,s,one\n")

    def slowly(*asked: Any) -> list[RawRow | Skip]:
        found = list(real(*asked))
        with path.open("a", encoding="utf-8") as file:
            file.write("2,ann,2024-03-02,s,two\n")
        return found

    real = taking.read_file
    with monkeypatch.context() as patch:
        patch.setattr(taking, "read_file", slowly)
        taken = look()
    assert not taken.lines and "was written while it was read" in taken.refused["a.csv"]
    assert bytes_of(Path("live")) == {}
    age(path, 60)
    assert [line.new for line in look().lines] == [2]


def test_between_part_and_ledger_nothing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if killed there: the part alone is not read, and the next look ends as if nothing had happened."""
    drop(f"{HEAD}1,ann,2024-03-02,s,one\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(taking, "add_line", killed)
        with pytest.raises(KeyboardInterrupt):
            look()
    assert rows() == [] and len(list(Path("live/parts").iterdir())) == 1
    (line,) = look().lines
    assert [path.name for path in Path("live/parts").iterdir()] == [line.part]
    assert [row.response for row in rows()] == ["one"]


def test_a_ledger_or_part_that_is_damaged_is_told() -> None:
    drop(f"{HEAD}1,ann,2024-03-02,s,one\n")
    (line,) = look().lines
    part, ledger = Path(f"live/parts/{line.part}"), Path("live/ledger.jsonl")
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"?")
    with pytest.raises(SourceError, match=r"a\.csv, is damaged: .*dvc checkout"):
        rows()
    part.unlink()
    with pytest.raises(SourceError, match=r"a\.csv, is not there: dvc checkout live/parts\.dvc"):
        rows()
    ledger.write_text(json.dumps({"file": "a.csv"}) + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"ledger\.jsonl is damaged.*git checkout"):
        read_ledger(Path("live"))


def test_no_inbox_and_a_single_file() -> None:
    with pytest.raises(SourceError, match=r"ingest\.inbox\.folder: nowhere does not exist"):
        take(Path("nowhere"), Path("live"), rules(), now=NOW)
    drop(f"{HEAD}1,ann,2024-03-02,s,one\n")
    drop(f"{HEAD}2,ann,2024-03-02,s,one\n", "b.csv")
    taken = take(Path("inbox/a.csv"), Path("live"), rules(), now=NOW)
    assert [line.file for line in taken.lines] == ["a.csv"]
    opened = next(iter(read(InboxSource(folder="inbox", kept="live", until=None))))
    assert opened == Opened("files taken", 1)


@given(
    every=st.sampled_from(["1d", "30d", "1w", "2w", "1mo", "3mo", "1q", "1y"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    hours=st.integers(-24 * 40, 24 * 900),
)
def test_periods_that_are_over(every: str, zone: str, hours: int) -> None:
    """Against all ends of a thousand periods: those that are not later than now."""
    now = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    whole = period_starts(date(2024, 1, 1), every=every, time_zone=zone, periods=1000)[1:]
    found = ends(date(2024, 1, 1), every=every, time_zone=zone, now=now)
    assert found == [end for end in whole if end <= now]
