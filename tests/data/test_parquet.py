"""Parquet: only mapped columns are read, and what cannot be read is one message and never a traceback."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kit.sources import check, rows_in, said, table_of

from bench.sources import flipped, row, write_table
from spring.data.rows import Reason, SourceError
from spring.data.sources import table
from spring.data.sources.formats.unpack import unpack

GOOD = [row(n) for n in range(1, 4)]


def write(path: Path, **columns: Any) -> Path:
    """The good rows with further or other columns."""
    pl.DataFrame(GOOD).with_columns(**columns).write_parquet(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "column",
    [
        pl.Series([b"a"] * 3),
        pl.Series(["a"] * 3, dtype=pl.Categorical),
        pl.Series(["a"] * 3, dtype=pl.Enum(["a", "b"])),
        pl.Series(["a"] * 3, dtype=pl.String),
    ],
    ids=["bytes", "categorical", "enum", "string"],
)
@pytest.mark.parametrize("name", ["who", "title", "text"])
def test_text_however_it_is_stored(tmp_path: Path, name: str, column: pl.Series) -> None:
    found = rows_in(table.read(table_of(write(tmp_path / "t.parquet", **{name: column}))))
    assert [
        {"who": one.user_id, "title": one.query["TITLE"], "text": one.response}[name] for one in found
    ] == ["a"] * 3


def test_bytes_that_are_no_text_are_a_row_in_the_wrong_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", text=pl.Series([b"caf\xe9", "Größe".encode(), None]))
    checked = check(table.read(table_of(path)))
    assert checked.interactions["response"].to_list() == ["Größe"]
    assert checked.quarantine["reason"].to_list() == [Reason.ENCODING, Reason.EMPTY]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pl.Series([["a", "list"]] * 3), r"List\(String\)"),
        (pl.Series([{"a": 1}] * 3), "Struct"),
        (pl.Series([datetime(2020, 1, 1).time()] * 3), "Time"),
    ],
    ids=["list", "struct", "time"],
)
def test_a_mapped_column_that_is_no_text_is_refused_by_name(
    tmp_path: Path, column: pl.Series, kind: str
) -> None:
    path = write(tmp_path / "t.parquet", text=column)
    with pytest.raises(SourceError, match=rf"t\.parquet: the column 'text' holds {kind}.*Map another"):
        list(table.read(table_of(path)))
    path = write(tmp_path / "t.parquet", other=column)
    assert len(said(table.read(table_of(path)))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "column",
    [
        pl.Series([0, 2_000_000_000, None], dtype=pl.Int32).cast(pl.Date),
        pl.Series([0, 4 * 10**17, None], dtype=pl.Int64).cast(pl.Datetime("us")),
        pl.Series([0, -(4 * 10**14), None], dtype=pl.Int64).cast(pl.Datetime("ms")),
        pl.Series([0, 253402300799999999, None])
        .cast(pl.Datetime("us", "UTC"))
        .dt.convert_time_zone("Asia/Tokyo"),
        pl.Series([0, -(2**63), None], dtype=pl.Int64).cast(pl.Datetime("ns")),  # NaT
    ],
    ids=["date", "microseconds", "before-the-year-1", "zone", "no-time"],
)
def test_one_date_beyond_pythons_is_one_bad_row(tmp_path: Path, column: pl.Series) -> None:
    """Polars has such dates and panics when Python asks for them."""
    path = write(tmp_path / "t.parquet", when=column)
    checked = check(table.read(table_of(path)))
    assert checked.interactions["timestamp"].to_list() == [datetime(1970, 1, 1, tzinfo=UTC)]
    assert checked.quarantine["reason"].to_list() == [Reason.BAD_TIME, Reason.MISSING_TIME]
    assert str(column.to_physical()[1]) in checked.quarantine["value"][0]
    path = write(tmp_path / "t.parquet", other=column)
    assert len(said(table.read(table_of(path)))) == 3


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pl.Series([date(2020, 1, 2)] * 3), "2020-01-02"),
        (pl.Series([datetime(2020, 1, 2, 3)] * 3), "2020-01-02T03:00:00"),
        (
            pl.Series([datetime(2020, 1, 2, 3)] * 3).dt.replace_time_zone("Asia/Tokyo"),
            "2020-01-02T03:00:00+09:00",
        ),
        (pl.Series([datetime(9997, 1, 2)] * 3).dt.cast_time_unit("ms"), "9997-01-02T00:00:00"),
        (pl.Series([datetime(2020, 1, 2, 3)] * 3).dt.cast_time_unit("ns"), "2020-01-02T03:00:00"),
        (pl.Series([1, 2, 3]), "1"),
        (pl.Series([0.5, 2, 3]), "0.5"),
    ],
    ids=["date", "datetime", "zone", "far", "nanoseconds", "integer", "float"],
)
def test_what_is_no_text_is_written_as_python_does(tmp_path: Path, column: pl.Series, text: str) -> None:
    [first, *_] = rows_in(table.read(table_of(write(tmp_path / "t.parquet", title=column))))
    assert first.query["TITLE"] == text


def test_a_column_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """By the process that reads: each column by itself, where all together failed."""
    path = write(tmp_path / "t.parquet")
    data = bytearray(path.read_bytes())
    # the first page of the first column begins behind the mark PAR1
    data[4:12] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(
        SourceError, match=r"t\.parquet is no parquet file that can be read: column 'who': .*again"
    ):
        list(table.read(table_of(path)))
    assert len(rows_in(table.read(table_of(path, user_id="title")))) == 3  # nobody maps `who`


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "snappy"])
def test_a_damaged_file_gives_its_rows_or_a_message(tmp_path: Path, compression: Any) -> None:
    """Cut off, or with bits turned anywhere, or in the part that says where everything lies.

    Of some hundred such files a few make polars 2.1.0 panic, and one ends its process.
    """
    rows = [row(n % 28 + 1, text=f"text {n} " * 3) for n in range(40)]
    good = tmp_path / "good.parquet"
    pl.DataFrame(rows).write_parquet(good, compression=compression, row_group_size=15)
    data = good.read_bytes()
    draws = random.Random(compression)
    files = [data[: draws.randrange(len(data))] for _ in range(3)]
    files += [flipped(data, draws, 1 + n) for n in range(3)]
    files += [data[:-700] + flipped(data[-700:], draws, 1 + n) for n in range(3)]
    outcomes = [rows_or_message(tmp_path / f"{number}.parquet", file) for number, file in enumerate(files)]
    assert set(outcomes) <= {0, 40} and outcomes[:3] == [0] * 3


def rows_or_message(path: Path, content: bytes) -> int:
    """How many rows a file gives; 0 if it is refused, by name."""
    path.write_bytes(content)
    try:
        return len(rows_in(table.read(table_of(path))))
    except SourceError as error:
        message = str(error)
    assert str(path) in message
    return 0


def test_a_reader_that_dies_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As polars does where a damaged length asks for more memory than there is."""
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, sys; print('memory allocation of 9 bytes failed', file=sys.stderr); os.abort()"
    )
    monkeypatch.setattr("spring.data.sources.formats.parquet_files.unpack.__file__", str(script))
    path = write_table(tmp_path / "t.parquet", GOOD)
    with pytest.raises(
        SourceError, match=r"ended with code -6: memory allocation of 9 bytes failed\. If it is"
    ):
        list(table.read(table_of(path)))


def test_fewer_rows_than_the_file_says_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet")
    short = write(tmp_path / "short.parquet")
    pl.read_parquet(short).head(2).write_parquet(short)
    scans = iter([pl.scan_parquet(path), pl.scan_parquet(short), *[pl.scan_parquet(path)] * 2])
    monkeypatch.setattr("spring.data.sources.formats.unpack._scan", lambda file: next(scans))
    unpack(tmp_path, [(str(path), ["who"])])
    assert "2 rows instead of the 3 that it says it has" in (tmp_path / "0.json").read_text()
