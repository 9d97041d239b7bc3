"""JSON: only what is mapped matters, keys that stand twice are refused, lines and arrays say the same."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.sources import CASES, check, rows_in, said, skips_in, table_of

from bench.sources import row, write_table
from spring.data.rows import Problem, Reason, SourceError
from spring.data.sources import table
from spring.data.sources.formats import json_array, text
from spring.data.sources.formats.record import Part


def write(folder: Path, *lines: str, name: str = "t.jsonl") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def test_keys_that_nobody_maps_are_not_looked_at(tmp_path: Path) -> None:
    """Each row has others, of every kind, also with a key that is no text."""
    others = [{}, {"photo": ["x"]}, {"style": {"a": 1}}, {"vote": "5", "photo": None}, {"\ud800k": 1}]
    path = write_table(tmp_path / "t.jsonl", [row(n) | more for n, more in enumerate(others, start=1)])
    assert len(said(table.read(table_of(path)))) == 5


def test_a_mapped_key_may_be_rare_and_must_exist(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(3), row(4) | {"stars": 5}]
    path = write_table(tmp_path / "t.jsonl", rows)
    checked = check(table.read(table_of(path, rating="stars")))
    assert checked.interactions["rating"].to_list() == [None, None, None, 5.0]
    with pytest.raises(SourceError, match=r"(?s)rating: 'points'.*It has who, when, title, text, stars\."):
        list(table.read(table_of(path, rating="points")))


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, name: str) -> None:
    good = json.dumps(row(1))
    twice = good.replace('"who": "a"', '"who": "mallory", "who": "a"')
    unread = good.replace("{", '{"x": 1, "x": {"who": 1, "who": 2}, ')
    lines = [good, twice, unread]
    path = write(tmp_path, *(lines if name == "t.jsonl" else [f"[{','.join(lines)}]"]), name=name)
    first, second, third = rows_in(table.read(table_of(path)))
    assert (first.damage, third.damage) == (None, None)
    assert second.damage == Problem("user_id", Reason.TWICE, "the last one is 'a'")
    assert second.where == {"t.jsonl": "t.jsonl:2", "t.json": "t.json[1]"}[name]


def test_an_array_over_several_lines(tmp_path: Path) -> None:
    items = [row(1), 7, row(2) | {"text": ["a", "list"]}, None, row(3)]
    path = write(tmp_path, json.dumps(items, indent=2), name="t.json")
    checked = check(table.read(table_of(path)))
    assert checked.interactions["interaction_id"].to_list() == ["row-1", "row-5"]
    assert checked.quarantine.select("where", "field", "reason").rows() == [
        ("t.json[1]", "line", Reason.MALFORMED),
        ("t.json[2]", "response", Reason.NOT_TEXT),
        ("t.json[3]", "line", Reason.MALFORMED),
    ]


def test_lines_in_a_file_that_is_called_json(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(row(1)), "", json.dumps(row(2)), name="t.json")
    items = list(table.read(table_of(path)))
    assert len(said(items)) == 2 and skips_in(items) == {"blank line": 1}


def test_one_object_around_the_rows_names_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"rows": [row(1)]}, indent=2), name="t.json")
    with pytest.raises(SourceError, match=r"(?s)does not have these columns.*It has rows\."):
        list(table.read(table_of(path)))


@pytest.mark.parametrize("text", ["[{", "[{}] x", "[" * 100_000, "[1,]"])
def test_an_array_that_is_none_says_where(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"t\.json is no JSON array: .*name it \.jsonl"):
        list(table.read(table_of(write(tmp_path, text, name="t.json"))))


def test_lines_that_are_no_objects_say_why(tmp_path: Path) -> None:
    deep = "[" * 100_000
    path = write(
        tmp_path, json.dumps(row(1)), '{"who": "a"', '{"who": 1}{"who": 2}', deep, "17", '{"n": ' + "9" * 5000
    )
    checked = check(table.read(table_of(path)))
    assert checked.interactions.height == 1
    assert checked.quarantine["reason"].to_list() == [Reason.MALFORMED] * 5
    assert checked.quarantine["value"][1].startswith("Extra data: line 1 column 11")


def test_where_no_line_is_an_object_the_quarantine_says_so(tmp_path: Path) -> None:
    checked = check(table.read(table_of(write(tmp_path, "{", '  "who": "a"', "}}"))))
    assert (checked.read, checked.quarantine.height) == (3, 3)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
@pytest.mark.parametrize("between", ["", "\n", "\r\n\r\n"])
def test_objects_over_several_lines_one_behind_the_other(tmp_path: Path, name: str, between: str) -> None:
    """As jq prints them."""
    path = tmp_path / name
    path.write_bytes(between.join(json.dumps(row(n), indent=2) for n in (1, 2, 3)).encode())
    found = rows_in(table.read(table_of(path)))
    assert [one.response for one in found] == [f"text {n} of a" for n in (1, 2, 3)]
    assert found[2].where == f"{name}[2]"


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_in_a_file_that_is_called_jsonl(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path, json.dumps([row(1), row(2)], indent=indent))
    assert len(said(table.read(table_of(path)))) == 2


def test_files_that_were_put_one_behind_the_other(tmp_path: Path) -> None:
    path = write(tmp_path, *("\ufeff" + json.dumps(row(n)) for n in (1, 2)))
    assert len(said(table.read(table_of(path)))) == 2


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "Infinity"])
@pytest.mark.parametrize("field", ["who", "text", "title", "stars"])
def test_a_number_that_is_not_finite_is_no_value(tmp_path: Path, number: str, field: str) -> None:
    line = json.dumps(row(1) | {"stars": 1, field: "HERE"}).replace('"HERE"', number)
    checked = check(table.read(table_of(write(tmp_path, line, json.dumps(row(2))), rating="stars")))
    assert checked.quarantine["reason"].to_list() == [Reason.NOT_TEXT]
    assert checked.interactions.height == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        end.join(json.dumps(row(n, text=f"a\u2028b {n}"), ensure_ascii=False) for n in (1, 2)).encode()
    )
    assert said(table.read(table_of(path))) == [("a", "a\u2028b 1"), ("a", "a\u2028b 2")]


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_reviews_with_optional_keys() -> None:
    source = table_of(
        CASES / "jsonl-optional-keys.jsonl", user_id="reviewerID", response="reviewText",
        timestamp="unixReviewTime", rating="overall", query={"SUMMARY": "summary", "PRODUCT": "asin"},
    )  # fmt: skip
    checked = check(table.read(source))
    assert (checked.interactions.height, checked.quarantine.height) == (100, 0)


# --- as a stream ------------------------------------------------------------------------------------------

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    items=st.lists(st.one_of(st.fixed_dictionaries({"who": values}), st.integers()), max_size=5),
    indent=st.sampled_from([None, 2]),
    chunk=st.integers(1, 9),
)
def test_an_array_read_in_chunks_is_the_array(items: list[Any], indent: int | None, chunk: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_CHUNK", chunk)
        path = write(Path(folder), json.dumps(items, indent=indent), name="t.json")
        found = list(json_array.read(Part(path, "t.json", {}), ["who"], key="ingest.here"))
    assert [where for where, _ in found] == [f"t.json[{n}]" for n in range(len(items))]
    for (_, record), item in zip(found, items, strict=True):
        if isinstance(item, dict):
            assert record == item
        else:
            assert isinstance(record, Problem) and str(item) in str(record.value)


@pytest.mark.parametrize("text", ["", "{}", "[", "[{}", "[{},]", "[{} {}]", '[{"a"]', "[" * 100_000, "[1"])
def test_a_stream_that_is_no_array_says_so(tmp_path: Path, text: str) -> None:
    part = Part(write(tmp_path, text, name="t.json"), "t.json", {})
    with pytest.raises(SourceError, match=r"^ingest\.here: .*t\.json is no JSON array: .* fetch it again"):
        list(json_array.read(part, ["a"], key="ingest.here"))
