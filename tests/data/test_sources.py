"""The sources: small fixtures made on the spot, and the real thing where it is at hand."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import yaml

from spring.data.checking import check_rows, leave_out
from spring.data.rows import RawRow, Reason, Skip
from spring.data.sources import changelogs, git, table
from spring.data.sources.addresses import clean_name, without_addresses
from spring.data.sources.changelogs import ChangelogsSource
from spring.data.sources.git import GitSource
from spring.data.sources.registry import SOURCES, Source
from spring.data.sources.table import TableSource
from spring.settings.params import ParameterError, parse
from spring.store.keys import fingerprint
from tasks.params import load_params

ACL = Path(__file__).parents[2] / "../shared/data/acl-abstracts.parquet"
DOC = Path("/usr/share/doc")
PARAMS = Path(__file__).parents[2] / "params.yaml"
ADDED = """
import sys, yaml
from spring.data.rows import RawRow
from spring.data.sources.registry import SOURCES, Source
from spring.engine.strict import PositiveInt, Strict
from spring.store.keys import fingerprint

class DiarySource(Strict):
    days: PositiveInt

def read(source):
    for day in range(1, source.days + 1):
        yield RawRow(row=day, where=f"day {day}", task="diary")

SOURCES["diary"] = Source(DiarySource, "diary", read)
from spring.settings.params import ParameterError, parse
from tasks.ingest import read_source

def refused(tree):
    try:
        parse(tree)
    except ParameterError as error:
        return str(error)

tree = yaml.safe_load(open(sys.argv[1]))
assert fingerprint(parse(tree).ingest) == sys.argv[2], "files from before it are read as before"
tree["ingest"]["source"] = "diary"
assert "ingest.source is diary, and there is no block ingest.diary: write it, with days" in refused(tree)
tree["ingest"]["diary"] = {"days": 0}
assert "ingest.diary.days is 0: " in refused(tree)
tree["ingest"]["diary"] = {"weeks": 1}
assert "ingest.diary.weeks: no such key" in refused(tree)
tree["ingest"]["diary"] = {"days": 2}
ingest = parse(tree).ingest
assert (ingest.task, ingest.seeded) == ("diary", False)
labels = []
rows = read_source(ingest, seed=0, labels=labels)
assert [row.where for row in rows] == ["day 1", "day 2"] and not labels
tree["ingest"]["source"] = "kaggle"
assert "'amazon', 'inbox' or 'diary'" in refused(tree)
"""


def rows(items: Iterable[RawRow | Skip]) -> list[RawRow]:
    return [item for item in items if isinstance(item, RawRow)]


def skips(items: Iterable[RawRow | Skip]) -> Counter[str]:
    return Counter(item.reason for item in items if isinstance(item, Skip))


# --- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thanks to Ada L. <ada@example.org>.", "Thanks to Ada L.."),
        ("write to ada@mail.example.org, please", "write to, please"),
        ("Reported by Ada (ada@example.org)", "Reported by Ada"),
        ("keep getty@tty1.service and malloc@GLIBC_2.2 and user@host", None),
        ("@decorator, a @ b, price 3@2", None),
    ],
)
def test_addresses_go_and_nothing_else(text: str, expected: str | None) -> None:
    assert without_addresses(text) == (text if expected is None else expected)


def test_names_are_freed_of_addresses_and_quotes() -> None:
    assert clean_name(' "Ada  Lovelace" <ada@example.org>') == "Ada Lovelace"
    assert clean_name("ada@example.org") is None


def test_parameters_know_which_prompt_a_source_answers() -> None:
    ingest = load_params(PARAMS).ingest
    tasks = {"personas": "review", "changelogs": "changelog", "git": "commit", "table": ingest.table.task,
             "longlamp": "abstract", "lamp": "headline", "amazon": "review"}  # fmt: skip
    tasks["inbox"] = ingest.table.task  # whose columns it shares
    assert tasks.keys() == SOURCES.keys()
    for source, task in tasks.items():
        assert ingest.model_copy(update={"source": source}).task == task


def test_only_personas_are_other_users_under_another_seed() -> None:
    ingest = load_params(PARAMS).ingest
    seeded = {name for name in SOURCES if ingest.model_copy(update={"source": name}).seeded}
    assert seeded == {"personas"}


def test_a_source_is_read_or_made() -> None:
    with pytest.raises(AssertionError):
        Source(GitSource, "commit")


def test_unknown_sources_are_refused_as_a_literal_would() -> None:
    found = "ingest.source is 'kaggle': must be 'personas', 'changelogs', .*, 'amazon' or 'inbox'$"
    tree = yaml.safe_load(PARAMS.read_text())
    tree["ingest"]["source"] = "kaggle"
    with pytest.raises(ParameterError, match=found):
        parse(tree)
    tree["ingest"]["source"] = "git"
    del tree["ingest"]["changelogs"]
    with pytest.raises(ParameterError, match=r"ingest\.changelogs is missing$"):
        parse(tree)


def test_a_new_source_is_one_entry() -> None:
    """In a process of its own, since the parameters are made of the sources when they are imported."""
    before = fingerprint(load_params(PARAMS).ingest)
    done = subprocess.run([sys.executable, "-c", ADDED, str(PARAMS), before], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- changelogs -------------------------------------------------------------------------------------------

ENGINE = """\
engine (1.1-1) unstable; urgency=medium

  [ Ada Lovelace ]
  * Fix the carry.  Thanks to Charles <cb@example.org>. (Closes: #12)
    - and once more


  * New upstream release.

 -- Ada Lovelace <ada@new.example>  Fri, 02 Feb 2001 10:00:00 +0200

engine (1.0-1) unstable; urgency=low

  * Initial release.

 -- Ada Lovelace <ada@old.example>  Mon, 01 Jan 2001 10:00:00 +0000

# Older entries have been removed from this changelog.
"""
LOOM = """\
loom (3) unstable; urgency=low

  * Never signed.

loom (2) unstable; urgency=low

  * No date at all here.

 -- A. Lovelace <ada@old.example>  some day

loom (1) unstable; urgency=low

  * Punched cards.

 -- Ada Lovelace <ada@old.example>  Tue, 02 Jan 2001 10:00:00 +0000
"""


@pytest.fixture
def doc(tmp_path: Path) -> Path:
    files = {
        "engine/changelog.Debian.gz": ENGINE,
        "engine/changelog.gz": "2001-02-02  upstream's own, not read where there is Debian's\n",
        "engine-data/changelog.Debian.gz": ENGINE,
        "loom/changelog.gz": LOOM,
        "upstream/changelog.gz": "Version 2: everything is new\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/changelog.Debian.gz").write_bytes(b"\x1f\x8b no gzip")
    (tmp_path / "bare").mkdir()
    return tmp_path


def test_changelogs(doc: Path) -> None:
    items = list(changelogs.read(ChangelogsSource(root=str(doc), max_per_user=None)))
    assert skips(items) == {
        "entry shipped by several packages": 2,
        "line outside of any entry": 2,  # the comment, in both copies
        "upstream's changelog, not Debian's": 1,
    }
    broken, *read = rows(items)
    assert broken.where == "broken/changelog.Debian.gz" and broken.damage is not None
    assert [row.row for row in [broken, *read]] == list(range(1, 7))
    by_id = {row.interaction_id: row for row in read}
    assert set(by_id) == {"engine_1.0-1", "engine_1.1-1", "loom_1", "loom_2", "loom_3"}
    engine = by_id["engine_1.1-1"]
    assert engine.query == {"PACKAGE": "engine", "VERSION": "1.1-1"} and engine.task == "changelog"
    assert engine.response == (
        "[ Ada Lovelace ]\n* Fix the carry.  Thanks to Charles. (Closes: #12)\n  - and once more\n\n"
        "* New upstream release."
    )
    damage = by_id["loom_3"].damage
    assert damage is not None and damage.reason == Reason.MALFORMED
    # two addresses, one name: one person; a rarer name of the same address goes to the usual one
    assert {row.user_id for row in read if row.damage is None} == {"Ada Lovelace"}

    checked = check_rows(items, min_chars=1, max_chars=1000)
    assert checked.interactions["interaction_id"].to_list() == ["engine_1.0-1", "loom_1", "engine_1.1-1"]
    assert checked.interactions["timestamp"][2] == datetime(2001, 2, 2, 8, tzinfo=UTC)
    assert Counter(checked.quarantine["reason"]) == {Reason.MALFORMED: 2, Reason.BAD_TIME: 1}
    assert not any("@" in str(value) for row in checked.quarantine.rows() for value in row)


def test_changelogs_keep_the_latest_of_each_user(doc: Path) -> None:
    items = list(changelogs.read(ChangelogsSource(root=str(doc), max_per_user=1)))
    assert skips(items)["earlier than the latest max_per_user"] == 2
    dated = check_rows(items, min_chars=1, max_chars=1000).interactions
    assert dated["interaction_id"].to_list() == ["engine_1.1-1"]


def test_names_on_a_mailing_lists_address_stay_apart(tmp_path: Path) -> None:
    entry = (
        "p ({version}) unstable; urgency=low\n\n  * Text.\n\n -- {name} <team@lists.example.org>  {date}\n"
    )
    date_text = "Mon, 01 Jan 2001 10:00:00 +0000"
    text = "\n".join(
        entry.format(version=v, name=name, date=date_text) for v, name in enumerate(["Ada", "Ada", "Ben"])
    )
    (tmp_path / "p").mkdir()
    (tmp_path / "p/changelog.Debian.gz").write_bytes(gzip.compress(text.encode()))
    read = rows(changelogs.read(ChangelogsSource(root=str(tmp_path), max_per_user=None)))
    assert Counter(row.user_id for row in read) == {"Ada": 2, "Ben": 1}


def test_a_missing_folder_names_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ingest\.changelogs\.root: .*nowhere"):
        list(changelogs.read(ChangelogsSource(root=str(tmp_path / "nowhere"), max_per_user=None)))


@pytest.mark.skipif(not list(DOC.glob("*/changelog.Debian.gz")), reason="no Debian changelogs here")
def test_this_machines_changelogs(tmp_path: Path) -> None:
    for path in sorted(DOC.glob("*/changelog.Debian.gz"))[:80]:  # some of them: all take seconds
        (tmp_path / path.parent.name).symlink_to(path.parent)
    items = changelogs.read(ChangelogsSource(root=str(tmp_path), max_per_user=None))
    checked = check_rows(items, min_chars=8, max_chars=20000)
    assert checked.interactions.height > 100
    assert checked.quarantine.height < 0.05 * checked.read
    assert not checked.interactions["user_id"].str.contains("@").any()
    assert not checked.interactions["response"].str.contains(r"<\S+@\S+>").any()


# --- git --------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Ada under two addresses joined by the mailmap, and two Bens who only share a name."""
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(tmp_path)}

    def call(*arguments: str, **environment: str) -> bytes:
        env = {**os.environ, **quiet, **environment}
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout

    def commit(name: str, mail: str, second: int, message: bytes, *options: str) -> None:
        (tmp_path / ".git/MESSAGE").write_bytes(message)
        stamp = {"GIT_AUTHOR_DATE": f"{second} +0200", "GIT_COMMITTER_DATE": f"{second} +0200"}
        who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in
               (("NAME", name), ("EMAIL", mail))}  # fmt: skip
        call("commit", "--allow-empty", "-F", ".git/MESSAGE", *options, **stamp, **who)

    call("init", "-q", "-b", "main")
    (tmp_path / ".mailmap").write_text("Ada Lovelace <ada@new.example> <ada@old.example>\n")
    commit(
        "ada", "ADA@old.example", 1_000_000_100, b"First\n\nBody one.\n\nSigned-off-by: Ada <a@b.example>\n"
    )
    commit(
        "Ben", "ben@one.example", 1_000_000_200, b"Second by ben@one.example\n\nA\n\n  * b, ask c@d.example\n"
    )
    commit(
        "Ben", "ben@two.example", 1_000_000_300, b"Third\n\nBody: this reads: like no trailer.\nMore text.\n"
    )
    commit("Ada Lovelace", "ada@new.example", 1_000_000_400, b"No body\n")
    commit("Ada Lovelace", "ada@new.example", 1_000_000_500, b"Only trailers\n\nChange-Id: I123\n")
    call("checkout", "-q", "-b", "side", "HEAD~1")
    squash = (
        b"Squash\n\none\nCo-authored-by: Ben <ben@one.example>\n\ntwo\n\nNote: x\nSigned-off-by: A <a@b.c>\n"
    )
    commit("Ada Lovelace", "ada@new.example", 1_000_000_600, squash)
    # git commit mends broken UTF-8 on its own, so this one is made by hand
    who = b"Ada Lovelace <ada@new.example> 1000000700 +0000"
    head = call("rev-parse", "HEAD", "HEAD^{tree}").split()
    lines = [
        b"tree " + head[1],
        b"parent " + head[0],
        b"author " + who,
        b"committer " + who,
        b"",
        b"Odd",
        b"",
    ]
    (tmp_path / ".git/RAW").write_bytes(b"\n".join([*lines, b"In another \xff\xfe encoding."]))
    call("reset", "-q", "--hard", call("hash-object", "-t", "commit", "-w", ".git/RAW").decode().strip())
    call("checkout", "-q", "main")
    call(
        "-c",
        "user.name=M",
        "-c",
        "user.email=m@m.example",
        "merge",
        "-q",
        "--no-ff",
        "-m",
        "Merge\n\nBody",
        "side",
    )
    return tmp_path


def test_git(repository: Path) -> None:
    items = list(git.read(GitSource(repository=str(repository), revision="HEAD")))
    assert skips(items) == {"commit without a body": 1, "commit with only trailers": 1, "merge": 1}
    read = {row.query["SUBJECT"]: row for row in rows(items)}
    assert {subject: row.response for subject, row in read.items() if subject != "Odd"} == {
        "First": "Body one.",
        "Second by": "A\n\n  * b, ask",
        "Third": "Body: this reads: like no trailer.\nMore text.",
        "Squash": "one\n\ntwo\n\nNote: x",
    }
    bens = {read["Second by"].user_id, read["Third"].user_id}
    assert len(bens) == 2 and all(str(ben).startswith("Ben (") for ben in bens)
    assert {row.user_id for row in read.values()} - bens == {"Ada Lovelace"}
    assert not any("@" in f"{row.user_id}{row.response}{row.query}" for row in read.values())

    checked = check_rows(items, min_chars=1, max_chars=1000)
    assert checked.quarantine["reason"].to_list() == [Reason.ENCODING]
    first = checked.interactions.filter(pl.col("user_id") == "Ada Lovelace")["timestamp"][0]
    assert first == datetime.fromtimestamp(1_000_000_100, UTC)


def test_git_reads_one_revision(repository: Path) -> None:
    read = rows(git.read(GitSource(repository=str(repository), revision="HEAD~2")))
    assert [row.query["SUBJECT"] for row in read] == ["First", "Second by", "Third"]


@pytest.mark.parametrize("revision", ["nonesuch", "--all"])
def test_git_says_what_it_cannot_read(repository: Path, revision: str) -> None:
    with pytest.raises(ValueError, match=rf"ingest\.git\.revision: {revision}"):
        list(git.read(GitSource(repository=str(repository), revision=revision)))


def test_git_says_that_it_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ingest\.git\.repository: .*not a git repository"):
        list(git.read(GitSource(repository=str(tmp_path), revision="HEAD")))


# --- table ------------------------------------------------------------------------------------------------


def source_of(path: Path, **changes: object) -> TableSource:
    columns: dict[str, object] = {
        "path": str(path), "task": "abstract", "user_id": "who", "interaction_id": None, "response": "text",
        "timestamp": "when", "year": None, "month": None, "query": {"TITLE": "title"}, "rating": None,
    }  # fmt: skip
    return TableSource.model_validate(columns | changes)


def times(source: TableSource) -> list[datetime]:
    checked = check_rows(table.read(source), min_chars=1, max_chars=100)
    assert checked.quarantine.is_empty(), checked.quarantine
    return checked.interactions["timestamp"].to_list()


@pytest.mark.parametrize(
    "when",
    [
        date(2016, 5, 16),
        datetime(2016, 5, 16),
        datetime(2016, 5, 16, tzinfo=UTC),
        "2016-05-16",
        "20160516",
        "2016-05-16T00:00:00Z",
        "2016-05-16 02:00:00+02:00",
        1463356800,
        1463356800.0,
        1463356800000,
        "1463356800",
    ],
)
def test_every_way_to_write_a_time(tmp_path: Path, when: object) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"who": ["a"], "when": [when], "title": ["T"], "text": ["body"]}).write_parquet(path)
    assert times(source_of(path)) == [datetime(2016, 5, 16, tzinfo=UTC)]


def test_year_and_month(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("who,y,m,title,text\na,2016,3,T,march\na,2016,,T,no month\na,2016.0,12.0,T,floats\n")
    assert times(source_of(path, timestamp=None, year="y", month="m")) == [
        datetime(2016, 3, 1, tzinfo=UTC),
        datetime(2016, 7, 1, tzinfo=UTC),  # the middle of a year without a month
        datetime(2016, 12, 1, tzinfo=UTC),
    ]
    assert times(source_of(path, timestamp=None, year="y")) == [datetime(2016, 7, 1, tzinfo=UTC)] * 3


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "who": ["b", "a", "b"],
            "id": [3, 1, 2],
            "when": ["2020-01-01"] * 3,
            "title": ["Größe", 'says "x"', "two, three"],
            "text": ["line\nline", "tab\there", "ties keep their order"],
            "stars": [1.0, None, 4.5],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_ndjson(tmp_path / "t.jsonl")
    tables = []
    for suffix in ("parquet", "csv", "jsonl"):
        source = source_of(tmp_path / f"t.{suffix}", interaction_id="id", rating="stars")
        checked = check_rows(table.read(source), min_chars=1, max_chars=100)
        assert checked.quarantine.is_empty()
        tables.append(checked.interactions)
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
    assert tables[0]["interaction_id"].to_list() == ["1", "3", "2"]
    assert tables[0]["rating"].to_list() == [None, 1.0, 4.5]
    assert json.loads(tables[0]["query"][1]) == {"TITLE": "Größe"}


def test_a_parquet_file_is_read_by_its_very_name(tmp_path: Path) -> None:
    good = {"who": "a", "when": "2020-01-01", "title": "T", "text": "good"}
    path = tmp_path / "reviews [2020]*.parquet"
    pl.DataFrame([good]).write_parquet(path)
    assert [row.response for row in rows(table.read(source_of(path)))] == ["good"]


def test_a_nan_is_a_missing_value_and_a_decimal_a_number(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = {
        "who": ["a", "b"],
        "when": ["2020-01-01"] * 2,
        "title": [float("nan"), 7.0],
        "text": ["one", "two"],
    }
    pl.DataFrame(rows | {"stars": [Decimal("4.5"), Decimal("3.0")]}).write_parquet(path)
    checked = check_rows(table.read(source_of(path, rating="stars")), min_chars=1, max_chars=100)
    assert checked.quarantine.select("user_id", "reason").rows() == [("a", "empty text")]
    [kept] = checked.interactions.to_dicts()
    assert (kept["user_id"], kept["rating"], json.loads(kept["query"])) == ("b", 3.0, {"TITLE": "7.0"})


def test_a_column_that_is_not_there_stops(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("who,when,title,text\n")
    with pytest.raises(
        ValueError, match=r"(?s)user_id: 'author'.*query\.TITLE: 'name'.*It has who, when, title, text"
    ):
        list(table.read(source_of(path, user_id="author", query={"TITLE": "name"})))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"", "ends in '.xlsx'; read are .csv, .json, .jsonl, .parquet, .tsv"),
        ("t.parquet", b"no parquet", "is no parquet file"),
        ("t.csv", b"who,who\n", "stands twice"),
        ("missing/t.csv", None, "does not exist"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(table.read(source_of(tmp_path / name)))


def test_a_table_needs_one_kind_of_time(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("who,when,title,text,y\n")
    with pytest.raises(ValueError, match="either timestamp or year"):
        list(table.read(source_of(tmp_path / "t.csv", year="y")))


def test_broken_csv_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"\xef\xbb\xbfwho,when,title,text\na,2020-01-01,T,good\na,2020-01-01,T\n\n"
        b'a,2020-01-01,"T"x,bad quote\na,2020-01-01,T,"good\nagain"\n'
        b'a,2020-01-01,T,caf\xe9\na,2020-01-01,T,"never closed\n'
    )
    items = list(table.read(source_of(path)))
    assert skips(items) == {"blank line": 1}
    found = {row.where: row.damage and row.damage.reason for row in rows(items)}
    assert found == {
        "t.csv:2": None,
        "t.csv:3": Reason.MALFORMED,
        "t.csv:5": Reason.MALFORMED,
        "t.csv:6-7": None,
        "t.csv:8": None,
        "t.csv:9": Reason.MALFORMED,
    }
    assert rows(items)[4].response == "caf\ufffd"


def test_broken_json_lines(tmp_path: Path) -> None:
    good = {"who": "a", "when": "2020-01-01", "title": "T", "text": "good"}
    lines = [
        json.dumps(good).encode(),
        json.dumps(good | {"extra": 1}).encode(),
        b"{not json",
        b"[1, 2]",
        b"",
        json.dumps(good | {"text": ["a", "list"]}).encode(),
        json.dumps({key: good[key] for key in ("who", "when", "title")}).encode(),
        b'{"who": "a", "when": "2020-01-01", "title": "T", "text": "caf\xe9"}',
        b'{"who": "a", "when": "2020-01-01", "title": "T", "text": "half a pair: \\ud83d"}',
    ]
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    items = list(table.read(source_of(path)))
    assert skips(items) == {"blank line": 1}
    first, extra, *others = rows(items)
    assert first.damage is None and extra.damage is None  # nobody maps the key that it has beside
    checked = check_rows(items, min_chars=1, max_chars=100)
    assert checked.read == 8 and len(others) == 6
    assert dict(checked.quarantine.select("where", "reason").rows()) == {
        "t.jsonl:3": Reason.MALFORMED,
        "t.jsonl:4": Reason.MALFORMED,
        "t.jsonl:6": Reason.NOT_TEXT,
        "t.jsonl:7": Reason.EMPTY,
        "t.jsonl:8": Reason.ENCODING,
        "t.jsonl:9": Reason.ENCODING,
    }


@pytest.mark.skipif(not ACL.is_file(), reason="the abstracts are not here")
def test_the_abstracts() -> None:
    source = source_of(
        ACL, user_id="author", interaction_id="paper_id", response="abstract", timestamp=None, year="year",
        month="month",
    )  # fmt: skip
    checked = check_rows(table.read(source), min_chars=8, max_chars=20000)
    assert (checked.read, checked.quarantine.height) == (2871, 0)
    kept, left_out = leave_out(checked.placed, min_interactions=20, max_users=None, max_interactions=None)
    assert (kept.height, kept["user_id"].n_unique(), left_out.height) == (2871, 49, 0)
