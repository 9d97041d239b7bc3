"""What values written as text say: words for nothing, users in several spellings, ids that lost digits."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sources import check, rows_in, said, table_of

from bench.sources import row, write_table
from spring.data.rows import Reason
from spring.data.sources import table
from spring.data.values import MISSING, fold_words, is_missing, name_user, parse_time
from spring.settings.params import ParameterError, parse
from spring.store.keys import fingerprint
from tasks.params import load_params

PARAMS = Path(__file__).parents[2] / "params.yaml"

NOTHING = ["nan", "NaN", "None", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "NaT", "nil", "#N/A", "\\N", "-",
           "--", " nan ", "nan\u00a0", "undefined", "[deleted]", "(null)", "?", "ＮＵＬＬ", "#REF!", "\u2212",
           "Not available", "[]", "..."]  # fmt: skip
SOMEBODY = ["nana", "Nan Li", "nobody-1", "0", "None of us", "n", "a-b", "-1", "Null, Ada"]


@pytest.mark.parametrize("word", NOTHING)
@pytest.mark.parametrize("field", ["who", "id"])
def test_a_word_for_nothing_is_no_user_and_no_id(tmp_path: Path, word: str, field: str) -> None:
    good = [row(1, id="1"), row(2, "b", id="2")]
    path = write_table(tmp_path / "t.csv", [*good, row(3, id="3") | {field: word}])
    checked = check(table.read(table_of(path, interaction_id="id")))
    assert checked.interactions["user_id"].to_list() == ["a", "b"]
    [(_, _, _, name, reason, value)] = checked.quarantine.rows()
    assert (name, reason) == ({"who": "user_id", "id": "interaction_id"}[field], Reason.MISSING_WORD)
    assert value == word


@pytest.mark.parametrize("who", SOMEBODY)
def test_a_name_that_holds_such_a_word_is_a_name(tmp_path: Path, who: str) -> None:
    path = write_table(tmp_path / "t.csv", [row(1, who)])
    assert said(table.read(table_of(path))) == [(who, f"text 1 of {who}")]


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_words_for_nothing_in_every_other_field(tmp_path: Path, format: str) -> None:
    """A row needs its text, its query and its year; it may lack a month and a rating."""
    each = {"who": "a", "y": "2020", "m": "3", "title": "T", "text": "good", "stars": "4"}
    changes = [{}, {"m": "nan"}, {"stars": "N/A"}, {"stars": "-"}, {"m": "None"}, {"y": "nan"}, {"y": "-"},
               {"text": "NaN"}, {"title": "null"}]  # fmt: skip
    path = write_table(tmp_path / f"t.{format}", [each | change for change in changes])
    source = table_of(path, timestamp=None, year="y", month="m", rating="stars")
    checked = check(table.read(source))
    assert checked.interactions["rating"].to_list() == [4.0, None, None, 4.0, 4.0]
    assert [time.month for time in checked.interactions["timestamp"]] == [3, 3, 3, 7, 7]
    refused = [("year", Reason.MISSING_WORD)] * 2 + [
        ("response", Reason.MISSING_WORD),
        ("query.TITLE", Reason.MISSING_WORD),
    ]
    assert checked.quarantine.select("field", "reason").rows() == refused


def test_a_dash_is_a_text_though_no_user() -> None:
    words = fold_words(MISSING)
    assert is_missing("-", words, prose=False) and not is_missing("-", words, prose=True)
    assert is_missing("N/A", words, prose=True)


def test_who_is_really_called_so_can_be_let_in(tmp_path: Path) -> None:
    rows = [row(1, "Null"), row(2, "nan"), row(3, "unknown")]
    path = write_table(tmp_path / "t.csv", rows)
    found = said(table.read(table_of(path, missing=["nan", "unknown"])))
    assert found == [("Null", "text 1 of Null")]
    assert len(said(table.read(table_of(path, missing=[])))) == 3


def test_the_list_of_words_changes_no_old_file() -> None:
    import yaml

    tree = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    assert "missing" not in tree["ingest"]["table"]
    before = fingerprint(load_params(PARAMS).ingest)
    tree["ingest"]["table"]["missing"] = list(MISSING)
    assert fingerprint(parse(tree).ingest) == before
    tree["ingest"]["table"]["missing"] = ["nan"]
    assert fingerprint(parse(tree).ingest) != before
    tree["ingest"]["table"]["missing"] = [None]  # what YAML makes of `null` without quotes
    with pytest.raises(ParameterError, match=r"ingest\.table\.missing"):
        parse(tree)


# --- users ------------------------------------------------------------------------------------------------

SPELLED = ["Ada L", " Ada L", "Ada L  ", "Ada  L", "Ada\u00a0L", "Ada\u200b L", "\ufeffAda L", "Ada\tL",
           "Ada\u3000L", "Ada L\u200d", "A\u00adda L"]  # fmt: skip


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_one_user_however_the_blanks_are_written(tmp_path: Path, format: str) -> None:
    rows = [row(number, who, text=f"text {number}") for number, who in enumerate(SPELLED, start=1)]
    checked = check(table.read(table_of(write_table(tmp_path / f"t.{format}", rows))))
    assert set(checked.interactions["user_id"]) == {"Ada L"} and checked.interactions.height == len(SPELLED)
    assert checked.joined == {"Ada L": sorted(SPELLED)}


def test_one_user_in_either_form_of_unicode(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "Zoë Åkesson") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    path = write_table(tmp_path / "t.jsonl", [row(1, forms[0]), row(2, forms[1])])
    checked = check(table.read(table_of(path)))
    assert set(checked.interactions["user_id"]) == {forms[0]}


def test_case_and_accents_still_tell_users_apart(tmp_path: Path) -> None:
    names = ["Zoe", "Zoë", "zoe", "Zo e"]
    path = write_table(tmp_path / "t.csv", [row(number, who) for number, who in enumerate(names, start=1)])
    checked = check(table.read(table_of(path)))
    assert set(checked.interactions["user_id"]) == set(names) and not checked.joined


@given(st.text())
def test_naming_a_user_again_changes_nothing(text: str) -> None:
    name = name_user(text)
    assert name_user(name) == name and name == name.strip()
    assert unicodedata.is_normalized("NFC", name)


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "who"),
    [("csv", "1.23457E+17"), ("csv", "7.6561E+16"), ("parquet", 1.2345678901234568e18), ("jsonl", 1.5e300)],
)
def test_an_id_that_a_spreadsheet_rounded_is_nobodys(tmp_path: Path, format: str, who: object) -> None:
    path = write_table(tmp_path / f"t.{format}", [row(1) | {"who": who}, row(2) | {"who": who}])
    [first, second] = rows_in(table.read(table_of(path)))
    assert first.damage is not None and first.damage[:2] == ("user_id", Reason.ROUNDED)
    assert second.damage == first.damage


@pytest.mark.parametrize("who", ["9007199254740992.0", 9007199254740993.0, "12345678901234567.0"])
def test_an_id_that_a_column_of_floats_rounded_is_nobodys(tmp_path: Path, who: object) -> None:
    [one] = rows_in(table.read(table_of(write_table(tmp_path / "t.jsonl", [row(1) | {"who": who}]))))
    assert one.damage is not None and one.damage[:2] == ("user_id", Reason.ROUNDED)


def test_an_id_that_a_column_of_floats_has_given_a_point_is_the_id(tmp_path: Path) -> None:
    """pandas writes 12.0 where some rows have no id; other parts of the same table have 12."""
    rows = [
        row(n, text=f"text {n}") | {"who": who} for n, who in enumerate([12, 12.0, "12", "12.0 "], start=1)
    ]
    rows += [row(5) | {"who": "12.05"}, row(6) | {"who": "v12.0"}]
    checked = check(table.read(table_of(write_table(tmp_path / "t.jsonl", rows))))
    assert checked.interactions["user_id"].to_list() == ["12"] * 4 + ["12.05", "v12.0"]


@pytest.mark.parametrize("stars", ["4_5", "1_0.0", "0x4", "４,5"])
def test_a_rating_that_only_python_would_read_is_none(tmp_path: Path, stars: str) -> None:
    path = write_table(tmp_path / "t.csv", [row(1) | {"stars": stars}])
    assert check(table.read(table_of(path, rating="stars"))).quarantine["reason"].to_list() == [
        Reason.BAD_RATING
    ]


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2020-01-02T03:00:00Z", 3),
        ("2020-01-02 03:00:00 +0000 UTC", 3),
        ("2020-01-02 03:00:00 +0100 CET", 2),
        ("2020-01-02T03:00:00+01:00[Europe/Paris]", 2),
        ("2020-01-02T03:00Z[UTC]", 3),
        ("2020-01-02 03:00:00 CET", None),  # whose offset nothing says
        ("2020-01-02 03:00:00 GMT+1", None),
        ("0001-01-01T00:00:00", None),
        ("9999-12-31", None),
        ("20-01-02", None),
        ("1_577_934_000", None),
    ],
)
def test_times(text: str, hour: int | None) -> None:
    found = parse_time(text)
    assert found == (None if hour is None else datetime(2020, 1, 2, hour, tzinfo=UTC))


@pytest.mark.parametrize("who", ["1e10", "12345678901234567890", "7.5", "E+5"])
def test_other_ids_with_digits_are_ids(tmp_path: Path, who: str) -> None:
    assert said(table.read(table_of(write_table(tmp_path / "t.csv", [row(1, who)])))) == [
        (who, f"text 1 of {who}")
    ]
