"""What tells of a person: found in every spelling, and never where it is another's."""

from __future__ import annotations

import html
import json

import polars as pl
import pytest

from spring.live.traces import Traces

TEXT = (
    'Übrigens: "so & so"\nist das, was ich immer wieder über rote Lampen und blaue Tassen sage, <b>gern</b>'
)
THEIRS = Traces.of(
    "ann", [" ann "], ["ann-0-1", "7"], [TEXT, "short"], ["anna", "x-ann", "ann-marie", "good old"]
)


@pytest.mark.parametrize(
    "text",
    [
        "<td>ann</td>",
        '{"ann": {}}',
        "live ann@1, previous none",
        "anna ann",
        "x-ann, ann",
        '"ann-0-1"',
        TEXT,
        TEXT[:60],
        TEXT[-60:],
        json.dumps({"body": TEXT}),
        json.dumps({"query": json.dumps({"SUBJECT": TEXT})}),
        html.escape(TEXT),
    ],
)
def test_found_in_every_spelling(text: str) -> None:
    assert THEIRS.in_text(text)


def test_found_in_other_encodings() -> None:
    assert THEIRS.in_bytes(f"who: {TEXT}".encode("utf-16-le")) and THEIRS.in_bytes(
        f"b{TEXT}".encode("utf-16-be")
    )


@pytest.mark.parametrize(
    "text", ["anna", "annual", "x-ann", "ann-marie", "Ann", "7", "short", "éann", "good old"]
)
def test_what_is_another_s_is_not_theirs(text: str) -> None:
    assert not THEIRS.in_text(text)


def test_tables_are_searched_by_cell() -> None:
    for column in (["x", "ann"], [["x", "7"], []], [None, f"> {TEXT}"], [{"a": "ann"}, {"a": "b"}]):
        assert THEIRS.in_frame(pl.DataFrame({"a": column}))
    for column in (["anna", "said ann"], [["77"]], [7, 8], [None, None], ["short"]):
        assert not THEIRS.in_frame(pl.DataFrame({"a": column}))


def test_what_others_wrote_too_tells_nothing() -> None:
    both = Traces.of("ann", [], ["same", "own-id"], [TEXT], [f"as ann says: {TEXT}", "same"])
    assert not both.texts and both.ids == {"own-id"}
    assert not both.in_text(TEXT) and not both.in_text("same") and both.in_text("own-id")


def test_weights_hold_words_by_chance() -> None:
    assert not THEIRS.in_bytes(b"\0ann\0", words=False) and THEIRS.in_bytes(TEXT.encode(), words=False)
    assert not Traces.of("7", [], [], [], []).is_telling and THEIRS.is_telling


def test_kept_and_read_again() -> None:
    assert Traces.from_json(json.loads(json.dumps(THEIRS.as_json()))) == THEIRS
