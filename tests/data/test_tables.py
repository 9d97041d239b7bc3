"""Tables in every format: what goes in comes out, under its own user; nothing is lost; folders of parts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.sources import CASES, check, opened_in, rows_in, said, skips_in, table_of, tables

from bench.sources import FORMATS, canonical, row, signer, torn, write_table
from spring.data.rows import Reason, SourceError
from spring.data.sources import table

slow_enough = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@slow_enough
@given(rows=tables(), format=st.sampled_from([name for name in FORMATS if name != "parquet"]))
def test_what_goes_in_comes_out(rows: list[dict[str, Any]], format: str) -> None:
    with TemporaryDirectory() as folder:
        items = list(table.read(table_of(write_table(Path(folder) / f"t.{format}", rows))))
    checked = check(items)
    assert checked.quarantine.is_empty() and checked.read == len(rows) and not checked.skipped
    wrote = sorted((one["who"], canonical(one["text"])) for one in rows)
    assert said(items) == wrote
    titles = sorted(json.loads(query)["TITLE"] for query in checked.interactions["query"])
    assert titles == sorted(canonical(one["title"]) for one in rows)


def test_what_goes_into_parquet_comes_out(tmp_path: Path) -> None:
    """A few in one file, since a process reads it."""
    rows = [one for seed in range(3) for one in _some(seed)]
    items = list(table.read(table_of(write_table(tmp_path / "t.parquet", rows))))
    assert said(items) == sorted((one["who"], canonical(one["text"])) for one in rows)


def _some(seed: int) -> list[dict[str, Any]]:
    return [row(n, f"u{seed}", text=f'u{seed}#{n}:"a",\n\tb {seed}') for n in range(1, 5)]


@slow_enough
@given(rows=tables(), format=st.sampled_from(["jsonl", "json"]), chance=st.randoms(use_true_random=False))
def test_nobodys_text_comes_out_under_anothers_id(
    rows: list[dict[str, Any]], format: str, chance: Random
) -> None:
    """Of a file that lost some of what holds it together, what is kept is its user's own."""
    with TemporaryDirectory() as folder:
        path = write_table(Path(folder) / f"t.{format}", rows)
        path.write_bytes(torn(path.read_bytes().decode(), chance).encode())
        try:
            items = list(table.read(table_of(path)))
        except SourceError:
            return
    checked = check(items)
    assert checked.read == len(rows_in(items)) == checked.interactions.height + checked.quarantine.height
    assert all(signer(response) in (who, response) for who, response in said(items))


# --- folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl", "jsonl.gz"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, format: str) -> None:
    folder = tmp_path / "out.parquet"  # as Spark names its folders
    folder.mkdir()
    for part in (1, 0):
        write_table(folder / f"part-{part:04}.{format}", [row(2 * part + 1), row(2 * part + 2, "b")])
    (folder / "_SUCCESS").touch()
    (folder / "._SUCCESS.crc").write_bytes(b"crc")
    (folder / f".part-0000.{format}.crc").write_bytes(b"crc")
    (folder / "notes.txt").write_text("not a table")
    items = list(table.read(table_of(folder)))
    first = 2 if format == "csv" else 1  # line of the first row
    assert [(one.row, one.where, one.response) for one in rows_in(items)] == [
        (n + 1, f"part-{n // 2:04}.{format}:{n % 2 + first}", f"text {n + 1} of {'ab'[n % 2]}")
        for n in range(4)
    ]
    assert [one.interaction_id for one in rows_in(items)] == [f"row-{n}" for n in range(1, 5)]
    assert opened_in(items) == {"files": 2} and skips_in(items) == {"file of a folder that is no table": 1}


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_names_of_hives_folders_are_columns(tmp_path: Path, format: str) -> None:
    rows = [{key: value for key, value in row(n).items() if key != "who"} for n in (1, 2)]
    for name, one in zip(("who=ada%20l", "who=__HIVE_DEFAULT_PARTITION__"), rows, strict=True):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name / f"part.{format}", [one])
    checked = check(table.read(table_of(tmp_path)))
    assert checked.interactions["user_id"].to_list() == ["ada l"]
    assert checked.quarantine["reason"].to_list() == [Reason.MISSING_USER]


def test_a_part_without_a_mapped_column_stops(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", [row(1)])
    pl.DataFrame({"who": ["a"]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"(?s)b\.parquet does not have these columns.*'text'.*It has who"):
        list(table.read(table_of(tmp_path)))


@pytest.mark.parametrize("format", ["csv", "jsonl", "csv.gz"])
def test_an_empty_part_holds_no_rows(tmp_path: Path, format: str) -> None:
    write_table(tmp_path / f"a.{format}", [row(1)])
    (tmp_path / f"b.{format}").touch()
    items = list(table.read(table_of(tmp_path)))
    assert len(said(items)) == 1 and skips_in(items) == {"empty file of a folder": 1}


def test_folders_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ingest\.table\.path: the folder .* holds no \.parquet, \.csv"):
        list(table.read(table_of(tmp_path)))
    write_table(tmp_path / "a.csv", [row(1)])
    write_table(tmp_path / "b.jsonl", [row(1)])
    with pytest.raises(SourceError, match=r"several formats, \.csv, \.jsonl: give one file"):
        list(table.read(table_of(tmp_path)))


# --- encodings and packing --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "json"])
def test_text_says_its_encoding(tmp_path: Path, codec: str, format: str) -> None:
    path = write_table(tmp_path / f"t.{format}", [row(1, "Čeněk", text="Größe 日本")])
    path.write_bytes(path.read_bytes().decode().encode(codec))
    assert said(table.read(table_of(path))) == [("Čeněk", "Größe 日本")]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_utf_16_without_a_mark_is_told(tmp_path: Path, codec: str, format: str) -> None:
    path = write_table(tmp_path / f"t.{format}", [row(1)])
    path.write_bytes(path.read_bytes().decode().encode(codec))
    with pytest.raises(SourceError, match=r"is no UTF-8: .*UTF-16\. Save it as UTF-8"):
        list(table.read(table_of(path)))


def test_a_damaged_archive_gives_no_rows(tmp_path: Path) -> None:
    good = write_table(tmp_path / "good.csv.gz", [row(n) for n in range(1, 20)]).read_bytes()
    path = tmp_path / "t.csv.gz"
    for data in (good[:-9], good[: len(good) // 2], b"", b"who,when\n", good[:-8] + b"\0" * 8):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=r"t\.csv\.gz (cannot be read|is empty)"):
            list(table.read(table_of(path)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(b"who,when\n", mtime=0), r"is packed by gzip: add \.gz to its name"),
        (b"PK\x03\x04" + b"\0" * 60, "is a zip archive or a spreadsheet: unpack it, or save it as CSV"),
        (b"PAR1\x15\x04", r"is a parquet file: let its name end in \.parquet"),
        (b"version https://git-lfs.example/spec/v1\n", "is a pointer of Git LFS"),
        ("who,題\n".encode("utf-16-le") + "日本語".encode("utf-16-le") * 500, "is no UTF-8"),
    ],
    ids=["gzip", "zip", "parquet", "lfs", "utf-16"],
)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_what_is_no_text_is_told_in_words(tmp_path: Path, data: bytes, said: str, format: str) -> None:
    path = tmp_path / f"t.{format}"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=said) as error:
        list(table.read(table_of(path)))
    assert str(error.value).isprintable()


def test_columns_with_odd_names_are_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("who,\x1b[2J\0," + ",".join(f"c{n}" for n in range(9999)) + "\n")
    with pytest.raises(SourceError, match=r"It has who, '\\x1b\[2J\\x00', c0, .* and 9951 more\.") as error:
        list(table.read(table_of(tmp_path / "t.csv")))
    assert len(str(error.value)) < 1000


def test_endings_in_capitals(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [row(1)]).rename(tmp_path / "T.CSV")
    assert said(table.read(table_of(path))) == [("a", "text 1 of a")]
    gzip_path = tmp_path / "x.parquet.gz"
    gzip_path.write_bytes(gzip.compress(b""))
    with pytest.raises(SourceError, match=r"ends in '\.parquet\.gz'"):
        list(table.read(table_of(gzip_path)))


# --- the field's own --------------------------------------------------------------------------------------

FIELD = {
    "times.csv": 3,
    "utf16.csv": 3,
    "parquet-folder": 3,
    "strings-as-bytes.parquet": 3,
    "unneeded-decimal.parquet": 3,
    "japanese-two-users.jsonl": 16,
}


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize("name", FIELD)
def test_cases_from_the_field(name: str) -> None:
    source = table_of(CASES / name, user_id="user", timestamp="time")
    checked = check(table.read(source))
    assert (checked.interactions.height, checked.quarantine.height) == (FIELD[name], 0)
    assert checked.interactions["user_id"].n_unique() == 2
