"""Quarantine, limits and the stages `ingest` and `split` as they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.benchmarks import (
    article,
    asked_article,
    asked_paper,
    asked_post,
    asked_review,
    bought,
    paper,
    post,
    review,
    sold,
    write_lamp,
    write_lines,
    write_longlamp,
)
from kit.sources import Message, call_git, make_repository

import tasks.ingest
import tasks.split
from spring.data import batches
from spring.data.checking import check_rows, leave_out
from spring.data.forgotten import FORGOTTEN, Forgotten
from spring.data.quarantine import EXCERPT
from spring.data.rows import ARRIVED, INTERACTIONS, Problem, RawRow, Reason, Skip, rows_of
from spring.data.split import LONG_TEXT
from spring.data.values import parse_time
from spring.settings.params import ParameterError, merge
from tasks.files import DATA
from tasks.ingest import QuarantineError

PARAMS = Path(__file__).parents[2] / "params.yaml"
GOOD = RawRow(
    row=1,
    where="file:1",
    user_id="ada",
    interaction_id="1",
    timestamp="2020-01-01",
    task="abstract",
    query={"TITLE": "On engines"},
    response="They weave algebra.",
)


def check(*rows: RawRow | Skip, min_chars: int = 8, max_chars: int = 1000) -> Any:
    return check_rows(rows, min_chars=min_chars, max_chars=max_chars)


# --- one row ----------------------------------------------------------------------------------------------


def test_a_good_row_passes() -> None:
    checked = check(GOOD)
    assert checked.quarantine.is_empty() and checked.read == 1
    assert checked.interactions.schema == pl.Schema(INTERACTIONS)
    assert checked.interactions.rows() == [
        ("ada", "1", datetime(2020, 1, 1, tzinfo=UTC), "abstract", '{"TITLE": "On engines"}',
         "They weave algebra.", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"damage": Problem("line", Reason.MALFORMED, "x")}, "line", Reason.MALFORMED),
        ({"user_id": None}, "user_id", Reason.MISSING_USER),
        ({"user_id": "  "}, "user_id", Reason.MISSING_USER),
        ({"user_id": "\u200b\u00a0\ufeff"}, "user_id", Reason.MISSING_USER),
        ({"user_id": "a\ufffd"}, "user_id", Reason.ENCODING),
        ({"interaction_id": ""}, "interaction_id", Reason.MISSING_ID),
        ({"timestamp": None}, "timestamp", Reason.MISSING_TIME),
        ({"timestamp": " "}, "timestamp", Reason.MISSING_TIME),
        ({"timestamp": "yesterday"}, "timestamp", Reason.BAD_TIME),
        ({"timestamp": "2020-02-30"}, "timestamp", Reason.BAD_TIME),
        ({"timestamp": "2016"}, "timestamp", Reason.BAD_TIME),
        ({"timestamp": "9e99"}, "timestamp", Reason.BAD_TIME),
        ({"response": None}, "response", Reason.EMPTY),
        ({"response": " \r\n\t "}, "response", Reason.EMPTY),
        ({"response": "1234567"}, "response", Reason.TOO_SHORT),
        ({"response": "  1234567  "}, "response", Reason.TOO_SHORT),
        ({"response": "x" * 1001}, "response", Reason.TOO_LONG),
        ({"query": {"TITLE": None}}, "query.TITLE", Reason.EMPTY),
        ({"query": {"TITLE": "x" * 1001}}, "query.TITLE", Reason.TOO_LONG),
        ({"query": {"TITLE": "bell \x07"}}, "query.TITLE", Reason.CONTROL),
        ({"response": "a null \x00 inside"}, "response", Reason.CONTROL),
        ({"response": "escape \x1b[1m codes"}, "response", Reason.CONTROL),
        ({"response": "not decoded: caf\ufffd"}, "response", Reason.ENCODING),
        ({"response": "half a pair: \ud83d"}, "response", Reason.ENCODING),
        ({"response": "read twice: cafÃ©"}, "response", Reason.ENCODING),
        ({"response": "read twice: donâ€™t"}, "response", Reason.ENCODING),
        ({"rating": "five"}, "rating", Reason.BAD_RATING),
        ({"rating": "nan"}, "rating", Reason.BAD_RATING),
    ],
)
def test_each_reason(change: dict[str, Any], field: str, reason: Reason) -> None:
    checked = check(replace(GOOD, row=7, where="file:7", **change))
    assert checked.interactions.is_empty()
    row, where, _, found, why, value = checked.quarantine.row(0)
    assert (row, where, found, why) == (7, "file:7", field, reason)
    assert value is None or len(value) <= EXCERPT


@pytest.mark.parametrize(
    "change",
    [
        {"response": "12345678"},
        {"response": "x" * 1000},
        {"response": "naïve café, Größe, 東京, don’t, Ã alone"},
        {"response": "tabs\tand\r\nlines\n"},
        {"query": {"TITLE": "C"}},
        {"rating": "4.5"},
        {"user_id": " Ada "},
    ],
)
def test_what_is_no_reason(change: dict[str, Any]) -> None:
    assert check(replace(GOOD, **change)).quarantine.is_empty()


def test_the_excerpt_shows_the_place() -> None:
    value = check(replace(GOOD, response="x" * 500 + "\x07" + "y" * 400)).quarantine["value"][0]
    assert value == "x" * 40 + "\x07" + "y" * 39


def test_texts_are_normalised_and_so_are_user_ids() -> None:
    decomposed = "cafe\u0301 noir"
    checked = check(
        replace(GOOD, user_id=decomposed, response=f" {decomposed}\r\nline\rline "),
        replace(GOOD, user_id="café noir", interaction_id="2"),
        replace(GOOD, user_id="Café noir", interaction_id="3"),
    )
    assert checked.interactions["user_id"].to_list() == ["Café noir", "café noir", "café noir"]
    assert checked.interactions["response"][1] == "café noir\nline\nline"
    assert checked.joined == {"café noir": [decomposed, "café noir"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        ("4102444799", datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("4102444800", None),
        ("20160131120000", None),  # a date without separators, not milliseconds of the year 2608
        ("100000000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),  # milliseconds
        ("99999999", None),
        ("100000000000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),  # microseconds
        ("100000000000000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),  # nanoseconds
        ("1577836800123456789", datetime(2020, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),  # no float has its digits
        ("20160131120000123", None),  # a date without separators to the millisecond
        ("2020-01-01T00:00:00.123456789Z", datetime(2020, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("2020-01-01 00:00:00 UTC", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01 00:00:00.5 GMT", datetime(2020, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)),
        ("2020-01-01 09:00:00 +0900", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01T09:00:00+0900", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01 00:00:00 +0000 UTC", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01 00:00:00 CET", None),
        ("UTC", None),
        ("2020-01-01T12:00:00.5-01:00", datetime(2020, 1, 1, 13, 0, 0, 500000, tzinfo=UTC)),
        ("9999-12-31", None),  # as some write that no time is known
        ("0001-01-01T00:00:00+10:00", None),  # before year 1 in UTC
    ],
)
def test_parse_time(text: str, expected: datetime | None) -> None:
    assert parse_time(text) == expected


# --- rows together ----------------------------------------------------------------------------------------


def test_of_one_id_the_first_usable_row_stays() -> None:
    checked = check(
        replace(GOOD, row=1, response=""),
        replace(GOOD, row=2, response="The first usable."),
        replace(GOOD, row=3, response="The second one.", user_id="ben"),
    )
    assert checked.interactions["response"].to_list() == ["The first usable."]
    assert checked.quarantine.select("row", "reason").rows() == [(1, Reason.EMPTY), (3, Reason.DUPLICATE_ID)]


def test_of_repeated_long_texts_the_earliest_stays_whoever_wrote_it() -> None:
    long, short = "x" * LONG_TEXT, "y" * (LONG_TEXT - 1)

    def row(number: int, user: str, day: int, text: str) -> RawRow:
        name, time = str(number), f"2020-01-{day:02d}"
        return replace(GOOD, row=number, user_id=user, interaction_id=name, timestamp=time, response=text)

    said = [("a", 9, long), ("a", 5, long), ("b", 9, long), ("a", 1, short), ("b", 2, short)]
    checked = check(*(row(number, *what) for number, what in enumerate(said, start=1)))
    refused = [(row, "response", Reason.REPEATED) for row in (1, 3)]
    assert checked.quarantine.select("row", "field", "reason").rows() == refused
    assert checked.interactions["interaction_id"].to_list() == ["4", "2", "5"]


def test_order_is_user_time_row() -> None:
    order = [("b", "2020-01-02"), ("a", "2020-01-02"), ("b", "2020-01-01"), ("a", "2020-01-02")]
    rows = [
        replace(GOOD, row=n, user_id=user, timestamp=time, interaction_id=str(n))
        for n, (user, time) in enumerate(order)
    ]
    assert check(*rows).interactions["interaction_id"].to_list() == ["1", "3", "2", "0"]
    assert check(*reversed(rows)).interactions.equals(check(*rows).interactions)


def interactions(counts: dict[str, int]) -> pl.DataFrame:
    """`counts` interactions per user, one a day, named USER-DAY."""
    rows = [
        replace(GOOD, row=day, user_id=user, interaction_id=f"{user}-{day}", timestamp=f"2020-01-{day:02d}")
        for user, count in counts.items()
        for day in range(1, count + 1)
    ]
    return check(*rows).interactions


def test_when_a_row_arrived_is_kept_where_the_source_says_it() -> None:
    """With its own date where a row does not say it, and never before that."""
    rows = [
        replace(GOOD, row=n, interaction_id=str(n), response=f"A text, number {n}.", arrived=arrived)
        for n, arrived in enumerate(["2020-02-03T04:05:06Z", "", "2019-12-31", "soon"], start=1)
    ]
    checked = check(*rows)
    assert checked.interactions.schema == pl.Schema(INTERACTIONS | ARRIVED)
    day = datetime(2020, 1, 1, tzinfo=UTC)
    assert checked.interactions["arrived"].to_list() == [datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC), day, day]
    assert checked.quarantine.select("field", "reason", "value").rows() == [
        ("arrived", Reason.BAD_TIME, "soon")
    ]
    kept, _ = leave_out(checked.placed, min_interactions=1, max_users=None, max_interactions=2)
    assert checked.rows(kept).columns == list(INTERACTIONS | ARRIVED)


def test_of_the_same_text_twice_the_one_that_was_here_first_stays() -> None:
    """An older copy that comes later takes nothing out of a closed period."""
    text = "word for word " * LONG_TEXT
    first = replace(GOOD, response=text, timestamp="2020-02-01", arrived="2020-02-01")
    copy = replace(first, row=2, interaction_id="2", timestamp="2020-01-01", arrived="2020-03-01")
    checked = check(first, copy, max_chars=len(text))
    assert checked.interactions["interaction_id"].to_list() == ["1"]
    assert checked.quarantine["reason"].to_list() == [Reason.REPEATED]


def test_leave_out() -> None:
    frame = interactions({"a": 2, "b": 5, "c": 5, "d": 7, "e": 3})
    kept, left = leave_out(frame, min_interactions=3, max_users=2, max_interactions=4)
    assert kept["interaction_id"].to_list() == ["b-2", "b-3", "b-4", "b-5", "d-4", "d-5", "d-6", "d-7"]
    assert left.rows() == [
        ("a", 2, "fewer than min_interactions = 3"),
        ("b", 1, "earlier than the latest 4"),
        ("c", 5, "beyond max_users = 2"),
        ("d", 3, "earlier than the latest 4"),
        ("e", 3, "beyond max_users = 2"),
    ]


def test_no_limits_leave_nothing_out() -> None:
    frame = interactions({"a": 1, "b": 2})
    kept, left = leave_out(frame, min_interactions=1, max_users=None, max_interactions=None)
    assert kept.equals(frame) and left.is_empty()


maybe = st.sampled_from
raw_rows = st.builds(
    RawRow,
    row=st.integers(1, 10**6),
    where=st.just("here"),
    user_id=maybe(["a", "b", "B", "c", "", None]),
    interaction_id=maybe([str(number) for number in range(30)]),
    timestamp=maybe(["2020-01-01", "2021-01-01", "1600000000", "never", None]),
    task=st.just("t"),
    query=st.dictionaries(st.just("Q"), st.one_of(st.text(max_size=3), st.none()), min_size=1),
    response=st.one_of(st.text(st.characters(codec=None), max_size=12), maybe(["good text", "x" * 300])),
    rating=maybe([None, "1", "many"]),
)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.one_of(raw_rows, st.just(Skip("no row"))), max_size=40),
    least=st.integers(1, 4),
    users=st.one_of(st.none(), st.integers(1, 3)),
    most=st.one_of(st.none(), st.integers(1, 3)),
)
def test_nothing_is_lost(rows: list[RawRow | Skip], least: int, users: int | None, most: int | None) -> None:
    rows = [replace(row, row=n) if isinstance(row, RawRow) else row for n, row in enumerate(rows, 1)]
    checked = check(*rows, min_chars=2, max_chars=400)
    read = [row for row in rows if isinstance(row, RawRow)]
    assert checked.read == len(read) and sum(checked.skipped.values()) == len(rows) - len(read)
    placed, left = leave_out(checked.placed, min_interactions=least, max_users=users, max_interactions=most)
    kept = checked.rows(placed)
    assert kept.height + checked.quarantine.height + left["interactions"].sum() == len(read)
    assert kept["interaction_id"].is_unique().all()
    # what passed passes again, unchanged
    again = check(*rows_of(kept), min_chars=2, max_chars=400)
    assert again.quarantine.is_empty() and again.interactions.equals(kept)
    # and whether texts wait in memory or in files, and in how many, makes no difference
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "AT_ONCE", 3)
        filed = check_rows(rows, min_chars=2, max_chars=400, folder=Path(folder))
        assert len(list(Path(folder).iterdir())) == max(1, -(-filed.usable.table().height // 3))
        assert filed.rows(placed).equals(kept) and filed.interactions.equals(checked.interactions)
        assert filed.quarantine.equals(checked.quarantine) and filed.placed.equals(checked.placed)
        for user in placed["user_id"].unique():
            assert filed.rows(placed.filter(user_id=user)).equals(kept.filter(user_id=user))


# --- the stages -------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(prompt: dict[str, str] | None = None, **ingest: Any) -> None:
    """The project's own parameters for two periods of a table, changed where told."""
    tree = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    columns = {
        "path": "in.csv", "task": "abstract", "user_id": "who", "interaction_id": "id", "response": "text",
        "timestamp": "when", "year": None, "month": None, "rating": None,
    }  # fmt: skip
    base = {"source": "table", "min_interactions": 4, "max_users": None, "max_interactions": None,
            "min_chars": 8, "max_chars": 1000, "max_quarantined": 0.2, "table": columns}  # fmt: skip
    tree["ingest"] = merge(merge(tree["ingest"], base), ingest)
    tree["ingest"]["table"]["query"] = ingest.get("table", {}).get("query", {"TITLE": "title"})
    tree["periods"] = {"0": "base", "1": 0}
    tree["prompts"]["abstract"] |= prompt or {}
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")


def lines(users: dict[str, int]) -> list[str]:
    return [
        f"{user},{user}{n},2020-01-{n + 1:02d},Title {n},The text number {n} of {user}"
        for user, count in users.items()
        for n in range(count)
    ]


def write(rows: list[str]) -> None:
    Path("in.csv").write_text("\n".join(["who,id,when,title,text", *rows, ""]), encoding="utf-8")


def test_both_stages(project: Path) -> None:
    configure(max_interactions=5)
    write([*lines({"b": 6, "a": 5, "few": 3}), "b,b9,sometime,T,What time is it?"])
    tasks.ingest.main()
    tasks.split.main()
    kept = pl.read_parquet("data/ingest/interactions.parquet")
    assert kept["interaction_id"].to_list() == [f"a{n}" for n in range(5)] + [f"b{n}" for n in range(1, 6)]
    assert pl.read_parquet("data/ingest/labels.parquet").schema == pl.Schema(tasks.ingest.LABELS)
    assert pl.read_parquet("data/ingest/left_out.parquet")["user_id"].to_list() == ["b", "few"]
    assert pl.read_parquet("data/ingest/quarantine.parquet").rows() == [
        (15, "in.csv:16", "b", "timestamp", "unparsable time", "sometime")
    ]
    assert json.loads(Path("data/ingest.json").read_text()) == {
        "source": "table",
        "rows_read": 15,
        "rows_kept": 10,
        "rows_quarantined": 1,
        "rows_left_out": 4,
        "users_kept": 2,
        "users_left_out": 1,
        "quarantined": {"unparsable time": 1},
        "left_out": {"earlier than the latest 5": 1, "fewer than min_interactions = 4": 3},
        "skipped": {},
    }
    assert sorted(path.name for path in Path("data/ingest").iterdir()) == [
        "interactions.parquet", "labels.parquet", "left_out.parquet", "quarantine.parquet"
    ]  # fmt: skip
    periods = [pl.read_parquet(f"data/split/{t}.parquet") for t in (0, 1)]
    assert pl.concat(periods).drop("period", "part").sort("user_id", "timestamp").equals(kept)
    assert [frame["interaction_id"].to_list() for frame in periods] == [
        ["a0", "a1", "a2", "b1", "b2", "b3"], ["a3", "a4", "b4", "b5"]
    ]  # fmt: skip


def test_the_same_input_gives_the_same_bytes(project: Path) -> None:
    """Whatever a stage that was killed has left."""
    configure()
    (DATA / "ingest" / f"{tasks.ingest.WAITING}killed").mkdir(parents=True)
    (DATA / "ingest" / f"{tasks.ingest.WAITING}killed" / "0.parquet").write_bytes(b"texts")
    write(lines({f"user-{n}": 9 for n in range(20)}))
    seen = []
    for _ in range(2):
        tasks.ingest.main()
        tasks.split.main()
        seen.append({path: path.read_bytes() for path in sorted(DATA.rglob("*")) if path.is_file()})
    assert seen[0] == seen[1] and len(seen[0]) == 7


def test_another_period_leaves_the_earlier_files_alone(project: Path) -> None:
    users = [f"user-{n:03}" for n in range(200)]
    configure()
    write(lines(dict.fromkeys(users, 11)))
    tasks.ingest.main()
    tasks.split.main()
    before = [Path(f"data/split/{t}.parquet").read_bytes() for t in (0, 1)]
    write(lines(dict.fromkeys(users, 11 + 5)))
    configure()
    tree = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    tree["periods"]["2"] = 1
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    tasks.ingest.main()
    tasks.split.main()
    assert [Path(f"data/split/{t}.parquet").read_bytes() for t in (0, 1)] == before
    assert pl.read_parquet("data/split/2.parquet").height == 200 * 5


def test_too_many_bad_rows_stop_the_stage(project: Path) -> None:
    configure(max_quarantined=0.1)
    write([*lines({"a": 8}), "a,x,,T,No time at all", ",y,2020-01-01,T,Nobody wrote this"])
    with pytest.raises(QuarantineError) as caught:
        tasks.ingest.main()
    message = str(caught.value)
    assert "2 of 10 rows (20.0%)" in message and "missing time: 1, missing user id: 1" in message
    assert str(tasks.ingest.REFUSED) in message and "ingest.max_quarantined" in message
    assert pl.read_parquet(tasks.ingest.REFUSED)["row"].to_list() == [9, 10]
    assert not Path("data/ingest").exists()
    configure(max_quarantined=0.2)  # exactly as many as allowed
    tasks.ingest.main()
    assert Path("data/ingest/quarantine.parquet").exists() and not tasks.ingest.REFUSED.exists()


def test_nothing_to_read_and_nobody_left(project: Path) -> None:
    configure()
    write([])
    with pytest.raises(QuarantineError, match=r"ingest\.table gave no rows"):
        tasks.ingest.main()
    write(lines({"a": 3}))
    with pytest.raises(ValueError, match=r"no user has .*min_interactions = 4"):
        tasks.ingest.main()


def test_prompts_must_fit_the_rows(project: Path) -> None:
    write(lines({"a": 4}))
    configure(table={"task": "poem"})
    with pytest.raises(ParameterError, match=r"task 'poem', which prompts lacks"):
        tasks.ingest.main()
    configure(table={"query": {"NAME": "title"}})
    with pytest.raises(ParameterError, match=r"abstract\.user asks for \['TITLE'\].*have \['NAME'\]"):
        tasks.ingest.main()


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({"user": "Write {}."}, r"prompts\.abstract\.user asks for \[''\]"),
        ({"user": "Write {TITLE."}, r"prompts\.abstract\.user: .*\{\{"),
        ({"user": "Write {TITLE:d}."}, r"prompts\.abstract\.user cannot be filled: .*'d'.*\{NAME\}"),
        ({"user": "Write {TITLE!x}."}, r"prompts\.abstract\.user cannot be filled"),
        ({"system": "You know {TITLE}."}, r"prompts\.abstract\.system holds \{TITLE\}"),
    ],
)
def test_a_prompt_that_could_not_be_filled(project: Path, prompt: dict[str, str], said: str) -> None:
    write(lines({"a": 4}))
    configure(prompt=prompt)
    with pytest.raises(ParameterError, match=said):
        tasks.ingest.main()


def test_a_system_prompt_is_read_as_it_stands(project: Path) -> None:
    write(lines({"a": 4}))
    configure(prompt={"system": 'Answer in JSON: {"text": {}}'})
    tasks.ingest.main()


def test_personas_bring_labels(project: Path) -> None:
    pytest.importorskip("spring.data.sources.personas.generate")
    configure(source="personas", personas={"users": 2, "interactions": 20})
    tasks.ingest.main()
    kept = pl.read_parquet("data/ingest/interactions.parquet")
    labels = pl.read_parquet("data/ingest/labels.parquet")
    assert kept["user_id"].n_unique() == 2 and kept.height > 30
    assert labels["interaction_id"].to_list() == kept["interaction_id"].to_list()
    assert labels["drift"].null_count() == 0


@pytest.mark.parametrize(
    ("source", "block", "users"),
    [
        ("longlamp", {"id": "there"}, {"Ada": 8}),
        ("longlamp", {"id": "there", "task": "review", "order": "file"}, {"A1": 5}),
        ("longlamp", {"id": "there", "task": "topic", "order": "file"}, {"ada": 5}),
        ("lamp", {"path": "there"}, {"train-1": 7}),
        ("amazon", {"reviews": "r.jsonl.gz", "products": "p.jsonl", "min_reviews": 2}, {"ADA": 6}),
    ],
)
def test_the_fields_own_data_needs_no_table(
    project: Path, source: str, block: dict[str, Any], users: dict[str, int]
) -> None:
    """From the files as they are published to periods, under the prompts that are there."""
    there = project / "there"
    papers, reviews, posts = ([make(n) for n in range(1, count)] for make, count in
                              ((paper, 9), (review, 5), (post, 5)))  # fmt: skip
    write_longlamp(there, "abstract_generation_user", train=[asked_paper("Ada", 9, papers)])
    write_longlamp(there, "product_review_user", test=[asked_review("A1", 9, reviews)])
    write_longlamp(there, "topic_writing_user", val=[asked_post("ada", 9, posts)])
    write_lamp(there / "LaMP_4", {"1": 9}, train=[asked_article("1", 9, [article(n) for n in range(1, 7)])])
    write_lines(project / "r.jsonl.gz", [bought(n) for n in range(6)] + [bought(1, "BEN")])
    write_lines(project / "p.jsonl", [sold(n) for n in range(6)])
    configure(source=source, **{source: block})
    tasks.ingest.main()
    tasks.split.main()
    kept = pl.read_parquet("data/ingest/interactions.parquet")
    assert dict(kept["user_id"].value_counts().iter_rows()) == users
    assert json.loads(Path("data/ingest.json").read_text())["opened"]


# --- what is told -----------------------------------------------------------------------------------------


def test_who_was_forgotten_is_left_out_of_any_source(project: Path) -> None:
    """Of one that is made, too."""
    configure(source="personas", personas={"users": 3, "interactions": 20})
    tasks.ingest.main()
    before = pl.read_parquet("data/ingest/interactions.parquet")
    gone, *_ = sorted(before["user_id"].unique())
    (project / "live").mkdir()
    (project / "live" / FORGOTTEN).write_text(Forgotten().with_user(gone).text(), encoding="utf-8")
    tasks.ingest.main()
    after = pl.read_parquet("data/ingest/interactions.parquet")
    assert after.equals(before.filter(pl.col("user_id") != gone)) and after["user_id"].n_unique() == 2
    told = json.loads(Path("data/ingest.json").read_text())
    assert told["skipped"] == {"forgotten": 20} and told["users_kept"] == 2


def run_stage(folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, as DVC gives it."""
    environment = {**os.environ, "PYTHONPATH": str(PARAMS.parent)}
    command = [sys.executable, "-m", "tasks.ingest"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_counts_are_told_where_they_are_new(project: Path, caplog: Any) -> None:
    """Of a source outside the stage runs every time: without news it is silent."""
    configure()
    write(lines({"a": 4}))
    with caplog.at_level("INFO"):
        tasks.ingest.main()
        tasks.ingest.main()
        (told,) = (record.getMessage() for record in caplog.records)
        assert told == "ingest: rows_read 4, rows_kept 4, users_kept 1"
        write(lines({"a": 5}))
        tasks.ingest.main()
    assert "rows_kept 5" in caplog.messages[-1] and len(caplog.messages) == 2


def test_words_for_nothing_and_users_made_one_are_told(project: Path, caplog: Any) -> None:
    configure()
    write([*lines({"a": 4}), *(line.replace("a,", " a ,", 1) for line in lines({"a": 6})[4:]),
           "nan,x,2020-01-01,T,Nobody wrote this"])  # fmt: skip
    with caplog.at_level("WARNING"):
        tasks.ingest.main()
    told = json.loads(Path("data/ingest.json").read_text())
    assert told["quarantined"] == {"a word for a missing value": 1} and told["users_joined"] == 1
    assert told["rows_kept"] == 6 and told["users_kept"] == 1 and "opened" not in told
    joined, words = (record.getMessage() for record in caplog.records)
    assert joined.startswith("1 users are written in several ways") and "'a' from ' a ', 'a'" in joined
    assert "user_id 'nan'" in words and "ingest.table.missing" in words


def test_what_git_opened_is_told(project: Path) -> None:
    commits = [Message("Ada", "ada@one.example", f"Change {n}\n\nBody number {n}.\n") for n in range(5)]
    make_repository(project / "there", commits)
    configure(source="git", git={"repository": "there", "revision": "main"})
    tasks.ingest.main()
    tip = call_git(project / "there", "rev-parse", "main").decode().strip()
    opened = json.loads(Path("data/ingest.json").read_text())["opened"]
    assert opened == {"repository": "there", "revision": "main", "commit": tip}


@pytest.mark.parametrize(
    ("write", "table", "said"),
    [
        (lambda: Path("in.csv").write_bytes(b""), {}, "error: in.csv is empty"),
        (
            lambda: Path("t.parquet").write_bytes(b"PAR1"),
            {"path": "t.parquet"},
            "error: ingest.table.path: t.parquet",
        ),
        (lambda: None, {"path": "nowhere.csv"}, "error: ingest.table.path: nowhere.csv does not exist"),
        (lambda: write(["a,1,,T,A text without a time"]), {}, "error: 1 of 1 rows (100.0%) cannot be used"),
        (lambda: write(lines({"a": 4})), {"task": "poem"}, "error: the rows are of task 'poem'"),
    ],
)
def test_what_cannot_be_read_is_one_message(project: Path, write: Any, table: Any, said: str) -> None:
    configure(table=table)
    write()
    done = run_stage(project)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0].startswith(said)
