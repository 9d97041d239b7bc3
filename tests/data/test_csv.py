"""CSV: whatever is wrong with a record, none of its lines becomes a row, and every line is accounted for."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.sources import check, rows_in, said, skips_in, table_of

from bench.sources import row, write_table
from spring.data.rows import Reason, SourceError
from spring.data.sources import table

HEADER = "who,when,title,text\n"
STOLEN = "mallory,2020-01-01,T,stolen\n"  # a line that is a row if it is read as one


def write(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_bytes((HEADER + text).encode())
    return folder / "t.csv"


def kept(path: Path) -> list[tuple[str, str]]:
    return said(table.read(table_of(path)))


def test_a_long_field_is_one_field(tmp_path: Path) -> None:
    """Of 200,000 characters: the csv module stops at 131,072 and would go on amid it."""
    text = "long " * 20_000 + "\n" + STOLEN * 4_000
    path = write_table(tmp_path / "t.csv", [row(1, text=text), row(2, "b")])
    assert kept(path) == [("a", text.strip()), ("b", "text 2 of b")]


@pytest.mark.parametrize("end", ['"x', '"x"', '" "', '"x,"y"', '"",z"y'])
def test_no_line_of_a_malformed_record_is_a_row(tmp_path: Path, end: str) -> None:
    path = write(
        tmp_path, f'a,2020-01-01,T,"begins\n{STOLEN}ends{end}\nb,2020-01-02,T,"next"\nc,2020-01-03,T,last\n'
    )
    items = list(table.read(table_of(path)))
    assert "mallory" not in {who for who, _ in said(items)}
    assert ("c", "last") in said(items)
    assert len(rows_in(items)) + skips_in(items).total() == 5


def test_an_unclosed_quote_takes_all_that_may_be_its_text(tmp_path: Path) -> None:
    """Whether line 3 is a row or text of line 2 cannot be known; at line 5 no quote can be open."""
    lines = [
        'a,2020-01-01,T,"5 inches',
        "b,2020-01-02,T,row or text",
        'c,2020-01-03,"T",quotes',
        "d,2020-01-04,T,row",
    ]
    path = write(tmp_path, "\n".join(lines) + "\n")
    items = list(table.read(table_of(path)))
    assert said(items) == [("d", "row")]
    found = check(items).quarantine
    assert found["where"].to_list() == ["t.csv:2", "t.csv:3", "t.csv:4"]
    assert set(found["reason"]) == {Reason.MALFORMED}
    assert found["value"][0].startswith("',' expected after '\"', quotes inside quotes are doubled: a,")
    assert found["value"][1] == "behind the open quote of line 2: b,2020-01-02,T,row or text\n"


def test_a_quote_that_is_never_closed_takes_the_rest_line_by_line(tmp_path: Path) -> None:
    """So that their share stops the stage: one refused record would hide that nine rows are gone."""
    rows = [f"a,2020-01-{day:02d},T,text {day}" for day in range(1, 11)]
    rows[1] = 'a,2020-01-02,T,"5 inches'
    rows[5] = ""
    items = list(table.read(table_of(write(tmp_path, "\n".join(rows) + "\n"))))
    assert said(items) == [("a", "text 1")]
    assert [one.where for one in rows_in(items) if one.damage] == [
        f"t.csv:{n}" for n in (3, 4, 5, 6, 8, 9, 10, 11)
    ]
    assert skips_in(items) == {"blank line": 1}


def test_a_quote_opened_behind_the_stray_one_is_followed_too(tmp_path: Path) -> None:
    """Behind line 3 a quote is open or not, by what line 2 was; so the line in it is no row of mallory's."""
    path = write(
        tmp_path, f'a,2020-01-01,T,"5 inches\nb,2020-01-02,T,"many\n{STOLEN}lines"\nc,2020-01-03,T,row\n'
    )
    assert kept(path) == [("c", "row")]


def test_a_quote_amid_a_field_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,2020-01-01,5" disk,it is 3" high\nb,2020-01-02,T,"says ""x"""\n')
    assert kept(path) == [("a", 'it is 3" high'), ("b", 'says "x"')]


def test_ragged_and_odd_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f'a,2020-01-01,T\na,2020-01-01,T,t,more\n   \n\n,,,\na,2020-01-01,T,null \0 inside\n'
        f'a,"2020-01-01","three\n{STOLEN}fields"\nb,2020-01-02,T,good\n',
    )  # fmt: skip
    items = list(table.read(table_of(path)))
    assert said(items) == [("b", "good")]
    assert check(items).quarantine.select("where", "reason").rows() == [
        ("t.csv:2", Reason.MALFORMED),
        ("t.csv:3", Reason.MALFORMED),
        ("t.csv:4", Reason.MALFORMED),
        ("t.csv:6", Reason.MISSING_USER),
        ("t.csv:7", Reason.CONTROL),
        ("t.csv:8-10", Reason.MALFORMED),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f'who,when,title,text{end}a,2020-01-01,T,"one{end}two"{end}b,2020-01-02,T,last'.encode())
    assert kept(path) == [("a", "one\ntwo"), ("b", "last")]


def test_a_carriage_return_amid_line_feeds_is_no_line_end(tmp_path: Path) -> None:
    """Where other lines end in line feeds it may as well be text: what it parts is refused on both sides."""
    path = write(tmp_path, f"a,2020-01-01,T,text and\r{STOLEN}b,2020-01-02,T,good\r\nc,2020-01-03,T,more\n")
    items = list(table.read(table_of(path)))
    assert said(items) == [("b", "good"), ("c", "more")]
    assert check(items).quarantine["where"].to_list() == ["t.csv:2", "t.csv:3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"t\.csv is empty"),
        ("\n", r"t\.csv is empty, or its first line is"),
        ("\ufeff", r"t\.csv is empty"),
        ('"who"o,when\n', "the first line holds no column names"),
        ("who,when,title,text,who\n", r"stands twice in the first line: who\. Rename"),
        ("who;when;title;text\na;b;c;d\n", r"a single column, 'who;when;title;text'\. .* separated by ';'"),
        ("who\twhen\ttitle\ttext\n", r"separated by '\\t'\? Read are commas in \.csv and tabs in \.tsv"),
        ("who,when,title\n", r"(?s)does not have these columns.*response: 'text'.*It has who, when, title\."),
    ],
)
def test_headers_that_say_nothing(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=said):
        list(table.read(table_of(tmp_path / "t.csv")))


def test_names_that_nobody_maps_may_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("who,,when,title,,text\na,1,2020-01-01,T,2,good\n")
    assert kept(tmp_path / "t.csv") == [("a", "good")]


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert not list(table.read(table_of(write(tmp_path, ""))))


_FIELDS = st.sampled_from(["", "x", '"x"', '"x\nmallory,2020-01-01,T,stolen\n"', '5"', '"x""y"', '"a,b"'])


@settings(deadline=None, max_examples=150)
@given(
    good=st.lists(st.tuples(_FIELDS, _FIELDS), max_size=3),
    stray=st.sampled_from(['"5 inches', '"x"y', 'x,"', '"x" ', '"""', '"a""']),
    behind=st.lists(st.tuples(_FIELDS, _FIELDS), max_size=4),
)
def test_whatever_is_malformed_no_line_inside_a_quote_is_a_row(
    good: list[tuple[str, str]], stray: str, behind: list[tuple[str, str]]
) -> None:
    """The lines inside quotes are texts of well-formed records, or behind a stray quote: never rows.

    Two stray quotes in one file may make well-formed records of what was none; here there is one.
    """
    lines = [f"a,2020-01-01,{title},{text}" for title, text in good]
    lines += [f"a,2020-01-01,T,{stray}"]
    lines += [f"b,2020-01-01,{title},{text}" for title, text in behind]
    with TemporaryDirectory() as folder:
        items = list(table.read(table_of(write(Path(folder), "\n".join(lines) + "\n"))))
    assert "mallory" not in {who for who, _ in said(items)}
    checked = check(items)
    assert checked.read == checked.interactions.height + checked.quarantine.height
